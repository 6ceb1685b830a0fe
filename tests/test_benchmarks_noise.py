"""How the benchmarks judge noise, and what they compare two runs by. Nothing is timed."""

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from btnet_ext._native import core

# At the end: a benchmark must not take the place of another module of its name.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import common
import comparing
import loading

FLAGS = "fpu sse2 avx avx2 avx512f avx512_vnni amx_tile amx_int8"


def result(median: float, spread: float, lowest: float, highest: float) -> dict[str, float]:
    return {"median": median, "spread": spread, "lowest": lowest, "highest": highest}


QUIET = result(1, 0.01, 0.98, 1.02)


def run(**figures: Any) -> dict[str, Any]:
    """Results of a benchmark that measured these."""
    machine = {"cpu": "a CPU", "cores": 2, "python": "3.11.7", "versions": {}, "date": "2026-11-30"}
    return {"machine": machine, "settings": {"width": 1.0}, **figures}


def test_summary_is_the_median_half_the_middle_half_and_the_range() -> None:
    # Quartiles 2 and 6.
    assert common.summary([7.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.0]) == result(4.0, 0.5, 1.0, 7.0)


def test_the_range_of_many_values_is_that_of_the_medians_of_stretches() -> None:
    # 21 values are seven stretches of three, with medians 1, 2, ..., 7: the outliers in each are not seen.
    values = [value for middle in range(1, 8) for value in (middle - 0.5, 900.0, float(middle))]
    found = common.summary(values)
    assert (found["lowest"], found["highest"]) == (1.0, 7.0)


def test_ratios_are_taken_round_by_round() -> None:
    # The second round was three times as slow for both: their ratio does not show it.
    assert common.ratios([2.0, 6.0, 2.0], [1.0, 3.0, 1.0]) == result(2.0, 0.0, 2.0, 2.0)


def test_noise_names_what_is_too_noisy_the_worst_first() -> None:
    results = run(
        f32={"quiet": QUIET, "loud": result(2, 0.06, 1.9, 2.3), "no figure": {"median": 3}},
        worst=result(1, 0.3, 0.5, 1.5),
        to_itself=result(1, 0, 1, 1),
    )
    noise = common.noise(results)
    assert noise == {"limit": 0.05, "figures": 3, "too_noisy": ["worst", "f32 / loud"]}
    note = common.noise_note(results | {"noise": noise})
    assert "2 of the 3 figures" in note
    assert "worst, with 30%" in note


def test_a_quiet_run_says_so() -> None:
    results = run(seconds=result(1, 0.01, 0.9, 1.1))
    assert "None of the 1 figures" in common.noise_note(results | {"noise": common.noise(results)})


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        (result(100, 0.01, 98, 102), result(106, 0.01, 103, 108), True),
        (result(106, 0.01, 103, 108), result(100, 0.01, 98, 102), True),
        (result(100, 0.01, 98, 102), result(106, 0.01, 101, 108), False),  # a value of either lies in the other's range
        (result(100, 0.001, 99.9, 100.1), result(101, 0.001, 100.9, 101.1), False),  # apart, but by 1 %
        (result(100, 0.001, 99.9, 100.1), result(103, 0.001, 102.9, 103.1), True),
    ],
)
def test_a_change_beyond_noise(old: dict[str, float], new: dict[str, float], changed: bool) -> None:
    found = comparing.changes(run(f32={"rate": old}), run(f32={"rate": new}))
    assert found == ({"f32 / rate": (old["median"], new["median"])} if changed else {})


def test_comparison_says_what_changed_by_how_much_and_what_else_is_different() -> None:
    old = run(rate=result(100, 0.01, 99, 101), same=QUIET, gone=QUIET)
    new = run(rate=result(120, 0.01, 119, 121), same=result(1, 0.01, 0.9, 1.1))
    new["machine"] = new["machine"] | {"cores": 8}
    text = comparing.comparison(old, new)
    assert "since 2026-11-30: 1 of 2 figures" in text
    assert "| rate | 100 | 120 | +20.0% |" in text
    assert "cores was 2 then, and is 8 now" in text
    assert "1 figures are in one of the two only" in text


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match=r"measured with width 0\.5, these with 1\.0"):
        comparing.comparison(run(a=QUIET) | {"settings": {"width": 0.5}}, run(a=QUIET))
    with pytest.raises(ValueError, match="no figure in common"):
        comparing.comparison(run(a=QUIET), run(b=QUIET))


def test_other_settings_end_a_run_before_it_measures() -> None:
    options = argparse.Namespace(compare=run() | {"settings": {"width": 1.0, "quick": False}})
    comparing.refuse_others({"width": 1.0, "seed": 3, "quick": False}, options)
    with pytest.raises(SystemExit, match="--compare: the old results were measured with quick False, these with True"):
        comparing.refuse_others({"width": 1.0, "quick": True}, options)


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"machine": {"versions": {}}}', '{"machine": 3}'])
def test_compare_takes_only_results(content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "old.json"
    if content is not None:
        old.write_text(content)
    with pytest.raises(SystemExit):
        common.arguments("").parse_args(["--compare", str(old)])
    assert f"{old} must be the JSON of an earlier run" in capsys.readouterr().err


def test_written_results_are_read_with_their_noise(tmp_path: Path) -> None:
    path = common.write("name", {"seconds": result(1, 0.2, 0.7, 1.3)}, tmp_path)
    read = common.load("name", tmp_path)
    assert read["noise"]["too_noisy"] == ["seconds"]
    assert common.arguments("").parse_args(["--compare", str(path)]) == argparse.Namespace(quick=False, compare=read)
    assert json.loads(path.read_text()) == read


def test_instructions_that_matter_are_named() -> None:
    assert common.instructions(FLAGS) == ["avx2", "avx512", "vnni", "amx"]
    assert common.instructions("avx2 avx_vnni") == ["avx2", "vnni"]
    assert common.machine()["instructions"] == common.instructions(Path("/proc/cpuinfo").read_text())


def test_the_place_names_instructions_where_they_are_known() -> None:
    machine = {"cpu": "a CPU", "cores": 2, "python": "3.11", "versions": {"numpy": "2", "torch": None}, "date": "1999"}
    assert common.place({"machine": machine}) == "a CPU, 2 cores, Python 3.11, numpy 2; 1999"
    machine["instructions"] = ["avx2", "bf16"]
    assert common.place({"machine": machine}) == "a CPU with avx2, bf16, 2 cores, Python 3.11, numpy 2; 1999"


@pytest.mark.parametrize(("cores", "threads"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_threads_double_up_to_all(cores: int, threads: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "available_cores", lambda: cores)
    assert common.thread_counts() == threads


def test_a_child_that_is_killed_is_one_sentence() -> None:
    with pytest.raises(SystemExit, match=r"^_exit, in a process of its own, failed: [^\n]*terminated abruptly[^\n]*$"):
        common.in_child(os._exit, 1)


def test_a_failure_in_a_child_is_one_sentence(tmp_path: Path) -> None:
    missing = str(tmp_path / "no.btnet")
    with pytest.raises(SystemExit) as failure:
        common.in_child(loading.load, missing, [112], {}, str(tmp_path))
    assert re.fullmatch(rf"load, in a process of its own, failed: .*{re.escape(missing)}.*", str(failure.value))
