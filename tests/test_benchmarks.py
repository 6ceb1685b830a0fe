"""What the benchmarks reckon with: sizes of crops, bundles, exponents, costs on paper. Nothing is timed."""

import argparse
import importlib
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from btnet_ext import Bundle
from btnet_ext._native import core
from btnet_ext.errors import BackendUnavailable, InvalidOption

# At the end: a benchmark must not take the place of another module of its name.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import bundles
import common
import costs
import loading
import mixes
import openvino_runs
import scaling
from flops_latency import QUICK, Plan, all_loads, savings
from resample_stages import ISAS, stages

BOUNDS = {"surveillance": (6, 60), "photo album": (20, 600), "all small": (5, 14), "all large": (112, 300)}


@pytest.mark.parametrize("name", mixes.MIXES)
def test_sides_of_a_mix_are_within_its_bounds_and_the_same_for_a_seed(name: str) -> None:
    crops = mixes.crops(name, 200, seed=3)
    low, high = BOUNDS[name]
    for crop in crops:
        height, width, channels = crop.shape
        assert low <= width <= height <= high, crop.shape
        assert (channels, crop.dtype) == (3, np.dtype(np.uint8))
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
    ("resolutions", "bounds"),
    [((7, 14, 28, 112), [(4, 7), (8, 14), (15, 28), (29, 200)]), ((56, 112), [(29, 56), (57, 200)])],
)
def test_crops_of_branches_have_the_sizes_that_go_there(
    resolutions: tuple[int, ...], bounds: list[tuple[int, int]]
) -> None:
    crops = mixes.of_branches(resolutions, 300)
    sides = [len(crop) for crop in crops]
    assert all(crop.shape == (side, side, 3) for crop, side in zip(crops, sides, strict=True))
    for low, high in bounds:
        of_branch = [side for side in sides if low <= side <= high]
        assert len(of_branch) == 300
        assert min(of_branch) < low + 0.1 * (high - low) + 1
        assert max(of_branch) > high - 0.1 * (high - low) - 1
    assert sides != sorted(sides)


def test_crops_of_branches_are_counted_as_the_engine_selects() -> None:
    engine: Any = SimpleNamespace(resolutions=(7, 28, 112), select=lambda crops: np.array([28, 7, 28], np.int32))
    assert mixes.counts(engine, mixes.squares(9, 3)) == {7: 1, 28: 2, 112: 0}


@pytest.mark.parametrize("power", [0.5, 1.0, 1.7])
def test_exponent_of_a_power_law(power: float) -> None:
    numbers = (100, 1000, 3000, 100_000)
    assert scaling.exponent(numbers, [0.002 * number**power for number in numbers]) == pytest.approx(power)


def test_ways_over_numbers_go_on_where_the_last_call_ended() -> None:
    given: list[list[int]] = []

    def embed_stream(crops: Iterable[int]) -> list[Any]:
        given.append(list(crops))
        return []

    engine: Any = SimpleNamespace(embed=given.append, embed_stream=embed_stream)
    for way in scaling.WAYS.values():
        crops = iter(range(5))
        way(engine, crops, 2)
        way(engine, crops, 2)
    assert given == [[0, 1], [2, 3]] * 2


def test_peak_of_memory_is_what_a_call_had_at_most() -> None:
    before = common.memory()["resident"]
    above = common.peak(lambda: np.ones(2**23)) - before  # 64 MiB, which are given back
    assert 60 < above < 80


@pytest.mark.parametrize(
    ("batch", "streams", "images"),
    [(1, 2, 32), (8, 2, 64), (32, 2, 256), (8, 1, 32), (32, 1, 128), (1, 6, 36), (4, 6, 96), (1, 64, 256)],
)
def test_a_way_keeps_all_streams_busy(batch: int, streams: int, images: int) -> None:
    # By hand: 4 batches for each stream, or 32 images if that is more, rounded up to as many for each stream.
    assert openvino_runs.images_of(batch, streams) == images


def test_the_fastest_way_is_by_image_not_by_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"few": 1.0, "many": 4.0, "slow": 9.0}
    monkeypatch.setattr(common, "interleave", lambda runs, rounds: {name: [seconds[name]] * rounds for name in runs})
    images = {"few": 10, "many": 80, "slow": 80}
    ways = [lambda name=name: openvino_runs.Way(name, images[name], print) for name in seconds]
    assert openvino_runs.fastest(ways).name == "many"


@pytest.mark.parametrize(("resolution", "gmacs"), [(112, 6.309), (28, 5.236), (14, 4.276), (7, 1.517)])
def test_costs_of_the_paper(resolution: int, gmacs: float) -> None:
    of_branch = costs.costs("res50", 1.0, 512, (resolution,))[str(resolution)]
    assert of_branch["gmacs"] == pytest.approx(gmacs, abs=5e-4)
    assert sum(of_branch["gmacs_by_stage"].values()) == pytest.approx(of_branch["gmacs"])
    # Each of the 13 units after the first has two 3 x 3 convolutions of 256 channels on maps of 14 x 14 (7 x 7 at 7).
    side = min(resolution, 14)
    assert of_branch["gmacs_by_stage"]["stage 3"] >= 13 * 2 * 9 * 256**2 * side**2 / 1e9


