"""What the benchmarks reckon with: mixes of sizes, exponents, noise, comparisons, costs on paper. Nothing is timed."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# At the end: a benchmark must not take the place of another module of its name.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import common
import costs
import mixes
import peers
import scaling
from flops_latency import savings
from tables_speed import TABLES, for_pages

BOUNDS = {"surveillance": (6, 60), "photo album": (20, 600), "all small": (5, 14), "all large": (112, 300)}


def result(median: float, spread: float) -> dict[str, float]:
    return {"median": median, "spread": spread}


def run(**figures: Any) -> dict[str, Any]:
    """Results of a benchmark that measured these."""
    machine = {"cpu": "a CPU", "cores": 2, "python": "3.11.7", "versions": {}, "date": "2026-11-30"}
    return {"machine": machine, "settings": {"width": 1.0}, **figures}


@pytest.mark.parametrize("name", mixes.MIXES)
def test_sides_of_a_mix_are_within_its_bounds_and_the_same_for_a_seed(name: str) -> None:
    crops = mixes.crops(name, 200, seed=3)
    low, high = BOUNDS[name]
    for crop in crops:
        height, width, channels = crop.shape
        assert low <= width <= height <= high, crop.shape
        assert (channels, crop.dtype) == (3, np.uint8)
    again = mixes.crops(name, 200, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(crops, again, strict=True))
    assert [crop.shape for crop in mixes.crops(name, 200, seed=4)] != [crop.shape for crop in crops]


@pytest.mark.parametrize(("name", "median"), [("surveillance", 20), ("photo album", 110)])
def test_log_normal_mixes_have_their_median(name: str, median: float) -> None:
    sides = mixes.MIXES[name].sides(20_000, np.random.default_rng(0))
    assert np.median(sides) == pytest.approx(median, rel=0.02)


def test_surveillance_has_its_deviation() -> None:
    sides = mixes.MIXES["surveillance"].sides(20_000, np.random.default_rng(0))
    low, high = np.quantile(sides, (0.25, 0.75))
    assert np.log(high / low) == pytest.approx(2 * 0.6745 * 0.4, rel=0.1)  # quartiles of a Gaussian


def test_uniform_mixes_reach_all_sides() -> None:
    assert set(mixes.MIXES["all small"].sides(5000, np.random.default_rng(0))) == set(range(5, 15))


@pytest.mark.parametrize(
    ("side", "branch"), [(5, 7), (7, 7), (8, 14), (14, 14), (15, 28), (28, 28), (29, 112), (112, 112), (300, 112)]
)
def test_branch_of_the_longer_side(side: int, branch: int) -> None:
    crop = np.zeros((side, max(1, side // 2), 3), np.uint8)
    assert mixes.branch(crop, (7, 14, 28, 112)) == branch


def test_branches_are_counted() -> None:
    crops = [np.zeros((side, side, 3), np.uint8) for side in (5, 6, 20, 200)]
    assert mixes.branches(crops, (7, 14, 28, 112)) == {7: 2, 28: 1, 112: 1}


@pytest.mark.parametrize("power", [0.5, 1.0, 1.7])
def test_exponent_of_a_power_law(power: float) -> None:
    numbers = (100, 1000, 3000, 100_000)
    assert scaling.exponent(numbers, [0.002 * number**power for number in numbers]) == pytest.approx(power)


def test_summary_is_the_median_and_half_the_middle_half() -> None:
    assert common.summary([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == result(4.0, 0.5)  # quartiles 2 and 6


def test_ratios_are_taken_round_by_round() -> None:
    # The second round was three times as slow for both: their ratio does not show it.
    assert common.ratios([2.0, 6.0, 2.0], [1.0, 3.0, 1.0]) == result(2.0, 0.0)


def test_noise_names_what_is_too_noisy_the_worst_first() -> None:
    results = run(
        f32={"quiet": result(1, 0.01), "loud": result(2, 0.06), "no figure": {"median": 3}}, worst=result(1, 0.3)
    )
    noise = common.noise(results)
    assert noise == {"limit": 0.05, "figures": 3, "too_noisy": ["worst", "f32 / loud"]}
    note = common.noise_note(results | {"noise": noise})
    assert "2 of the 3 figures" in note
    assert "worst, with 30%" in note


def test_a_quiet_run_says_so() -> None:
    results = run(seconds=result(1, 0.01))
    assert "None of the 1 figures" in common.noise_note(results | {"noise": common.noise(results)})


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        (result(100, 0.02), result(103, 0.02), False),  # 98..102 and 100.94..105.06 meet
        (result(100, 0.02), result(106, 0.02), True),
        (result(100, 0.02), result(94, 0.02), True),
        (result(100, 0.1), result(94, 0.02), False),
        (result(100, 0.0), result(100, 0.0), False),
    ],
)
def test_a_change_beyond_noise(old: dict[str, float], new: dict[str, float], changed: bool) -> None:
    found = common.changes(run(f32={"rate": old}), run(f32={"rate": new}))
    assert found == ({"f32 / rate": (old["median"], new["median"])} if changed else {})


def test_comparison_says_what_changed_by_how_much_and_what_else_is_different() -> None:
    old = run(rate=result(100, 0.01), same=result(1, 0.01), gone=result(1, 0))
    new = run(rate=result(120, 0.01), same=result(1, 0.01))
    new["machine"] = new["machine"] | {"cores": 8}
    text = common.comparison(old, new)
    assert "since 2026-11-30: 1 of 2 figures" in text
    assert "| rate | 100 | 120 | +20.0% |" in text
    assert "cores was 2 then, and is 8 now" in text
    assert "1 figures are in one of the two only" in text


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match=r"measured with width 0\.5, these with 1\.0"):
        common.comparison(run(a=result(1, 0)) | {"settings": {"width": 0.5}}, run(a=result(1, 0)))
    with pytest.raises(ValueError, match="no figure in common"):
        common.comparison(run(a=result(1, 0)), run(b=result(1, 0)))


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_compare_takes_only_results(content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "old.json"
    if content is not None:
        old.write_text(content)
    with pytest.raises(SystemExit):
        common.arguments("").parse_args(["--compare", str(old)])
    assert f"{old} must be the JSON of an earlier run" in capsys.readouterr().err


def test_written_results_are_read_with_their_noise(tmp_path: Path) -> None:
    path = common.write("name", {"seconds": result(1, 0.2)}, tmp_path)
    read = common.load("name", tmp_path)
    assert read["noise"]["too_noisy"] == ["seconds"]
    assert common.arguments("").parse_args(["--compare", str(path)]) == argparse.Namespace(quick=False, compare=read)
    assert json.loads(path.read_text()) == read


@pytest.mark.parametrize(("resolution", "gmacs"), [(112, 6.309), (28, 5.236), (14, 4.276), (7, 1.517)])
def test_costs_of_the_paper(resolution: int, gmacs: float) -> None:
    of_branch = costs.costs("res50", 1.0, 512, (resolution,))[str(resolution)]
    assert of_branch["gmacs"] == pytest.approx(gmacs, abs=5e-4)
    assert sum(of_branch["gmacs_by_stage"].values()) == pytest.approx(of_branch["gmacs"])
    # Each of the 13 units after the first has two 3 x 3 convolutions of 256 channels on maps of 14 x 14 (7 x 7 at 7).
    side = min(resolution, 14)
    assert of_branch["gmacs_by_stage"]["stage 3"] >= 13 * 2 * 9 * 256**2 * side**2 / 1e9


def test_realised_saving_by_hand() -> None:
    times = {"engine": {112: [4.0, 4.0, 4.0], 14: [3.0, 3.0, 3.0]}, "openvino": {112: [4.0, 4.0, 4.0], 14: [2.0] * 3}}
    saved = savings(times, {112: 6.0, 14: 3.0})
    assert saved.keys() == {14}
    assert saved[14]["engine"]["median"] == pytest.approx(2 / 3)  # 4 / 3 as fast, and 2 was promised
    assert saved[14]["openvino"]["median"] == pytest.approx(1)
    assert saved[14]["of_openvino"]["median"] == pytest.approx(2 / 3)


def test_peers_have_references_among_them() -> None:
    found = peers.peers(["f32", "bf16"])
    assert len(set(found)) == len(found) == 11
    assert {peer.reference for peer in found if peer.runner != "allowed"} <= set(found)


def test_peer_results_by_hand() -> None:
    base, engine, allowed = (
        peers.Peer("opencv", "onnxruntime", "f32"),
        peers.Peer("", "engine", "f32"),
        peers.Peer("", "allowed", "f32"),
    )
    results = peers.results_of({base: [8.0] * 3, engine: [4.0] * 3, allowed: [2.0] * 3}, base, 16)
    assert results["peers"]["engine, f32"] == {"images_per_second": result(4, 0), "times_faster": result(2, 0)}
    assert results["allowed"]["f32"] == {"times_faster": result(4, 0), "reached": result(0.5, 0)}


def test_tables_have_names_of_their_own() -> None:
    assert len(for_pages(TABLES)) == sum(map(len, TABLES.values()))
