"""What each branch costs, on paper and on the clock: does a branch save the time that its multiply-accumulates promise?

    python benchmarks/flops_latency.py [--arch res50] [--width 1.0] [--bundle BUNDLE] [--device cpu] [--precision f32]

A bundle with random weights is made unless there is one. For each precision and branch: latency of a single crop with
hint="latency" (p50 and p95 of the calls of a round), images/s with the best number of crops at once, 8 or more, and on
the CPU the same through OpenVINO's own API with tensors that are ready: its latency hint, and its best of several batch
sizes, numbers of streams, and threads that are pinned to cores or not. What is best is tried beforehand; then OpenVINO
and the engine take turns branch by branch, with as many images. The realised saving of a branch is (time at 112 / time
at r) / (GMACs at 112 / GMACs at r), taken in each round. Seconds to load and memory are of fresh processes: the first
time, with an empty cache, and again; for each branch alone and for all, on a GPU, whose engines take minutes to build,
for all only. Writes results/flops_latency.json, a table and a figure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import bundles
import common
import mixes
from btnet_ext import Bundle, Engine
from btnet_ext.cuda import find_gpu, parse_device
from comparing import refuse_others
from costs import costs
from loading import load, twice
from openvino_runs import Way, best_way, fastest, single
from publish import publish

MANY = 8
"""So many crops or more at once are a batch."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int = 7
    calls: int = 40  # of a single crop, in each round
    loads: int = 5
    alone: bool = True  # whether branches are loaded alone, too
    most: int = 64  # crops at once
    images: int = 256  # of a branch that are timed together, where there is no OpenVINO to say how many

    @property
    def batches(self) -> list[int]:
        """Numbers of crops that are given at once."""
        return [2**k for k in range(MANY.bit_length() - 1, self.most.bit_length())]


QUICK = Plan(rounds=3, calls=10, loads=3, most=16)
PLANS = {"cpu": Plan(), "gpu": Plan(loads=3, alone=False, most=1024)}


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
        return partial(made.embed, mixes.squares(resolution, 1))

    who: dict[str, Callable[[int], Callable[[], object]]] = {"engine": engine}
    if device == "cpu":
        who["openvino"] = partial(single, bundle, precision)
    candidates = {(name, r): make(r) for r in bundle.resolutions for name, make in who.items()}
    found = latencies(candidates, plan)
    return {name: {r: found[name, r] for r in bundle.resolutions} for name in who}


def engine_way(bundle: Bundle, precision: str, device: str, resolution: int, images: int, plan: Plan) -> Way:
    """Return the fastest number of crops to give to the engine at once, to embed so many images or a few more."""
    engine = Engine(bundle.path, device=device, precision=precision, resolutions=[resolution])

    def at_once(batch: int) -> Way:
        calls = -(-images // batch)
        run = partial(common.repeat, partial(engine.embed, mixes.squares(resolution, batch)), calls)
        return Way(str(batch), batch * calls, run)

    return fastest([partial(at_once, batch) for batch in plan.batches])


def best_ways(bundle: Bundle, precision: str, device: str, plan: Plan) -> dict[tuple[str, int], Way]:
    """Return the best way by who and branch: what a branch is compared by lies side by side."""
    ways = {}
    for resolution in reversed(bundle.resolutions):
        images = plan.images
        if device == "cpu":
            ways["openvino", resolution] = best_way(bundle, precision, resolution)
            images = ways["openvino", resolution].images
        ways["engine", resolution] = engine_way(bundle, precision, device, resolution, images, plan)
    return ways


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
    ways = best_ways(bundle, precision, device, plan)
    seconds = common.interleave({name: way.run for name, way in ways.items()}, rounds=plan.rounds)
    many = {who: {r: [value / ways[who, r].images for value in seconds[who, r]] for r in gmacs} for who in single_crop}
    p50 = {who: {r: of[r]["p50"] for r in of} for who, of in single_crop.items()}
    saved = {"single": savings(p50, gmacs), "many": savings(many, gmacs)}
    branches: dict[str, Any] = {}
    for resolution in gmacs:
        branch: dict[str, Any] = {
            "saving": {number: of[resolution] for number, of in saved.items() if resolution in of}
        }
        for who, percentiles in single_crop.items():
            branch[who] = {
                **{f"{name}_ms": _milliseconds(values) for name, values in percentiles[resolution].items()},
                "best": ways[who, resolution].name,
                "images_per_second": common.summary([1 / value for value in many[who][resolution]]),
            }
        if "openvino" in branch:
            branch["latency_to_openvino"] = common.ratios(p50["engine"][resolution], p50["openvino"][resolution])
        branches[str(resolution)] = branch
    return branches


def _milliseconds(seconds: list[float]) -> dict[str, float]:
    return common.summary([1e3 * value for value in seconds])


def all_loads(bundle: Bundle, options: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Seconds and memory of an engine with all branches, and with each alone if the plan says so."""
    choices = {str(resolution): [resolution] for resolution in reversed(bundle.resolutions) if plan.alone}
    choices["all"] = list(bundle.resolutions)
    ways = {name: partial(load, str(bundle.path), chosen, options) for name, chosen in choices.items()}
    return twice(ways, times=plan.loads)


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
        settings = bundles.description(bundle, options) | {"device": options.device, "seed": mixes.SEED}
        settings["gpu"] = None if gpu is None else find_gpu(gpu).name
        refuse_others(settings, options)
        on_paper = common.in_child(costs, bundle.arch, bundle.width, bundle.dim, bundle.resolutions[::-1])
        gmacs = {int(resolution): cost["gmacs"] for resolution, cost in on_paper.items()}
        results: dict[str, Any] = {}
        for precision in precisions:
            engine = {"device": options.device, "precision": precision}
            results[precision] = {
                "branches": measure(bundle, precision, options.device, gmacs, plan),
                "loading": all_loads(bundle, engine, plan),
            }
    publish(
        "flops_latency",
        {"settings": settings, "costs": on_paper, "precision": results, "absent": absent},
        options,
    )


if __name__ == "__main__":
    main()
