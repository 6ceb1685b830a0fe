"""Measures models on verification pairs at several resolutions, and writes the result as a report."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from btnet_eval.base import DataError, Problems, Rows
from btnet_eval.datasets.images import NamedImages
from btnet_eval.embedder import Embedder, Progress
from btnet_eval.plots import distance_violins, resolution_plot, roc_plot
from btnet_eval.report import Section
from btnet_eval.roc import roc, tar_at_far
from btnet_eval.session import Session, image_sizes
from btnet_eval.verification import Pairs, accuracy, cosine_similarities, cross_resolution

FARS = (1e-1, 1e-2, 1e-3)


@dataclass(frozen=True)
class Verification:
    """What one model reaches between two resolutions, each pair in both directions where they differ.

    mean, std: accuracy in folds, 0..1; None for pairs of one fold. tars: true-accept rate by false-accept rate, of all
    pairs of all folds together.
    """

    mean: float | None
    std: float | None
    tars: dict[float, float]


class PairEmbeddings:
    """The embeddings of both sides of all pairs, at several resolutions.

    first, second: (n, D) by resolution.
    """

    def __init__(self, pairs: Pairs, names: Sequence[str], rows: Mapping[int, Rows]) -> None:
        places = {name: place for place, name in enumerate(names)}
        sides = [np.array([places[name] for name in paths]) for paths in (pairs.paths_a, pairs.paths_b)]
        self.pairs = pairs
        self.first, self.second = ({r: at[side] for r, at in rows.items()} for side in sides)

    def measure(self, r1: int, r2: int, fars: Sequence[float] = FARS) -> Verification:
        """Measure the pairs between two resolutions. Raises ValueError as `verification.accuracy`."""
        folds, same = self.pairs.folds, self.pairs.same
        scores, labels = self.scores(r1, r2)
        tars = {far: tar_at_far(scores, labels, far) for far in fars}
        if not self.pairs.in_folds:
            return Verification(None, None, tars)
        if r1 == r2:
            measured: Any = accuracy(self.first[r1], self.second[r1], same, folds)
        else:
            measured = cross_resolution(
                (self.first[r1], self.second[r1]), (self.first[r2], self.second[r2]), same, folds
            )
        return Verification(measured.mean, measured.std, tars)

    def scores(self, r1: int, r2: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Cosine similarities and whether they are of one person; those of both directions where r1 and r2 differ."""
        scores, same = cosine_similarities(self.first[r1], self.second[r2]), self.pairs.same
        if r1 == r2:
            return scores, same
        return np.concatenate([scores, cosine_similarities(self.first[r2], self.second[r1])]), np.tile(same, 2)


def usable_pairs(pairs: Pairs, images: NamedImages, problems: Problems, progress: Progress | None = None) -> Pairs:
    """Leave out pairs with an image that cannot be decoded. Raises DataError if none remains."""
    return pairs_among(pairs, image_sizes(distinct_names(pairs), images, problems, progress), images)


def pairs_among(pairs: Pairs, decoded: Collection[str], images: NamedImages) -> Pairs:
    """The pairs of which both images are among those that can be decoded. Raises DataError if none is."""
    both_sides = zip(pairs.paths_a, pairs.paths_b, strict=True)
    kept = np.flatnonzero([a in decoded and b in decoded for a, b in both_sides])
    if not kept.size:
        raise DataError(f"{images.where}: no pair has two images that can be decoded")
    return pairs.take(kept)


def distinct_names(pairs: Pairs) -> list[str]:
    """All images of the pairs, each once, sorted."""
    return sorted({*pairs.paths_a, *pairs.paths_b})


def embed_pairs(embedder: Embedder, pairs: Pairs, images: NamedImages, resolutions: Sequence[int]) -> PairEmbeddings:
    """Embed all images of the pairs at each resolution. Raises as `Embedder`."""
    names = distinct_names(pairs)
    return PairEmbeddings(pairs, names, embedder.at(images, names, resolutions))


