"""How time and memory grow: with the number of images, with threads, and with the size of an image.

    python benchmarks/scaling.py [--arch res18] [--width 0.125] [--bundle BUNDLE]

The network is small unless told otherwise, so that 100,000 images take minutes and what is around the networks weighs
more. 1 to 100,000 crops of the surveillance mix go through `embed` at once and through `embed_stream`, and each call
goes on where the one before it ended; the exponent is the slope of log time over log number from 100 images on, fitted
by least squares in each round: 1 is proportional. Memory is the peak of a fresh process above what it had once its
engine had embedded 1,000 images; that of `embed` has its result in it. Then a fixed number of crops on 1 thread to all,
and crops of one size at a time, whose peak is that of a fresh process, above what it had with engine and crops. In f32.
Writes results/scaling.json, a table and a figure.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np

import bundles
import common
import mixes
from btnet_ext import Bundle, Engine
from comparing import refuse_others
from loading import load
from publish import publish

MIX = "surveillance"
POOL = 1000
"""So many crops there are; more images are the same ones again."""
FIRST_FITTED = 100


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    numbers: tuple[int, ...] = (1, 10, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)
    rounds: int = 5
    least: int = POOL  # images that are timed together
    crops: int = 512  # for the threads
    sides: tuple[int, ...] = (7, 14, 28, 56, 112, 224, 448, 896)
    images: int = 64  # of each side
    rounds_of_short: int = 7


QUICK = Plan(
    numbers=(1, 10, 100, 300, 1000),
    rounds=3,
    least=100,
    crops=64,
    sides=(7, 28, 112, 448),
    images=16,
    rounds_of_short=3,
)


def exponent(numbers: Sequence[int], seconds: Sequence[float]) -> float:
    """Slope of log seconds over log numbers, by least squares."""
    return float(np.polyfit(np.log(numbers), np.log(seconds), 1)[0])


def embed(engine: Engine, crops: Iterator[Any], number: int) -> None:
    """The next so many at once."""
    engine.embed(list(islice(crops, number)))


def embed_stream(engine: Engine, crops: Iterator[Any], number: int) -> None:
    """The same in blocks that are dropped."""
    for _ in engine.embed_stream(islice(crops, number)):
        pass


WAYS: dict[str, Callable[[Engine, Iterator[Any], int], None]] = {"embed": embed, "embed_stream": embed_stream}


def by_number(bundle: Bundle, plan: Plan) -> dict[str, Any]:
    """Microseconds an image by way and number of images, and the exponents."""
    engine, crops = Engine(bundle.path), mixes.crops(MIX, POOL)
    times = {number: max(1, plan.least // number) for number in plan.numbers}
    candidates = {
        (way, number): partial(common.repeat, partial(run, engine, cycle(crops), number), times[number])
        for number in plan.numbers
        for way, run in WAYS.items()
    }
    seconds = common.interleave(candidates, rounds=plan.rounds)
    each = {key: [value / times[key[1]] for value in values] for key, values in seconds.items()}
    fitted = [number for number in plan.numbers if number >= FIRST_FITTED]
    results: dict[str, Any] = {}
    for way in WAYS:
        results[way] = {
            "microseconds_an_image": {
                str(number): common.summary([1e6 * value / number for value in each[way, number]])
                for number in plan.numbers
            },
            "exponent": common.summary(
                [exponent(fitted, [each[way, number][i] for number in fitted]) for i in range(plan.rounds)]
            ),
            "peak_megabytes": common.in_child(peaks, str(bundle.path), way, plan.numbers),
        }
    return results


def peaks(bundle: str, way: str, numbers: Sequence[int]) -> dict[str, float]:
    """MiB at most in this process while it embeds a number of images, above what it had once it had embedded POOL."""
    engine, crops = Engine(bundle), cycle(mixes.crops(MIX, POOL))
    WAYS[way](engine, crops, POOL)
    before = common.memory()["resident"]
    return {str(number): common.peak(partial(WAYS[way], engine, crops, number)) - before for number in numbers}


def peak_of_side(bundle: str, side: int, images: int) -> float:
    """MiB at most in this process while it embeds its first images, of one side, above what it had with these."""
    engine, crops = Engine(bundle), mixes.squares(side, images)
    before = common.memory()["resident"]
    return common.peak(partial(engine.embed, crops)) - before


def by_threads(bundle: Bundle, plan: Plan) -> dict[str, Any]:
    """Images/s, speed-up over one thread, and memory of engines with 1, 2, 4, ... and all threads."""
    threads = common.thread_counts()
    crops = mixes.crops(MIX, plan.crops)
    engines = {number: Engine(bundle.path, threads=number) for number in threads}
    seconds = common.interleave(
        {number: partial(engine.embed, crops) for number, engine in engines.items()}, rounds=plan.rounds_of_short
    )
    results = {}
    with tempfile.TemporaryDirectory() as cache:
        for number in threads:
            with_threads = list(bundle.resolutions), {"threads": number}
            load_engine = partial(common.in_child, load, str(bundle.path), *with_threads, cache)
            load_engine()  # fills the cache
            results[str(number)] = {
                "images_per_second": common.summary([len(crops) / value for value in seconds[number]]),
                "speed_up": common.ratios(seconds[1], seconds[number]),
                "anonymous_megabytes": load_engine()["anonymous"],
            }
    return results


def by_side(bundle: Bundle, plan: Plan) -> dict[str, Any]:
    """Microseconds an image and peak of memory by the side of square crops, and the branch that they go to."""
    engine = Engine(bundle.path)
    crops = {side: mixes.squares(side, plan.images) for side in plan.sides}
    seconds = common.interleave(
        {side: partial(engine.embed, of) for side, of in crops.items()}, rounds=plan.rounds_of_short
    )
    return {
        str(side): {
            "branch": int(engine.select(crops[side][:1])[0]),
            "microseconds_an_image": common.summary([1e6 * value / plan.images for value in seconds[side]]),
            "peak_megabytes": common.in_child(peak_of_side, str(bundle.path), side, plan.images),
        }
        for side in plan.sides
    }


def main() -> None:
    """Measure all three."""
    parser = common.arguments(__doc__)
    bundles.add_options(parser, arch="res18", width=0.125)
    options = parser.parse_args()
    plan = QUICK if options.quick else Plan()
    print(f"seed {mixes.SEED}")
    with bundles.opened(parser, options) as bundle:
        settings = bundles.description(bundle, options) | {"mix": MIX, "seed": mixes.SEED}
        refuse_others(settings, options)
        results = {
            "numbers": by_number(bundle, plan),
            "threads": by_threads(bundle, plan),
            "sides": by_side(bundle, plan),
        }
    publish("scaling", {"settings": settings, **results}, options)


if __name__ == "__main__":
    main()
