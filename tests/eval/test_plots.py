"""What the figures show, against numbers worked out by hand, brute force and NumPy; and that nothing changes them."""

import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import Collection, LineCollection
from matplotlib.colors import to_rgb, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from btnet_eval.plots import distance_violins, embedding_plot, feature_maps, resolution_plot, roc_plot, save

ROC = ([0, 0, 0.5, 0.5, 1], [0.25, 0.5, 0.5, 0.75, 1])
SEED = 5


def lightness(colour: Any) -> float:
    """Of a colour printed in grey (Rec. 601, as Pillow's L)."""
    return float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114)))


def face_lightness(shown: Collection) -> float:
    """Of what the first one is filled with."""
    return lightness(to_rgba_array(shown.get_facecolor())[0, :3])


def xs(line: Line2D) -> list[float]:
    """Matplotlib's annotation says no more than that NumPy can make an array of them."""
    values: list[float] = np.asarray(line.get_xdata()).tolist()
    return values


def ys(line: Line2D) -> list[float]:
    values: list[float] = np.asarray(line.get_ydata()).tolist()
    return values


def faces(count: int, size: int = 6) -> np.ndarray:
    return np.random.default_rng(SEED).normal(size=(count, size)).astype(np.float32)


def test_roc_by_hand() -> None:
    line = roc_plot({"a": ROC}).axes[0].get_lines()[0]
    assert line.get_drawstyle() == "steps-post"
    np.testing.assert_array_equal(line.get_xdata(), [0.1, 0.5, 1])
    np.testing.assert_array_equal(line.get_ydata(), [0.5, 0.75, 1])
    assert line.get_markevery() == [0, 2]


def test_roc_below_the_first_step() -> None:
    """b has no point at FAR 0, and its 1 in 1,000 lies exactly at a marker, where the axis ends."""
    figure = roc_plot({"a": ([0, 1e-5], [0.2, 0.3]), "b": ([1 / 1000], [0.9])})
    a, b = figure.axes[0].get_lines()
    assert xs(a)[:2] == [1e-5, 1e-4]
    np.testing.assert_array_equal(a.get_ydata(), [0.3] * 3)
    np.testing.assert_array_equal(b.get_ydata(), [0, 0, 0.9])
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["1e-5", "1e-4", "1e-3"]


@pytest.mark.parametrize(
    ("far", "labels"),
    [
        ([0.02], ["1e-2", "1e-1"]),
        ([0.1], ["1e-1", "1"]),
        ([0.1, 0.2], ["1e-1", "1"]),
        ([0, 0], ["1e-1", "1"]),
        ([0.001, 0.1], ["1e-3", "1e-2", "1e-1"]),
        ([0.001, 1], ["1e-3", "1e-2", "1e-1", "1"]),
    ],
)
def test_where_the_roc_ends(far: list[float], labels: list[str]) -> None:
    axes = roc_plot({"a": (far, [0.5] * len(far))}).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == labels
    assert axes.get_xlim() == (float(labels[0]), float(labels[-1]))


@settings(derandomize=True, deadline=None, max_examples=8)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=30))
def test_roc_by_brute_force(scored: list[tuple[int, bool]]) -> None:
    """At each place, the highest TAR of all thresholds whose FAR is at most that."""
    same = [score for score, is_same in scored if is_same] + [5]
    different = [score for score, is_same in scored if not is_same] + [4]
    rates = [
        (np.mean([score >= threshold for score in different]), np.mean([score >= threshold for score in same]))
        for threshold in range(10, -1, -1)
    ]
    line = roc_plot({"a": tuple(zip(*rates, strict=True))}).axes[0].get_lines()[0]
    expected = [max(tar for far, tar in rates if far <= place) for place in xs(line)]
    np.testing.assert_array_equal(line.get_ydata(), expected)
    assert {far for far, _ in rates if far > 0} <= set(xs(line))


@pytest.mark.parametrize("make", [lambda names: roc_plot(dict.fromkeys(names, ROC)), lambda names: resolution_plot(
    dict.fromkeys(names, ([7, 14], [1.0, 2.0], [0.1, 0.1])), value="accuracy")])  # fmt: skip
def test_lines_differ_without_colour(make: Callable[[list[str]], Figure]) -> None:
    figure = make([f"model {number}" for number in range(40)])
    lines = [line for line in figure.axes[0].get_lines() if line.get_marker() != "None"]
    assert len({(line.get_marker(), str(line._dash_pattern)) for line in lines}) == len(lines) == 40  # type: ignore[attr-defined]
    assert all(lightness(line.get_color()) < 0.72 for line in lines), "too light on white paper"