def write_verification(session: Session, pairs: Pairs, images: NamedImages, resolutions: Sequence[int]) -> Path:
    """Measure every two resolutions, write OUT/verification.json, .md, .html and figures; return the page's path.

    Pairs of one fold, as those of LFW's pairsDevTest.txt, have no accuracy, but all the rest. Raises DataError for
    pairs of one kind, before all is embedded; what `embed_pairs` and `PairEmbeddings.measure` raise; and OSError.
    """
    pairs.check_kinds()
    descending = sorted(resolutions, reverse=True)
    session.note(images, distinct_names(pairs))
    embedded = {embedder.model.name: embed_pairs(embedder, pairs, images, descending) for embedder in session.embedders}
    measured = {
        name: {(r1, r2): rows.measure(r1, r2) for r1, r2 in combinations_with_replacement(descending, 2)}
        for name, rows in embedded.items()
    }
    flips = {model.name: model.flip for model in session.models}
    numbers = {
        name: {
            f"{r1}&{r2}": {"mean": v.mean, "std": v.std, "tar": v.tars, "flip": flips[name]}
            for (r1, r2), v in values.items()
        }
        for name, values in measured.items()
    }
    figures = _figures(session, embedded, measured, descending)
    sections = [pairs_section(pairs), _accuracy_section(measured), *_tar_sections(measured), *figures]
    return session.report("verification", "Verification", numbers, sections)


_Measured: TypeAlias = Mapping[str, Mapping[tuple[int, int], Verification]]


def pairs_section(pairs: Pairs) -> Section:
    """How much there is to compare."""
    genuine = int(pairs.same.sum())
    columns = ["pairs of one person", "of different ones", "folds", "images"]
    counts = [genuine, len(pairs) - genuine, len(np.unique(pairs.folds)), len(distinct_names(pairs))]
    return Section("Pairs", columns, [counts])


def _accuracy_section(measured: _Measured) -> Section:
    pairs = next(iter(measured.values()))
    rows = [[name, *map(_accuracy, values.values())] for name, values in measured.items()]
    return Section(
        "Accuracy",
        ["model", *(f"{r1}&{r2}" for r1, r2 in pairs)],
        rows,
        "Percent, mean and standard deviation over the folds; the threshold of a fold is the best one of the others. "
        "Between two resolutions, the mean of both directions. Not defined for pairs of one fold.",
    )


def _accuracy(found: Verification) -> str | None:
    return None if found.mean is None or found.std is None else f"{100 * found.mean:.2f} ± {100 * found.std:.2f}"


def _tar_sections(measured: _Measured) -> list[Section]:
    pairs = next(iter(measured.values()))
    return [
        Section(
            f"TAR at FAR {far:g}",
            ["model", *(f"{r1}&{r2}" for r1, r2 in pairs)],
            [
                [name, *(f"{100 * value.tars[far]:.2f}" for value in values.values())]
                for name, values in measured.items()
            ],
            "Percent, of all pairs together, between two resolutions in both directions. With fewer than "
            f"{math.ceil(1 / far):,} pairs of different persons, none is accepted.",
        )
        for far in FARS
    ]


def _figures(
    session: Session, embedded: Mapping[str, PairEmbeddings], measured: _Measured, resolutions: Sequence[int]
) -> list[Section]:
    ascending = sorted(resolutions)
    figures = {}
    if all(rows.pairs.in_folds for rows in embedded.values()):
        figures["verification_accuracy"] = ("Accuracy and resolution", "", _accuracy_plot(measured, ascending))
    curves = {}
    for name, rows in embedded.items():
        for r in ascending:
            curve = roc(*rows.scores(r, r))
            curves[f"{name}, {r}&{r}"] = (curve.far, curve.tar)
    equal = "Both images of a pair are at the same resolution."
    figures["verification_roc"] = ("ROC", equal, roc_plot(curves))
    for number, (name, rows) in enumerate(embedded.items(), start=1):
        distances = {}
        for r in ascending:
            scores, same = rows.scores(r, r)
            distances[f"{r}&{r}"] = (1 - scores[same], 1 - scores[~same])
        figures[f"verification_distances_{number}"] = (f"Cosine distances, {name}", equal, distance_violins(distances))
    return [Section(title, [], [], note, session.draw(file, plot)) for file, (title, note, plot) in figures.items()]


def _accuracy_plot(measured: _Measured, ascending: Sequence[int]) -> Figure:
    accuracies = {}
    highest = max(ascending)
    for name, values in measured.items():
        for what, pairs in (("r&r", [(r, r) for r in ascending]), (f"{highest}&r", [(highest, r) for r in ascending])):
            found = [values[pair] for pair in pairs]
            means = [100 * value.mean for value in found if value.mean is not None]
            deviations = [100 * value.std for value in found if value.std is not None]
            accuracies[f"{name}, {what}"] = (ascending, means, deviations)
    return resolution_plot(accuracies, value="accuracy, %", highest=100)
