"""Tables over several JSON files: what was measured beside what is to be reached, and the few figures of the README."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from common import RESULTS, load, table

Results: TypeAlias = Mapping[str, Any]
Found: TypeAlias = Iterator[tuple[str, Mapping[str, float]]]

ACCURACY = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Target:
    """A figure that a benchmark measures, for one or several cases, and the bounds that it is to keep."""

    what: str
    source: str
    cases: Callable[[Results], Found]
    least: float = -math.inf
    most: float = math.inf
    folder: Path = RESULTS

    def bounds(self) -> str:
        """In words."""
        if math.isinf(self.least):
            return f"at most {self.most:g}"
        return f"at least {self.least:g}" if math.isinf(self.most) else f"{self.least:g} to {self.most:g}"

    def verdict(self, summary: Mapping[str, float]) -> str:
        """Whether the median keeps the bounds, and if not, whether it is further from them than its spread."""
        median = summary["median"]
        if self.least <= median <= self.most:
            return "yes"
        away = max(self.least - median, median - self.most)
        return "no, within the spread" if away <= summary["spread"] * median else "no"


def _mixed_batch(results: Results) -> Found:
    return ((precision, of["ratio"]) for precision, of in results["precision"].items())


def _saving(number: str) -> Callable[[Results], Found]:
    def cases(results: Results) -> Found:
        for precision, of in results["precision"].items():
            for resolution, branch in of["branches"].items():
                if number in branch["saving"]:
                    yield f"{precision}, {resolution} px", branch["saving"][number]["of_openvino"]

    return cases


def _allowed(mix: str) -> Callable[[Results], Found]:
    def cases(results: Results) -> Found:
        return ((name, of["reached"]) for name, of in results["mixes"][mix]["allowed"].items())

    return cases


def _latency(results: Results) -> Found:
    return ((name, of["branches"]["112"]["latency_to_openvino"]) for name, of in results["precision"].items())


def _loading(results: Results) -> Found:
    return ((name, of["loading"]["all"]["again_to_first"]) for name, of in results["precision"].items())


def _accuracy_lost(results: Results) -> Found:
    before, after = (results["accuracy"][name] for name in ("f32", "int8"))
    lost = {columns: before[columns]["mean"] - after[columns]["mean"] for columns in before}
    worst = max(lost, key=lambda columns: lost[columns])
    yield f"int8, {worst}, the most of all", {"median": lost[worst], "spread": 0.0}


def _exponent(results: Results) -> Found:
    return ((f"f32, `{way}`", of["exponent"]) for way, of in results["numbers"].items())


def _embedding(results: Results) -> Found:
    yield "f32", results["embed"]["first"]


def _input(results: Results) -> Found:
    yield results["settings"]["precision"], results["time_ratio"]


TARGETS = (
    Target("a mixed batch / the sum of OpenVINO's own times", "mixed_batch", _mixed_batch, most=1.03),
    Target("saving of a branch / OpenVINO's own, 8 crops and more", "flops_latency", _saving("many"), least=0.97),
    Target("saving of a branch / OpenVINO's own, 1 crop", "flops_latency", _saving("single"), least=0.93),
    Target("surveillance / what OpenVINO's own rates allow", "peers", _allowed("surveillance"), least=0.97),
    Target("all small / what OpenVINO's own rates allow", "peers", _allowed("all small"), least=0.97),
    Target("one crop of 112 px / OpenVINO's latency hint", "flops_latency", _latency, most=1.05),
    Target("points of accuracy that 8 bits cost", "int8", _accuracy_lost, most=0.5, folder=ACCURACY),
    Target("exponent of time over number", "scaling", _exponent, least=0.98, most=1.02),
    Target("loading all branches, from the cache / without it", "flops_latency", _loading, most=0.5),
    Target("seconds to embed the faces of an evaluation", "evaluation", _embedding, most=120),
    Target("training on faces as they come / on one batch, time", "training_input", _input, most=1.05),
)


def targets() -> str:
    """What was asked, and what was measured."""
    rows = []
    for target in TARGETS:
        if not (target.folder / f"{target.source}.json").exists():
            rows.append([target.what, target.bounds(), "", "not yet", ""])
            continue
        for case, summary in target.cases(load(target.source, target.folder)):
            spread = f" ± {summary['spread']:.1%}" if summary["spread"] else ""
            measured = f"{summary['median']:.3f}{spread}"
            rows.append([target.what, target.bounds(), case, measured, target.verdict(summary)])
    return table(["what", "target", "case", "measured", "met"], rows)


def faster() -> str:
    """How many times as fast as ONNX Runtime at 112 px the engine is, by mix and precision."""
    results = load("peers")
    rows = []
    for mix, of in results["mixes"].items():
        times = [of["peers"][f"engine, {precision}"]["times_faster"]["median"] for precision in of["allowed"]]
        rows.append([mix, *(f"{value:.1f}" for value in times)])
    precisions = next(iter(results["mixes"].values()))["allowed"]
    return table(["crops", *precisions], rows)


def more_accurate() -> str:
    """Accuracy of btnet and of the same network trained for 112 px alone."""
    models = load("res50", ACCURACY)["models"]
    names = {"phi_hr": "one network, trained at 112 px", "btnet": "trunk and branches"}
    columns = list(models["btnet"]["accuracy"])
    rows = [
        [name, *(f"{models[model]['accuracy'][column]['mean']:.1f}" for column in columns)]
        for model, name in names.items()
    ]
    return table(["accuracy, %", *columns], rows)
