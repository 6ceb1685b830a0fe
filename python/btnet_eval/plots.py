"""Figures for papers and reports: data in, a matplotlib Figure out, `save` to write it as PNG and SVG.

Nothing here depends on colour: lines differ in style and marker, shades in lightness, so that a figure can be read when
it is printed in grey. The figures are matplotlib's own, with no pyplot and none of its state; settings of the user do
not change them. Nothing in a name is read as mathematics. matplotlib keeps settings for the process as a whole, and the
functions change those while they run: call them from one thread at a time.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from btnet_eval.base import Rows
from btnet_ext.whole_files import whole_file

_Floats: TypeAlias = NDArray[np.float64]

_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.color": "0.88",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "legend.edgecolor": "none",
    "legend.handlelength": 3.2,
    "lines.linewidth": 1.3,
    "lines.markersize": 5,
    "savefig.dpi": 200,
    "svg.hashsalt": "btnet",
    "text.parse_math": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}

# Okabe and Ito's colours, which also the colour-blind tell apart, without yellow, from dark to light and back. The
# three lists have no common divisor, so that what repeats in one differs in another.
_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.4, 1.2, 1.4)), (0, (9, 1.5, 3, 1.5)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_SAME, _DIFFERENT = "#BFD9EC", "#3B4A57"
_MOST_LABELS = len(_MARKERS)


def roc_plot(curves: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Figure:
    """TAR against FAR, on a logarithmic axis.

    curves: by name, (far, tar): each (n,) in 0..1 and ascending, as `roc` gives them. At a FAR, a curve shows the
    highest TAR that it reaches with at most that FAR: exact steps, no straight lines between them. Left of the lowest
    FAR that a curve reaches it shows its TAR with no impostor accepted. The axis ends at the lowest power of ten that
    no FAR is above. The markers stand at the powers of ten.

    Raises ValueError for no curve, and for arrays that are not so.
    """
    checked = {name: _check_rates(name, *curve) for name, curve in _not_empty("curves", curves).items()}
    lowest = min((far[far > 0].min() for far, _ in checked.values() if far.any()), default=0.1)
    highest = max(far[-1] for far, _ in checked.values()) or 1.0
    first = min(math.floor(np.log10(lowest)), -1)
    exponents = range(first, max(math.ceil(np.log10(highest)), first + 1) + 1)
    # Read from text, they are the very numbers that a FAR of, say, 3 in 3,000 is rounded to; a power may not be.
    decades = np.array([float(f"1e{exponent}") for exponent in exponents])
    with styled():
        figure, axes = _one_panel()
        for number, (name, (far, tar)) in enumerate(checked.items()):
            places = np.union1d(far[far > 0], decades)
            # Without a step at FAR 0, nothing is accepted there.
            reached = np.append(0.0, tar)[np.searchsorted(far, places, side="right")]
            marks = np.flatnonzero(np.isin(places, decades)).tolist()
            axes.plot(places, reached, drawstyle="steps-post", markevery=marks, clip_on=False, **_line(number, name))
        axes.set(xscale="log", xlim=(decades[0], decades[-1]), ylim=(0, 1))
        axes.set(xlabel="false accept rate (FAR)", ylabel="true accept rate (TAR)")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(decades, [f"1e{exponent}" if exponent else "1" for exponent in exponents])
        _legend(figure, axes)
    return figure


def resolution_plot(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike | None]],
    *,
    value: str,
    resolution: str = "resolution, pixels",
    highest: float | None = None,
    limit: float | None = None,
) -> Figure:
    """A value against the resolution, on a logarithmic axis: lines with a band.

    curves: by name, (resolutions, means, deviations), each (n,), resolutions positive and ascending; the band goes from
    mean - deviation to mean + deviation, and there is none for None. value and resolution: what the axes are called,
    with the unit; resolutions may be relative ones. highest: of all values that there can be, where the band ends.
    limit: a value that is marked by a dotted line across. The lines connect the points, and say nothing between them.

    Raises ValueError for no curve, and for arrays that are not so.
    """
    checked = {name: _check_series(name, *curve) for name, curve in _not_empty("curves", curves).items()}
    with styled():
        figure, axes = _one_panel()
        for number, (name, (places, means, deviations)) in enumerate(checked.items()):
            line = _line(number, name)
            axes.plot(places, means, markevery=1 if len(places) <= 12 else 0.08, **line)
            if deviations is not None:
                low, high = means - deviations, np.minimum(means + deviations, np.inf if highest is None else highest)
                axes.fill_between(places, low, high, color=line["color"], alpha=0.13, linewidth=0)
                # The edges tell in grey whose band it is.
                for edge in (low, high):
                    axes.plot(places, edge, color=line["color"], linestyle=line["linestyle"], linewidth=0.5)
        if limit is not None:
            axes.axhline(limit, color="black", linestyle=":", linewidth=1)
        axes.set(xscale="log", xlabel=resolution, ylabel=value)
        _resolution_ticks(axes, np.unique(np.concatenate([places for places, _, _ in checked.values()])))
        _legend(figure, axes)
    return figure


def distance_violins(distances: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Figure:
    """How cosine distances of same and of different pairs are distributed: half a violin each, side by side.

    distances: by resolution (a label such as "14" or "14&112"), those of same and those of different pairs, 1 - cosine
    similarity, one value at least. All halves are equally wide, however many pairs there are. The outlines are
    Gaussian kernel estimates with Scott's bandwidth, cut at the lowest and highest distance; the lines are medians.

    Raises ValueError for no resolution, no distance, and values that are not finite.
    """
    resolutions = list(_not_empty("distances", distances))
    kinds = [
        [_finite(f"{kind} distances at {r}", distances[r][side]) for r in resolutions]
        for side, kind in enumerate(("same", "different"))
    ]
    with styled():
        figure = Figure(figsize=(max(3.6, 1.4 + 0.75 * len(resolutions)), 3.4), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(visible=False, axis="x")
        places = np.arange(len(resolutions))
        _half_violins(axes, places, kinds[0], side="low", color=_SAME, hatch="////")
        _half_violins(axes, places, kinds[1], side="high", color=_DIFFERENT, hatch=None)
        axes.set_xticks(places, resolutions)
        axes.set(xlabel="resolution, pixels", ylabel="cosine distance", xlim=(-0.55, len(resolutions) - 0.45))
        handles = [
            Patch(facecolor=_SAME, edgecolor="black", linewidth=0.6, hatch="////", label="same person"),
            Patch(facecolor=_DIFFERENT, edgecolor="black", linewidth=0.6, label="different people"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def feature_maps(maps: Mapping[str, Mapping[str, NDArray[Any]]]) -> Figure:
    """Feature maps side by side: a row for each model, a column for each layer.

    maps: by model, by layer. A map is (h, w) of real numbers, for instance the mean over the channels, and goes from
    black at its own lowest value to white at its highest; (h, w, 3) uint8 is shown as the RGB image that it is, for
    instance the input. All are drawn equally large, a square for each value.

    Raises ValueError for no model or layer, for models with different layers, and for arrays that are not so.
    """
    first = next(iter(_not_empty("maps", maps).values()))
    layers = list(_not_empty("layers", first))
    for model, of_model in maps.items():
        if list(of_model) != layers:
            raise ValueError(f"all models must have the layers {layers}, but {model} has {list(of_model)}")
        for layer, values in of_model.items():
            _check_map(f"layer {layer} of {model}", values)
    with styled():
        figure = Figure(figsize=(0.5 + 1.25 * len(layers), 0.3 + 1.25 * len(maps)), layout="constrained")
        panels = figure.subplots(len(maps), len(layers), squeeze=False)
        for row, (model, of_model) in enumerate(maps.items()):
            for column, (layer, values) in enumerate(of_model.items()):
                axes = panels[row, column]
                axes.imshow(values, cmap="gray", interpolation="nearest", aspect=values.shape[1] / values.shape[0])
                axes.set(xticks=[], yticks=[])
                axes.grid(visible=False)
                axes.spines[:].set_visible(False)
                if row == 0:
                    axes.set_title(layer, fontsize=9)
                if column == 0:
                    axes.set_ylabel(model)
    return figure


def embedding_plot(embeddings: Rows, resolutions: ArrayLike, *, seed: int = 0) -> Figure:
    """Where embeddings of faces at several resolutions lie: PCA on the left, t-SNE on the right.

    embeddings: (n, D), n at least 5, used at length one. resolutions: (n,) integers, at most 8 different ones. PCA is
    exact, and its axes name their part of the variance. t-SNE (van der Maaten and Hinton, 2008) is scikit-learn's, with
    perplexity 30, or a third of n - 1 if that is less; its axes have no meaning. A thousand rows take it some seconds.

    Raises ValueError for arrays that are not so.
    """
    labels = np.asarray(resolutions)
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1] or len(embeddings) < 5:
        raise ValueError(
            f"embeddings must be (n, D) and resolutions (n,), n at least 5, not {embeddings.shape} and {labels.shape}"
        )
    kinds = np.unique(labels)
    if len(kinds) > _MOST_LABELS:
        raise ValueError(f"at most {_MOST_LABELS} resolutions can be told apart, not {len(kinds)}")
    rows = _finite("embeddings", embeddings, dimensions=2)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError(f"row {int(np.argmin(lengths))} of embeddings has length zero")
    rows = rows / lengths
    pca = PCA(2, svd_solver="full")
    linear = pca.fit_transform(rows)
    perplexity = min(30.0, (len(rows) - 1) / 3)
    # One thread: several add up in any order, and wait for each other at every step where the cores are not free.
    with threadpool_limits(1):
        neighbours = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(rows)
    with styled():
        figure = Figure(figsize=(6.8, 3.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        parts = pca.explained_variance_ratio_
        left.set(title="PCA", xlabel=f"component 1 ({parts[0]:.0%})", ylabel=f"component 2 ({parts[1]:.0%})")
        right.set(title="t-SNE", xticks=[], yticks=[])
        for axes, points in ((left, linear), (right, neighbours)):
            axes.grid(visible=False)
            axes.spines[:].set_visible(True)
            _scatter(axes, points, labels, kinds)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(kinds), handlelength=1)
    return figure


def save(figure: Figure, path: Path) -> tuple[Path, Path]:
    """Write a figure as PNG, 200 dots an inch, and as SVG, each whole or not at all; returns both paths.

    path: without a suffix; .png and .svg are appended. The same figure gives the same bytes with the same versions of
    matplotlib and NumPy: the files hold no date, no version and no random identifier. Text in the SVG is outlines.
    """
    written = []
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None, "Creator": None})):
        content = io.BytesIO()
        with styled():
            figure.savefig(content, format=suffix[1:], metadata=metadata)
        written.append(path.with_name(path.name + suffix))
        with whole_file(written[-1]) as append:
            append(content.getvalue())
    return written[0], written[1]


def styled() -> Any:
    """Return a context in which all figures look alike; those above are made in it."""
    return style.context(["default", _STYLE])


def _line(number: int, name: str) -> dict[str, Any]:
    """How the line of a number looks."""
    return {
        "label": name,
        "color": _COLOURS[number % len(_COLOURS)],
        "linestyle": _DASHES[number % len(_DASHES)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "markerfacecolor": "white" if number % 2 else None,
    }


def _one_panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    return figure, figure.add_subplot()


def _legend(figure: Figure, axes: Axes) -> None:
    """Beside the panel: inside, it would cover one curve or another."""
    lines = [line for line in axes.get_lines() if line.get_marker() != "None"]
    figure.legend(lines, [str(line.get_label()) for line in lines], loc="outside right upper")


def _resolution_ticks(axes: Axes, places: _Floats) -> None:
    """At resolutions that there are, from the highest down, wherever the label has room."""
    labels = [f"{place:.3g}" if place < 1000 else f"{place:,.0f}" for place in places]
    room = 0.03 * max(map(len, labels)) * np.log(places[-1] / places[0])
    shown: list[int] = []
    for index in reversed(range(len(places))):
        if not shown or np.log(places[shown[-1]] / places[index]) >= room:
            shown.append(index)
    shown.reverse()
    axes.set_xticks(places[shown], [labels[index] for index in shown])
    axes.xaxis.set_minor_locator(NullLocator())


def _half_violins(
    axes: Axes, places: NDArray[np.int_], values: Sequence[_Floats], *, side: str, color: str, hatch: str | None
) -> None:
    parts: dict[str, Any] = axes.violinplot(
        values, places, widths=0.86, points=200, showextrema=False, side="low" if side == "low" else "high"
    )
    outward, line = (-1, "black") if side == "low" else (1, "white")
    for body, place, of_place in zip(parts["bodies"], places, values, strict=True):
        body.set(facecolor=color, edgecolor="black", linewidth=0.6, alpha=1, hatch=hatch)
        median = axes.hlines(np.median(of_place), place, place + 0.43 * outward, color=line, linewidth=1.2)
        median.set_clip_path(body.get_paths()[0], axes.transData)


def _scatter(axes: Axes, points: _Floats, labels: NDArray[Any], kinds: NDArray[Any]) -> None:
    """From light and large, the lowest resolution, to dark and small, drawn last, which leave the others to be seen."""
    shades = mpl.colormaps["viridis_r"](np.linspace(0.05, 1, len(kinds)))
    sizes = np.linspace(34, 7, len(kinds))
    for kind, shade, size, marker in zip(kinds, shades, sizes, _MARKERS, strict=False):
        x, y = points[labels == kind].T
        axes.scatter(x, y, size, color=[shade], marker=marker, edgecolors="black", linewidths=0.35, label=f"{kind} px")


def _not_empty(name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    if not values:
        raise ValueError(f"{name} must not be empty")
    return values


def _finite(name: str, values: ArrayLike, dimensions: int = 1) -> _Floats:
    array = np.asarray(values)
    if array.ndim != dimensions or not array.size or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise ValueError(
            f"{name} must be finite numbers in {dimensions} dimensions, one at least, not {array.dtype} {array.shape}"
        )
    return array.astype(np.float64)


def _check_rates(name: str, far: ArrayLike, tar: ArrayLike) -> tuple[_Floats, _Floats]:
    checked = _finite(f"FAR of {name}", far), _finite(f"TAR of {name}", tar)
    if len(checked[0]) != len(checked[1]):
        raise ValueError(f"{name} has {len(checked[0])} values of FAR for {len(checked[1])} of TAR")
    for kind, rates in zip(("FAR", "TAR"), checked, strict=True):
        if rates.min() < 0 or rates.max() > 1 or (np.diff(rates) < 0).any():
            raise ValueError(f"{kind} of {name} must be ascending, in 0..1")
    return checked


def _check_series(
    name: str, resolutions: ArrayLike, means: ArrayLike, deviations: ArrayLike | None
) -> tuple[_Floats, _Floats, _Floats | None]:
    places, middle = _finite(f"resolutions of {name}", resolutions), _finite(f"means of {name}", means)
    around = None if deviations is None else _finite(f"deviations of {name}", deviations)
    if len(middle) != len(places) or (around is not None and len(around) != len(places)):
        raise ValueError(f"{name} must have as many means and deviations as resolutions, {len(places)}")
    if places[0] <= 0 or (np.diff(places) <= 0).any():
        raise ValueError(f"resolutions of {name} must be positive and ascending")
    if around is not None and around.min() < 0:
        raise ValueError(f"deviations of {name} must not be negative")
    return places, middle, around


def _check_map(name: str, values: NDArray[Any]) -> None:
    if values.ndim == 3 and values.shape[2] == 3 and values.dtype == np.uint8:
        return
    if values.ndim != 2:
        raise ValueError(f"{name} must be (h, w), or an image (h, w, 3) uint8, not {values.dtype} {values.shape}")
    _finite(name, values, dimensions=2)
