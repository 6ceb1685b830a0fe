"""Measures models on pairs in which each image has a resolution of its own, as the protocols of Knoche et al. have it.

Each image is reduced to its resolution and given to the model as a user of that model would: to one with networks for
several resolutions as it is, for its engine to select one; to any other degraded, which is reduced and up again to
112 px (Knoche et al., 2021, Eq. 1).
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from btnet_eval.base import DataError, Image, Problems
from btnet_eval.cache import Images
from btnet_eval.datasets.images import NamedImages
from btnet_eval.datasets.lists import known_pairs
from btnet_eval.embedder import Embedder, Progress
from btnet_eval.models import Model
from btnet_eval.onnx_network import CANONICAL
from btnet_eval.protocols import PROTOCOLS, generate
from btnet_eval.report import Section
from btnet_eval.session import Session
from btnet_eval.verification import Accuracy, Pairs, accuracy
from btnet_eval.verify import distinct_names, usable_pairs
from btnet_ext import degrade, resize


@dataclass(frozen=True)
class MixedPairs:
    """Pairs, and the resolution of each of their images in one protocol or several.

    resolutions: by protocol, (2 n,) integers from 1 to 112, in pixels: those of the first pair, of the second, and so
    on, as `protocols.generate` and `protocols.read_resolutions` give them. seed: what they were drawn from; None: they
    were not. Raises ValueError for other resolutions.
    """

    pairs: Pairs
    resolutions: Mapping[str, npt.NDArray[np.int64]]
    seed: int | None = None

    def __post_init__(self) -> None:
        for protocol, resolutions in self.resolutions.items():
            if resolutions.shape != (2 * len(self.pairs),):
                raise ValueError(f"{protocol} must have {2 * len(self.pairs)} resolutions, not {resolutions.shape}")
            if resolutions.min() < 1 or resolutions.max() > CANONICAL:
                raise ValueError(f"resolutions of {protocol} must be from 1 to {CANONICAL}")


def draw_resolutions(pairs: Pairs, seed: int) -> MixedPairs:
    """All protocols of Knoche et al. for the pairs, the resolutions drawn as `protocols.generate` says."""
    return MixedPairs(pairs, {protocol: generate(protocol, 2 * len(pairs), seed) for protocol in PROTOCOLS}, seed)


def usable_mixed(
    mixed: MixedPairs,
    images: NamedImages,
    place: Callable[[int], str],
    problems: Problems,
    progress: Progress | None = None,
) -> MixedPairs:
    """Leave out pairs with an image that is missing or cannot be decoded, and their resolutions.

    place: as for `known_pairs`. Raises DataError if none remains.
    """
    # With its number in place of its fold, a pair tells which of all it was.
    numbered = replace(mixed.pairs, folds=np.arange(len(mixed.pairs)))
    kept = usable_pairs(known_pairs(numbered, images, place, problems), images, problems, progress)
    of_images = np.stack([2 * kept.folds, 2 * kept.folds + 1], axis=1).ravel()
    resolutions = {protocol: values[of_images] for protocol, values in mixed.resolutions.items()}
    return MixedPairs(replace(kept, folds=mixed.pairs.folds[kept.folds]), resolutions, mixed.seed)


def reduced(model: Model, image: Image, resolution: int) -> Image:
    """What a user of the model gives it of an image that has resolution x resolution pixels (see above)."""
    if len(model.resolutions) > 1:
        return resize(image, (resolution, resolution))
    return degrade(image, resolution, canonical=CANONICAL)


def measure_mixed(embedder: Embedder, mixed: MixedPairs, images: NamedImages) -> dict[str, Accuracy]:
    """Accuracy in folds, by protocol. Raises as `Embedder` and `verification.accuracy`."""
    pairs = mixed.pairs
    names = [name for both in zip(pairs.paths_a, pairs.paths_b, strict=True) for name in both]
    digest = images.digest(names)
    found = {}
    for protocol, resolutions in mixed.resolutions.items():

        def read(index: int, resolutions: npt.NDArray[np.int64] = resolutions) -> Image:
            return reduced(embedder.model, images.read(names[index]), int(resolutions[index]))

        key = hashlib.sha256(f"reduced {digest} ".encode() + resolutions.astype("<i8").tobytes()).hexdigest()
        rows = embedder.rows(Images(key, names, read), what=f", {protocol}")
        found[protocol] = accuracy(rows[0::2], rows[1::2], pairs.same, pairs.folds)
    return found


def write_mixed(session: Session, mixed: MixedPairs, images: NamedImages) -> Path:
    """Measure all models, write OUT/mixed.json, .md and .html; return the page's path.

    Raises DataError for pairs of one kind or of one fold, before all is embedded; what `measure_mixed` raises; and
    OSError.
    """
    mixed.pairs.check_kinds()
    if not mixed.pairs.in_folds:
        raise DataError(f"{mixed.pairs.where}: all pairs are in one fold, expected two at least for an accuracy")
    session.note(images, distinct_names(mixed.pairs))
    measured = {embedder.model.name: measure_mixed(embedder, mixed, images) for embedder in session.embedders}
    protocols = mixed.resolutions
    rows = [
        [name, *(f"{100 * value.mean:.2f} ± {100 * value.std:.2f}" for value in values.values())]
        for name, values in measured.items()
    ]
    note = (
        "Percent, mean and standard deviation over the folds; the threshold of a fold is the best one of the others. "
        "Each image is reduced to a resolution of its own. A model with networks for several resolutions gets it so, "
        "and selects one; any other gets it up again to 112 px."
    )
    extents = {protocol: (int(r.min()), float(r.mean()), int(r.max())) for protocol, r in protocols.items()}
    sections = [
        Section("Accuracy", ["model", *protocols], rows, note),
        Section(
            "Resolutions",
            ["protocol", "lowest", "mean", "highest"],
            [[protocol, *extent] for protocol, extent in extents.items()],
            f"Pixels, of both images of {len(mixed.pairs):,} pairs; "
            + ("read from files." if mixed.seed is None else f"drawn from seed {mixed.seed}."),
        ),
    ]
    numbers = {"pairs": len(mixed.pairs), "seed": mixed.seed, "resolutions": extents, "measured": measured}
    return session.report("mixed", "Verification at mixed resolutions", numbers, sections)
