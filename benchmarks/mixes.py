"""Crops that benchmarks embed, of random pixels, since a network's time does not depend on what it sees.

They come in mixes of sizes, in one size, or in the sizes of a bundle's branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from btnet_ext import Engine

SEED = 20260
"""Of all that is random in the benchmarks but weights."""
HIGHEST = 200
"""The longest side of the crops that are made for a bundle's branches, unless one is for more."""


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


def squares(side: int, count: int) -> list[NDArray[np.uint8]]:
    """Return `count` crops, side x side x 3."""
    return list(np.random.default_rng(SEED).integers(0, 256, (count, side, side, 3), np.uint8))


def of_branches(resolutions: Sequence[int], count: int) -> list[NDArray[np.uint8]]:
    """Return `count` square crops for each branch, shuffled, of sizes that go to it where sides are rounded up.

    Those for the smallest branch are more than half as large as it, those for the largest have sides up to HIGHEST.
    """
    rng, below, sides = np.random.default_rng(SEED), min(resolutions) // 2, []
    for resolution in sorted(resolutions):
        most = max(resolution, HIGHEST) if resolution == max(resolutions) else resolution
        sides += rng.integers(below + 1, most + 1, count).tolist()
        below = resolution
    rng.shuffle(sides)
    return [rng.integers(0, 256, (side, side, 3), np.uint8) for side in sides]


def counts(engine: Engine, crops: Sequence[NDArray[np.uint8]]) -> dict[int, int]:
    """How many of the crops an engine gives to each of its branches, ascending."""
    selected = engine.select(crops).tolist()
    return {resolution: selected.count(resolution) for resolution in engine.resolutions}
