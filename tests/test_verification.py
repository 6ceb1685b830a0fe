"""Verification accuracy against brute force over all thresholds, and numbers worked out by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btnet_eval.verification import PairsError, accuracy, cosine_similarities, cross_resolution, read_pairs

HEADER = "fold\tpath_a\tpath_b\tsame\n"


def pairs_at(similarities: Any) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of length one whose cosines are the given ones, exactly where those are -1, 0 or 1."""
    cosines = np.asarray(similarities, np.float64)
    a = np.tile([1.0, 0.0], (len(cosines), 1))
    return a, np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)


def measure(similarities: Any, same: Any, folds: Any) -> Any:
    return accuracy(*pairs_at(similarities), same, folds)


def test_by_hand() -> None:
    """Fold 0 is judged by fold 1's pairs, whose gap between 0.3 and 0.5 has its middle at 0.4; and so on."""
    similarities = [0.1, 0.42, 0.35, 0.9, 0.0, 0.3, 0.5, 0.8]
    same = [0, 0, 1, 1, 0, 0, 1, 1]
    found = measure(similarities, same, [7, 7, 7, 7, 9, 9, 9, 9])
    # Fold 7 at 0.4: 0.42 and 0.35 are wrong. Its own best places are below 0.35 and above 0.42, each with one error;
    # of the two middles, 0.225 and 0.66, the lower one is taken, by which fold 9's 0.3 is wrong.
    np.testing.assert_allclose(found.thresholds, [0.4, 0.225], atol=1e-15)
    assert found.folds == (0.5, 0.75)
    assert found.mean == 0.625
    assert found.std == 0.125  # population: both folds are 0.125 off


def test_of_three_equally_good_places_the_middle_one() -> None:
    """Between 0.1 and 0.2, 0.3 and 0.4, 0.5 and 0.6 one pair is wrong on either side in turn."""
    found = measure([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.0], [0, 1, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0, 1])
    np.testing.assert_allclose(found.thresholds[1], 0.35, atol=1e-15)


def test_pairs_at_the_threshold_are_the_same() -> None:
    """All of fold 1 are the same person, so fold 0's threshold is the lowest similarity of fold 1: exactly 0."""
    found = measure([-1.0, 0.0, 0.0, 1.0], [0, 1, 1, 1], [0, 0, 1, 1])
    assert found.thresholds[0] == 0.0
    assert found.folds[0] == 1.0


def test_one_kind_only() -> None:
    """All different: the threshold stands just above the highest, and calls that one different, too."""
    found = measure([0.0, 1.0, 0.0, 1.0], [0, 0, 0, 0], [0, 0, 1, 1])
    assert found.thresholds == (np.nextafter(1.0, 2.0),) * 2
    assert found.mean == 1.0
    assert measure([0.0, 1.0, 0.0, 1.0], [1, 1, 1, 1], [0, 0, 1, 1]).mean == 1.0


def test_ties_are_never_told_apart() -> None:
    """Everything at one similarity: all are called what most of the others are, the same if in doubt."""
    assert measure([0.5] * 6, [1, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]).folds == (1 / 3, 1 / 3)
    assert measure([0.5] * 4, [0, 1, 0, 1], [0, 0, 1, 1]).thresholds == pytest.approx((0.5, 0.5), abs=1e-15)


def test_neighbouring_floats() -> None:
    """There is nothing between two neighbours, and their middle is rounded to the lower: the threshold is the upper."""
    low, high = 2.0**-30, float(np.nextafter(2.0**-30, 1))
    assert (low + high) / 2 == low
    a, b = [[1.0, 0.0]] * 4, [[low, 1.0], [high, 1.0]] * 2  # lengths of exactly 1
    found = accuracy(a, b, [0, 1, 0, 1], [0, 0, 1, 1])
    assert cosine_similarities(a, b).tolist() == [low, high] * 2
    assert found.thresholds == (high, high)
    assert found.mean == 1.0


def brute_force(similarities: np.ndarray, same: np.ndarray) -> list[float]:
    """All best thresholds by counting, of every place that the documentation names, ascending."""
    values = np.unique(similarities)
    places = [values[0], *((values[:-1] + values[1:]) / 2), np.nextafter(values[-1], 2)]
    counts = [sum((s >= place) == truth for s, truth in zip(similarities, same, strict=True)) for place in places]
    return [place for place, count in zip(places, counts, strict=True) if count == max(counts)]


