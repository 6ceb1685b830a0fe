"""A figure for each benchmark, from its JSON: PNG and SVG, readable in grey."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matplotlib.figure import Figure

from btnet_eval.plots import resolution_plot, save, styled

Results: TypeAlias = Mapping[str, Any]

_FILLS: tuple[dict[str, Any], ...] = (
    {"color": "#1b3a57"},
    {"color": "#bfd9ec"},
    {"color": "#ffffff", "hatch": "////"},
    {"color": "#8a8a8a"},
    {"color": "#d9d9d9", "hatch": "...."},
    {"color": "#4f7fa8", "hatch": "xxxx"},
    {"color": "#ffffff"},
)
"""Of the bars of a group: they differ in lightness and hatch."""
_LETTERS = 150
"""How many letters of a label fit into the width of a flame graph."""


def bars(groups: Mapping[str, Mapping[str, float]], value: str, *, logarithmic: bool = False) -> Figure:
    """Horizontal bars with their values: a group for each name, the same series in all. value: the name of the axis."""
    series = list(next(iter(groups.values())))
    height = 0.8 / len(series)
    with styled():
        figure = Figure(figsize=(6.4, 0.8 + 0.24 * len(groups) * (len(series) + 0.6)), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(visible=False, axis="y")
        for number, name in enumerate(series):
            places = np.arange(len(groups)) + (number - (len(series) - 1) / 2) * height
            of_series = [group[name] for group in groups.values()]
            fill = _FILLS[number % len(_FILLS)]
            drawn = axes.barh(places, of_series, height, label=name, edgecolor="black", linewidth=0.5, **fill)
            axes.bar_label(drawn, fmt=_label, padding=2, fontsize=7)
        axes.set_yticks(range(len(groups)), list(groups))
        axes.invert_yaxis()
        axes.margins(x=0.1)
        axes.set(xlabel=value, xscale="log" if logarithmic else "linear")
        axes.xaxis.set_major_formatter(lambda number, _: _label(number))
        if len(series) > 1:
            figure.legend(loc="outside upper center", ncols=min(len(series), 3))
    return figure


def _label(number: float) -> str:
    return f"{number:.3g}" if number < 1000 else f"{number:,.0f}"


def costs(results: Results) -> Figure:
    """Multiply-accumulates of each branch, stage after stage."""
    branches = results["costs"]
    with styled():
        figure = Figure(figsize=(6.4, 0.8 + 0.35 * len(branches)), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(visible=False, axis="y")
        names = [f"{resolution} px" for resolution in branches]
        left = np.zeros(len(branches))
        for number, stage in enumerate(next(iter(branches.values()))["gmacs_by_stage"]):
            widths = np.array([of["gmacs_by_stage"][stage] for of in branches.values()])
            fill = _FILLS[number % len(_FILLS)]
            axes.barh(names, widths, 0.7, left, label=stage, edgecolor="black", linewidth=0.5, **fill)
            left += widths
        axes.invert_yaxis()
        axes.set(xlabel="GMACs an image")
        figure.legend(loc="outside upper center", ncols=3)
    return figure


def flops_latency(results: Results) -> Figure:
    """How many times faster than at 112 each branch is, beside what its multiply-accumulates promise."""
    costs = {int(resolution): cost["gmacs"] for resolution, cost in results["costs"].items()}
    sides = sorted(costs)
    canonical = max(sides)
    curves: dict[str, Any] = {"multiply-accumulates": (sides, [costs[canonical] / costs[side] for side in sides], None)}
    for precision, of in results["precision"].items():
        for who, label in (("engine", "engine"), ("openvino", "OpenVINO")):
            rates = {side: of["branches"][str(side)].get(who) for side in sides}
            if None in rates.values():
                continue
            speeds = [rates[side]["images_per_second"]["median"] for side in sides]
            curves[f"{label}, {precision}"] = (sides, [speed / speeds[-1] for speed in speeds], None)
    return resolution_plot(curves, value="times as fast as at 112")


def mixed(results: Results) -> Figure:
    """How many times faster than an engine without branches, over how many crops come at once."""
    precision, of = next(iter(results["precision"].items()))
    curves = {}
    for mix, batches in of.items():
        faster = [batches[batch]["times_faster"] for batch in batches]
        medians = [value["median"] for value in faster]
        curves[mix] = (
            [int(batch) for batch in batches],
            medians,
            [median * value["spread"] for median, value in zip(medians, faster, strict=True)],
        )
    return resolution_plot(
        curves, value=f"times as fast as everything at 112 ({precision})", resolution="crops given at once"
    )


def mixed_batch(results: Results) -> Figure:
    """Seconds of a mixed batch through the engine, beside the ideal."""
    groups = {}
    for precision, of in results["precision"].items():
        seconds = {"engine": of["engine_seconds"], "ideal, from OpenVINO's own rates": of["ideal_seconds"]}
        groups[precision] = {name: value["median"] for name, value in seconds.items()}
    return bars(groups, "seconds of a mixed batch")


def memory_use(results: Results) -> Figure:
    """Anonymous memory of the engine and of OpenVINO's own API, both from their cache."""
    groups = {}
    for precision, of in results["precision"].items():
        kinds = {"engine": of["engine"], "OpenVINO's own API": of["openvino"]}
        groups[precision] = {name: twice["again"]["anonymous"]["median"] for name, twice in kinds.items()}
    return bars(groups, "anonymous memory, MiB")