def test_resolution_plot_by_hand() -> None:
    resolutions = [7, 14, 112]
    curves = {"a": (resolutions, [60, 80, 99], [4, 2, 0.5]), "b": ([7, 112], [50, 98], None)}
    figure = resolution_plot(curves, value="accuracy, %")
    axes = figure.axes[0]
    a, low, high, b = axes.get_lines()
    assert (ys(a), ys(b)) == ([60, 80, 99], [50, 98])
    assert (ys(low), ys(high)) == ([56, 78, 98.5], [64, 82, 99.5])
    (band,) = axes.collections
    corners = {tuple(corner) for corner in np.asarray(band.get_paths()[0].vertices).tolist()}
    assert corners == {(7, 56), (14, 78), (112, 98.5), (7, 64), (14, 82), (112, 99.5)}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("resolution, pixels", "accuracy, %")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["7", "14", "112"]
    assert axes.get_xticks().tolist() == resolutions


def test_no_band_above_what_there_can_be() -> None:
    figure = resolution_plot({"a": ([7, 14], [90, 99], [4, 2.5])}, value="accuracy, %", highest=100)
    _, low, high = figure.axes[0].get_lines()
    assert (ys(low), ys(high)) == ([86, 96.5], [94, 100])


@settings(derandomize=True, deadline=None, max_examples=6)
@given(st.sets(st.integers(1, 300), min_size=1))
def test_resolution_ticks_do_not_touch(resolutions: set[int]) -> None:
    places = np.array(sorted(resolutions)) / 112
    figure = resolution_plot({"a": (places, places, None)}, value="error", resolution="resolution / 112")
    figure.draw_without_rendering()
    labels = figure.axes[0].get_xticklabels()
    assert {label.get_text() for label in labels} <= {f"{place:.3g}" for place in places}
    boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.x0)
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    assert labels[-1].get_text() == f"{places[-1]:.3g}"


def test_violins_by_hand() -> None:
    same, different = [0.1, 0.2, 0.6], [0.5, 0.9, 1.0, 1.2]
    axes = distance_violins({"7": (same, different), "14&112": ([0.3], [1.0, 1.0])}).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["7", "14&112"]
    bodies = [c for c in axes.collections if len(c.get_facecolor())]
    medians = [c.get_segments()[0] for c in axes.collections if isinstance(c, LineCollection)]
    assert len(bodies) + len(medians) == len(axes.collections)
    extents = [body.get_paths()[0].get_extents() for body in bodies]
    # Same pairs of both resolutions, left of places 0 and 1; then different ones, right of them.
    np.testing.assert_allclose([box.y0 for box in extents], [0.1, 0.3, 0.5, 1.0])
    np.testing.assert_allclose([box.y1 for box in extents], [0.6, 0.3, 1.2, 1.0])
    np.testing.assert_allclose([box.x0 for box in extents], [-0.43, 1 - 0.43, 0, 1])
    np.testing.assert_allclose([box.x1 for box in extents], [0, 1, 0.43, 1 + 0.43])
    np.testing.assert_allclose([segment[0, 1] for segment in medians], [0.2, 0.3, 0.95, 1.0])
    assert face_lightness(bodies[0]) - face_lightness(bodies[2]) > 0.4
    assert [body.get_hatch() for body in bodies] == ["////", "////", None, None]


def test_violin_is_widest_where_most_distances_are() -> None:
    """Against the density itself, summed over all distances, with Scott's bandwidth."""
    values = np.random.default_rng(SEED).gamma(4, 0.1, 50)
    body = distance_violins({"7": (values, values)}).axes[0].collections[0]
    vertices = np.asarray(body.get_paths()[0].vertices)
    bandwidth = 50 ** (-1 / 5) * values.std(ddof=1)
    density = np.exp(-0.5 * ((vertices[:, 1:] - values) / bandwidth) ** 2).sum(axis=1)
    outer = vertices[:, 0] < 0
    np.testing.assert_allclose(vertices[outer, 0], -0.43 * density[outer] / density[outer].max(), atol=1e-9)


def test_feature_maps_show_the_arrays() -> None:
    generator = np.random.default_rng(SEED)
    image = generator.integers(0, 256, (112, 112, 3), np.uint8)
    maps = {model: {"input": image, "stage 1": generator.normal(size=(7, 5))} for model in ("a", "b")}
    figure = feature_maps(maps)
    panels = np.array(figure.axes).reshape(2, 2)
    for row, model in enumerate(maps):
        assert panels[row, 0].get_ylabel() == model
        for column, values in enumerate(maps[model].values()):
            (shown,) = panels[row, column].get_images()
            np.testing.assert_array_equal(shown.get_array(), values)
        assert shown.get_clim() == (values.min(), values.max())
    assert [axes.get_title() for axes in panels[0]] == ["input", "stage 1"]
    figure.draw_without_rendering()
    sizes = [(axes.bbox.width, axes.bbox.height) for axes in figure.axes]
    np.testing.assert_allclose(sizes, sizes[0][0], rtol=0.01)


