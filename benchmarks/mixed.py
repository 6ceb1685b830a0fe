"""From uint8 crops to embeddings: what the branches bring on four mixes of sizes, over how many crops come at once.

    python benchmarks/mixed.py [--arch res50] [--width 1.0] [--bundle BUNDLE] [--precision f32]

Each engine gets the same crops; one selects among all branches, the other is forced to 112 (`resolutions=[112]`), which
is what an engine without branches does. Both resize, group, run and order. mixes.py says what the mixes are. Writes
results/mixed.json, a table and a figure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import bundles
import common
import mixes
from btnet_ext import Bundle, Engine
from comparing import refuse_others
from publish import publish


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    batches: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    rounds: int = 5
    images: int = 64  # at least so many are timed together


QUICK = Plan(batches=(1, 16, 64), rounds=3, images=16)


def work(engine: Engine, crops: list[Any], batch: int) -> None:
    """Embed all crops, `batch` at a time."""
    for start in range(0, len(crops), batch):
        engine.embed(crops[start : start + batch])


def measure(bundle: Bundle, precision: str, plan: Plan) -> dict[str, Any]:
    """Images/s of both engines for every mix and batch, and their ratio, taken in each round."""
    engines = {
        "btnet": Engine(bundle.path, precision=precision),
        "at_112": Engine(bundle.path, precision=precision, resolutions=[bundle.canonical]),
    }
    results: dict[str, Any] = {}
    for name in mixes.MIXES:
        # One set for all batches: a single crop would be one of the mix's many sizes.
        crops = mixes.crops(name, max(plan.batches))
        counts = {batch: max(batch, plan.images) for batch in plan.batches}
        candidates: dict[tuple[str, int], Callable[[], object]] = {
            (who, batch): partial(work, engine, crops[: counts[batch]], batch)
            for batch in plan.batches
            for who, engine in engines.items()
        }
        seconds = common.interleave(candidates, rounds=plan.rounds)
        results[name] = {
            str(batch): {
                **{who: common.summary([counts[batch] / value for value in seconds[who, batch]]) for who in engines},
                "times_faster": common.ratios(seconds["at_112", batch], seconds["btnet", batch]),
            }
            for batch in plan.batches
        }
    return results


def main() -> None:
    """Measure every precision that there is."""
    parser = common.arguments(__doc__)
    bundles.add_options(parser)
    bundles.add_precision(parser)
    options = parser.parse_args()
    plan = QUICK if options.quick else Plan()
    print(f"seed {mixes.SEED}")
    with bundles.opened(parser, options) as bundle:
        settings = bundles.description(bundle, options) | {"seed": mixes.SEED}
        refuse_others(settings, options)
        precisions, absent = bundles.available(bundle, options.precision)
        results = {precision: measure(bundle, precision, plan) for precision in precisions}
        engine = Engine(bundle.path, precision=precisions[0])
        branches = {name: mixes.counts(engine, mixes.crops(name, max(plan.batches))) for name in mixes.MIXES}
    publish("mixed", {"settings": settings, "branches": branches, "precision": results, "absent": absent}, options)


if __name__ == "__main__":
    main()
