"""1:N identification: whose face of a gallery is this, if anybody's?

A probe is mated if its person is in the gallery; the mate is that person's row, or the best of several. The rank of the
mate is 1 + the number of rows of other persons that score as high or higher: ties count against it.

- top-k: the part of the mated probes whose mate has a rank of at most k.
- FPIR(t): the part of the non-mated probes whose best score is at least t.
- TPIR_k(t): the part of the mated probes whose mate has a rank of at most k and a score of at least t.
- TPIR_k at a given FPIR: that at the lowest t which has an FPIR of no more than that. With fewer than 1 / FPIR
  non-mated probes it lies just above the best score of all of them.

So QMUL-SurvFace has it (Cheng et al., "Surveillance face recognition challenge"), with k = 20, and IARPA's IJB-C for
each of its galleries. BTNet's program for SurvFace takes the nearest of 1,000 thresholds instead. What the public
programs for IJB-C call FPIR, `btnet_eval.template_measures` says.
"""

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray

from btnet_eval.roc import lowest_threshold, numbered_ids
from btnet_eval.templates import distinct, normalized

_BLOCK = 4096
"""Probes in one call of FAISS, so that a search can be interrupted in between."""

_FOUND = 1 << 21
"""Rows of the gallery that `identify` has at a time, with their scores, if those of one probe are no more."""

_SCORES = 1 << 24
"""Scores that `mean_average_precision` has at a time, if the gallery has no more rows."""


@dataclass(frozen=True)
class Identification:
    """What a search of mated and non-mated probes found.

    ranks: (m,) int64, the rank of the mate of each mated probe; max_rank + 1 stands for any above max_rank.
    mate_scores: (m,) float64, its cosine similarity; -inf if it was not found, which is only where ranks says so.
    unmated_scores: (u,) float64, the best score of each non-mated probe.
    """

    ranks: NDArray[np.int64]
    mate_scores: NDArray[np.float64]
    unmated_scores: NDArray[np.float64]
    max_rank: int

    def top(self, k: int) -> float:
        """Top-k rate, 0..1. Raises ValueError for k out of 1 to max_rank."""
        return float(np.mean(self._within(k)))

    def threshold(self, fpir: float) -> float:
        """The lowest score at which FPIR is at most fpir, 0 <= fpir < 1.

        Raises ValueError for another fpir and without non-mated probes.
        """
        if not self.unmated_scores.size:
            raise ValueError("there is no FPIR without non-mated probes")
        return lowest_threshold(self.unmated_scores, fpir)

    def tpir(self, fpir: float, rank: int) -> float:
        """TPIR, 0..1, with the mate among the first `rank`. Errors: as in `threshold` and `top`."""
        return float(np.mean(self._within(rank) & (self.mate_scores >= self.threshold(fpir))))

    def auc(self, rank: int) -> float:
        """Area under TPIR against FPIR, from FPIR 0 to 1, with the mate among the first `rank`; exact.

        It is how often a mate within that rank scores above a non-mated probe's best, a tie counting one half. Raises
        ValueError for a rank out of 1 to max_rank and without non-mated probes.
        """
        found = self.mate_scores[self._within(rank)]
        if not self.unmated_scores.size:
            raise ValueError("there is no FPIR without non-mated probes")
        others = np.sort(self.unmated_scores)
        below, up_to = (np.searchsorted(others, found, side=side) for side in ("left", "right"))
        return float(np.sum(below + up_to) / (2 * len(others) * len(self.ranks)))

    def _within(self, rank: int) -> NDArray[np.bool_]:
        if not 1 <= rank <= self.max_rank:
            raise ValueError(f"the rank must be 1 to {self.max_rank}, the last that was looked for, not {rank}")
        return self.ranks <= rank