@given(
    data=st.lists(st.tuples(st.integers(-4, 4), st.booleans(), st.integers(0, 3)), min_size=2, max_size=40).filter(
        lambda rows: len({fold for *_, fold in rows}) > 1
    )
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_equals_brute_force(data: list[tuple[int, bool, int]]) -> None:
    """Few distinct similarities, so that ties are common."""
    steps, same, folds = (np.array(column) for column in zip(*data, strict=True))
    found = measure(steps / 4, same, folds)
    similarities = cosine_similarities(*pairs_at(steps / 4))
    expected = []
    for number, fold in enumerate(sorted(set(folds.tolist()))):
        best = brute_force(similarities[folds != fold], same[folds != fold])
        assert found.thresholds[number] == best[(len(best) - 1) // 2]
        test = folds == fold
        expected.append(np.mean((similarities[test] >= found.thresholds[number]) == same[test]))
    assert found.folds == pytest.approx(expected, abs=1e-15)
    assert found.mean == pytest.approx(np.mean(expected), abs=1e-15)
    assert found.std == pytest.approx(np.sqrt(np.mean((np.array(expected) - np.mean(expected)) ** 2)), abs=1e-15)


def test_no_grid_is_better() -> None:
    """The exact threshold is at least as good on its own pairs as any of 20,001 others."""
    random = np.random.default_rng(5)
    same = np.arange(400) % 2 == 0
    similarities = np.clip(random.normal(0.3 * same, 0.2), -1, 1)
    folds = np.repeat([0, 1], 200)
    found = measure(similarities, same, folds)
    cosines = cosine_similarities(*pairs_at(similarities))
    for fold, threshold in enumerate(found.thresholds):
        others, truth = cosines[folds != fold], same[folds != fold]
        best = max(np.mean((others >= t) == truth) for t in np.linspace(-1, 1, 20001))
        assert np.mean((others >= threshold) == truth) >= best


def test_order_length_and_side_do_not_matter() -> None:
    random = np.random.default_rng(6)
    a, b = random.normal(size=(2, 60, 8)).astype(np.float32)
    same, folds = random.integers(0, 2, 60), random.integers(0, 5, 60)
    expected = accuracy(a, b, same, folds)
    assert accuracy(b, a, same, folds) == expected
    order = random.permutation(60)
    assert accuracy(a[order], b[order], same[order], folds[order]) == expected
    assert accuracy(a * np.float32(4), b * np.float32(0.5), same.astype(bool), folds) == expected


def test_cosine_of_large_and_small_values() -> None:
    """In float32 and float16 these lengths would overflow or vanish."""
    large, small = np.array([[1e30, 1e30]], np.float32), np.array([[1e-30, 0]], np.float32)
    assert cosine_similarities(large, small)[0] == pytest.approx(np.sqrt(0.5), abs=1e-7)
    half = np.full((1, 4), 60000, np.float16)
    assert cosine_similarities(half, -half)[0] == -1.0


def test_cross_resolution_is_the_mean_of_both_directions() -> None:
    """One direction is all right, the other all wrong in fold 0 and right in fold 1."""
    same, folds = [0, 1, 0, 1], [0, 0, 1, 1]
    axis_x, axis_y = [1.0, 0.0], [0.0, 1.0]
    first_a, second_b = [axis_x] * 4, [axis_y, axis_x, axis_y, axis_x]  # forward: cosines 0, 1, 0, 1
    second_a, first_b = [axis_x] * 4, [axis_x, axis_y, axis_x, axis_y]  # backward: cosines 1, 0, 1, 0
    found = cross_resolution((first_a, first_b), (second_a, second_b), same, folds)
    assert found.forward == accuracy(first_a, second_b, same, folds)
    assert found.backward == accuracy(second_a, first_b, same, folds)
    assert found.forward.folds == (1.0, 1.0)
    assert found.backward.folds == (0.5, 0.5)  # the best of a bad lot: all the same, or none
    assert found.mean == 0.75
    assert found.std == 0.0


def test_std_of_both_directions() -> None:
    """Folds of 1 and 0.5 in one direction and 0.5 and 1 in the other have means of 0.75 each: no deviation."""
    cosines = np.array([0.0, 1.0, 0.0, 0.0])
    a, b = pairs_at(cosines)
    c, d = pairs_at(cosines[::-1])
    same, folds = [0, 1, 0, 1], [0, 0, 1, 1]
    found = cross_resolution((a, d), (c, b), same, folds)
    by_hand = np.mean([found.forward.folds, found.backward.folds], axis=0)
    assert found.std == np.sqrt(np.mean((by_hand - by_hand.mean()) ** 2))
    assert found.mean == by_hand.mean()


GOOD = {"embeddings_a": np.eye(4), "embeddings_b": np.eye(4), "same": [0, 1, 0, 1], "folds": [0, 0, 1, 1]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"embeddings_a": np.eye(3)},
            r"embeddings must be two \(n, D\) arrays of one shape, not \(3, 3\) and \(4, 4\)",
        ),
        ({"embeddings_a": np.ones(4), "embeddings_b": np.ones(4)}, r"must be two \(n, D\) arrays"),
        ({"same": [0, 1], "folds": [0, 1]}, "same has 2 values for 4 pairs"),
        ({"same": [0, 1, 0]}, r"same and folds must be two \(n,\) arrays, not \(3,\) and \(4,\)"),
        ({"same": [0, 1, 0, 2]}, "same must hold bool, or 0 and 1"),
        ({"same": [0.0, 1.0, 0.0, 1.0]}, "same must hold bool, or 0 and 1"),
        ({"folds": [0.0, 0.0, 1.0, 1.0]}, "folds must hold integers, not float64"),
        ({"folds": [3, 3, 3, 3]}, "folds must have at least two different values"),
        ({"embeddings_b": np.diag([1.0, 1, 0, 1])}, "row 2 of embeddings_b has length zero"),
        ({"embeddings_a": np.diag([1.0, np.nan, 1, 1])}, "row 1 of embeddings_a has values that are not finite"),
        ({"embeddings_a": np.diag([1.0, 1, 1, np.inf])}, "row 3 of embeddings_a has values that are not finite"),
        ({"embeddings_a": np.eye(4) * 1j}, "embeddings_a must hold real numbers, not complex128"),
        ({"embeddings_a": np.eye(4, dtype=object)}, "embeddings_a must hold real numbers, not object"),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        accuracy(**{**GOOD, **changes})


def test_no_pairs() -> None:
    with pytest.raises(ValueError, match="folds must"):
        accuracy(np.empty((0, 4)), np.empty((0, 4)), np.empty(0, bool), np.empty(0, int))


@pytest.mark.parametrize("as_path", [str, Path, lambda path: str(path).encode()])
def test_reads_pairs(tmp_path: Path, as_path: Callable[[Path], Any]) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_bytes((HEADER + "0\tx/1 2.jpg\ty.png\t1\n12\té.jpg\tx\u2028.jpg\t0\r\n").encode())
    pairs = read_pairs(as_path(file))
    assert len(pairs) == 2
    assert pairs.folds.tolist() == [0, 12]
    assert pairs.paths_a == ("x/1 2.jpg", "é.jpg")
    assert pairs.paths_b == ("y.png", "x\u2028.jpg")
    assert pairs.same.tolist() == [True, False]


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"", 0, "no pair follows"),
        (HEADER.encode(), 1, "no pair follows"),
        (b"0\ta\tb\t1\n", 1, "the first line must name the columns fold, path_a, path_b, same"),
        ((HEADER + "0\ta\tb\t1\n\n").encode(), 3, "a pair has 4 columns, not 1"),
        ((HEADER + "0\ta\tb\t1\t\n").encode(), 2, "a pair has 4 columns, not 5"),
        ((HEADER + "-1\ta\tb\t1\n").encode(), 2, "fold must be an integer from 0, not '-1'"),
        ((HEADER + "²\ta\tb\t1\n").encode(), 2, "fold must be an integer from 0, not '²'"),
        ((HEADER + "9999999999999999999999\ta\tb\t1\n").encode(), 2, "fold must be an integer from 0"),
        ((HEADER + "0\ta\tb\ttrue\n").encode(), 2, "same must be 0 or 1, not 'true'"),
        ((HEADER + "0\ta\t\t1\n").encode(), 2, "path_a and path_b must not be empty"),
        (HEADER.encode() + b"0\ta\tb\t1\n0\t\xff\tb\t1\n", 3, "text that is not UTF-8"),
    ],
)
def test_pairs_that_are_none(tmp_path: Path, content: bytes, line: int, message: str) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_bytes(content)
    with pytest.raises(PairsError) as caught:
        read_pairs(file)
    assert str(caught.value).startswith(f"{file}, line {line}: {message}")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_pairs(tmp_path / "none.tsv")


def test_the_projects_pairs(data_folder: Path) -> None:
    """6,000 pairs, ten folds of one size, half of each the same, no identity in two folds."""
    pairs = read_pairs(data_folder / "celeba" / "val_pairs.tsv")
    assert len(pairs) == 6000
    assert np.bincount(pairs.folds).tolist() == [600] * 10
    assert np.bincount(pairs.folds, weights=pairs.same).tolist() == [300] * 10
    fold_of: dict[str, int] = {}
    for fold, *paths in zip(pairs.folds.tolist(), pairs.paths_a, pairs.paths_b, strict=True):
        for path in paths:
            assert fold_of.setdefault(path.partition("/")[0], fold) == fold
