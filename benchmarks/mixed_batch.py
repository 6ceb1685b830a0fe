"""A mixed batch, 32 crops for each branch, against the best that OpenVINO's own API does with each branch alone.

    python benchmarks/mixed_batch.py [--arch res50] [--width 1.0] [--bundle BUNDLE] [--precision f32]

The engine gets uint8 crops of random sizes, and resizes, groups, runs and orders them. OpenVINO gets float tensors that
are ready, of one branch, in the best of several static batch sizes, on one stream for each of the engine's threads or
on one for all of them, its threads pinned to cores or not. The ratio of the engine's time to the ideal, the sum of
crops / rate over the branches, is taken in each round: it says what everything around the networks costs, and 1 would
be nothing. In each round the engine embeds the batch so often that it runs as many images of a branch as OpenVINO does.
Writes results/mixed_batch.json, a table and a figure.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import bundles
import common
import mixes
from btnet_ext import Bundle, Engine
from comparing import refuse_others
from openvino_runs import best_way
from publish import publish

CROPS_A_BRANCH = 32
ROUNDS, QUICK_ROUNDS = 7, 3


def measure(bundle: Bundle, precision: str, rounds: int) -> dict[str, Any]:
    """Engine and the best way of each branch in turns."""
    engine = Engine(bundle.path, precision=precision)
    crops = mixes.of_branches(bundle.resolutions, CROPS_A_BRANCH)
    counts = mixes.counts(engine, crops)
    ways = {resolution: best_way(bundle, precision, resolution) for resolution in counts}
    calls = -(-max(way.images for way in ways.values()) // CROPS_A_BRANCH)
    candidates: dict[int | str, Callable[[], object]] = {
        "engine": partial(common.repeat, partial(engine.embed, crops), calls),
        **{resolution: way.run for resolution, way in ways.items()},
    }
    seconds = common.interleave(candidates, rounds=rounds)
    taken = [value / calls for value in seconds["engine"]]
    of_one = {resolution: [value / way.images for value in seconds[resolution]] for resolution, way in ways.items()}
    ideal = [sum(counts[resolution] * of_one[resolution][turn] for resolution in counts) for turn in range(rounds)]
    return {
        "ratio": common.ratios(taken, ideal),
        "engine_seconds": common.summary(taken),
        "ideal_seconds": common.summary(ideal),
        "openvino": {
            str(resolution): {
                "best": way.name,
                "images_per_second": common.summary([1 / value for value in of_one[resolution]]),
            }
            for resolution, way in ways.items()
        },
    }


def main() -> None:
    """Measure every precision that there is."""
    parser = common.arguments(__doc__)
    bundles.add_options(parser)
    bundles.add_precision(parser)
    options = parser.parse_args()
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    with bundles.opened(parser, options) as bundle:
        settings = bundles.description(bundle, options) | {"crops_a_branch": CROPS_A_BRANCH, "seed": mixes.SEED}
        refuse_others(settings, options)
        precisions, absent = bundles.available(bundle, options.precision)
        results = {precision: measure(bundle, precision, rounds) for precision in precisions}
    publish("mixed_batch", {"settings": settings, "precision": results, "absent": absent}, options)


if __name__ == "__main__":
    main()
