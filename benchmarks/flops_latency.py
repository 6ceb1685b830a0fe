"""What each branch costs, on paper and on the clock: does a branch save the time that its multiply-accumulates promise?

    python benchmarks/flops_latency.py [--arch res50] [--width 1.0] [--bundle BUNDLE] [--device cpu] [--precision f32]

A bundle with random weights is made unless there is one. For each precision and branch: latency of a single crop with
hint="latency" (p50 and p95 of the calls of a round), images/s over how many crops are given at once, and on the CPU the
same through OpenVINO's own API with tensors that are ready: its latency hint, and its best of several batch sizes and
numbers of streams for 32 images. The realised saving of a branch is (time at 112 / time at r) / (GMACs at 112 / GMACs
at r), taken in each round. Seconds to load and memory are of fresh processes: the first time, with an empty cache, and
again. Writes results/flops_latency.json, a table and a figure.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import bundles
import common
from btnet_ext import Bundle, Engine
from btnet_ext.cuda import find_gpu, parse_device
from costs import costs
from loading import load
from openvino_runs import IMAGES, all_ways, single
from publish import publish

SEED = 20260
MANY = 8
"""So many crops or more at once are a batch."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int = 7
    calls: int = 40  # of a single crop, in each round
    loads: int = 3
    most: int = 64  # crops at once
    images: int = 16  # at least so many of each branch are timed together

    @property
    def batches(self) -> list[int]:
        """Numbers of crops that are given at once."""
        return [2**k for k in range(self.most.bit_length())]


QUICK = Plan(rounds=3, calls=10, loads=2, most=16, images=8)
PLANS = {"cpu": Plan(), "gpu": Plan(most=1024, images=256)}


def crops(side: int, count: int) -> list[np.ndarray]:
    """Random crops of the size of a branch."""
    rng = np.random.default_rng(SEED)
    return [rng.integers(0, 256, (side, side, 3), np.uint8) for _ in range(count)]


def latencies(
    candidates: Mapping[tuple[str, int], Callable[[], object]], plan: Plan
) -> dict[tuple[str, int], dict[str, list[float]]]:
    """p50 and p95 of the seconds of single calls, of each candidate in each round; all take turns."""
    found: dict[tuple[str, int], dict[str, list[float]]] = {name: {"p50": [], "p95": []} for name in candidates}
    for _ in range(plan.rounds):
        for name, run in candidates.items():
            run()  # untimed: the one before has left its own data in the CPU's caches
            seconds = []
            for _ in range(plan.calls):
                start = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - start)
            p50, p95 = np.quantile(seconds, (0.5, 0.95))
            found[name]["p50"].append(float(p50))
            found[name]["p95"].append(float(p95))
    return found


def measure_latency(bundle: Bundle, precision: str, device: str, plan: Plan) -> dict[str, dict[int, Any]]:
    """Seconds of a single crop by who, branch and percentile, a value a round."""

    def engine(resolution: int) -> Callable[[], object]:
        made = Engine(bundle.path, device=device, precision=precision, hint="latency", resolutions=[resolution])
        return partial(made.embed, crops(resolution, 1))

    who: dict[str, Callable[[int], Callable[[], object]]] = {"engine": engine}
    if device == "cpu":
        who["openvino"] = partial(single, bundle, precision)
    candidates = {(name, r): make(r) for r in bundle.resolutions for name, make in who.items()}
    found = latencies(candidates, plan)
    return {name: {r: found[name, r] for r in bundle.resolutions} for name in who}


@dataclass(frozen=True)
class Way:
    """One way to run a branch: who does it and how, on how many images at once, and on how many that are timed."""

    who: str
    resolution: int
    name: str
    at_once: int
    images: int
    run: Callable[[], object]


