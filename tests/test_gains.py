"""Gains, worked out by hand."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from btnet_eval.base import DataError, Problems
from btnet_eval.gains import (
    Measured,
    cross_resolution_gain,
    gains_section,
    read_measured,
    same_resolution_gain,
    write_gains,
)

Gain = Callable[[float, float, float], float | None]


@pytest.mark.parametrize("gain", [cross_resolution_gain, same_resolution_gain])
@pytest.mark.parametrize(
    ("model", "phi_hr", "reference", "expected"),
    [
        (0.86, 0.5, 0.75, 1.44),  # 0.36 of 0.25
        (86.0, 50.0, 75.0, 1.44),  # in percent
        (75.0, 50.0, 75.0, 1.0),
        (50.0, 50.0, 75.0, 0.0),
        (45.0, 50.0, 75.0, -0.2),
        (90.0, 75.0, 75.0, None),
        (90.0, 75.0, 50.0, None),
    ],
)
def test_by_hand(gain: Gain, model: float, phi_hr: float, reference: float, expected: float | None) -> None:
    found = gain(model, phi_hr, reference)
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-12))


@pytest.mark.parametrize("gain", [cross_resolution_gain, same_resolution_gain])
@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_not_finite(gain: Gain, place: int, value: float) -> None:
    accuracies = [0.9, 0.5, 0.8]
    accuracies[place] = value
    with pytest.raises(ValueError, match="accuracies must be finite, not"):
        gain(*accuracies)


def write_verification(
    path: Path, models: dict[str, dict[str, float | None]], kind: str = "Verification", flip: bool = True
) -> Path:
    from btnet_eval.report import write_result

    numbers: dict[str, Any] = {
        name: {setting: {"mean": mean, "std": 0.0, "tar": {}, "flip": flip} for setting, mean in of_model.items()}
        for name, of_model in models.items()
    }
    write_result(path, kind, numbers, Problems(), dict.fromkeys(models, "1"), {"faces": "abc"}, ["x"], sections=[])
    return path


def test_table_by_hand(tmp_path: Path) -> None:
    """One file has two of the models. Between resolutions phi_mr counts, at one phi_mm; neither has the other."""
    both = write_verification(
        tmp_path / "both.json",
        {
            "btnet": {"112&112": 0.9, "112&7": 0.86, "7&7": 0.7},
            "phi_hr": {"112&112": 0.9, "112&7": 0.5, "7&7": 0.6},
        },
    )
    phi_mr = write_verification(tmp_path / "mr.json", {"phi_mr": {"112&7": 0.75}})
    phi_mm = write_verification(tmp_path / "mm.json", {"phi_mm": {"7&7": 0.8, "112&112": 0.9}})
    section = gains_section(
        read_measured(both, "btnet"), read_measured(both, "phi_hr"), read_measured(phi_mr), read_measured(phi_mm)
    )
    assert section.columns == ["resolutions", "model", "phi_hr", "reference", "which", "gain"]
    gains = [row[-1] for row in section.rows]
    assert [row[:-1] for row in section.rows] == [
        ["112&112", "90.00", "90.00", "90.00", "phi_mm"],
        ["112&7", "86.00", "50.00", "75.00", "phi_mr"],
        ["7&7", "70.00", "60.00", "80.00", "phi_mm"],
    ]
    assert gains[0] is None
    assert gains[1:] == pytest.approx([1.44, 0.5], abs=1e-12)

    from btnet_eval.session import Run

    run = Run(out=tmp_path / "out", command=["btnet-eval", "gains"])
    page = write_gains(run, (both, "btnet"), (both, "phi_hr"), (phi_mr, None), (phi_mm, None))
    assert page == tmp_path / "out" / "gains.html"
    assert "<td>86.00</td>" in page.read_text()
    result = json.loads(page.with_suffix(".json").read_text())
    assert result["numbers"] == dict(zip(("112&112", "112&7", "7&7"), gains, strict=True))
    assert result["data"] == {"faces": "abc"}


def test_what_does_not_fit() -> None:
    measured = {"112&7": 0.8, "7&7": 0.7}
    model = Measured("model.json", measured, {"faces": "abc"}, flip=True)
    other = Measured("other.json", measured, {"faces": "xyz"}, flip=True)
    part = Measured("part.json", {"112&7": 0.9}, {"faces": "abc"}, flip=True)
    alone = Measured("alone.json", measured, {"faces": "abc"}, flip=False)
    with pytest.raises(DataError, match=r"other\.json: it was measured on other data than model\.json"):
        gains_section(model, model, other, model)
    with pytest.raises(DataError, match=r"part\.json: it was not measured at 7&7"):
        gains_section(model, part, model, model)
    with pytest.raises(DataError, match=r"part\.json: it was not measured at 7&7"):
        gains_section(model, model, model, part)
    message = r"alone\.json: it was measured without mirror images, and model\.json with"
    with pytest.raises(DataError, match=message):
        gains_section(model, model, model, alone)
    with pytest.raises(DataError, match=r"model\.json: it was measured with mirror images, and alone\.json without"):
        gains_section(alone, alone, model, alone)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    both = write_verification(tmp_path / "both.json", {"a": {"7&7": 0.5}, "b": {"7&7": 0.5}})
    with pytest.raises(DataError, match=r"both\.json: say which model: it has a, b$"):
        read_measured(both)
    with pytest.raises(DataError, match=r"both\.json: say which model: it has a, b, not c"):
        read_measured(both, "c")
    with pytest.raises(DataError, match=r"it is the result of 'Templates', not of a verification"):
        read_measured(write_verification(tmp_path / "t.json", {"a": {}}, "Templates"))
    one_fold = write_verification(tmp_path / "fold.json", {"a": {"7&7": None}})
    with pytest.raises(DataError, match=r"fold\.json: a has no accuracies, since its pairs are in one fold"):
        read_measured(one_fold)
    assert read_measured(both, "a").flip is True
    assert read_measured(write_verification(tmp_path / "no.json", {"a": {"7&7": 0.5}}, flip=False)).flip is False
    damaged = json.loads(both.read_text())
    damaged["numbers"]["a"]["7&7"] = 0.5
    both.write_text(json.dumps(damaged))
    with pytest.raises(DataError, match="the accuracies of a are not as btnet-eval writes them"):
        read_measured(both, "a")
    both.write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        read_measured(both)


def test_the_gains_need_no_extra() -> None:
    """Nothing but NumPy: the packages of the extra `eval` are not imported with them."""
    code = "import sys, btnet_eval.gains; print(sorted({'markdown_it', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
