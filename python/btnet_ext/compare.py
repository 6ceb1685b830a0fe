"""Are two faces the same person? By the thresholds that were measured for a model, one for each pair of resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from btnet_ext.errors import BundleError, InvalidOption

if TYPE_CHECKING:
    from btnet_ext.engine import Engine
    from btnet_ext.images import Pixels

Verdict: TypeAlias = Literal["same", "different", "too small to tell"]


@dataclass(frozen=True)
class Comparison:
    """What became of two faces.

    similarity: cosine of the angle between the embeddings. resolutions: the branches that the images went through.
    threshold: the least similarity that counts as the same person. far, tar: which parts of the pairs of different
    persons, and of those of one person, had at least this similarity where the threshold was measured.
    """

    verdict: Verdict
    similarity: float
    resolutions: tuple[int, int]
    threshold: float
    far: float
    tar: float


def pair_name(first: int, second: int) -> str:
    """How model.json names a pair of resolutions: the larger one first, 112&28."""
    return f"{max(first, second)}&{min(first, second)}"


def compare(engine: Engine, images: Sequence[Pixels], *, far: float = 1e-3, least_tar: float = 0.5) -> Comparison:
    """Compare two faces, by the table `thresholds` in the model.json of the engine's bundle.

    Args:
        engine: what embeds them.
        images: the two faces, as `Engine.embed` takes them.
        far: false-accept rate to decide for; one that the table has.
        least_tar: where fewer of the pairs of one person than this part were recognised at these two resolutions, the
            verdict is "too small to tell", whatever the similarity is.

    Raises:
        InvalidOption: far is not in the table, least_tar not in 0..1, or there are not two images.
        BundleError: the bundle has no thresholds, or not for these resolutions, or they are not of the known form.
    """
    if len(images) != 2:
        raise InvalidOption(f"images must be two, not {len(images)}")
    if not 0 <= least_tar <= 1:
        raise InvalidOption(f"least_tar must be from 0 to 1, not {least_tar!r}")
    table = _Thresholds(engine)
    first, second = engine.select(images).tolist()
    threshold, tar = table.find(far, first, second)
    a, b = engine.embed(images, flip=table.flip).astype(np.float64)
    similarity = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    verdict: Verdict = "same" if similarity >= threshold else "different"
    if tar < least_tar:
        verdict = "too small to tell"
    return Comparison(verdict, similarity, (first, second), threshold, far, tar)


class _Thresholds:
    """The table `thresholds` of a model.json: {"flip": bool, "far": {FAR: {"112&28": {"cosine": c, "tar": t}}}}."""

    def __init__(self, engine: Engine) -> None:
        self._where = engine.bundle.path / "model.json"
        table = engine.bundle.metadata.get("thresholds")
        if not table:
            raise BundleError(f"{self._where} has no thresholds: `btnet-eval thresholds` measures and writes them")
        try:
            self.flip = bool(table["flip"])
            self._rows: dict[float, dict[str, Any]] = {float(far): dict(row) for far, row in table["far"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._wrong() from error

    def find(self, far: float, first: int, second: int) -> tuple[float, float]:
        """Return the threshold for two resolutions, and the true-accept rate there."""
        if far not in self._rows:
            known = ", ".join(f"{known:g}" for known in sorted(self._rows))
            raise InvalidOption(f"far must be one of {known}, for which {self._where} has thresholds, not {far!r}")
        name = pair_name(first, second)
        if name not in self._rows[far]:
            raise BundleError(f"{self._where} has no threshold for {name} at a false-accept rate of {far:g}")
        try:
            entry = self._rows[far][name]
            return float(entry["cosine"]), float(entry["tar"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._wrong() from error

    def _wrong(self) -> BundleError:
        return BundleError(f'thresholds in {self._where} must be {{"flip": ..., "far": {{FAR: {{PAIR: ...}}}}}}')
