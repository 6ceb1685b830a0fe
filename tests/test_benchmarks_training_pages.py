"""Tables of what was trained and of what was to be reached, from small results made by hand."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

# At the end: a benchmark must not take the place of another module of its name.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import common
import tables_overview
import tables_training
from btnet_ext import Bundle
from tables_overview import TARGETS, Target
from test_benchmarks_pages import MACHINE, MADE


def lines(table: str) -> list[list[str]]:
    """The cells of the rows, the header first."""
    return [line.strip("| ").split(" | ") for line in table.splitlines() if "---" not in line]


def accuracy(**means: float) -> dict[str, Any]:
    return {"machine": MACHINE, "accuracy": {name: {"mean": mean, "std": 1.5} for name, mean in means.items()}}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    models = {
        "phi_hr": accuracy(large=96.5, small=60.25),
        "phi_mr": accuracy(large=92.0, small=81.0),
        "btnet": accuracy(large=92.0, small=83.75),
        "teacher": accuracy(large=98.0, small=55.0),
    }
    models["btnet"]["networks"] = {
        "7": {"parameters": 1_340_000, "gmacs": 0.0972, "images": 381_312, "seconds": 5400.0}
    }
    results = {"pairs": 6000, "models": models, "gains": {"cross": {"112&7": 0.6789, "112&28": None}}}
    monkeypatch.setattr(tables_training, "load", lambda: results)
    return results


def test_accuracies(trained: dict[str, Any]) -> None:
    head, table = tables_training.accuracy().split("\n\n")
    assert head == "6,000 pairs. a CPU, 2 cores, Python 3.11.7, numpy 2.0; 2026-11-30"
    assert lines(table)[:2] == [["model", "large", "small"], ["phi_hr", "96.50 ± 1.50", "60.25 ± 1.50"]]
    trained["models"]["teacher"]["machine"] = MACHINE | {"cpu": "another"}
    assert tables_training.accuracy().startswith("6,000 pairs. phi_hr, phi_mr, btnet: a CPU, ")
    assert " teacher: another, 2 cores" in tables_training.accuracy()


@pytest.mark.usefixtures("trained")
def test_how_far_btnet_is_above_the_others() -> None:
    assert lines(tables_training.compared()) == [
        ["btnet against", "large", "small"],
        ["phi_hr", "-4.50", "+23.50"],
        ["phi_mr", "+0.00", "+2.75"],
    ]


@pytest.mark.usefixtures("trained")
def test_gains_and_costs() -> None:
    assert lines(tables_training.gains())[1:] == [["cross", "112&7", "0.68"], ["cross", "112&28", "not defined"]]
    assert lines(tables_training.cost())[1:] == [["btnet", "7", "1.34", "0.097", "381,312", "1.5"]]


def test_what_the_shipped_model_reaches() -> None:
    header, required, reached, difference = lines(tables_training.shipped())
    model = Bundle.open(Path(__file__).parents[1] / "python/btnet_ext/models/res50.btnet")
    measured = model.metadata["training"]["accuracy on val_pairs, percent"]
    assert header == list(measured)
    assert required == ["required", "95.00", "94.50", "93.00", "87.00", "94.00", "92.00", "85.50"]
    assert [float(cell) for cell in reached[1:]] == list(measured.values())
    for asked, found, between in zip(required[1:], reached[1:], difference[1:], strict=True):
        assert float(between) == pytest.approx(float(found) - float(asked), abs=1e-6)


def test_a_report_becomes_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates have a row for each model; accuracy and what else a report has stay there."""
    sections = [
        {"title": "Accuracy", "columns": ["model", "7&7"], "rows": [["a", "50"]]},
        {"title": "Top-1", "columns": ["model", "7&7"], "rows": [["a", "61"], ["b", "62"]]},
        {"title": "Pairs", "columns": ["fold", "pairs"], "rows": [["0", "600"]]},
    ]
    monkeypatch.setattr(common, "load", lambda name, folder: {"sections": sections})
    assert lines(tables_training.rates("identification")) == [
        ["model", "rate, percent", "7&7"],
        ["a", "Top-1", "61"],
        ["b", "Top-1", "62"],
    ]