def engine_ways(bundle: Bundle, precision: str, device: str, plan: Plan) -> list[Way]:
    """Each branch with all numbers of crops that are given at once."""
    ways = []
    for resolution in bundle.resolutions:
        engine = Engine(bundle.path, device=device, precision=precision, resolutions=[resolution])
        for batch in plan.batches:
            calls = max(1, plan.images // batch)
            run = partial(_repeat, partial(engine.embed, crops(resolution, batch)), calls)
            ways.append(Way("engine", resolution, str(batch), batch, batch * calls, run))
    return ways


def _repeat(run: Callable[[], object], times: int) -> None:
    for _ in range(times):
        run()


def openvino_ways(bundle: Bundle, precision: str) -> list[Way]:
    """Each branch with all batch sizes and numbers of streams that OpenVINO is tried with."""
    return [
        Way("openvino", resolution, name, IMAGES, IMAGES, compiled())
        for resolution in bundle.resolutions
        for name, compiled in all_ways(bundle, precision, resolution).items()
    ]


def best(rates: Mapping[Way, list[float]], who: str, resolution: int, least: int = 1) -> Way:
    """Return the fastest way of one to run a branch, by the median, on `least` images at once or more."""
    ways = [way for way in rates if (way.who, way.resolution) == (who, resolution) and way.at_once >= least]
    return min(ways, key=lambda way: statistics.median(rates[way]))


def savings(times: Mapping[str, Mapping[int, list[float]]], gmacs: Mapping[int, float]) -> dict[int, dict[str, Any]]:
    """Realised saving of each branch by who, from seconds, a value a round; and the engine's over OpenVINO's."""
    canonical = max(gmacs)
    found: dict[int, dict[str, Any]] = {}
    for resolution in gmacs.keys() - {canonical}:
        promised = gmacs[canonical] / gmacs[resolution]
        saved = {
            who: [a / b / promised for a, b in zip(of[canonical], of[resolution], strict=True)]
            for who, of in times.items()
        }
        found[resolution] = {who: common.summary(values) for who, values in saved.items()}
        if "openvino" in saved:
            found[resolution]["of_openvino"] = common.ratios(saved["engine"], saved["openvino"])
    return found


def measure(bundle: Bundle, precision: str, device: str, gmacs: Mapping[int, float], plan: Plan) -> dict[str, Any]:
    """Latency, rates and savings of all branches in one precision."""
    single_crop = measure_latency(bundle, precision, device, plan)
    ways = engine_ways(bundle, precision, device, plan)
    if device == "cpu":
        ways += openvino_ways(bundle, precision)
    seconds = common.interleave({way: way.run for way in ways}, rounds=plan.rounds)
    rates = {way: [value / way.images for value in seconds[way]] for way in ways}
    p50 = {who: {r: of[r]["p50"] for r in of} for who, of in single_crop.items()}
    many = {who: {r: rates[best(rates, who, r, MANY)] for r in gmacs} for who in single_crop}
    saved = {"single": savings(p50, gmacs), "many": savings(many, gmacs)}
    branches: dict[str, Any] = {}
    for resolution in gmacs:
        branch: dict[str, Any] = {
            "saving": {number: of[resolution] for number, of in saved.items() if resolution in of}
        }
        for who, percentiles in single_crop.items():
            way = best(rates, who, resolution)
            branch[who] = {
                **{f"{name}_ms": _milliseconds(values) for name, values in percentiles[resolution].items()},
                "best": way.name,
                "images_per_second": common.summary([1 / value for value in rates[way]]),
            }
        if "openvino" in branch:
            branch["latency_to_openvino"] = common.ratios(p50["engine"][resolution], p50["openvino"][resolution])
        branches[str(resolution)] = branch
    return branches


def _milliseconds(seconds: list[float]) -> dict[str, float]:
    return common.summary([1e3 * value for value in seconds])


def loads(bundle: Bundle, resolutions: Sequence[int], options: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Seconds and memory of an engine with these branches, the first time and from the cache."""
    found: dict[str, dict[str, list[float]]] = {"first": {}, "again": {}}
    for _ in range(plan.loads):
        with tempfile.TemporaryDirectory() as cache:
            for values in found.values():
                for part, value in common.in_child(load, str(bundle.path), list(resolutions), cache, options).items():
                    values.setdefault(part, []).append(value)
    summaries: dict[str, Any] = {
        time: {part: common.summary(values) for part, values in of.items()} for time, of in found.items()
    }
    summaries["again_to_first"] = common.ratios(found["again"]["seconds"], found["first"]["seconds"])
    return summaries


def all_loads(bundle: Bundle, options: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """The same for each branch alone and for all of them."""
    choices = {str(resolution): [resolution] for resolution in reversed(bundle.resolutions)}
    choices["all"] = list(bundle.resolutions)
    return {name: loads(bundle, resolutions, options, plan) for name, resolutions in choices.items()}


def main() -> None:
    """Measure every precision that there is."""
    parser = common.arguments(__doc__)
    bundles.add_options(parser)
    bundles.add_precision(parser)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    options = parser.parse_args()
    gpu = parse_device(options.device)
    if gpu is None and options.device != "cpu":
        parser.error(f"--device must be cpu, cuda or cuda:N, not {options.device!r}")
    plan = QUICK if options.quick else PLANS["cpu" if gpu is None else "gpu"]
    with bundles.opened(parser, options) as bundle:
        precisions, absent = bundles.available(bundle, options.precision, options.device)
        on_paper = common.in_child(costs, bundle.arch, bundle.width, bundle.dim, bundle.resolutions[::-1])
        gmacs = {int(resolution): cost["gmacs"] for resolution, cost in on_paper.items()}
        results: dict[str, Any] = {}
        for precision in precisions:
            engine = {"device": options.device, "precision": precision}
            results[precision] = {
                "branches": measure(bundle, precision, options.device, gmacs, plan),
                "loading": all_loads(bundle, engine, plan),
            }
        settings = bundles.description(bundle) | {"device": options.device, "quick": options.quick}
    settings["gpu"] = None if gpu is None else find_gpu(gpu).name
    publish(
        "flops_latency",
        {"settings": settings, "costs": on_paper, "precision": results, "absent": absent},
        options,
    )


if __name__ == "__main__":
    main()