def test_costs_are_written_without_a_measurement(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: dict[str, Any] = {}
    monkeypatch.setattr(common, "write", lambda name, results: written.update({name: results}))
    monkeypatch.setattr(common, "load", written.__getitem__)
    monkeypatch.setattr(sys, "argv", ["costs.py", "--arch", "res18", "--width", "0.125"])
    costs.main()
    assert written["costs"]["settings"] == {"arch": "res18", "width": 0.125, "dim": 512}
    assert list(written["costs"]["costs"]) == ["112", "28", "14", "7"]
    assert "GMACs an image of res18, width 0.125:" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["costs.py", "--width", "0"])
    with pytest.raises(SystemExit):
        costs.main()
    assert "width must be a positive multiple of 1/64, got 0.0" in capsys.readouterr().err


def test_without_opencv_resample_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, "resample", raising=False)
    with pytest.raises(SystemExit, match=r"^btnet is compared with OpenCV, .*: pip install --group bench$"):
        importlib.import_module("resample")


def test_realised_saving_by_hand() -> None:
    times = {"engine": {112: [4.0, 4.0, 4.0], 14: [3.0, 3.0, 3.0]}, "openvino": {112: [4.0, 4.0, 4.0], 14: [2.0] * 3}}
    saved = savings(times, {112: 6.0, 14: 3.0})
    assert saved.keys() == {14}
    assert saved[14]["engine"]["median"] == pytest.approx(2 / 3)  # 4 / 3 as fast, and 2 was promised
    assert saved[14]["openvino"]["median"] == pytest.approx(1)
    assert saved[14]["of_openvino"]["median"] == pytest.approx(2 / 3)


def test_batches_begin_with_eight_crops() -> None:
    assert Plan(most=64).batches == [8, 16, 32, 64]
    assert QUICK.batches == [8, 16]