def test_what_eight_bits_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    cosine = {"7": {"mean": 0.99, "lowest": 0.9, "kept": ["fc"]}}
    results = {
        "machine": MACHINE,
        "pairs": 6000,
        "accuracy": {"f32": accuracy(large=92.5)["accuracy"], "int8": accuracy(large=92.25)["accuracy"]},
        "quantization": {"faces": 300, "cosine": cosine},
        "bytes": {"f32": 19.0e6, "with int8": 27.1e6},
    }
    monkeypatch.setattr(common, "load", lambda name, folder: results)
    head, loss, agreement, size = tables_training.int8().split("\n\n")
    assert head.startswith("6,000 pairs, 300 faces to calibrate with. a CPU")
    assert lines(loss)[1:] == [["f32", "92.50"], ["int8", "92.25"], ["lost", "0.25"]]
    assert lines(agreement)[1:] == [["7", "0.9900", "0.9000", "1"]]
    assert size == "The bundle has 19.0 MB, with 8-bit graphs 27.1 MB."


@pytest.mark.parametrize(
    ("bounds", "median", "words", "verdict"),
    [
        ({"most": 1.03}, 1.03, "at most 1.03", "yes"),
        ({"most": 1.03}, 1.05, "at most 1.03", "no, within the spread"),  # 2 % of 1.05 are 0.021
        ({"most": 1.03}, 1.06, "at most 1.03", "no"),
        ({"least": 0.97}, 0.97, "at least 0.97", "yes"),
        ({"least": 0.97}, 0.96, "at least 0.97", "no, within the spread"),
        ({"least": 0.97}, 0.94, "at least 0.97", "no"),
        ({"least": 0.98, "most": 1.02}, 1.06, "0.98 to 1.02", "no"),
        ({"least": 0.98, "most": 1.02}, 0.9, "0.98 to 1.02", "no"),
    ],
)
def test_verdicts(bounds: dict[str, Any], median: float, words: str, verdict: str) -> None:
    target = Target("a ratio", "a file", lambda _: iter(()), **bounds)
    assert target.bounds() == words
    assert target.verdict({"median": median, "spread": 0.02}) == verdict


TARGET_ROWS = [
    "| a mixed batch / the sum of OpenVINO's own times | at most 1.03 | f32 | 1.020 ± 1.0% | yes |",
    "| saving of a branch / OpenVINO's own, 8 crops and more | at least 0.97 | f32, 28 px | 0.938 ± 1.0% | no |",
    "| saving of a branch / OpenVINO's own, 1 crop | at least 0.93 | f32, 28 px | 0.938 ± 1.0% | yes |",
    "| all small / what OpenVINO's own rates allow | at least 0.97 | f32 | 0.933 ± 1.0% | no |",
    "| one crop of 112 px / OpenVINO's latency hint | at most 1.05 | f32 | 1.250 ± 1.0% | no |",
    "| points of accuracy that 8 bits cost | at most 0.5 | int8, small, the most of all | 0.750 | no |",
    "| exponent of time over number | 0.98 to 1.02 |  | not yet |  |",
    "| loading all branches, from the cache / without it | at most 0.5 | f32 | 0.250 ± 1.0% | yes |",
    "| seconds to embed the faces of an evaluation | at most 120 | f32 | 80.000 ± 1.0% | yes |",
    "| training on faces as they come / on one batch, time | at most 1.05 | f32 | 1.020 ± 1.0% | yes |",
]


def test_targets_beside_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the results made by hand, but for one file that is not there yet."""
    made = {name: make() for name, make in MADE.items() if name != "scaling"}
    made["peers"]["mixes"]["surveillance"] = made["peers"]["mixes"]["all small"]
    before, after = (accuracy(large=92.0, small=small)["accuracy"] for small in (80.0, 79.25))
    made["int8"] = {"accuracy": {"f32": before, "int8": after}}
    for name, results in made.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(results))
    moved = [Target(**{**vars(target), "folder": tmp_path}) for target in TARGETS]
    monkeypatch.setattr(tables_overview, "TARGETS", moved)
    found = tables_overview.targets().splitlines()[2:]
    assert [line for line in found if "surveillance" not in line] == TARGET_ROWS
    assert len(found) == len(TARGET_ROWS) + 1


def test_the_few_figures_of_the_readme(trained: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"peers": MADE["peers"](), "res50": trained}
    monkeypatch.setattr(tables_overview, "load", lambda name, *_: made[name])
    assert lines(tables_overview.faster()) == [["crops", "f32"], ["all small", "1.4"]]
    assert lines(tables_overview.more_accurate()) == [
        ["accuracy, %", "large", "small"],
        ["one network, trained at 112 px", "96.5", "60.2"],
        ["trunk and branches", "92.0", "83.8"],
    ]
