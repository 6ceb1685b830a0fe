"""Memory of an engine with all branches, how long it takes to load, and memory along a stream.

    python benchmarks/memory_use.py BUNDLE

Each measurement runs in a process of its own, without torch: anonymous memory (which no file backs) and
resident memory after one mixed batch, for the engine and for OpenVINO's own API with one compiled network a
branch; and resident memory along 20,000 generated images. Writes results/memory_use.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import common

SEED = 20260
STREAM = 20_000
EVERY = 500


def mixed(rng: np.random.Generator) -> list[np.ndarray]:
    """32 random crops of each of the sizes 7, 14, 28 and 112."""
    return [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (7, 14, 28, 112) for _ in range(32)]


def engine(bundle: str, precision: str) -> dict[str, float]:
    """Memory after one mixed batch through the engine."""
    from btnet_ext import Engine

    start = time.perf_counter()
    made = Engine(bundle, precision=precision)
    seconds = time.perf_counter() - start
    made.embed(mixed(np.random.default_rng(SEED)))
    return {**common.memory(), "load_seconds": seconds}


def naive(bundle: str, precision: str) -> dict[str, float]:
    """Memory after the same through four networks compiled by OpenVINO's own API."""
    import openvino as ov

    core = ov.Core()
    graphs = json.loads((Path(bundle) / "model.json").read_text())["graphs"]["f32"]
    properties = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "THROUGHPUT"}
    networks = {int(r): core.compile_model(Path(bundle) / graph, "CPU", properties) for r, graph in graphs.items()}
    for resolution, network in networks.items():
        images = np.zeros((32, 3, resolution, resolution), np.float32)
        for _ in range(2):
            network.create_infer_request().infer({0: images})
    return common.memory()


def stream(bundle: str, precision: str) -> dict[str, list[float]]:
    """Resident memory every EVERY images of a stream of generated crops of 5 to 60 pixels."""
    from btnet_ext import Engine

    rng = np.random.default_rng(SEED)
    resident: list[float] = []

    def images() -> Iterator[np.ndarray]:
        for index in range(STREAM):
            if index % EVERY == 0:
                resident.append(common.memory()["resident"])
            height, width = rng.integers(5, 61, 2)
            yield rng.integers(0, 256, (height, width, 3), dtype=np.uint8)

    count = sum(len(block) for block in Engine(bundle, precision=precision).embed_stream(images()))
    resident.append(common.memory()["resident"])
    if count != STREAM:
        raise RuntimeError(f"the stream gave {count} embeddings for {STREAM} images")
    return {"resident": resident}


MEASUREMENTS = {"engine": engine, "naive": naive, "stream": stream}


def in_child(measurement: str, bundle: Path, precision: str, cache: str) -> dict[str, Any]:
    """Run one measurement in a fresh process."""
    command = [sys.executable, __file__, str(bundle), "--child", measurement, "--precision", precision]
    environment = os.environ | {"BTNET_CACHE": cache}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    read: dict[str, Any] = json.loads(done.stdout)
    return read


def in_children(bundle: Path, stream_bundle: Path) -> dict[str, Any]:
    """Run everything, with an empty cache to begin with; the first engine of a precision fills it."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        for precision in ("f32", "bf16"):
            results[f"first_{precision}"] = in_child("engine", bundle, precision, cache)
            results[f"engine_{precision}"] = in_child("engine", bundle, precision, cache)
            results[f"naive_{precision}"] = in_child("naive", bundle, precision, cache)
        resident = in_child("stream", stream_bundle, "f32", cache)["resident"]
    after_first_thousand = resident[1000 // EVERY :]
    growth = max(after_first_thousand) - after_first_thousand[0]
    results["stream"] = {"images": STREAM, "every": EVERY, "resident": resident, "growth_after_1000": growth}
    return results


def main() -> None:
    """Run everything, each in its own process, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="for the memory of engines")
    parser.add_argument("--stream-bundle", type=Path, help="a smaller one for the stream; the same one if not given")
    parser.add_argument("--child", choices=sorted(MEASUREMENTS), help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="f32", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(MEASUREMENTS[arguments.child](str(arguments.bundle), arguments.precision)))
        return
    results = in_children(arguments.bundle, arguments.stream_bundle or arguments.bundle)
    print(json.dumps(results, indent=1))
    print(common.write("memory_use", results))


if __name__ == "__main__":
    main()