def peers(results: Results) -> Figure:
    """Images/s of every candidate on every mix."""
    mixes = results["mixes"]
    names = next(iter(mixes.values()))["peers"]
    groups = {
        name: {mix: of["peers"][name]["images_per_second"]["median"] for mix, of in mixes.items()} for name in names
    }
    return bars(groups, "images/s")


def scaling(results: Results) -> Figure:
    """Microseconds an image over the number of images: level where time is proportional."""
    curves = {}
    for way, of in results["numbers"].items():
        times = of["microseconds_an_image"]
        medians = [time["median"] for time in times.values()]
        around = [median * time["spread"] for median, time in zip(medians, times.values(), strict=True)]
        curves[way] = ([int(number) for number in times], medians, around)
    return resolution_plot(curves, value="microseconds an image", resolution="images")


def resample(results: Results) -> Figure:
    """Nanoseconds for an output pixel of every candidate, for each pair of sides."""
    groups = {}
    for sides, of in results["resize"].items():
        groups[sides] = {
            name: 1e3 * value["median"] / of["output_pixels"]
            for name, value in of["microseconds"].items()
            if not name.endswith("_normalized")
        }
    return bars(groups, "nanoseconds an output pixel, one thread", logarithmic=True)


def flame_graph(results: Results) -> Figure:
    """Who called whom, from below: each bar is as wide as its share of the samples, of the first precision measured."""
    precision, of = next(iter(results["precision"].items()))
    fills = {part: _FILLS[number % len(_FILLS)] for number, part in enumerate(of["shares"])}
    bars = list(_frames([([tuple(frame) for frame in stack["frames"]], stack["share"]) for stack in of["stacks"]]))
    depth = 1 + max(level for level, *_ in bars)
    with styled():
        figure = Figure(figsize=(7.2, 1.2 + 0.2 * depth), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(visible=False)
        for level, left, width, part, name in bars:
            axes.barh(level, width, 1, left, edgecolor="black", linewidth=0.3, **fills.get(part, _FILLS[-1]))
            letters = int(width * _LETTERS)
            if letters > 2:
                short = name if len(name) <= letters else f"{name[: letters - 1]}…"
                box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
                axes.text(left + width / 2, level, short, ha="center", va="center", fontsize=5, bbox=box)
        handles = [
            axes.barh(0, 0, label=part, edgecolor="black", linewidth=0.5, **fill) for part, fill in fills.items()
        ]
        axes.set(xlabel=f"part of the samples ({precision})", xlim=(0, 1), ylim=(-0.5, depth - 0.5), yticks=[])
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def _frames(
    stacks: Sequence[tuple[list[tuple[str, str]], float]], level: int = 0, left: float = 0.0
) -> Iterator[tuple[int, float, float, str, str]]:
    """Yield level, left end, width, part and name of the bars of stacks with their shares, the widest on the left."""
    callees: dict[tuple[str, str], list[tuple[list[tuple[str, str]], float]]] = {}
    for frames, share in stacks:
        if frames:
            callees.setdefault(frames[0], []).append((frames[1:], share))
    widths = {frame: sum(share for _, share in of) for frame, of in callees.items()}
    for frame in sorted(widths, key=lambda frame: -widths[frame]):
        yield level, left, widths[frame], *frame
        yield from _frames(callees[frame], level + 1, left)
        left += widths[frame]


FIGURES: dict[str, Callable[[Results], Figure]] = {
    "costs": costs,
    "flame_graph": flame_graph,
    "flops_latency": flops_latency,
    "mixed": mixed,
    "mixed_batch": mixed_batch,
    "memory_use": memory_use,
    "peers": peers,
    "scaling": scaling,
    "resample": resample,
}


def write(name: str, results: Results, folder: Path) -> tuple[Path, Path]:
    """Write NAME.png and NAME.svg into the folder, from the results of a benchmark, and return both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return save(FIGURES[name](results), folder / name)
