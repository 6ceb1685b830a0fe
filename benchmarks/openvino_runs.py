"""Networks of a bundle through OpenVINO's own API, with tensors that are ready: what the engine is compared with."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import numpy as np
import openvino as ov
from numpy.typing import NDArray

import common
from btnet_ext import Bundle
from btnet_ext._native import core as native

IMAGES = 32
"""Images of a branch that each way runs at a time."""
BATCHES = (1, 4, 8, 16, 32)
BATCHES_OF_ONE_STREAM = (8, 32)
SEED = 20260
ROUNDS = 3


def read(core: ov.Core, bundle: Bundle, precision: str, resolution: int, batch: int) -> ov.Model:
    """Read the graph of a branch, for batches of one size."""
    graphs = bundle.metadata["graphs"]["int8" if precision == "int8" else "f32"]
    model = core.read_model(bundle.path / graphs[str(resolution)])
    model.reshape([batch, 3, resolution, resolution])
    return model


def hint(precision: str) -> str:
    """What OpenVINO is told to compute in; without it, it takes bf16 for f32 where it can."""
    return "bf16" if precision == "bf16" else "f32"


def images(resolution: int, count: int) -> NDArray[np.float32]:
    """Return (count, 3, resolution, resolution) random values in -1..1."""
    return np.random.default_rng(SEED).uniform(-1, 1, (count, 3, resolution, resolution)).astype(np.float32)


def one_way(
    core: ov.Core, bundle: Bundle, precision: str, resolution: int, batch: int, streams: int
) -> Callable[[], None]:
    """Return a function that runs IMAGES images of one branch through OpenVINO's asynchronous queue."""
    properties = {
        "INFERENCE_PRECISION_HINT": hint(precision),
        "NUM_STREAMS": str(streams),
        "INFERENCE_NUM_THREADS": native.available_cores(),
    }
    model = read(core, bundle, precision, resolution, batch)
    queue = ov.AsyncInferQueue(core.compile_model(model, "CPU", properties), streams)
    inputs = images(resolution, batch)

    def run() -> None:
        for _ in range(IMAGES // batch):
            queue.start_async({0: inputs})
        queue.wait_all()

    return run


def all_ways(bundle: Bundle, precision: str, resolution: int) -> dict[str, Callable[[], Callable[[], None]]]:
    """All ways to run a branch that are tried, by name, as functions that compile it."""
    core = ov.Core()
    ways = [(batch, native.available_cores()) for batch in BATCHES] + [(batch, 1) for batch in BATCHES_OF_ONE_STREAM]
    return {
        f"{resolution} in batches of {batch}, streams: {streams}": partial(
            one_way, core, bundle, precision, resolution, batch, streams
        )
        for batch, streams in ways
    }


def best_way(bundle: Bundle, precision: str, resolution: int) -> tuple[str, Callable[[], None]]:
    """Return the fastest way to run a branch, tried one after the other, since all at once need much memory."""
    ways = all_ways(bundle, precision, resolution)
    seconds = {
        name: statistics.median(common.interleave({name: compiled()}, rounds=ROUNDS)[name])
        for name, compiled in ways.items()
    }
    best = min(ways, key=lambda name: seconds[name])
    return best, ways[best]()


def single(bundle: Bundle, precision: str, resolution: int) -> Callable[[], None]:
    """Return a function that runs one image of a branch, with OpenVINO's hint for latency."""
    properties = {"INFERENCE_PRECISION_HINT": hint(precision), "PERFORMANCE_HINT": "LATENCY"}
    core = ov.Core()
    request = core.compile_model(read(core, bundle, precision, resolution, 1), "CPU", properties).create_infer_request()
    request.get_input_tensor().data[:] = images(resolution, 1)
    return lambda: request.infer()
