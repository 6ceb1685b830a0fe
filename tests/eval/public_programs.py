"""What the public programs for IJB-B and IJB-C compute, in their order of steps and in float64, as a reference.

Written after insightface's eval_ijbc.py (arcface_torch), ijb_1n.py and ijb_evals.py, and BTNet's eval_ijbc_*.
"""

import math
from collections.abc import Sequence

import numpy as np
from sklearn.metrics import roc_curve


def template_features(
    rows: np.ndarray,
    mirrored: np.ndarray | None,
    scores: np.ndarray | None,
    templates: np.ndarray,
    media: np.ndarray,
    *,
    use_norm_score: bool,
) -> dict[int, np.ndarray]:
    """image2template_feature, after the three switches."""
    features = rows.astype(np.float64)
    if mirrored is not None:
        features = features + mirrored
    if not use_norm_score:
        features = features / np.sqrt(np.sum(features**2, -1, keepdims=True))
    if scores is not None:
        features = features * scores[:, None]
    found = {}
    for template in np.unique(templates):
        of_template = templates == template
        means = [np.mean(features[of_template & (media == medium)], axis=0) for medium in np.unique(media[of_template])]
        total = np.sum(means, axis=0)
        found[int(template)] = total / np.linalg.norm(total)
    return found


def tar_at_nearest_far(label: np.ndarray, scores: np.ndarray, far: float) -> float:
    """The end of eval_ijbc.py, but with all points of the ROC: those that it leaves out move the nearest one."""
    fpr, tpr, _ = roc_curve(label, scores, drop_intermediate=False)
    fpr, tpr = np.flipud(fpr), np.flipud(tpr)
    _, index = min(zip(abs(fpr - far), range(len(fpr)), strict=True))
    return float(tpr[index])


def search_in_all(
    similarity: np.ndarray, mask: Sequence[int], fpirs: Sequence[float]
) -> tuple[list[float], list[float]]:
    """ijb_1n.py's evaluation: TPIRs, and top-1, 5, 10. similarity: probes x gallery; mask: the mate of each probe."""
    count = len(similarity)
    ranked = np.argsort(-similarity)
    tops = [sum(mask[i] in ranked[i, :k] for i in range(count)) / count for k in (1, 5, 10)]
    required = [math.ceil(count * x) for x in fpirs]
    positive = similarity[np.arange(count), mask]
    others = similarity.copy()
    others[np.arange(count), mask] = -2.0
    negative = np.sort(others[others > -2.0])[::-1]
    return [float(np.sum(positive > negative[place - 1]) / count) for place in required], tops


def search_in_one(
    similarity: np.ndarray, people: np.ndarray, gallery: np.ndarray, fpirs: Sequence[float]
) -> tuple[list[float], list[int], int]:
    """ijb_evals.py's evaluation_1N: TPIRs, how many mates are in the top 1, 5 and 10, and how many mates there are.

    Its threshold is the score of non-mated probe number int(n * fpir); here, of the one after it, so that as many are
    accepted as fpir allows.
    """
    positive, best_other, non_mated, tops = [], [], [], [0, 0, 0]
    for scores, person in zip(similarity, people, strict=True):
        if person not in gallery:
            non_mated.append(scores.max())
            continue
        ranked = gallery[np.argsort(scores)[::-1]]
        tops = [top + (person in ranked[:k]) for top, k in zip(tops, (1, 5, 10), strict=True)]
        positive.append(scores[gallery == person][0])
        best_other.append(scores[gallery != person].max(initial=-np.inf))
    falling = np.sort(non_mated)[::-1]
    correct = np.array(positive) > np.array(best_other)
    thresholds = [falling[int(len(falling) * fpir)] for fpir in fpirs]
    tpirs = [float(np.mean(correct & (np.array(positive) > threshold))) for threshold in thresholds]
    return tpirs, tops, len(positive)
