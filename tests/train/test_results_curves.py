"""results/curves.py: what stands in which panel."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from numpy.testing import assert_allclose

# At the end: this script must not take the place of another module of its name.
sys.path.append(str(Path(__file__).parents[2] / "results"))

import curves


def curve(passes: list[float], values: list[float]) -> dict[str, list[float]]:
    return {"passes": passes, "values": values}


TRAINED = {
    "phi_mr/112": {
        "loss": curve([0.5, 1.0, 1.5], [9.0, 9.0, 9.0]),
        "teacher": curve([0.5, 1.0, 1.5], [3.2, 2.0, 1.6]),
        "held out 112&112": curve([1.0, 2.0], [91.0, 93.0]),
        "held out 112&7": curve([1.0, 2.0], [61.0, 63.0]),
        "held out 7&7": curve([1.0, 2.0], [71.0, 73.0]),
    },
    "btnet/7": {
        "loss": curve([1.0, 2.0, 3.0], [8.0, 8.0, 8.0]),
        "teacher": curve([1.0, 2.0, 3.0], [2.4, 1.2, 0.8]),
        "held out 112&112": curve([1.0, 2.0, 3.0], [93.0, 93.0, 93.0]),
        "held out 112&7": curve([1.0, 2.0, 3.0], [81.0, 82.0, 83.0]),
        "held out 7&7": curve([1.0, 2.0, 3.0], [84.0, 85.0, 86.0]),
    },
}


def check_lines(panel: Axes, expected: list[tuple[list[float], list[float]]]) -> None:
    for line, points in zip(panel.lines, expected, strict=True):
        assert_allclose(np.array(line.get_data(), float), points, rtol=1e-12)


def test_the_distance_is_left_and_the_accuracy_right() -> None:
    """The teacher's loss is 4 (1 - cosine); the accuracy is that of both images at the network's own resolution."""
    figure = curves.draw(TRAINED)
    left, right = sorted(figure.axes, key=lambda axes: axes.get_position().x0)
    check_lines(left, [([0.5, 1.0, 1.5], [0.8, 0.5, 0.4]), ([1.0, 2.0, 3.0], [0.6, 0.3, 0.2])])
    check_lines(right, [([1.0, 2.0], [91.0, 93.0]), ([1.0, 2.0, 3.0], [84.0, 85.0, 86.0])])
    assert (left.get_ylabel(), left.get_xlabel()) == ("1 - cosine to the teacher", "passes")
    assert (right.get_ylabel(), right.get_xlabel()) == ("accuracy on held-out people, %", "passes")


def test_a_network_has_one_look_and_one_name() -> None:
    figure = curves.draw(TRAINED)
    looks = [[(line.get_color(), line.get_linestyle()) for line in axes.lines] for axes in figure.axes]
    assert looks[0] == looks[1]
    assert looks[0][0] != looks[0][1]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["phi_mr, 112 px", "btnet, 7 px"]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (3, {0: 0.0, 1: 1.0, 2: 4.0}),  # nothing to average
        (150, {0: 0.5, 1: 5 / 3, 74: (73**2 + 74**2 + 75**2) / 3, 149: (148**2 + 149**2) / 2}),  # three at a time
    ],
)
def test_smoothing_averages_two_percent(count: int, expected: dict[int, float]) -> None:
    values: Any = np.arange(count, dtype=float) ** 2
    found = curves.smoothed(values)
    assert len(found) == count
    assert_allclose(found[list(expected)], list(expected.values()), rtol=1e-12)