def identify(
    gallery: ArrayLike, gallery_ids: ArrayLike, probes: ArrayLike, probe_ids: ArrayLike, *, max_rank: int = 20
) -> Identification:
    """Search for probes in a gallery, and compare with whose they are.

    Ranks count rows of the gallery, and equal rows have equal scores. Where they should count persons, give one row for
    each (`btnet_eval.templates.prototypes`). Memory is that of normalised copies, three of the gallery and one of the
    probes, and blocks of two million scores.

    Args:
        gallery: (n, D) real numbers, of any length but zero; one row for a person or several.
        gallery_ids: (n,) integers or strings: whose they are.
        probes: (p, D) real numbers.
        probe_ids: (p,), of the same type as gallery_ids. Probes whose id is not in the gallery are non-mated; there
            may be none, but then there is no TPIR.
        max_rank: the last rank that can be asked for.

    Raises:
        ValueError: arrays that do not fit together, an empty gallery, no mated probe.
    """
    if max_rank < 1:
        raise ValueError(f"max_rank must be at least 1, not {max_rank}")
    rows, wanted = normalized("gallery", gallery), normalized("probes", probes)
    people, probe_people, mated = _people(gallery_ids, len(rows), probe_ids, len(wanted))
    different, which = distinct(rows)
    counts = _Counts(which, people, probe_people)
    # Among so many are max_rank rows of other persons, so that no tie at the end can hide one that counts.
    most_mates = int(np.bincount(people)[probe_people[mated]].max())
    depth = min(len(different), max_rank + most_mates)
    best, mate_scores = np.empty(len(wanted)), np.empty(len(wanted))
    ranks = np.empty(len(wanted), np.int64)
    index = _index(different, wanted)
    step = max(1, min(_BLOCK, _FOUND // depth))
    for start in range(0, len(wanted), step):
        block = slice(start, start + step)
        scores, indices = index.search(wanted[block], depth)
        mates, others = counts.of(indices, probe_people[block, None])
        best[block] = scores[:, 0]
        mate_scores[block] = np.where(mates > 0, scores, -np.inf).max(axis=1)
        ranks[block] = 1 + np.sum(others, axis=1, where=scores >= mate_scores[block, None])
    return Identification(np.minimum(ranks[mated], max_rank + 1), mate_scores[mated], best[~mated], max_rank)


def mean_average_precision(
    gallery: ArrayLike, gallery_ids: ArrayLike, probes: ArrayLike, probe_ids: ArrayLike
) -> float:
    """The mean of the average precision over the mated probes, 0..1, all rows of the gallery being ranked.

    Equal rows have equal scores. Memory is that of normalised copies, two of the gallery and one of the probes, and
    blocks of 16 million scores. Arguments and errors: as in `identify`.
    """
    rows, wanted = normalized("gallery", gallery), normalized("probes", probes)
    people, probe_people, mated = _people(gallery_ids, len(rows), probe_ids, len(wanted))
    _check_columns(rows, wanted)
    different, which = distinct(rows)
    found = np.flatnonzero(mated)
    precisions = np.empty(len(found))
    step = max(1, _SCORES // len(rows))
    for start in range(0, len(found), step):
        block = found[start : start + step]
        scores = wanted[block] @ different.T
        for place, (row, person) in enumerate(zip(scores, probe_people[block], strict=True), start):
            precisions[place] = _average_precision(row[which], people == person)
    return float(np.mean(precisions))


def search(gallery: ArrayLike, probes: ArrayLike, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k rows of the gallery that are most similar to each probe: exhaustive, by FAISS's IndexFlatIP.

    Equal rows have equal scores. Memory is that of the result and of normalised copies, three of the gallery and one of
    the probes.

    Args:
        gallery: (n, D) real numbers, of any length but zero.
        probes: (p, D) real numbers, likewise.
        k: 1 to n.

    Returns:
        indices (p, k), rows of the gallery, and scores (p, k), their cosine similarities summed in float32. Best first;
        of equal ones the first in the gallery first. Of different rows with one score at the last place, FAISS takes
        any.

    Raises:
        ValueError: arrays that do not fit together or are empty, rows of length zero, k out of range.
    """
    rows, wanted = normalized("gallery", gallery), normalized("probes", probes)
    if not 1 <= k <= len(rows):
        raise ValueError(f"k must be 1 to {len(rows)}, the rows of the gallery, not {k}")
    different, which = distinct(rows)
    by_row, counts = np.argsort(which, kind="stable"), np.bincount(which)
    begins = np.cumsum(counts) - counts
    index = _index(different, wanted)
    indices = np.empty((len(wanted), k), np.int64)
    scores = np.empty((len(wanted), k), np.float32)
    for start in range(0, len(wanted), _BLOCK):
        block = slice(start, start + _BLOCK)
        found, places = index.search(wanted[block], min(k, len(different)))
        # Of the rows that each found one stands for, as many as there is still room for: k for each probe in all.
        before = np.cumsum(counts[places], axis=1) - counts[places]
        taken = np.clip(k - before, 0, counts[places]).ravel()
        offsets = np.arange(taken.sum()) - np.repeat(np.cumsum(taken) - taken, taken)
        of_rows = by_row[np.repeat(begins[places].ravel(), taken) + offsets].reshape(-1, k)
        of_scores = np.repeat(found.ravel(), taken).reshape(-1, k)
        order = np.lexsort((of_rows, -of_scores))
        indices[block], scores[block] = (np.take_along_axis(values, order, axis=1) for values in (of_rows, of_scores))
    return indices, scores


class _Counts:
    """How many rows of a gallery that are one distinct row are a probe's mates, and how many are not.

    which: (n,) which distinct row each row is. people: (n,) whose it is. probe_people: (p,) whose each probe is.
    """

    def __init__(self, which: NDArray[np.intp], people: NDArray[np.intp], probe_people: NDArray[np.intp]) -> None:
        self._rows = np.bincount(which)
        self._persons = int(max(people.max(), probe_people.max())) + 1
        self._keys, self._mates = np.unique(which * self._persons + people, return_counts=True)

    def of(self, indices: NDArray[np.int64], person: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Mates and others of the distinct rows indices, (b, k), for probes of person, (b, 1)."""
        keys = indices * self._persons + person
        places = np.searchsorted(self._keys, keys)
        np.minimum(places, len(self._keys) - 1, out=places)
        found = self._keys[places] == keys
        del keys  # each of these is as large as a block of scores
        mates = self._mates[places] * found
        return mates, self._rows[indices] - mates


def _index(gallery: NDArray[np.float32], probes: NDArray[np.float32]) -> faiss.IndexFlatIP:
    """What searches normalised rows. Raises ValueError for probes with another number of columns."""
    _check_columns(gallery, probes)
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery)
    return index


def _people(
    gallery_ids: ArrayLike, rows: int, probe_ids: ArrayLike, probes: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """Whose each row of the gallery and each probe is, as numbers, and which probes are mated: one at least."""
    people, probe_people = numbered_ids(("gallery_ids", gallery_ids, rows), ("probe_ids", probe_ids, probes))
    mated = np.isin(probe_people, people)
    if not mated.any():
        raise ValueError("there is no mated probe: none of probe_ids is in gallery_ids")
    return people, probe_people, mated


def _check_columns(gallery: NDArray[np.float32], probes: NDArray[np.float32]) -> None:
    columns = gallery.shape[1], probes.shape[1]
    if columns[0] != columns[1]:
        raise ValueError("gallery and probes must have one number of columns, not {} and {}".format(*columns))


def _average_precision(scores: NDArray[np.float32], is_mate: NDArray[np.bool_]) -> float:
    mates = np.sort(scores[is_mate])
    # How many mates each other row scores as high as or higher; summed from the top, how many others are before a mate.
    reached = np.bincount(np.searchsorted(mates, scores[~is_mate], side="right"), minlength=len(mates) + 1)
    count = np.arange(1, len(mates) + 1)
    place = count + np.cumsum(reached[:0:-1])
    before = np.where(place == 1, 1.0, (count - 1) / np.maximum(place - 1, 1))
    return float(np.mean((before + count / place) / 2))
