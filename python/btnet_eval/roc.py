"""1:1 verification over all thresholds: the ROC, the area under it, and TAR at a FAR.

A pair is accepted, which means called the same person, if its score is at least the threshold. FAR (false accept rate)
is the part of the impostor pairs that are accepted, TAR (true accept rate) that of the genuine pairs. Pairs with equal
scores are accepted together or not at all.

TAR at a given FAR is the largest one that any threshold reaches with a FAR of no more than that. IJB's public programs
(arcface_torch, BTNet) take the threshold whose FAR is nearest instead, which may be above; the two agree where there
are many impostors for the FAR. With fewer than 1 / FAR impostors, none may be accepted: the threshold is just above the
highest of their scores.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn.metrics
from numpy.typing import ArrayLike, NDArray

from btnet_eval.templates import check_ids, distinct, normalized

_BLOCK = 1 << 24
"""Scores that `compare_all` has at a time."""


@dataclass(frozen=True)
class Roc:
    """A point for every different score, from the highest to the lowest, after (0, 0).

    far, tar, thresholds: (m,) float64. The threshold of (0, 0) is infinite, the others are scores.
    """

    far: NDArray[np.float64]
    tar: NDArray[np.float64]
    thresholds: NDArray[np.float64]


@dataclass(frozen=True)
class Threshold:
    """The lowest threshold with a FAR of no more than was asked for, which has the largest TAR.

    value: just above the score of the first impostor that has to be rejected, in float64: compare with float64 scores.
    far, tar: what it reaches on the pairs that it was chosen on. impostors: the number of their impostor pairs; a FAR
    below 1 / impostors cannot be told from 0.
    """

    value: float
    far: float
    tar: float
    impostors: int


def roc(scores: ArrayLike, same: ArrayLike) -> Roc:
    """The ROC, by scikit-learn's roc_curve with drop_intermediate=False: no point is left out.

    Args:
        scores: (n,) finite real numbers, the higher the more similar.
        same: (n,) bool, or 0 and 1.

    Raises:
        ValueError: arrays that do not fit together, pairs of one kind only, scores that are not finite.
    """
    values, truth = _check_both_kinds(scores, same)
    return Roc(*sklearn.metrics.roc_curve(truth, values, drop_intermediate=False))


def auc(scores: ArrayLike, same: ArrayLike) -> float:
    """Area under the ROC: how often a genuine pair scores above an impostor pair, a tie counting one half.

    Arguments and errors: as in `roc`.
    """
    values, truth = _check_both_kinds(scores, same)
    return float(sklearn.metrics.roc_auc_score(truth, values))


def tar_at_far(scores: ArrayLike, same: ArrayLike, far: float) -> float:
    """The largest TAR with a FAR of at most far, 0 <= far < 1. Other arguments and errors: as in `roc`."""
    _check_rate("far", far)
    curve = roc(scores, same)
    return float(curve.tar[np.searchsorted(curve.far, far, side="right") - 1])


class ScoreTail:
    """TAR at small FARs, exact, from more scores than memory holds: they come in blocks, in any order.

    All scores of genuine pairs are kept, and of impostor pairs the highest ones, as many as max_far lets in, and one
    more, the first to be rejected. Up to twice as many, and those of one block, are there while it works. In float32,
    the tail of 10^10 pairs takes 40 MB at FAR 1e-3, and a hundred times as much at 1e-1.
    """

    def __init__(self, impostors: int, max_far: float) -> None:
        """impostors: how many impostor pairs will come, above zero. max_far: the largest FAR to be asked for, below 1.

        Raises ValueError for other values.
        """
        if impostors < 1:
            raise ValueError(f"impostors must be at least 1, not {impostors}: there is no FAR without impostor pairs")
        _check_rate("max_far", max_far)
        self._impostors, self._max_far = impostors, max_far
        self._keep = _largest_count(max_far, impostors) + 1
        self._genuine: list[NDArray[Any]] = []
        self._highest: list[NDArray[Any]] = []
        self._seen = self._stored = 0
        self._floor = -np.inf

    def add(self, scores: ArrayLike, same: ArrayLike) -> None:
        """Take a block: scores and same as in `roc`, but of any one shape, with pairs of either kind or both."""
        values, truth = _check(scores, same)
        self._genuine.append(values[truth])
        # Not above the floor alone: rounded to float32, it may be equal to a score that is higher.
        high = values[(values >= self._floor) & ~truth]
        self._highest.append(high)
        self._stored += len(high)
        self._seen += truth.size - int(np.count_nonzero(truth))
        if self._stored > 2 * self._keep:
            self._prune()

    def at_far(self, far: float) -> Threshold:
        """The lowest threshold whose FAR is at most far, 0 <= far <= max_far.

        Raises ValueError for another far, without genuine pairs, and if there were not as many impostor pairs as said.
        """
        if not 0 <= far <= self._max_far:
            raise ValueError(f"far must be 0 to {self._max_far}, the largest that scores were kept for, not {far}")
        if self._seen != self._impostors:
            raise ValueError(f"{self._impostors} impostor pairs were announced, but {self._seen} came")
        genuine = sum(map(len, self._genuine))
        if not genuine:
            raise ValueError("there is no TAR without genuine pairs")
        self._prune()
        accepted = _largest_count(far, self._impostors)
        value = _just_above(self._highest[0], accepted)
        rate = float(np.count_nonzero(self._highest[0].astype(np.float64) >= value) / self._impostors)
        found = sum(np.count_nonzero(block.astype(np.float64) >= value) for block in self._genuine)
        return Threshold(value, rate, float(found / genuine), self._impostors)

    def _prune(self) -> None:
        scores = np.concatenate(self._highest)
        if len(scores) > self._keep:
            # A copy, since a view would keep the others in memory.
            scores = np.partition(scores, len(scores) - self._keep)[-self._keep :].copy()
            self._floor = float(scores[0])
        self._highest, self._stored = [scores], len(scores)


def compare_all(
    rows_a: ArrayLike, ids_a: ArrayLike, rows_b: ArrayLike, ids_b: ArrayLike, *, max_far: float
) -> ScoreTail:
    """Scores of all rows of one set with all rows of another: cosine similarities in float32, never all in memory.

    Equal rows have equal scores. Besides what `ScoreTail` keeps, it takes two normalised copies of both sets and blocks
    of 16 million scores.

    Args:
        rows_a: (n, D) real numbers, of any length but zero.
        ids_a: (n,) integers or strings: whose they are. Rows with one id are a genuine pair.
        rows_b: (m, D), the other set.
        ids_b: (m,), of the same type as ids_a.
        max_far: the largest FAR that will be asked for, below 1.

    Raises:
        ValueError: arrays that do not fit together or are empty, no impostor pair.
    """
    a, b = normalized("rows_a", rows_a), normalized("rows_b", rows_b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"rows_a and rows_b must have one number of columns, not {a.shape[1]} and {b.shape[1]}")
    numbers_a, numbers_b = numbered_ids(("ids_a", ids_a, len(a)), ("ids_b", ids_b, len(b)))
    people = int(max(numbers_a.max(), numbers_b.max())) + 1
    genuine = np.bincount(numbers_a, minlength=people) @ np.bincount(numbers_b, minlength=people)
    tail = ScoreTail(len(a) * len(b) - int(genuine), max_far)
    (left, which_a), (right, which_b) = distinct(a), distinct(b)
    order = np.argsort(which_a, kind="stable")
    columns = which_b if len(right) < len(b) else slice(None)  # to pick them all takes as long as the product
    step = max(1, _BLOCK // len(b))
    for start in range(0, len(left), step):
        scores = left[start : start + step] @ right.T
        first, last = np.searchsorted(which_a, (start, start + step), sorter=order)
        for place in range(first, last, step):  # many rows may be equal
            rows = order[place : min(place + step, last)]
            tail.add(scores[which_a[rows] - start][:, columns], numbers_a[rows, None] == numbers_b)
    return tail


def lowest_threshold(impostors: NDArray[Any], far: float) -> float:
    """The lowest threshold that accepts at most far of the scores impostors, (n,) and not empty; 0 <= far < 1.

    It is in float64, just above the highest score that has to be rejected. Raises ValueError for another far.
    """
    _check_rate("far", far)
    return _just_above(impostors, _largest_count(far, len(impostors)))


def numbered_ids(
    first: tuple[str, ArrayLike, int], second: tuple[str, ArrayLike, int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Ids of two sets as numbers from 0, the same for the same id; each given as name, ids and how many there must be.

    Raises ValueError for ids of another number, and if not both are integers of one kind, or both strings.
    """
    a, b = check_ids(*first), check_ids(*second)
    if a.dtype.kind != b.dtype.kind:
        raise ValueError(f"{first[0]} and {second[0]} must be of one type, not {a.dtype} and {b.dtype}")
    _, numbers = np.unique(np.concatenate([a, b]), return_inverse=True)
    return numbers[: len(a)], numbers[len(a) :]


