"""Branch selection: which of a model's networks serves an image, by its size, for images of many small sizes.

An indicator makes one number of width and height, and a rounding makes it one of the resolutions (He et al., BMVC 2023,
Fig. 8). The nine strategies are those of BTNet's program for QMUL-SurvFace, eval_survface_1n_multi_reso.py, which calls
floor "bottom", and leaves out images of more than 1,000 px. `btnet_ext.Engine` follows the same rule, with the same
names; here one model is measured with all strategies, and no image is embedded twice at a resolution.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from btnet_eval.base import Rows
from btnet_eval.cache import Images
from btnet_eval.datasets.images import NamedImages
from btnet_eval.embedder import Embedder, in_order
from btnet_ext.compare import INDICATORS

_ROUNDINGS = ("floor", "near", "ceil")


class Strategy(NamedTuple):
    """indicator: "max", "min" or "avg" of width and height, rounded down; rounding: "floor", "near" or "ceil"."""

    indicator: str
    rounding: str

    def __str__(self) -> str:
        return " ".join(self)


STRATEGIES = tuple(Strategy(indicator, rounding) for indicator in INDICATORS for rounding in _ROUNDINGS)

DEFAULT = Strategy("max", "ceil")
"""That of bundles which do not say another one, and the best one in the paper."""


def select(sizes: ArrayLike, resolutions: Sequence[int], strategy: Strategy) -> NDArray[np.int64]:
    """The resolution that each image is shown at.

    ceil takes the smallest resolution that is not below the indicator, floor the largest not above it, near the closest
    one (a tie goes to the smaller). Outside the range of `resolutions` the nearest one serves.

    Args:
        sizes: (n, 2) positive integers, height and width or the other way round.
        resolutions: of the model, ascending, one at least.
        strategy: one of `STRATEGIES`.

    Raises:
        ValueError: sizes or resolutions that are not so, an unknown strategy.
    """
    pixels, steps = np.asarray(sizes), np.asarray(resolutions, np.int64)
    if pixels.ndim != 2 or pixels.shape[1] != 2 or pixels.dtype.kind not in "iu" or (pixels < 1).any():
        raise ValueError(f"sizes must be (n, 2) positive integers, not {pixels.dtype} of shape {pixels.shape}")
    if not steps.size or (np.diff(steps) <= 0).any():
        raise ValueError(f"resolutions must be ascending, one at least, not {list(resolutions)}")
    if strategy not in STRATEGIES:
        known = f"{', '.join(INDICATORS)} and {', '.join(_ROUNDINGS)}"
        raise ValueError(f"the strategy must be of {known}, not {strategy}")
    side = INDICATORS[strategy.indicator](pixels.astype(np.int64))
    if strategy.rounding == "ceil":
        places = np.searchsorted(steps, side)
    elif strategy.rounding == "floor":
        places = np.searchsorted(steps, side, side="right") - 1
    else:
        # Of two equal distances argmin takes the first, which is the smaller resolution's.
        places = np.abs(side[:, None] - steps).argmin(axis=1)
    return steps[np.clip(places, 0, len(steps) - 1)]


@dataclass(frozen=True)
class SelectedRows:
    """Embeddings of n images, each at every resolution that a strategy selects for it.

    rows: (p, D), one for each pair of an image and a resolution. index: the images' numbers by name. places: by the
    strategy's name, the row of each image; "one network" alone for a model that has no choice.
    """

    rows: Rows
    index: Mapping[str, int]
    places: Mapping[str, NDArray[np.int64]]

    def of(self, strategy: str, names: Sequence[str]) -> Rows:
        """The embeddings (len(names), D) of named images."""
        images = np.array([self.index[name] for name in names], np.int64)
        return self.rows[self.places[strategy][images]]


def embed_selected(
    embedder: Embedder, images: NamedImages, sizes: Mapping[str, tuple[int, int]], strategies: Sequence[Strategy]
) -> SelectedRows:
    """Embed the images named in `sizes`, which has their height and width, as each strategy selects.

    A model of several networks is shown each image as `Model.present` has it at the selected resolution. A model of one
    network is shown the images as they are, and resizes them itself. Raises as `select` and `Embedder`, and
    ValueError for no strategy.
    """
    if not strategies:
        raise ValueError("strategies must be one at least")
    names = list(sizes)
    index = {name: place for place, name in enumerate(names)}
    available = embedder.model.resolutions
    if len(available) == 1:
        rows = embedder.rows(in_order(images, names))
        return SelectedRows(rows, index, {"one network": np.arange(len(names))})
    selected = [select(list(sizes.values()), available, strategy) for strategy in strategies]
    # A pair of an image and a resolution as one number; the pairs of an image are neighbours.
    base = max(available) + 1
    codes = np.concatenate([np.arange(len(names)) * base + resolutions for resolutions in selected])
    pairs, places = np.unique(codes, return_inverse=True)
    of_image, resolutions = np.divmod(pairs, base)
    digest = hashlib.sha256(f"{images.digest(names)} ".encode() + of_image.astype("<i8").tobytes()).hexdigest()
    of_pairs = [names[image] for image in of_image]
    task = Images(digest, of_pairs, lambda index: images.read(of_pairs[index]))
    rows = embedder.rows(task, resolutions)
    by_strategy = zip(map(str, strategies), np.split(places, len(strategies)), strict=True)
    return SelectedRows(rows, index, dict(by_strategy))
