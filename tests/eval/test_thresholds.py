"""Recommended thresholds by hand, and against the ROC."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btnet_eval.roc import tar_at_far
from btnet_eval.thresholds import Threshold, recommend, table
from btnet_eval.verification import cosine_similarities


def test_by_hand() -> None:
    """Of the impostors at 0, 0.1, 0.2 and 0.3, one may be accepted at FAR 0.25: the one at 0.2 must not."""
    scores, same = [0.0, 0.1, 0.2, 0.3, 0.15, 0.25, 0.5], [0, 0, 0, 0, 1, 1, 1]
    assert recommend(scores, same, 0.25) == Threshold(np.nextafter(0.2, 1), 0.25, 2 / 3, 4)
    assert recommend(scores, same, 0.2499) == Threshold(np.nextafter(0.3, 1), 0.0, 1 / 3, 4)


def test_is_plain_numbers() -> None:
    """As model.json needs them, and the same after it was read again."""
    found = recommend(np.array([0.1, 0.7], np.float32), np.array([False, True]), 0.1)
    assert Threshold(**json.loads(json.dumps(dataclasses.asdict(found)))) == found
    assert [type(number) for number in dataclasses.astuple(found)] == [float, float, float, int]


@given(
    pairs=st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=50).filter(
        lambda pairs: len({same for _, same in pairs}) == 2
    ),
    far=st.floats(0, 0.999),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_agrees_with_the_roc(pairs: list[tuple[int, bool]], far: float) -> None:
    steps, same = (np.array(column) for column in zip(*pairs, strict=True))
    found = recommend(steps / 10, same, far)
    assert found.tar == pytest.approx(tar_at_far(steps / 10, same, far), abs=1e-15)
    assert np.mean(steps[~same] / 10 >= found.value) == found.far <= far


def sets(resolutions: list[int]) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray], np.ndarray]:
    """Embeddings of 60 pairs at each resolution, the more alike the more pixels."""
    random = np.random.default_rng(21)
    same = np.arange(60) % 3 == 0
    base = random.normal(size=(60, 8))
    other = np.where(same[:, None], base, random.normal(size=(60, 8)))
    first = {r: (base + random.normal(size=base.shape) * 10 / r).astype(np.float32) for r in resolutions}
    second = {r: (other + random.normal(size=base.shape) * 10 / r).astype(np.float32) for r in resolutions}
    return first, second, same


def test_table() -> None:
    """Both directions between different resolutions; in order, whatever the order of the resolutions given."""
    first, second, same = sets([28, 7, 14])
    fars = (0.1, 0.01)
    found = table(first, second, same, fars)
    assert list(found) == [(7, 7), (7, 14), (7, 28), (14, 14), (14, 28), (28, 28)]
    assert [[t.impostors for t in found[key]] for key in ((7, 7), (7, 14))] == [[40, 40], [80, 80]]
    for far, threshold in zip(fars, found[14, 14], strict=True):
        assert threshold == recommend(cosine_similarities(first[14], second[14]), same, far)
    scores = np.concatenate([cosine_similarities(first[7], second[28]), cosine_similarities(first[28], second[7])])
    truth = np.tile(same, 2)
    for far, threshold in zip(fars, found[7, 28], strict=True):
        assert threshold.far == np.mean(scores[~truth] >= threshold.value) <= far
        assert threshold.tar == np.mean(scores[truth] >= threshold.value) == tar_at_far(scores, truth, far)
    # Which image of a pair is the first does not matter.
    assert table(second, first, same, fars) == found


@pytest.mark.parametrize(
    ("scores", "same", "far", "message"),
    [
        ([0.1, 0.2], [1, 1], 0.1, "no FAR without impostor pairs"),
        ([0.1, 0.2], [0, 0], 0.1, "no TAR without genuine pairs"),
        ([0.1, 0.2], [0, 1], 1.0, "max_far|below 1"),
        ([0.1], [0, 1], 0.1, "one shape"),
        ([0.1, np.nan], [0, 1], 0.1, "finite"),
    ],
)
def test_bad_pairs(scores: Any, same: Any, far: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recommend(scores, same, far)


def test_bad_sets() -> None:
    first, second, same = sets([7, 14])
    with pytest.raises(ValueError, match=r"same resolutions, not \[7, 14\] and \[7\]"):
        table(first, {7: second[7]}, same, [0.1])
    with pytest.raises(ValueError, match="one shape"):
        table(first, second, same[:-1], [0.1])
