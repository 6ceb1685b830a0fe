"""Networks of a bundle through OpenVINO's own API, with tensors that are ready: what the engine is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

import common
import mixes
from btnet_ext import Bundle
from btnet_ext._native import core as native

LEAST_IMAGES = 32
"""That a way runs at a time."""
LEAST_BATCHES = 4
"""That each stream gets at a time: the last ones, when some streams have nothing left to do, must not weigh much."""
BATCHES = (1, 4, 8, 16)
BATCHES_OF_ONE_STREAM = (8, 32)
ROUNDS = 2
"""That each way is tried in, and judged by the faster one; the best way is measured anew."""


@dataclass(frozen=True)
class Way:
    """A way to run a branch: its name, and a function that runs so many images."""

    name: str
    images: int
    run: Callable[[], object]


def graph(bundle: Bundle, precision: str, resolution: int) -> Path:
    """Return the file of a branch's graph for a precision of the CPU: bf16 is f32 with another arithmetic."""
    names: dict[str, str] = bundle.metadata["graphs"]["int8" if precision == "int8" else "f32"]
    return bundle.path / names[str(resolution)]


def read(core: ov.Core, bundle: Bundle, precision: str, resolution: int, batch: int) -> ov.Model:
    """Read the graph of a branch, for batches of one size."""
    model = core.read_model(graph(bundle, precision, resolution))
    model.reshape([batch, 3, resolution, resolution])
    return model


def hint(precision: str) -> str:
    """What OpenVINO is told to compute in; without it, it takes bf16 for f32 where it can."""
    return "bf16" if precision == "bf16" else "f32"


def inputs(resolution: int, count: int) -> NDArray[np.float32]:
    """Return (count, 3, resolution, resolution) random values in -1..1."""
    return np.random.default_rng(mixes.SEED).uniform(-1, 1, (count, 3, resolution, resolution)).astype(np.float32)


def images_of(batch: int, streams: int) -> int:
    """How many images a way runs: enough of them, and as many for each stream, so that none is idle at the end."""
    together = batch * streams
    return together * max(LEAST_BATCHES, -(-LEAST_IMAGES // together))


def one_way(bundle: Bundle, precision: str, resolution: int, batch: int, streams: int, pinned: bool) -> Way:
    """Compile a branch for batches of one size; it is run through OpenVINO's asynchronous queue."""
    properties = {
        "INFERENCE_PRECISION_HINT": hint(precision),
        "NUM_STREAMS": str(streams),
        "INFERENCE_NUM_THREADS": native.available_cores(),
        "ENABLE_CPU_PINNING": pinned,
    }
    core = ov.Core()
    model = read(core, bundle, precision, resolution, batch)
    queue = ov.AsyncInferQueue(core.compile_model(model, "CPU", properties), streams)
    block, images = inputs(resolution, batch), images_of(batch, streams)

    def run() -> None:
        for _ in range(images // batch):
            queue.start_async({0: block}, share_inputs=True)
        queue.wait_all()

    return Way(f"batches of {batch}, streams: {streams}{', pinned' if pinned else ''}", images, run)


def best_way(bundle: Bundle, precision: str, resolution: int) -> Way:
    """Return the fastest way to run a branch, of batch sizes, streams, and threads that are pinned to cores or not."""
    sizes = [(batch, native.available_cores()) for batch in BATCHES] + [(batch, 1) for batch in BATCHES_OF_ONE_STREAM]
    return fastest(
        [
            partial(one_way, bundle, precision, resolution, batch, streams, pinned)
            for (batch, streams), pinned in product(dict.fromkeys(sizes), (False, True))
        ]
    )


def fastest(ways: Sequence[Callable[[], Way]]) -> Way:
    """Make the way that takes the least time an image. One at a time is tried, since all at once need much memory."""

    def seconds_an_image(make: Callable[[], Way]) -> float:
        way = make()
        seconds = common.interleave({way.name: way.run}, rounds=ROUNDS)[way.name]
        return min(seconds) / way.images

    return min(ways, key=seconds_an_image)()


def single(bundle: Bundle, precision: str, resolution: int) -> Callable[[], object]:
    """Return a function that runs one image of a branch, with OpenVINO's hint for latency."""
    properties = {"INFERENCE_PRECISION_HINT": hint(precision), "PERFORMANCE_HINT": "LATENCY"}
    core = ov.Core()
    request = core.compile_model(read(core, bundle, precision, resolution, 1), "CPU", properties).create_infer_request()
    request.get_input_tensor().data[:] = inputs(resolution, 1)
    infer: Callable[[], object] = request.infer
    return infer
