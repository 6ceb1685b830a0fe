"""1:1 verification: are two faces the same person? Accuracy in k folds, at a threshold chosen on the other folds."""

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from btnet_eval.base import DataError

_COLUMNS = ("fold", "path_a", "path_b", "same")


class PairsError(ValueError):
    """A file of pairs that cannot be read; the message names the file and the line."""


@dataclass(frozen=True)
class Pairs:
    """Verification pairs: row i asks whether paths_a[i] and paths_b[i] show the same person.

    folds: (n,) int64; same: (n,) bool. where: what they were read from, for messages.
    """

    folds: npt.NDArray[np.int64]
    paths_a: tuple[str, ...]
    paths_b: tuple[str, ...]
    same: npt.NDArray[np.bool_]
    where: str = "pairs"

    def __len__(self) -> int:
        return len(self.same)

    def take(self, rows: "npt.NDArray[np.intp]") -> "Pairs":
        """Some of the pairs, by their rows."""
        first, second = (tuple(paths[row] for row in rows) for paths in (self.paths_a, self.paths_b))
        return replace(self, folds=self.folds[rows], paths_a=first, paths_b=second, same=self.same[rows])

    @property
    def in_folds(self) -> bool:
        """Whether there are two folds, without which there is no accuracy: a threshold is chosen on the others."""
        return len(np.unique(self.folds)) > 1

    def check_kinds(self) -> None:
        """Raise DataError, which names where they are from, for pairs of one kind: nothing can be measured on them."""
        if self.same.all() or not self.same.any():
            kind = "one person" if self.same.any() else "different persons"
            raise DataError(f"{self.where}: all {len(self)} pairs are of {kind}, expected pairs of both kinds")


def read_pairs(path: str | os.PathLike[str]) -> Pairs:
    """Read a table of pairs: UTF-8, tabs between columns, first the line `fold path_a path_b same`, one pair a line.

    fold is an integer from 0, same is 1 or 0. Raises `PairsError`, and OSError from the file system.
    """
    rows: list[tuple[int, str, str, bool]] = []
    number = 0
    try:
        with open(path, "rb") as lines:  # noqa: PTH123  (any path that open takes)
            for number, line in enumerate(lines, start=1):
                columns = line.rstrip(b"\r\n").decode().split("\t")
                if number > 1:
                    rows.append(_parse(columns))
                elif tuple(columns) != _COLUMNS:
                    raise ValueError(
                        f"the first line must name the columns {', '.join(_COLUMNS)}, with tabs between them"
                    )
        if not rows:
            raise ValueError("no pair follows")
    except ValueError as error:
        why = "text that is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise PairsError(f"{os.fsdecode(path)}, line {number}: {why}") from None
    folds, paths_a, paths_b, same = zip(*rows, strict=True)
    return Pairs(np.array(folds, np.int64), paths_a, paths_b, np.array(same, np.bool_), os.fsdecode(path))


def _parse(columns: list[str]) -> tuple[int, str, str, bool]:
    if len(columns) != len(_COLUMNS):
        raise ValueError(f"a pair has {len(_COLUMNS)} columns, not {len(columns)}")
    fold, path_a, path_b, same = columns
    if not (fold.isascii() and fold.isdecimal() and len(fold) <= 9):
        raise ValueError(f"fold must be an integer from 0, not {fold!r:.40}")
    if same not in ("0", "1"):
        raise ValueError(f"same must be 0 or 1, not {same!r:.40}")
    if not path_a or not path_b:
        raise ValueError("path_a and path_b must not be empty")
    return int(fold), path_a, path_b, same == "1"


@dataclass(frozen=True)
class Accuracy:
    """Accuracy in k folds, all in 0..1.

    mean: over the folds, each counting the same. std: population standard deviation over the folds (divided by k).
    folds: accuracy of each fold, in ascending order of its number. thresholds: cosine similarity, one for each fold.
    """

    mean: float
    std: float
    folds: tuple[float, ...]
    thresholds: tuple[float, ...]


def accuracy(
    embeddings_a: npt.ArrayLike, embeddings_b: npt.ArrayLike, same: npt.ArrayLike, folds: npt.ArrayLike
) -> Accuracy:
    """Accuracy of telling from the cosine similarity of two embeddings whether they are of the same person.

    As in LFW's protocol (Huang et al., 2007), but exact: the threshold of a fold is the best one for the pairs of all
    other folds, of all that there are, not of those on a grid. A pair is called the same if its similarity is at least
    the threshold, so it only matters between which similarities of those pairs the threshold lies. It is put

    - in the middle of the two; at the lowest similarity if all pairs are best called the same; and just above the
      highest one if none is;
    - if several such places are equally good, at the middle one of them, the lower of two middle ones.

    Pairs with equal similarities are never told apart. With pairs of one kind only, all are called that kind.

    Args:
        embeddings_a: (n, D) real numbers, of any length but zero.
        embeddings_b: (n, D), those to compare with, row by row.
        same: (n,) bool, or 0 and 1.
        folds: (n,) integers, the fold of each pair; at least two different ones.

    Raises:
        ValueError: arrays that do not fit together, an embedding of length zero or with values that are not finite.
    """
    truth, fold_numbers = _check_labels(same, folds)
    similarities = cosine_similarities(embeddings_a, embeddings_b)
    if len(similarities) != len(truth):
        raise ValueError(f"same has {len(truth)} values for {len(similarities)} pairs of embeddings")
    order = np.argsort(similarities, kind="stable")
    similarities, truth, fold_numbers = similarities[order], truth[order], fold_numbers[order]
    accuracies, thresholds = [], []
    for fold in np.unique(fold_numbers):
        held_out = fold_numbers == fold
        threshold = _best_threshold(similarities[~held_out], truth[~held_out])
        correct = (similarities[held_out] >= threshold) == truth[held_out]
        accuracies.append(float(correct.mean()))
        thresholds.append(threshold)
    return Accuracy(float(np.mean(accuracies)), float(np.std(accuracies)), tuple(accuracies), tuple(thresholds))


