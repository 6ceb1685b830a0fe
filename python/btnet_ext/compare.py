"""Are two faces the same person? By the thresholds that were measured for a model, one for each pair of sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from btnet_ext.errors import BundleError, InvalidOption
from btnet_ext.images import as_pixels

if TYPE_CHECKING:
    from btnet_ext.engine import Engine
    from btnet_ext.images import Pixels

Verdict: TypeAlias = Literal["same", "different", "too small to tell"]

HALF_OCTAVES = (5, 7, 10, 14, 20, 28, 40, 56, 79, 112)
"""Sizes in pixels at which a threshold is measured, whatever the model's branches are."""

INDICATORS: Mapping[str, Callable[[NDArray[np.int64]], NDArray[np.int64]]] = {
    "max": lambda sides: sides.max(axis=1),
    "min": lambda sides: sides.min(axis=1),
    "avg": lambda sides: sides.sum(axis=1) // 2,
}
"""The sizes (n,) of images from their sides (n, 2), by name, as the engine has them."""


@dataclass(frozen=True)
class Comparison:
    """What became of two faces.

    similarity: cosine of the angle between the embeddings. resolutions: the branches that the images went through.
    sizes: in pixels, at which the threshold was measured. threshold: the least similarity that counts as the same
    person. far: what was asked for; where the threshold was measured, no larger part of the pairs of different persons
    had at least this similarity. tar: the part of the pairs of one person that had.
    """

    verdict: Verdict
    similarity: float
    resolutions: tuple[int, int]
    sizes: tuple[int, int]
    threshold: float
    far: float
    tar: float


def ladder(engine: Engine) -> tuple[int, ...]:
    """The sizes in pixels, ascending, for which a bundle has thresholds.

    Half octaves, and the smallest size that goes to each branch by the engine's own selection: the largest size of the
    ladder that is not larger than an image goes to the same branch as the image does.
    """
    squares = [np.zeros((side, side, 3), np.uint8) for side in range(1, HALF_OCTAVES[-1] + 1)]
    steps = np.flatnonzero(np.diff(engine.select(squares)))  # from side - 1 to side, at place side - 2
    return tuple(sorted({*HALF_OCTAVES, *(int(place) + 2 for place in steps)}))


def pair_name(first: int, second: int) -> str:
    """How model.json names a pair of sizes: the larger one first, 112&28."""
    return f"{max(first, second)}&{min(first, second)}"


def pair_names(sizes: Iterable[int]) -> set[str]:
    """The names of every two sizes, and of each with itself."""
    return {pair_name(*pair) for pair in combinations_with_replacement(sizes, 2)}


def compare(engine: Engine, images: Sequence[Pixels], *, far: float = 1e-3, least_tar: float = 0.5) -> Comparison:
    """Compare two faces, by the table `thresholds` in the model.json of the engine's bundle.

    The size of an image is the bundle's indicator of its sides. Where it is between two sizes of the `ladder`, it may
    be judged as either of them, and the highest threshold that this gives for the two images is taken: the smaller
    images are, the more alike strangers look, but the less so, the more unlike the sizes are.

    Args:
        engine: what embeds them, opened with the bundle's own branches and selection.
        images: the two faces, as `Engine.embed` takes them.
        far: false-accept rate to decide for; one that the table has.
        least_tar: where fewer of the pairs of one person than this part were recognised at these two sizes, a
            similarity below the threshold tells nothing, and the verdict is "too small to tell".

    Raises:
        InvalidOption: far is not in the table, least_tar not in 0..1, there are not two images, or the engine has
            another indicator than its bundle.
        BundleError: the bundle has no thresholds, or not for the ladder of the engine, or they are not of the known
            form.
    """
    if len(images) != 2:
        raise InvalidOption(f"images must be two, not {len(images)}")
    if not 0 <= least_tar <= 1:
        raise InvalidOption(f"least_tar must be from 0 to 1, not {least_tar!r}")
    table = _Thresholds(engine)
    first, second = engine.select(images).tolist()
    sides = table.side_of(images[0]), table.side_of(images[1])
    if engine.select([np.zeros((side, side, 3), np.uint8) for side in sides]).tolist() != [first, second]:
        raise InvalidOption(f"engine must select branches by {table.indicator!r}, the indicator of its bundle")
    threshold, tar, sizes = table.find(far, sides)
    a, b = engine.embed(images, flip=table.flip).astype(np.float64)
    similarity = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    verdict: Verdict = "different" if tar >= least_tar else "too small to tell"
    if similarity >= threshold:
        verdict = "same"
    return Comparison(verdict, similarity, (first, second), sizes, threshold, far, tar)


class _Thresholds:
    """The table `thresholds` of a model.json: {"flip": bool, "far": {FAR: {"112&28": {"cosine": c, "tar": t}}}}."""

    def __init__(self, engine: Engine) -> None:
        self._where = engine.bundle.path / "model.json"
        self._ladder = ladder(engine)
        self.indicator: str = engine.bundle.metadata["selection"]["indicator"]
        table = engine.bundle.metadata.get("thresholds")
        if not table:
            raise BundleError(f"{self._where} has no thresholds: `btnet-eval thresholds` measures and writes them")
        try:
            self.flip = bool(table["flip"])
            self._rows: dict[float, dict[str, Any]] = {float(far): dict(row) for far, row in table["far"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._wrong() from error

    def side_of(self, image: Pixels) -> int:
        """Return the size of an image in pixels: its indicator."""
        height, width = (image if hasattr(image, "shape") else as_pixels(image, "image")).shape[:2]
        return int(INDICATORS[self.indicator](np.array([[height, width]]))[0])

    def _around(self, side: int) -> set[int]:
        """Return the sizes of the ladder that a side is between, or the one that it is or is nearest to."""
        below = max((size for size in self._ladder if size <= side), default=self._ladder[0])
        above = min((size for size in self._ladder if size >= side), default=self._ladder[-1])
        return {below, above}

    def find(self, far: float, sides: tuple[int, int]) -> tuple[float, float, tuple[int, int]]:
        """Return the highest threshold for two sides, the true-accept rate there, and the sizes that it is for."""
        if far not in self._rows:
            known = ", ".join(f"{known:g}" for known in sorted(self._rows))
            raise InvalidOption(f"far must be one of {known}, for which {self._where} has thresholds, not {far!r}")
        row = self._rows[far]
        if row.keys() != pair_names(self._ladder):
            raise BundleError(
                f"thresholds in {self._where} must be for every two of the sizes {', '.join(map(str, self._ladder))} "
                f"at a false-accept rate of {far:g}, and are for other ones: `btnet-eval thresholds` measures them anew"
            )
        try:
            around = self._around(sides[0]), self._around(sides[1])
            entries = [(row[pair_name(*sizes)], sizes) for sizes in product(*around)]
            return max((float(entry["cosine"]), float(entry["tar"]), sizes) for entry, sizes in entries)
        except (KeyError, TypeError, ValueError) as error:
            raise self._wrong() from error

    def _wrong(self) -> BundleError:
        return BundleError(f'thresholds in {self._where} must be {{"flip": ..., "far": {{FAR: {{PAIR: ...}}}}}}')
