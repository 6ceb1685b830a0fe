"""Memory of an engine with all branches, how long it takes to load, and memory along a stream.

    python benchmarks/memory_use.py [--arch res50] [--width 1.0] [--bundle BUNDLE] [--precision f32]

Each measurement runs in a process of its own, without torch: how long it takes until there is an embedding of each
branch, and what the process has more of anonymous memory (which no file backs) and of resident memory after one mixed
batch; for the engine, and for OpenVINO's own API with one compiled network a branch, its hint for throughput and
batches of 4. Both load from an empty cache first and from a full one again. Then resident memory along 20,000 crops of
6 to 60 pixels, with a small network, since what grows does not depend on it. Writes results/memory_use.json, a table
and a figure.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

import bundles
import common
import loading
import mixes
import openvino_runs
from btnet_ext import Bundle, Engine
from comparing import refuse_others
from publish import publish

TIMES, QUICK_TIMES = 5, 3
BATCH = 4
"""Of OpenVINO's own API: as small as the engine's own at 112 px, since large ones take memory."""
STREAM, QUICK_STREAM = 20_000, 2_000
EVERY = 500
SETTLED = 1000
"""Images of the stream after which memory is not to grow any more."""
MIX = "surveillance"


def load_openvino(bundle: str, precision: str, cache: str) -> dict[str, float]:
    """What `loading.load` measures, for one network a branch, compiled by OpenVINO's own API with its own cache."""
    before = common.memory()
    start = time.perf_counter()
    opened, core = Bundle.open(bundle), ov.Core()
    core.set_property({"CACHE_DIR": cache})
    properties = {"INFERENCE_PRECISION_HINT": openvino_runs.hint(precision), "PERFORMANCE_HINT": "THROUGHPUT"}
    queues = {
        resolution: ov.AsyncInferQueue(
            core.compile_model(openvino_runs.graph(opened, precision, resolution), "CPU", properties)
        )
        for resolution in opened.resolutions
    }
    run(queues, 1, 1)
    seconds = time.perf_counter() - start
    run(queues, BATCH, loading.IMAGES // BATCH)
    return {"seconds": seconds, **loading.grown(before)}


def run(queues: Mapping[int, ov.AsyncInferQueue], batch: int, times: int) -> None:
    """Run each network on a batch so many times."""
    for resolution, queue in queues.items():
        images = openvino_runs.inputs(resolution, batch)
        for _ in range(times):
            queue.start_async({0: images})
        queue.wait_all()


def stream(bundle: str, count: int) -> list[float]:
    """Resident MiB of this process every EVERY images of a stream of so many, and at its end."""
    crops = mixes.crops(MIX, SETTLED)
    resident: list[float] = []

    def images() -> Iterator[np.ndarray]:
        for index, crop in enumerate(islice(cycle(crops), count)):
            if index % EVERY == 0:
                resident.append(common.memory()["resident"])
            yield crop

    embedded = sum(len(block) for block in Engine(bundle).embed_stream(images()))
    if embedded != count:
        raise RuntimeError(f"the stream gave {embedded} embeddings for {count} images")
    return [*resident, common.memory()["resident"]]


def measure(bundle: Bundle, precision: str, times: int) -> dict[str, Any]:
    """Engine and OpenVINO's own API, first and again."""
    path = str(bundle.path)
    ways = {
        "engine": partial(loading.load, path, list(bundle.resolutions), {"precision": precision}),
        "openvino": partial(load_openvino, path, precision),
    }
    return loading.twice(ways, times=times)


def measure_stream(count: int) -> dict[str, Any]:
    """Memory along a stream through an engine with a small network."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.btnet"
        bundles.write_random(path, *bundles.SMALL)
        resident = common.in_child(stream, str(path), count)
    settled = resident[SETTLED // EVERY :]
    arch, width = bundles.SMALL
    return {
        "arch": arch,
        "width": width,
        "images": count,
        "every": EVERY,
        "resident": resident,
        "growth_after_1000": max(settled) - settled[0],
    }


def main() -> None:
    """Measure every precision that there is."""
    parser = common.arguments(__doc__)
    bundles.add_options(parser)
    bundles.add_precision(parser)
    options = parser.parse_args()
    times, count = (QUICK_TIMES, QUICK_STREAM) if options.quick else (TIMES, STREAM)
    with bundles.opened(parser, options) as bundle:
        settings = bundles.description(bundle, options)
        refuse_others(settings, options)
        precisions, absent = bundles.available(bundle, options.precision)
        results = {precision: measure(bundle, precision, times) for precision in precisions}
        along = measure_stream(count)
    publish("memory_use", {"settings": settings, "precision": results, "stream": along, "absent": absent}, options)


if __name__ == "__main__":
    main()
