"""Which cosine similarity to ask for, so that strangers are taken for one person no more often than a given rate.

How high it has to be depends much on the resolution of both images (Knoche et al., 2021), so there is one for each pair
of resolutions.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from btnet_eval.base import Rows
from btnet_eval.roc import ScoreTail, Threshold, compare_all
from btnet_eval.verification import cosine_similarities

__all__ = ["Table", "Threshold", "recommend", "table", "table_of_people"]

Table: TypeAlias = dict[tuple[int, int], tuple[Threshold, ...]]
"""For every pair of resolutions (r1, r2) with r1 <= r2, a threshold for each FAR."""


def recommend(scores: ArrayLike, same: ArrayLike, far: float) -> Threshold:
    """The lowest threshold whose FAR on these pairs is at most far, 0 <= far < 1.

    With fewer than 1 / far impostors it is just above the highest of their scores, which says little about far: see
    `Threshold.impostors`.

    Args:
        scores: (n,) finite real numbers, the higher the more similar.
        same: (n,) bool, or 0 and 1.
        far: the false accept rate.

    Raises:
        ValueError: arrays that do not fit together, pairs of one kind only, scores that are not finite, another far.
    """
    truth = np.asarray(same)
    tail = ScoreTail(truth.size - int(np.count_nonzero(truth)), far)
    tail.add(scores, truth)
    return tail.at_far(far)


def table(first: Mapping[int, Rows], second: Mapping[int, Rows], same: ArrayLike, fars: Sequence[float]) -> Table:
    """Recommended thresholds for every pair of resolutions (r1, r2) with r1 <= r2, one for each of fars.

    Where r1 and r2 differ, the scores of both directions are taken together: the first image of a pair at r1 and the
    second at r2, and the other way round. So there are twice as many impostors then, though not of more persons.

    Args:
        first: (n, D) embeddings of the first image of every pair, by the resolution that it was presented at.
        second: the same of the second image, at the same resolutions.
        same: (n,) bool, or 0 and 1.
        fars: false accept rates, 0 <= far < 1.

    Raises:
        ValueError: different resolutions in first and second; otherwise as in `recommend` and `cosine_similarities`.
    """
    resolutions, truth = _common(first, second), np.asarray(same)
    found = {}
    for low, high in combinations_with_replacement(resolutions, 2):
        scores, labels = cosine_similarities(first[low], second[high]), truth
        if low != high:
            scores = np.concatenate([scores, cosine_similarities(first[high], second[low])])
            labels = np.concatenate([truth, truth])
        found[low, high] = tuple(recommend(scores, labels, far) for far in fars)
    return found


def table_of_people(
    first_ids: ArrayLike,
    first: Mapping[int, Rows],
    second_ids: ArrayLike,
    second: Mapping[int, Rows],
    fars: Sequence[float],
) -> Table:
    """As `table`, of all pairs of an image of `first` with one of `second`; the scores are never all in memory.

    Where r1 and r2 differ, the images of first are at r1, the lower one.

    Args:
        first_ids: (n,) integers or strings, whose the images of first are.
        first: (n, D) embeddings, by resolution.
        second_ids: (m,), the same of second.
        second: (m, D), at the same resolutions. No image may be in both.
        fars: false accept rates, 0 <= far < 1.

    Raises:
        ValueError: different resolutions in first and second; otherwise as `roc.compare_all`.
    """
    resolutions = _common(first, second)
    found = {}
    for low, high in combinations_with_replacement(resolutions, 2):
        tail = compare_all(first[low], first_ids, second[high], second_ids, max_far=max(fars, default=0.0))
        found[low, high] = tuple(tail.at_far(far) for far in fars)
    return found


def _common(first: Mapping[int, Rows], second: Mapping[int, Rows]) -> list[int]:
    if first.keys() != second.keys():
        raise ValueError(f"first and second must have the same resolutions, not {sorted(first)} and {sorted(second)}")
    return sorted(first)
