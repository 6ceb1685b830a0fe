"""Pairs of held-out faces: both kinds, none twice, in memory that does not grow with the square of the images."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btnet_train.validation import choose_identities, draw_pairs


@given(st.lists(st.integers(1, 9), min_size=2, max_size=12), st.integers(0, 2**32 - 1))
def test_pairs_of_one_and_of_two(sizes: list[int], seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    same = sum(size * (size - 1) // 2 for size in sizes)
    different = len(labels) * (len(labels) - 1) // 2 - same
    count = min(20, same, different)
    if count < 10:
        with pytest.raises(ValueError, match=f"make {count} pairs of each kind, expected 10 or more"):
            draw_pairs(labels, 40, np.random.default_rng(seed))
        return
    first, second = draw_pairs(labels, 40, np.random.default_rng(seed))
    of_one = labels[first] == labels[second]
    np.testing.assert_array_equal(of_one, np.arange(2 * count) < count)
    assert (first != second).all()
    assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == 2 * count


def test_each_pair_of_two_is_as_likely() -> None:
    """12 faces of two people: each of the 32 pairs of two is among the 15 that are drawn in 15 / 32 of the draws."""
    labels = np.repeat([0, 1], [8, 4])
    counts = np.zeros((12, 12))
    draws = 4000
    for seed in range(draws):
        first, second = draw_pairs(labels, 30, np.random.default_rng(seed))
        np.add.at(counts, (first[15:], second[15:]), 1)
    expected = draws * 15 / 32
    # Five standard deviations of a binomial.
    assert np.abs(counts[:8, 8:] - expected).max() < 5 * np.sqrt(expected * (1 - 15 / 32))


def test_memory_of_many_images() -> None:
    labels = np.repeat(np.arange(500), 20)  # all pairs of 10,000 images: 400 MB of indices
    tracemalloc.start()
    draw_pairs(labels, 6000, np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6


def test_identities_are_chosen_whatever_their_order() -> None:
    names = [f"{number:03d}" for number in range(20)]
    assert choose_identities(names, 5) == choose_identities(names[::-1], 5)
    with pytest.raises(ValueError, match="19 of 20 identities cannot be held out"):
        choose_identities(names, 19)
