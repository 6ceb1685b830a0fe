"""Pairs of a list of persons: no pair twice, nobody with himself, balance, and folds that keep persons apart."""

import tracemalloc
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from btnet_eval.own_pairs import OwnPairs, _draw, _pair, make_pairs

COUNTS = st.lists(st.integers(1, 6), min_size=2, max_size=25).filter(lambda counts: max(counts) > 1)


def persons_of(counts: list[int], seed: int = 3) -> np.ndarray:
    """Whose each image is, mixed, with gaps between the numbers of persons."""
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)) * 5 + 2, counts))


def as_sets(pairs: OwnPairs, chosen: np.ndarray) -> list[frozenset[int]]:
    return [frozenset(pair) for pair in zip(pairs.first[chosen].tolist(), pairs.second[chosen].tolist(), strict=True)]


@given(counts=COUNTS, limit=st.integers(1, 400), seed=st.integers(0, 5))
@example(counts=[2, 1], limit=1, seed=0)
@example(counts=[6, 6], limit=400, seed=0)
@example(counts=[2] * 20, limit=400, seed=0)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_pairs(counts: list[int], limit: int, seed: int) -> None:
    persons = persons_of(counts)
    pairs = make_pairs(persons, limit=limit, seed=seed)
    indices = range(len(persons))
    genuine = {frozenset(pair) for pair in combinations(indices, 2) if persons[pair[0]] == persons[pair[1]]}
    impostors = {frozenset(pair) for pair in combinations(indices, 2)} - genuine
    for same, possible in ((True, genuine), (False, impostors)):
        found = as_sets(pairs, pairs.same == same)
        assert len(set(found)) == len(found) == min(limit, len(possible))
        assert possible.issuperset(found)
    assert (np.diff(pairs.same.astype(int)) <= 0).all(), "genuine ones come first"


@given(counts=COUNTS, limit=st.integers(20, 400))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_folds(counts: list[int], limit: int) -> None:
    persons = persons_of(counts)
    pairs = make_pairs(persons, limit=limit)
    inside = pairs.folds >= 0
    folds = np.unique(pairs.folds[inside])
    assert (folds == np.arange(len(folds))).all()
    assert len(folds) <= 10
    several = sum(count > 1 for count in counts)
    assert pairs.apart == (min(len(counts) // 2, several) >= 2)
    if pairs.apart:
        owners: dict[int, int] = {}
        for image, fold in zip(
            np.concatenate([pairs.first[inside], pairs.second[inside]]), np.tile(pairs.folds[inside], 2), strict=True
        ):
            assert owners.setdefault(int(persons[image]), int(fold)) == fold
        for fold in folds:
            kinds = Counter(pairs.same[pairs.folds == fold].tolist())
            assert kinds[True] == kinds[False] > 0
    else:
        assert (pairs.same & inside).sum() == (~pairs.same & inside).sum() == min(pairs.same.sum(), (~pairs.same).sum())


@pytest.mark.parametrize(("people", "limit"), [(7, 50), (8, 60), (12, 200), (30, 100), (31, 1000)])
def test_everybody_is_in_as_many_pairs(people: int, limit: int) -> None:
    """With as many images of each: genuine pairs differ by one, and those with others by what a fold is short of."""
    persons = np.repeat(np.arange(people), 5)
    pairs = make_pairs(persons, limit=limit, seed=1)
    genuine = np.bincount(persons[pairs.first[pairs.same]], minlength=people)
    assert genuine.sum() == min(limit, 10 * people)
    assert np.ptp(genuine) <= 1
    others = pairs.first[~pairs.same], pairs.second[~pairs.same]
    shares = np.bincount(persons[np.concatenate(others)], minlength=people)
    assert shares.sum() == 2 * limit
    assert shares.min() >= 0.5 * shares.mean()
    assert shares.max() <= 1.5 * shares.mean()


def test_a_person_with_many_images_counts_like_others() -> None:
    persons = np.repeat(np.arange(10), [100, *[6] * 9])
    pairs = make_pairs(persons, limit=150)
    genuine = np.bincount(persons[pairs.first[pairs.same]])
    assert genuine.tolist() == [15] * 10
    shares = np.bincount(persons[np.concatenate([pairs.first[~pairs.same], pairs.second[~pairs.same]])])
    assert shares.max() <= 1.5 * shares.mean()
    # Nor do some of its images count for more than others.
    images = Counter(np.concatenate([pairs.first[~pairs.same], pairs.second[~pairs.same]]).tolist())
    assert max(images[image] for image in range(100)) <= 2


@given(images=st.integers(0, 40))
@settings(max_examples=41, deadline=None, derandomize=True)
def test_every_pair_has_a_number(images: int) -> None:
    """The numbers below n (n - 1) / 2 are those of all pairs of n images, by brute force."""
    pairs = [_pair(number) for number in range(images * (images - 1) // 2)]
    assert sorted(pairs) == list(combinations(range(images), 2))


def test_numbers_of_pairs_do_not_round() -> None:
    """The first and the last pair with image j, for a j with which 8 k is far beyond what a float can tell."""
    j = 10**9 + 7
    assert _pair(j * (j - 1) // 2) == (0, j)
    assert _pair(j * (j + 1) // 2 - 1) == (j - 1, j)


def test_draws_are_distinct_and_even() -> None:
    """Each ordered draw of two of four numbers is as likely as any other: 12 of them, 12,000 times."""
    bits = np.random.PCG64(5)
    drawn = Counter(tuple(_draw(4, 2, bits)) for _ in range(12_000))
    assert drawn.keys() == {(a, b) for a in range(4) for b in range(4) if a != b}
    assert max(drawn.values()) < 1000 + 5 * 31  # the standard deviation is 30.3
    assert min(drawn.values()) > 1000 - 5 * 31
    assert sorted(_draw(50, 50, bits)) == list(range(50))
    assert _draw(0, 0, bits) == []


def test_many_images_of_one_person_take_little_memory() -> None:
    """Four thousand images have eight million pairs, which would be 128 MB as numbers; a hundred are wanted."""
    persons = np.repeat([0, 1], [4000, 2])
    tracemalloc.start()
    try:
        pairs = make_pairs(persons, limit=100)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert pairs.same.sum() == 100
    assert peak < 2_000_000


def test_the_seed_decides() -> None:
    persons = persons_of([4] * 12)
    first, again, other = (make_pairs(persons, limit=40, seed=seed) for seed in (0, 0, 1))
    for name in ("first", "second", "same", "folds"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert set(as_sets(first, first.same)) != set(as_sets(other, other.same))
    assert set(as_sets(first, ~first.same)) != set(as_sets(other, ~other.same))


def test_by_hand() -> None:
    """Two persons of two images: two genuine pairs, all four impostor pairs, two of these in folds like the others."""
    pairs = make_pairs([7, 7, 3, 3])
    assert set(as_sets(pairs, pairs.same)) == {frozenset({0, 1}), frozenset({2, 3})}
    assert set(as_sets(pairs, ~pairs.same)) == {frozenset(p) for p in ((0, 2), (0, 3), (1, 2), (1, 3))}
    assert pairs.folds.tolist() == [0, 1, 0, 1, -1, -1]
    assert not pairs.apart


@pytest.mark.parametrize("persons", [[1, 1, 1], [0, 1, 2]])
def test_too_few(persons: list[int]) -> None:
    with pytest.raises(ValueError, match="pairs take two persons at least, one of them with two images"):
        make_pairs(persons)
    with pytest.raises(ValueError, match="limit must be at least 1, not 0"):
        make_pairs([0, 0, 1], limit=0)