def test_embedding_plot() -> None:
    """PCA against NumPy's singular values, each resolution on its own; t-SNE keeps two distant groups apart."""
    rows = faces(24)
    rows[::2, 0] += 40
    rows[1::2, 1] += 40
    resolutions = np.tile([7, 7, 112], 8)
    left, right = embedding_plot(rows, resolutions).axes
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    centred = unit - unit.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    low, high = left.collections
    for shown, chosen in ((low, resolutions == 7), (high, resolutions == 112)):
        np.testing.assert_allclose(np.abs(shown.get_offsets()), np.abs((u * s)[chosen, :2]), atol=1e-9)
    parts = s**2 / (s**2).sum()
    assert left.get_xlabel() == f"component 1 ({parts[0]:.0%})"
    points = np.concatenate([shown.get_offsets() for shown in right.collections])
    groups = np.concatenate([np.flatnonzero(resolutions == r) % 2 for r in (7, 112)])
    distances = np.linalg.norm(points[:, None] - points, axis=2) + np.diag(np.full(24, np.inf))
    assert (groups[distances.argmin(axis=1)] == groups).all()
    assert face_lightness(low) - face_lightness(high) > 0.4
    again = embedding_plot(rows * 2, resolutions).axes[1]
    np.testing.assert_array_equal(again.collections[0].get_offsets(), right.collections[0].get_offsets())


def make_plot() -> Figure:
    return resolution_plot({"$_a": ([7, 14], [1, 2], [1, 1]), r"_b$\x$": ([7, 14], [2, 2], None)}, value="$1")


def test_saved_bytes_are_the_same_whatever_the_settings(tmp_path: Path) -> None:
    first = save(make_plot(), tmp_path / "a.b")
    assert first == (tmp_path / "a.b.png", tmp_path / "a.b.svg")
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 30, "axes.grid": False, "savefig.dpi": 10, "svg.hashsalt": "other"}):
        changed = dict(mpl.rcParams)
        second = save(make_plot(), tmp_path / "second")
        assert dict(mpl.rcParams) == changed
    assert dict(mpl.rcParams) == before
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    with Image.open(first[0]) as image:
        assert image.size == (1120, 680)
        assert "Software" not in image.info
    assert b"<dc:date>" not in first[1].read_bytes()


def test_names_are_shown_as_they_are() -> None:
    figure = make_plot()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["$_a", r"_b$\x$"]
    figure.savefig(io.BytesIO(), format="svg")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: roc_plot({}), "curves must not be empty"),
        (lambda: roc_plot({"a": ([0, 1], [0, 0.5, 1])}), "a has 2 values of FAR for 3 of TAR"),
        (lambda: roc_plot({"a": ([0, 1], [1, 0])}), "TAR of a must be ascending, in 0..1"),
        (lambda: roc_plot({"a": ([0, 2], [0, 1])}), "FAR of a must be ascending, in 0..1"),
        (lambda: roc_plot({"a": ([], [])}), "FAR of a must be finite numbers in 1 dim"),
        (lambda: resolution_plot({}, value="x"), "curves must not be empty"),
        (lambda: resolution_plot({"a": ([7], [1, 2], None)}, value="x"), "a must have as many means and deviations"),
        (lambda: resolution_plot({"a": ([7], [1], [1, 2])}, value="x"), "a must have as many means and deviations"),
        (lambda: resolution_plot({"a": ([0, 7], [1, 2], None)}, value="x"), "of a must be positive and ascending"),
        (lambda: resolution_plot({"a": ([7, 7], [1, 2], None)}, value="x"), "of a must be positive and ascending"),
        (lambda: resolution_plot({"a": ([7], [np.nan], None)}, value="x"), "means of a must be finite numbers"),
        (lambda: resolution_plot({"a": ([7], [1], [-1])}, value="x"), "deviations of a must not be negative"),
        (lambda: distance_violins({}), "distances must not be empty"),
        (lambda: distance_violins({"7": ([0.5], [])}), "different distances at 7 must be finite numbers"),
        (lambda: feature_maps({}), "maps must not be empty"),
        (lambda: feature_maps({"a": {}}), "layers must not be empty"),
        (lambda: feature_maps({"a": {"x": faces(2)}, "b": {"y": faces(2)}}), r"the layers \['x'\], but b has \['y'\]"),
        (lambda: feature_maps({"a": {"x": np.zeros((2, 2, 3))}}), r"layer x of a must be \(h, w\), or an image"),
        (lambda: feature_maps({"a": {"x": np.full((2, 2), np.inf)}}), "layer x of a must be finite numbers"),
        (lambda: embedding_plot(faces(4), [7] * 4), r"n at least 5, not \(4, 6\) and \(4,\)"),
        (lambda: embedding_plot(faces(9), [7] * 8), r"n at least 5, not \(9, 6\) and \(8,\)"),
        (lambda: embedding_plot(faces(9), range(9)), "at most 8 resolutions can be told apart, not 9"),
        (lambda: embedding_plot(np.eye(5, 4, dtype=np.float32), [7] * 5), "row 4 of embeddings has length zero"),
    ],
)  # fmt: skip
def test_unusable_data(make: Callable[[], Figure], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
