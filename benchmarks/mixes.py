"""Crops of the size mixes that benchmarks embed, of random pixels: a network's time does not depend on what it sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEED = 20260


@dataclass(frozen=True)
class Mix:
    """How long the longer side of a crop is: log-normal around a median, cut off, or uniform where there is none."""

    lowest: int
    highest: int
    median: float | None = None
    sigma: float = 0.0

    def sides(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw (count,) lengths, in lowest..highest."""
        if self.median is None:
            return rng.integers(self.lowest, self.highest + 1, count)
        drawn = rng.lognormal(np.log(self.median), self.sigma, count)
        return np.clip(np.rint(drawn), self.lowest, self.highest).astype(np.int64)


MIXES = {
    "surveillance": Mix(6, 60, median=20, sigma=0.4),
    "photo album": Mix(20, 600, median=110, sigma=0.6),
    "all small": Mix(5, 14),
    "all large": Mix(112, 300),
}
NARROWEST = 0.75
"""The least that the shorter side is of the longer: faces are a little higher than wide."""


def crops(name: str, count: int, seed: int = SEED) -> list[NDArray[np.uint8]]:
    """Return `count` crops of a mix, H x W x 3 with H the longer side; both sides are within the mix's bounds."""
    mix, rng = MIXES[name], np.random.default_rng(seed)
    heights = mix.sides(count, rng)
    widths = np.maximum(np.rint(heights * rng.uniform(NARROWEST, 1, count)).astype(np.int64), mix.lowest)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for height, width in zip(heights, widths, strict=True)]


def branch(crop: NDArray[np.uint8], resolutions: Sequence[int]) -> int:
    """Return the branch of a crop by max and ceil, as bundles select that are not told otherwise."""
    longer = max(crop.shape[:2])
    return min((resolution for resolution in resolutions if resolution >= longer), default=max(resolutions))


def branches(crops: Sequence[NDArray[np.uint8]], resolutions: Sequence[int]) -> dict[int, int]:
    """How many of the crops go to each branch that has any, ascending."""
    chosen = [branch(crop, resolutions) for crop in crops]
    return {resolution: chosen.count(resolution) for resolution in sorted(set(chosen))}
