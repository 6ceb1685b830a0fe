"""Which cosine similarity to ask for, so that strangers are taken for one person no more often than a given rate.

How high it has to be depends much on the resolution of both images (Knoche et al., 2021), so there is one for each pair
of resolutions.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from btnet_eval.base import Rows
from btnet_eval.roc import ScoreTail, Threshold
from btnet_eval.verification import cosine_similarities

__all__ = ["Threshold", "recommend", "table"]


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


def table(
    first: Mapping[int, Rows], second: Mapping[int, Rows], same: ArrayLike, fars: Sequence[float]
) -> dict[tuple[int, int], tuple[Threshold, ...]]:
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
    if first.keys() != second.keys():
        raise ValueError(f"first and second must have the same resolutions, not {sorted(first)} and {sorted(second)}")
    truth = np.asarray(same)
    resolutions = sorted(first)
    found = {}
    for place, low in enumerate(resolutions):
        for high in resolutions[place:]:
            scores, labels = cosine_similarities(first[low], second[high]), truth
            if low != high:
                scores = np.concatenate([scores, cosine_similarities(first[high], second[low])])
                labels = np.concatenate([truth, truth])
            found[low, high] = tuple(recommend(scores, labels, far) for far in fars)
    return found