def _just_above(scores: NDArray[Any], accepted: int) -> float:
    """The lowest float64 that no more than `accepted` of the scores reach, ties being rejected together."""
    place = len(scores) - 1 - accepted
    return float(np.nextafter(np.float64(np.partition(scores, place)[place]), np.inf))


def _largest_count(rate: float, total: int) -> int:
    """The largest count with count / total <= rate, as floats compare: 29 of 100 at 0.29, though 0.29 * 100 < 29."""
    count = min(int(rate * total) + 1, total)
    while count / total > rate:
        count -= 1
    return count


def _check_rate(name: str, rate: float) -> None:
    if not 0 <= rate < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, not {rate}")


def _check(scores: ArrayLike, same: ArrayLike) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    values, truth = np.asarray(scores), np.asarray(same)
    if values.shape != truth.shape:
        raise ValueError(f"scores and same must have one shape, not {values.shape} and {truth.shape}")
    if values.dtype.kind not in "fiu":
        raise ValueError(f"scores must hold real numbers, not {values.dtype}")
    if truth.dtype.kind not in "biu" or (truth.dtype.kind != "b" and not np.isin(truth, (0, 1)).all()):
        raise ValueError("same must hold bool, or 0 and 1")
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite")
    return values, truth.astype(np.bool_, copy=False)


def _check_both_kinds(scores: ArrayLike, same: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, truth = _check(scores, same)
    if values.ndim != 1:
        raise ValueError(f"scores must be an (n,) array, not one of shape {values.shape}")
    if truth.all() or not truth.any():
        raise ValueError("pairs of both kinds are needed, genuine ones and impostors")
    return values.astype(np.float64), truth