@dataclass(frozen=True)
class CrossResolutionAccuracy:
    """Accuracy at two resolutions, in both directions, each with thresholds of its own.

    forward: the first image of a pair at the first resolution, the second at the other. backward: the other way round.
    """

    forward: Accuracy
    backward: Accuracy

    @property
    def mean(self) -> float:
        """Mean over both directions."""
        return (self.forward.mean + self.backward.mean) / 2

    @property
    def std(self) -> float:
        """Population standard deviation over the folds, of the mean over both directions in a fold."""
        return float(np.std(np.mean([self.forward.folds, self.backward.folds], axis=0)))


def cross_resolution(
    first: tuple[npt.ArrayLike, npt.ArrayLike],
    second: tuple[npt.ArrayLike, npt.ArrayLike],
    same: npt.ArrayLike,
    folds: npt.ArrayLike,
) -> CrossResolutionAccuracy:
    """Accuracy between two resolutions, r1&r2, as the mean over both directions (He et al., BMVC 2023).

    first: embeddings of both sides of all pairs, each (n, D), at resolution r1; second: the same at r2. same and folds:
    as in `accuracy`.
    """
    return CrossResolutionAccuracy(
        forward=accuracy(first[0], second[1], same, folds), backward=accuracy(second[0], first[1], same, folds)
    )


def cosine_similarities(embeddings_a: npt.ArrayLike, embeddings_b: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(n,) cosine of the angle between the rows of two (n, D) arrays, summed in float64.

    Raises ValueError, which names the row, for a length of zero and for values that are not finite.
    """
    a, b = np.asarray(embeddings_a), np.asarray(embeddings_b)
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"embeddings must be two (n, D) arrays of one shape, not {a.shape} and {b.shape}")
    lengths = row_lengths("embeddings_a", a) * row_lengths("embeddings_b", b)
    return _row_products(a, b) / lengths


def row_lengths(name: str, embeddings: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(n,) Euclidean lengths of the rows of (n, D). Raises ValueError that names the row, as `cosine_similarities`."""
    if embeddings.dtype.kind not in "fiu":
        raise ValueError(f"{name} must hold real numbers, not {embeddings.dtype}")
    squares = _row_products(embeddings, embeddings)
    usable = np.isfinite(squares) & (squares > 0)
    if not usable.all():
        row = int(np.argmin(usable))
        what = "length zero" if squares[row] == 0 else "values that are not finite"
        raise ValueError(f"row {row} of {name} has {what}")
    return np.sqrt(squares)


def _row_products(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    with np.errstate(over="ignore", invalid="ignore"):
        products: npt.NDArray[np.float64] = np.einsum("nd,nd->n", a, b, dtype=np.float64)
    return products


def _check_labels(
    same: npt.ArrayLike, folds: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.signedinteger]]:
    truth, fold_numbers = np.asarray(same), np.asarray(folds)
    if truth.ndim != 1 or truth.shape != fold_numbers.shape:
        raise ValueError(f"same and folds must be two (n,) arrays, not {truth.shape} and {fold_numbers.shape}")
    if truth.dtype.kind not in "biu" or not np.isin(truth, (0, 1)).all():
        raise ValueError("same must hold bool, or 0 and 1")
    if fold_numbers.dtype.kind not in "iu":
        raise ValueError(f"folds must hold integers, not {fold_numbers.dtype}")
    if len(np.unique(fold_numbers)) < 2:
        raise ValueError("folds must have at least two different values: a threshold is chosen on the other folds")
    return truth.astype(np.bool_), fold_numbers


def _best_threshold(similarities: npt.NDArray[np.float64], same: npt.NDArray[np.bool_]) -> float:
    """The threshold by the rule that `accuracy` gives, for similarities in ascending order."""
    # With a threshold at place i, pairs 0 to i - 1 are called different, the others the same.
    different_below = np.concatenate([[0], np.cumsum(~same)])
    same_below = np.concatenate([[0], np.cumsum(same)])
    correct = different_below + (same_below[-1] - same_below)
    inside_a_tie = np.concatenate([[False], np.diff(similarities) == 0, [False]])
    correct[inside_a_tie] = -1
    best = np.flatnonzero(correct == correct.max())
    place = int(best[(len(best) - 1) // 2])
    if place == 0:
        return float(similarities[0])
    lower = float(similarities[place - 1])
    just_above = float(np.nextafter(lower, np.inf))
    if place == len(similarities):
        return just_above
    # Between neighbouring floats the middle may be rounded to the lower one, which would be called the same.
    return max((lower + float(similarities[place])) / 2, just_above)
