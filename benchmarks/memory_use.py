"""Memory of an engine with all branches, how long it takes to load, and memory along a stream.

    python benchmarks/memory_use.py [--arch res50] [--width 1.0] [--bundle BUNDLE] [--precision f32]

Each measurement runs in a process of its own, without torch: what it has more of anonymous memory (which no file backs)
and of resident memory after one mixed batch, for the engine, which loads from an empty cache first and from a full one
again, and for OpenVINO's own API with one compiled network a branch; and resident memory along 20,000 crops of 6 to 60
pixels, with a small network, since that does not depend on it. Writes results/memory_use.json, a table and a figure.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

import bundles
import common
import loading
import mixes
import openvino_runs
from btnet_ext import Bundle, Engine
from comparing import refuse_others
from publish import publish

TIMES, QUICK_TIMES = 5, 2
STREAM, QUICK_STREAM = 20_000, 2_000
EVERY = 500
SETTLED = 1000
"""Images of the stream after which memory is not to grow any more."""
MIX = "surveillance"


def naive(bundle: str, precision: str) -> dict[str, float]:
    """MiB that this process has more after a batch through one network a branch, compiled by OpenVINO's own API."""
    import openvino as ov

    before, opened, core = common.memory(), Bundle.open(bundle), ov.Core()
    properties = {"INFERENCE_PRECISION_HINT": openvino_runs.hint(precision), "PERFORMANCE_HINT": "THROUGHPUT"}
    networks = {
        resolution: core.compile_model(openvino_runs.graph(opened, precision, resolution), "CPU", properties)
        for resolution in opened.resolutions
    }
    for resolution, network in networks.items():
        images = openvino_runs.inputs(resolution, loading.IMAGES)
        for _ in range(2):
            network.create_infer_request().infer({0: images})
    return loading.grown(before)


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
    """Engine, first and again, and OpenVINO's own API."""
    engine = loading.loads(str(bundle.path), bundle.resolutions, {"precision": precision}, times)
    others = [common.in_child(naive, str(bundle.path), precision) for _ in range(times)]
    return {**engine, "naive": loading.summaries(others)}


def measure_stream(count: int) -> dict[str, Any]:
    """Memory along a stream through an engine with a small network."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.btnet"
        bundles.write_random(path, *bundles.SMALL)
        resident = common.in_child(stream, str(path), count)
    settled = resident[SETTLED // EVERY :]
    return {"images": count, "every": EVERY, "resident": resident, "growth_after_1000": max(settled) - settled[0]}


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