@pytest.mark.parametrize(
    ("alone", "loaded"), [(True, {"112": [112], "7": [7], "all": [7, 112]}), (False, {"all": [7, 112]})]
)
def test_branches_are_loaded_alone_only_where_the_plan_says_so(
    alone: bool, loaded: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(ways: dict[str, Any], times: int) -> Any:
        return {name: (way.func, way.args, times) for name, way in ways.items()}

    monkeypatch.setattr("flops_latency.twice", twice)
    bundle: Any = SimpleNamespace(path=Path("a.btnet"), resolutions=(7, 112))
    found = all_loads(bundle, {"device": "cuda"}, Plan(loads=3, alone=alone))
    assert found == {
        name: (loading.load, ("a.btnet", chosen, {"device": "cuda"}), 3) for name, chosen in loaded.items()
    }


def test_loads_take_turns_and_their_ratio_is_of_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ways, one of which takes ten times as long."""
    calls = []
    seconds = iter([4.0, 1.0, 40.0, 20.0, 8.0, 2.0, 80.0, 40.0])

    def child(way: str, cache: str) -> dict[str, float]:
        calls.append((way, cache))
        return {"seconds": next(seconds)}

    monkeypatch.setattr(common, "in_child", child)
    ways: dict[str, Any] = {"one": "first way", "two": "second way"}
    found = loading.twice(ways, times=2)
    for name, scale, ratio in (("one", 1, 0.25), ("two", 10, 0.5)):
        assert found[name]["first"]["seconds"]["lowest"] == 4 * scale
        assert found[name]["first"]["seconds"]["highest"] == 8 * scale
        assert found[name]["again_to_first"]["lowest"] == found[name]["again_to_first"]["highest"] == ratio
    assert [way for way, _ in calls] == ["first way", "first way", "second way", "second way"] * 2
    caches = [cache for _, cache in calls]
    assert caches[::2] == caches[1::2]
    assert len(set(caches)) == 4


def parsed(*words: str) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = common.arguments("")
    bundles.add_options(parser)
    bundles.add_precision(parser)
    return parser, parser.parse_args(words)


class _Written(Exception):
    """Ends `opened` where the bundle would be opened."""


@pytest.mark.parametrize(
    ("words", "arch", "width", "quantized"),
    [
        ((), "res50", 1.0, False),
        (("--quick",), "res18", 0.125, False),
        (("--quick", "--arch", "res34"), "res34", 0.125, False),
        (("--width", "0"), "res50", 0.0, False),  # refused by the command that writes the bundle
        (("--precision", "f32", "--precision", "bf16"), "res50", 1.0, False),
        (("--precision", "f32", "--precision", "int8"), "res50", 1.0, True),
    ],
)
def test_what_the_random_bundle_is(
    words: tuple[str, ...], arch: str, width: float, quantized: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Any] = []
    monkeypatch.setenv("BTNET_CACHE", "as before")
    monkeypatch.setattr(bundles, "write_random", lambda path, *network: done.append(network))
    monkeypatch.setattr(bundles, "quantize", lambda path, folder: done.append("quantized"))

    def open_bundle(path: Path) -> None:
        raise _Written

    monkeypatch.setattr(Bundle, "open", open_bundle)
    with pytest.raises(_Written), bundles.opened(*parsed(*words)):
        pass
    assert done == [(arch, width), *(["quantized"] if quantized else [])]


@pytest.mark.parametrize("words", [("--arch", "res18"), ("--width", "0")])
def test_a_given_bundle_says_what_it_is(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), bundles.opened(*parsed("--bundle", "a.btnet", *words)):
        pass
    assert "give neither --arch nor --width with it" in capsys.readouterr().err


def test_calibration_images_are_smooth_and_every_layer_may_hurt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], stdout: int) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(Bundle, "open", lambda path: SimpleNamespace(resolutions=(14, 112)))
    bundles.quantize(tmp_path / "a.btnet", tmp_path / "faces")
    (command,) = commands
    assert command[1:4] == ["-m", "btnet_ext.cli", "quantize"]
    assert {"--least-cosine=14=0.01", "--least-cosine=112=0.01"} <= set(command)
    images = sorted((tmp_path / "faces").iterdir())
    assert len(images) == 8
    for path in images:
        pixels = np.asarray(Image.open(path)).astype(float)
        assert pixels.shape == (112, 112, 3)
        # Neighbours of noise would differ by a third of the range.
        assert np.abs(np.diff(pixels, axis=1)).mean() < 256 / 20


def test_a_command_that_fails_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, stdout: SimpleNamespace(returncode=3))
    with pytest.raises(SystemExit) as end:
        bundles.write_random(tmp_path / "a.btnet", "res50", 0.0)
    assert end.value.code == 3


@pytest.fixture
def limited_engine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for a bundle and, in the place of Engine, one that runs f32 only."""

    def engine(path: Path, *, device: str, precision: str, resolutions: tuple[int, ...]) -> None:
        assert (path, resolutions) == (Path("a.btnet"), (7,))
        if precision == "f16":
            raise InvalidOption("precision must be another on the CPU, not 'f16'")
        if precision != "f32":
            raise BackendUnavailable(f"no {precision} here")

    monkeypatch.setattr(bundles, "Engine", engine)
    return SimpleNamespace(path=Path("a.btnet"), resolutions=(7, 112))


def test_what_is_not_available_is_told(limited_engine: Any) -> None:
    assert bundles.available(limited_engine) == (["f32"], {"bf16": "no bf16 here", "int8": "no int8 here"})
    there, absent = bundles.available(limited_engine, ["f32", "f16"])
    assert there == ["f32"]
    assert absent == {"f16": "precision must be another on the CPU, not 'f16'"}


def test_nothing_to_measure_is_one_sentence(limited_engine: Any) -> None:
    with pytest.raises(SystemExit, match=r"^nothing to measure on device 'cpu': precision must be another on the CPU"):
        bundles.available(limited_engine, ["f16"])
    with pytest.raises(SystemExit, match=r"^nothing to measure on device 'cuda': no f1 here; no int8 here$"):
        bundles.available(limited_engine, ["f1", "f1", "int8"], "cuda")


def test_settings_say_how_8_bit_graphs_were_made() -> None:
    bundle: Any = SimpleNamespace(arch="res18", width=0.5, dim=512, resolutions=(7, 112), metadata={})
    assert "int8" not in bundles.description(bundle, argparse.Namespace(quick=True, bundle=None))
    bundle.metadata = {"quantization": {"faces": 8}, "training": {"seed": 0}}
    settings = bundles.description(bundle, argparse.Namespace(quick=True, bundle=None))
    assert settings["int8"] == "calibrated with 8 smooth random images, to a cosine of 0.01 or more"
    assert settings["weights"] == {"seed": 0}
    assert settings["quick"] is True
    bundle.metadata["training"] = {"method": "BTNet"}
    settings = bundles.description(bundle, argparse.Namespace(quick=False, bundle=Path("mine.btnet")))
    assert settings["int8"] == "calibrated with 8 faces"


def test_networks_of_trained_weights_cannot_be_made_again() -> None:
    bundle: Any = SimpleNamespace(metadata={"training": {"checkpoints": {}}})
    with pytest.raises(SystemExit, match="only random weights can be made again"):
        bundles.networks(bundle, [112])


@pytest.mark.parametrize("simd", ISAS)
def test_stages_of_a_resize_are_measured_from_inside(simd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is compiled from the engine's sources, which must be where the benchmark looks for them."""
    monkeypatch.setenv("BTNET_SIMD", simd)
    try:
        core.simd()
    except InvalidOption as error:
        pytest.skip(str(error))
    found = stages(simd, [(20, 7), (7, 14)])
    assert list(found) == ["20 -> 7", "7 -> 14"]
    for of_sides in found.values():
        assert [*of_sides] == ["taps", "horizontal", "vertical", "normalizing_vertical", "resize", "resize_normalize"]
        assert all(time["lowest"] > 0 for time in of_sides.values())
