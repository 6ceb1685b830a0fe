"""Tables and figures of the benchmarks, from small results made by hand: are the right numbers in the right place?"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# At the end: a benchmark must not take the place of another module of its name.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import common
import figures
import publish
import report
from tables_speed import TABLES, for_pages

MACHINE = {"cpu": "a CPU", "cores": 2, "python": "3.11.7", "versions": {"numpy": "2.0"}, "date": "2026-11-30"}
SETTINGS = {"arch": "res18", "width": 0.5, "seed": 7, "quick": True}
PIXELS = ("taps", "horizontal", "vertical", "normalizing_vertical", "resize", "resize_normalize")


def figure(median: float) -> dict[str, float]:
    """The summary of five values that are 1 % apart at most."""
    return {"median": median, "spread": 0.01, "lowest": 0.99 * median, "highest": 1.01 * median}


def written(**results: Any) -> dict[str, Any]:
    found = {"machine": MACHINE, "settings": SETTINGS, **results}
    return {**found, "noise": common.noise(found)}


def flops_latency() -> dict[str, Any]:
    def branch(rate: float, saving: dict[str, Any]) -> dict[str, Any]:
        who = {"p50_ms": figure(3), "p95_ms": figure(4), "best": "16", "images_per_second": figure(rate)}
        other = {**who, "best": "batches of 8", "images_per_second": figure(rate + 1)}
        return {"saving": saving, "engine": who, "openvino": other, "latency_to_openvino": figure(1.25)}

    cost = {"gmacs": 6.0, "gmacs_by_stage": {"stem": 6.0}, "parameters": 43.5e6, "own_parameters": 43.5e6}
    saving = {"engine": figure(0.75), "openvino": figure(0.8), "of_openvino": figure(0.9375)}
    load = {"seconds": figure(2), "anonymous": figure(300), "resident": figure(400)}
    return written(
        settings=SETTINGS | {"device": "cpu", "int8": "calibrated with 8 faces"},
        costs={"112": cost, "28": cost | {"gmacs": 3.0, "own_parameters": 0.5e6}},
        precision={
            "f32": {
                "branches": {"112": branch(40, {}), "28": branch(60, {"single": saving, "many": saving})},
                "loading": {
                    "all": {"first": load | {"seconds": figure(8)}, "again": load, "again_to_first": figure(0.25)}
                },
            }
        },
        absent={"bf16": "there is none"},
    )


def costs() -> dict[str, Any]:
    def cost(own: float, *stages: float) -> dict[str, Any]:
        by_stage = dict(zip(("stem", "FC"), stages, strict=True))
        return {"gmacs": sum(stages), "gmacs_by_stage": by_stage, "parameters": 8e6, "own_parameters": own}

    return written(costs={"112": cost(8e6, 3.0, 1.0), "28": cost(2e6, 2.0, 1.0)})


def mixed() -> dict[str, Any]:
    of = {"btnet": figure(90), "at_112": figure(30), "times_faster": figure(3)}
    branches = {"all small": {"7": 12, "112": 4}}
    return written(branches=branches, precision={"f32": {"all small": {"1": of, "16": of | {"btnet": figure(99)}}}})


def mixed_batch() -> dict[str, Any]:
    openvino = {
        "7": {"best": "batches of 8, streams: 2", "images_per_second": figure(150)},
        "112": {"best": "batches of 1, streams: 2", "images_per_second": figure(40)},
    }
    of = {"ratio": figure(1.02), "engine_seconds": figure(5.1), "ideal_seconds": figure(5), "openvino": openvino}
    return written(precision={"f32": of})


def memory_use() -> dict[str, Any]:
    def of(anonymous: float) -> dict[str, Any]:
        return {"anonymous": figure(anonymous), "resident": figure(anonymous + 50), "seconds": figure(anonymous / 100)}

    engine = {"first": of(820), "again": of(410), "again_to_first": figure(0.5)}
    openvino = {"first": of(2200), "again": of(1100), "again_to_first": figure(0.5)}
    stream = {
        "arch": "res18",
        "width": 0.125,
        "images": 2000,
        "every": 500,
        "resident": [1.0, 2.0, 203.0, 205.0, 204.0],
        "growth_after_1000": 2.0,
    }
    return written(precision={"f32": {"engine": engine, "openvino": openvino}}, stream=stream)


def peers() -> dict[str, Any]:
    peer = {"images_per_second": figure(50), "times_faster": figure(1)}
    engine = {"images_per_second": figure(70), "times_faster": figure(1.4)}
    mix = {
        "peers": {"opencv + onnxruntime, f32": peer, "engine, f32": engine},
        "allowed": {"f32": {"times_faster": figure(1.5), "reached": figure(0.933)}},
        "cosine": {"engine, f32": {"lowest": 0.99999, "reference": "allowed, f32"}},
    }
    return written(
        settings=SETTINGS | {"base": "opencv + onnxruntime, f32", "crops": 32},
        ways={"engine, f32": "all at once", "allowed, f32": {"112": "some way"}},
        mixes={"all small": mix},
        absent={"pillow + torch, f32": "no torch"},
    )


def scaling() -> dict[str, Any]:
    way = {
        "microseconds_an_image": {"1": figure(400), "1000": figure(200)},
        "exponent": figure(1.004),
        "peak_megabytes": {"1": 0.0, "1000": 30.0},
    }
    thread = {"images_per_second": figure(900), "speed_up": figure(1.9), "anonymous_megabytes": 77.0}
    side = {"branch": 14, "microseconds_an_image": figure(321), "peak_megabytes": 12.0}
    return written(numbers={"embed": way}, threads={"2": thread}, sides={"9": side})


def resample() -> dict[str, Any]:
    times = {"pillow": 1000, "torch": 200, "torch_float": 300, "opencv_not_antialiased": 90, "avx2": 100}
    of = {
        "microseconds": {name: figure(time) for name, time in times.items()},
        "ratios": {"avx2_to_torch": figure(0.5), "avx2_normalized_to_plain_resize": figure(1.04)},
        "output_pixels": 10_000,
        "bytes": {"least": 200_000, "moved": {"avx2": 500_000}},
    }
    thread = {"images_per_second": figure(19_000), "speed_up": figure(1.9)}
    return written(
        resize={"250 -> 100": of},
        threads={"250 -> 100": {"btnet": {"2": thread}, "opencv_not_antialiased": {"2": thread}}},
        stages={"avx2": {"250 -> 100": {name: figure(place + 0.5) for place, name in enumerate(PIXELS)}}},
    )


def accuracy() -> dict[str, Any]:
    def of(lowest: float, mean: float) -> dict[str, Any]:
        return {"7": {"lowest": lowest, "mean": mean}, "112": {"lowest": lowest, "mean": mean}}

    cosine = {"f32": of(0.999999999999, 1.0), "int8": of(0.97, 0.98)}
    crops = {"number": 425, "shortest_side": 31, "longest_side": 1654}
    return written(crops=crops, cosine=cosine, median_cosine_of_two_crops={"7": 0.25, "112": 0.125})


def flame_graph() -> dict[str, Any]:
    thread, call, kernel = ("C library and Linux", "clone3"), ("OpenVINO", "run"), ("generated kernels", "a kernel")
    stacks = [([kernel], 0.5), ([thread, call, kernel], 0.25), ([thread, call], 0.15), ([thread], 0.1)]
    shares = {"generated kernels": 0.75, "OpenVINO": 0.15, "C library and Linux": 0.1}
    of = {"samples": 4000, "shares": shares, "stacks": [{"frames": s, "share": share} for s, share in stacks]}
    return written(precision={"f32": of, "int8": of | {"shares": {"generated kernels": 1.0}}})


def evaluation() -> dict[str, Any]:
    work = {"seconds": figure(60), "megabytes": figure(1500)}
    return written(
        settings={"model": "res50", "images": 2473, "resolutions": [112, 7]},
        embed={"first": figure(80), "again": figure(2)},
        compare={"rows": 100_000, "matrix_megabytes": 38147.0, "scores": work, "search": work},
    )


def training_input() -> dict[str, Any]:
    return written(
        settings=SETTINGS | {"precision": "f32", "batch": 64},
        images_per_second={"new": figure(50), "constant": figure(51)},
        time_ratio=figure(1.02),
    )


MADE: dict[str, Callable[[], dict[str, Any]]] = {
    make.__name__: make
    for make in (
        accuracy,
        costs,
        evaluation,
        flame_graph,
        flops_latency,
        memory_use,
        mixed,
        mixed_batch,
        peers,
        resample,
        scaling,
        training_input,
    )
}
LINES = {
    "accuracy": [
        "425 crops, sides of 31 to 1654 px. "
        "res18, width 0.5. a CPU, 2 cores, Python 3.11.7, numpy 2.0; 2026-11-30; seed of the images 7",
        "| branch | f32, lowest | int8, lowest | int8, mean | two different crops, median |",
        "| 112 | 0.999999999999 | 0.970000 | 0.980000 | 0.125 |",
    ],
    "stage_macs": [
        "GMACs an image of res18, width 0.5:",
        "| branch | stem | FC | all | work, of the trunk's | pixels, of the trunk's |",
        "| 28 | 2.000 (67%) | 1.000 (33%) | 3.000 | 75.0% | 6.2% |",
    ],
    "evaluation": [
        "2,473 faces at 112, 7 px through res50, with flip:",
        "| embedded | 80.0 ± 1.0% |",
        "100,000 embeddings with as many others, whose scores would take 38,147 MiB:",
        "| all scores | 60.0 ± 1.0% | 1500.0 ± 1.0% |",
    ],
    "flame_graph": [
        "| precision | samples | generated kernels | OpenVINO | C library and Linux |",
        "| f32 | 4,000 | 75.0% | 15.0% | 10.0% |",
        "| int8 | 4,000 | 100.0% | 0.0% | 0.0% |",
    ],
    "flops_latency": [
        "Not measured: bf16, since there is none.",
        "8-bit graphs: calibrated with 8 faces.",
        "| 28 | 3.000 | 43.50 | 0.50 |",
        "Trunk and branches together have 1.01 times the parameters of the trunk.",
        "| f32 | 28 | 3.00 ± 1.0% | 4.00 ± 1.0% | 60.0 ± 1.0% | 16 | 1.25 ± 1.0% | 61.0 ± 1.0% |",
        "| f32 | 28 | 8 crops and more | 0.75 ± 1.0% | 0.80 ± 1.0% | 0.94 ± 1.0% |",
        "| f32 | all | 8.00 ± 1.0% | 2.00 ± 1.0% | 0.25 ± 1.0% | 300 ± 1.0% | 300 ± 1.0% | 400 ± 1.0% | 400 ± 1.0% |",
    ],
    "memory_use": [
        "| f32 | engine | 8.20 ± 1.0% | 4.10 ± 1.0% | 0.50 ± 1.0% "
        "| 820 ± 1.0% | 410 ± 1.0% | 870 ± 1.0% | 460 ± 1.0% |",
        "A stream of 2,000 generated images through a res18 of width 0.125: 203 MiB resident after the first 1,000, "
        "at most 2 MiB more after that.",
    ],
    "mixed": ["| all small | 12 | 4 |", "| f32 | all small | 16 | 99.0 ± 1.0% | 30.0 ± 1.0% | 3.00 ± 1.0% |"],
    "mixed_batch": [
        "None of the 5 figures of this run is too noisy: all spreads are below 5%.",
        "| precision | engine / ideal | OpenVINO at 112, images/s | OpenVINO at 7, images/s |",
        "| f32 | 1.020 ± 1.0% | 40.0 ± 1.0% | 150.0 ± 1.0% |",
        "| f32 | 7 | batches of 8, streams: 2 |",
    ],
    "peers": [
        "Not measured: pillow + torch, f32, since no torch.",
        "| all small | engine, f32 | 70.0 ± 1.0% | 1.40 ± 1.0% | 0.999990 to allowed, f32 |",
        "| all small | f32 | 1.40 ± 1.0% | 1.50 ± 1.0% | 0.933 ± 1.0% |",
        "| engine, f32 | all at once |",
    ],
    "resample": [
        "| 250 -> 100 | 1000.0 | 200.0 | 90.0 | 100.0 |",
        "| 250 -> 100 | 0.50 | 1.04 |",
        "| avx2 | 250 -> 100 | 0.5 ± 1.0% | 1.5 ± 1.0% | 2.5 ± 1.0% | 3.5 ± 1.0% | 4.5 ± 1.0% | 5.5 ± 1.0% |",
        # 100 us for 10,000 pixels are 10 ns for each; 200,000 bytes in 100 us are 2 GB/s.
        "| 250 -> 100 | avx2 | 500,000 | 200,000 | 2.50 | 10.00 | 2.00 |",
        "| 250 -> 100 | opencv not antialiased | 2 | 19000 ± 1.0% | 1.90 ± 1.0% |",
    ],
    "scaling": [
        "Exponent of time over number, from 100 images on: 1.004 ± 1.0% with `embed`.",
        "| 1,000 | 200.0 ± 1.0% | 30 |",
        "| 2 | 900.0 ± 1.0% | 1.90 ± 1.0% | 77 |",
        "| 9 | 14 | 321.0 ± 1.0% | 12 |",
    ],
    "training_input": ["| f32 | 64 | 50.0 ± 1.0% | 51.0 ± 1.0% | 1.020 ± 1.0% |"],
}
"""Lines that each table must have, worked out by hand."""


def test_every_table_and_figure_is_looked_at() -> None:
    assert MADE.keys() == TABLES.keys() == figures.FIGURES.keys() | {"accuracy", "evaluation", "training_input"}
    assert LINES.keys() == {name for tables in TABLES.values() for name in tables}


@pytest.mark.parametrize(("name", "table"), [(name, table) for name in TABLES for table in TABLES[name]])
def test_tables_have_the_numbers(name: str, table: str) -> None:
    text = TABLES[name][table](MADE[name]())
    assert set(LINES[table]) <= set(text.splitlines())
    # All rows of a table are as long as its header, or Markdown drops what is too much.
    for part in text.split("\n\n"):
        assert len({line.count(" | ") for line in part.splitlines() if line.startswith("|")}) <= 1


def test_tables_have_names_of_their_own() -> None:
    assert len(for_pages(TABLES)) == sum(map(len, TABLES.values()))


def lines_of(name: str) -> dict[str, tuple[list[float], list[float]]]:
    """Places and values of each curve of a figure, by its label."""
    axes: Any  # in matplotlib's annotations, no container has lines
    (axes,) = figures.FIGURES[name](MADE[name]()).axes
    return {
        str(container.get_label()): (list(container.lines[0].get_xdata()), list(container.lines[0].get_ydata()))
        for container in axes.containers
    } | {str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def bars_of(name: str) -> dict[str, list[float]]:
    """Lengths of the bars of each series of a figure, by its label."""
    (axes,) = figures.FIGURES[name](MADE[name]()).axes
    return {str(bars.get_label()): [bar.get_width() for bar in bars] for bars in axes.containers}


def test_the_figure_of_savings() -> None:
    curves = lines_of("flops_latency")
    assert curves["multiply-accumulates"] == ([28, 112], [2, 1])
    assert curves["engine, f32"] == ([28, 112], [1.5, 1])
    assert curves["OpenVINO, f32"] == ([28, 112], [61 / 41, 1])


def test_figures_of_curves() -> None:
    assert lines_of("mixed")["all small"] == ([1, 16], [3, 3])
    assert lines_of("scaling")["embed"] == ([1, 1000], [400, 200])


def test_figures_of_bars() -> None:
    assert bars_of("memory_use") == {"engine": [410], "OpenVINO's own API": [1100]}
    assert bars_of("mixed_batch") == {"engine": [5.1], "ideal, from OpenVINO's own rates": [5]}
    assert bars_of("peers") == {"all small": [50, 70]}
    # Nanoseconds a pixel: 100 us for 10,000 pixels are 10.
    assert bars_of("resample") == {
        "pillow": [100], "torch": [20], "torch_float": [30], "opencv_not_antialiased": [9], "avx2": [10]
    }  # fmt: skip


def test_the_figure_of_costs_has_a_stage_behind_the_one_before_it() -> None:
    (axes,) = figures.FIGURES["costs"](costs()).axes
    found = {str(bars.get_label()): [(bar.get_x(), bar.get_width()) for bar in bars] for bars in axes.containers}
    assert found == {"stem": [(0, 3), (0, 2)], "FC": [(3, 1), (2, 1)]}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["112 px", "28 px"]


def test_a_flame_graph_has_callees_above_their_callers_and_within_them() -> None:
    (axes,) = figures.FIGURES["flame_graph"](flame_graph()).axes
    bars = [bar for container in axes.containers for bar in container if bar.get_width()]
    found = [(round(bar.get_y() + 0.5), round(bar.get_x(), 9), round(bar.get_width(), 9)) for bar in bars]
    assert sorted(found) == [(0, 0, 0.5), (0, 0.5, 0.5), (1, 0.5, 0.4), (2, 0.5, 0.25)]
    assert len({bar.get_facecolor() for bar in bars}) == 3


def test_what_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    given = {key: value for key, value in mixed_batch().items() if key not in ("machine", "noise")}
    slower = given | {"precision": {"f32": given["precision"]["f32"] | {"engine_seconds": figure(4)}}}
    old = {"machine": MACHINE, **slower}
    publish.publish("mixed_batch", given, argparse.Namespace(quick=True, compare=old))
    folder = tmp_path / "quick"
    assert {path.name for path in folder.iterdir()} == {"mixed_batch.json", "mixed_batch.png", "mixed_batch.svg"}
    assert common.load("mixed_batch", folder)["precision"] == given["precision"]
    text = capsys.readouterr().out
    assert "| f32 | 1.020 ± 1.0% | 40.0 ± 1.0% | 150.0 ± 1.0% |" in text
    assert "| precision / f32 / engine_seconds | 4 | 5.1 | +27.5% |" in text
    assert "Changed beyond noise since 2026-11-30: 1 of 5 figures." in text


def test_what_cannot_be_compared_is_one_sentence_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    given = {key: value for key, value in mixed_batch().items() if key not in ("machine", "noise")}
    old = {"machine": MACHINE, "settings": SETTINGS, "other": figure(1)}
    with pytest.raises(SystemExit, match=r"^--compare: the old results have no figure in common"):
        publish.publish("mixed_batch", given, argparse.Namespace(quick=True, compare=old))


def test_a_page_gets_its_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- one -->\nold\n<!-- end -->\nafter\n")
    assert report.fill(page, {"one": lambda: "new"}) == "before\n<!-- one -->\nnew\n<!-- end -->\nafter\n"
    with pytest.raises(ValueError, match="has no place for the table two"):
        report.fill(page, {"two": lambda: "new"})
