"""Gains, worked out by hand."""

import math
from collections.abc import Callable

import pytest

from btnet_eval.gains import cross_resolution_gain, same_resolution_gain

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
