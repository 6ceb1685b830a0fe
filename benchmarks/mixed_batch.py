"""A mixed batch of 128 crops against the best that OpenVINO's own API does with each branch alone.

    python benchmarks/mixed_batch.py BUNDLE

The engine gets uint8 crops of random sizes, 32 for each branch, and resizes, groups, runs and orders them.
OpenVINO gets float tensors that are ready, of one branch, in the best of several static batch sizes, on one stream
for each of the engine's threads or on one for all of them. The ratio of the engine's time to the sum of 32 / rate over
the branches says what everything around the networks costs; 1 would be nothing. Writes results/mixed_batch.json.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

import common
from btnet_ext import Bundle, Engine
from openvino_runs import IMAGES, all_ways

CROPS_A_BRANCH = IMAGES
SIZES = {7: (4, 7), 14: (8, 14), 28: (15, 28), 112: (29, 200)}
SEED = 20260


def crops(rng: np.random.Generator) -> list[np.ndarray]:
    """Random pixels in random square sizes, shuffled; the networks' time does not depend on what they see."""
    sides = [int(rng.integers(low, high + 1)) for low, high in SIZES.values() for _ in range(CROPS_A_BRANCH)]
    rng.shuffle(sides)
    return [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in sides]


def measure(bundle: Bundle, precision: str, rounds: int) -> dict[str, object]:
    """Engine and OpenVINO in turns; the ratio is taken within each round, then the median."""
    engine = Engine(bundle.path, precision=precision)
    images = crops(np.random.default_rng(SEED))
    ways = {
        resolution: {name: compiled() for name, compiled in all_ways(bundle, precision, resolution).items()}
        for resolution in bundle.resolutions
    }
    candidates: dict[str, Callable[[], object]] = {"engine": partial(engine.embed, images)}
    for runs in ways.values():
        candidates |= runs
    seconds = common.interleave(candidates, rounds=rounds)

    median = {name: statistics.median(values) for name, values in seconds.items()}
    best = {resolution: min(runs, key=lambda name: median[name]) for resolution, runs in ways.items()}
    ratios = [seconds["engine"][i] / sum(seconds[name][i] for name in best.values()) for i in range(rounds)]
    return {
        "ratio": common.summary(ratios),
        "engine_seconds": common.summary(seconds["engine"]),
        "openvino": {
            str(resolution): {"best": name, "images_per_second": CROPS_A_BRANCH / median[name]}
            for resolution, name in best.items()
        },
    }


def main() -> None:
    """Measure f32 and bf16 and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    results = {precision: measure(bundle, precision, arguments.rounds) for precision in ("f32", "bf16")}
    path = common.write(
        "mixed_batch",
        {"arch": bundle.arch, "width": bundle.width, "crops_a_branch": CROPS_A_BRANCH, "precision": results},
    )
    for precision, result in results.items():
        print(f"{precision}: {result['ratio']}")
    print(path)


if __name__ == "__main__":
    main()
