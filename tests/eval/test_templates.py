"""Templates against a loop over templates and media in float64, and numbers worked out by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btnet_eval import templates as module
from btnet_eval.templates import Templates, aggregate, normalized, pair_scores, prototypes


def one_at_a_time(rows: Any, media: Any, templates: Any, weights: Any) -> dict[Any, np.ndarray]:
    """As the definition reads."""
    rows = np.asarray(rows, np.float64)
    rows = rows / np.linalg.norm(rows, axis=1)[:, None] * np.asarray(weights)[:, None]
    found = {}
    for template in set(templates):
        of_template = np.array([t == template for t in templates])
        means = [
            rows[of_template & np.array([m == medium for m in media])].mean(axis=0)
            for medium in {m for m, t in zip(media, templates, strict=True) if t == template}
        ]
        mean = np.mean(means, axis=0)
        found[template] = mean / np.linalg.norm(mean)
    return found


def test_by_hand() -> None:
    """Template 7: a still on the first axis and a video of three frames, two on the second axis and one on the third.

    The video's mean is (0, 2/3, 1/3), that of both (1/2, 1/3, 1/6): the direction of (3, 2, 1). How long the rows are
    does not matter. Template 5 is one still image.
    """
    rows = [[0, 9, 0], [4, 0, 0], [0, 0, 2], [0, 1, 0], [3, 4, 0]]
    found = aggregate(rows, [1, 0, 1, 1, 0], [7, 7, 7, 7, 5])
    assert found.ids.tolist() == [5, 7]
    np.testing.assert_allclose(found.rows, [[0.6, 0.8, 0], np.array([3, 2, 1]) / np.sqrt(14)], atol=1e-7)
    assert found.rows.dtype == np.float32


def test_weights_by_hand() -> None:
    """The still counts 0.5; the frames 0.2 and 0.4, whose mean is (0, 0.1, 0.2): all is divided by 2, not by 0.6."""
    found = aggregate(np.eye(3), ["still", "video", "video"], ["t"] * 3, weights=[0.5, 0.2, 0.4])
    np.testing.assert_allclose(found.rows[0], np.array([5, 1, 2]) / np.sqrt(30), atol=1e-7)


def test_no_weight_by_hand() -> None:
    """The frame on the third axis has none; it is still one of two, so that the other counts one half."""
    found = aggregate(np.eye(3), ["still", "video", "video"], ["t"] * 3, weights=[1, 1, 0])
    np.testing.assert_allclose(found.rows[0], np.array([2, 1, 0]) / np.sqrt(5), atol=1e-7)


def test_mirrored_by_hand() -> None:
    """(3, 0) + (1, 0) has the direction of (1, 0), and (0, 1) + (0.6, 0.8) that of (1, 3): their mean counts both."""
    found = aggregate([[3, 0], [0, 1]], [0, 1], [7, 7], mirrored=[[1.0, 0], [0.6, 0.8]])
    expected = np.array([1, 0]) + np.array([1, 3]) / np.sqrt(10)
    np.testing.assert_allclose(found.rows[0], expected / np.linalg.norm(expected), atol=1e-7)


def test_kept_lengths_by_hand() -> None:
    """The still (4, 0) counts twice as much as the video, the mean of (0, 3) and (0, 1), times its weight of 2."""
    found = aggregate([[4, 0], [0, 3], [0, 1]], [0, 1, 1], [5, 5, 5], [1, 2, 2], keep_lengths=True)
    np.testing.assert_allclose(found.rows[0], np.array([1, 1]) / np.sqrt(2), atol=1e-7)
    found = aggregate([[4, 0], [0, 3], [0, 1]], [0, 1, 1], [5, 5, 5], keep_lengths=True, mirrored=np.eye(3, 2))
    np.testing.assert_allclose(found.rows[0], np.array([10, 5]) / np.sqrt(125), atol=1e-7)


@given(
    groups=st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 4)), min_size=1, max_size=40),
    block=st.integers(1, 9),
    named=st.booleans(),
    weighted=st.booleans(),
    mirrored=st.booleans(),
    keep_lengths=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_equals_a_loop(
    groups: list[tuple[int, int]],
    block: int,
    named: bool,
    weighted: bool,
    mirrored: bool,
    keep_lengths: bool,
    seed: int,
) -> None:
    """With templates that span blocks, media numbers that occur in several templates, and strings as ids."""
    random = np.random.default_rng(seed)
    templates, media = zip(*[(str(t), str(m)) if named else (t, m) for t, m in groups], strict=True)
    rows = random.normal(size=(len(groups), 5)).astype(np.float32) * 3
    other = random.normal(size=(len(groups), 5)).astype(np.float32)
    weights = random.uniform(0.1, 1, len(groups)) if weighted else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        found = aggregate(
            rows, media, templates, weights, mirrored=other if mirrored else None, keep_lengths=keep_lengths
        )
    added = rows.astype(np.float64) + (other if mirrored else 0)
    scales = np.ones(len(groups)) if weights is None else weights
    if keep_lengths:
        scales = scales * np.linalg.norm(added, axis=1)
    expected = one_at_a_time(added, media, templates, scales)
    assert found.ids.tolist() == sorted(expected)
    assert len(found) == len(expected)
    for name, row in zip(found.ids.tolist(), found.rows, strict=True):
        np.testing.assert_allclose(row, expected[name], atol=2e-6)


def test_prototypes_are_means_of_raw_rows() -> None:
    """(3, 0) counts three times as much as (0, 1)."""
    found = prototypes([[3, 0], [0, 1], [0, 2]], ["x", "x", "w"])
    assert found.ids.tolist() == ["w", "x"]
    np.testing.assert_allclose(found.rows, [[0, 1], np.array([3, 1]) / np.sqrt(10)], atol=1e-7)


def test_pair_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """All pairs, in blocks of three, by name and by number."""
    monkeypatch.setattr(module, "_BLOCK", 3)
    random = np.random.default_rng(5)
    rows = random.normal(size=(4, 16))
    unit = rows / np.linalg.norm(rows, axis=1)[:, None]
    names = np.array([9, 2, 30, 5])
    first, second = (places.ravel() for places in np.indices((4, 4)))
    expected = (unit @ unit.T).ravel()
    np.testing.assert_allclose(pair_scores(prototypes(rows, names), names[first], names[second]), expected, atol=1e-6)
    by_name = prototypes(rows, names.astype(str))
    scores = pair_scores(by_name, names[first].astype(str), names[second].astype(str))
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert scores.dtype == np.float64


def test_pairs_of_two_sets() -> None:
    """The first of a pair is of one set, the second of another, which has other ids."""
    first, second = prototypes(np.eye(3), [1, 2, 3]), prototypes([[0, 3, 4], [5, 0, 0]], [7, 2])
    assert pair_scores(first, [2, 3, 1, 2], [7, 7, 2, 2], second) == pytest.approx([0.6, 0.8, 1, 0])
    with pytest.raises(ValueError, match="second names 3, which is no template"):
        pair_scores(first, [3], [3], second)


def test_rows_of_ids() -> None:
    found = prototypes([[0, 3, 4], [5, 0, 0]], [7, 2])
    np.testing.assert_allclose(found.of([7, 2, 7]), [[0, 0.6, 0.8], [1.0, 0, 0], [0, 0.6, 0.8]], atol=1e-7)
    with pytest.raises(ValueError, match="ids names 3, which is no template"):
        found.of([2, 3])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4"])
def test_normalized(dtype: str) -> None:
    found = normalized("rows", np.array([[3, 4], [0, 5]], dtype))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0.0, 1]], atol=1e-7)
    assert found.dtype == np.float32


def test_normalized_at_the_ends_of_float32() -> None:
    np.testing.assert_allclose(normalized("rows", np.array([[3e30, 4e30], [3e-30, 4e-30]], "f4")), [[0.6, 0.8]] * 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rows": np.empty((0, 2)), "media": [], "templates": []}, "rows must be .* at least one row"),
        ({"rows": [1.0, 2.0]}, r"rows must be an \(n, D\) array .* not one of shape \(2,\)"),
        ({"rows": [[1.0, 0.0], [0.0, 0.0]]}, "row 1 of rows has length zero"),
        ({"rows": [[1.0, np.inf], [0.0, 1.0]]}, "row 0 of rows has values that are not finite"),
        ({"media": [1]}, "media must have one value for each of 2 rows"),
        ({"templates": [1, 2, 3]}, "templates must have one value for each of 2 rows"),
        ({"templates": [1.5, 2.5]}, "templates must hold integers or strings, not float64"),
        ({"weights": [1.0]}, "weights must have one value for each of 2 rows"),
        ({"weights": [1.0, -0.1]}, "weights must be finite and not negative"),
        ({"weights": [1.0, np.nan]}, "weights must be finite and not negative"),
        ({"weights": [0.0, 0.0]}, "the rows of 4 add up to zero"),
        ({"mirrored": np.eye(3)}, r"mirrored must have the shape \(2, 2\) of rows, not \(3, 3\)"),
        ({"mirrored": [[1.0, 0.0], [0.0, -1.0]]}, "row 1 of the sums of rows and mirrored, from 0 on, has length zero"),
        ({"rows": [[1.0, 0.0], [-2.0, 0.0]]}, "the rows of 4 add up to zero"),
    ],
)
def test_bad_rows(changed: dict[str, Any], message: str) -> None:
    good = {"rows": [[1.0, 0.0], [0.0, 1.0]], "media": [0, 1], "templates": [4, 4]}
    with pytest.raises(ValueError, match=message):
        aggregate(**{**good, **changed})


def test_bad_prototypes() -> None:
    with pytest.raises(ValueError, match="identities must have one value for each of 2 rows"):
        prototypes(np.eye(2), [1])
    with pytest.raises(ValueError, match="row 0 of rows has length zero"):
        prototypes([[0.0, 0.0], [0.0, 1.0]], [1, 1])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1, 2], [1], "one length, not 2 and 1"),
        ([1], [4], "second names 4, which is no template"),
        ([0], [1], "first names 0, which is no template"),
        ([1], [2], None),
        (["1"], [1], "first must be .* ids of the type int64, not <U1"),
        ([1], [[1]], r"second must be .* of shape \(1, 1\)"),
    ],
)
def test_bad_pairs(first: Any, second: Any, message: str | None) -> None:
    templates = Templates(np.array([1, 2, 3]), np.eye(3, dtype=np.float32))
    if message is None:
        assert pair_scores(templates, first, second).tolist() == [0]
        return
    with pytest.raises(ValueError, match=message):
        pair_scores(templates, first, second)
