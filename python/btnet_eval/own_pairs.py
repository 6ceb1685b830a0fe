"""Pairs for verification out of a list of whose image each is: balanced over persons, the same for a seed.

What is sound, and what is done:

- A threshold must not be judged on persons that it was chosen on. So each person is in one fold, and a pair is in a
  fold if both its persons are. A fold has two persons at least, one of them with two images; with too few persons for
  two such folds, pairs are dealt to the folds whosoever they are of, and `apart` says so.
- Accuracy means little where most pairs are of one kind. So a fold has as many genuine pairs as impostor pairs.
- A threshold at a low FAR takes many impostor pairs, and there are many more than a fold has. So there are others, and
  genuine ones that a fold has no place for, which are in no fold, -1: for thresholds, which use all pairs.
- Nobody counts for more than others because of more images: pairs are taken in rounds, in each of which a person gives
  one genuine pair, and two persons meet once, until nothing is left or there are enough.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_FOLDS = 10

_Indices = NDArray[np.int64]


@dataclass(frozen=True)
class OwnPairs:
    """Pairs of images by index, no pair twice, genuine ones first.

    first, second, folds: (n,) int64; same: (n,) bool. Fold -1: in no fold. apart: whether nobody is in two folds.
    """

    first: _Indices
    second: _Indices
    same: NDArray[np.bool_]
    folds: _Indices
    apart: bool


def make_pairs(persons: ArrayLike, *, limit: int = 20_000, seed: int = 0) -> OwnPairs:
    """Make all genuine pairs and all impostor pairs, at most limit of each kind, as the module says.

    persons: (n,) integers, whose image each is. limit: at least 1. Raises ValueError for one person only, where nobody
    has two images, and for another limit.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    bits = np.random.PCG64(seed)
    members = _members(np.asarray(persons), bits)
    genuine, owners = _genuine(members, limit, bits)
    if len(members) < 2 or not len(genuine):
        raise ValueError("pairs take two persons at least, one of them with two images")
    genuine_folds = np.full(len(genuine), -1, np.int64)
    impostors: list[tuple[int, int]] = []
    impostor_folds: list[int] = []
    fold_of = _deal([len(images) for images in members])
    for fold in range(max(fold_of) + 1):
        places = np.flatnonzero(np.array(fold_of)[owners] == fold)
        among = [images for images, its_fold in zip(members, fold_of, strict=True) if its_fold == fold]
        found = _impostors(among, len(places))
        genuine_folds[places[: len(found)]] = fold
        impostors += found
        impostor_folds += [fold] * len(found)
    seen = {frozenset(pair) for pair in impostors}
    others = [pair for pair in _impostors(members, limit) if frozenset(pair) not in seen]
    impostors += others[: limit - len(impostors)]
    folds = np.concatenate([genuine_folds, impostor_folds, np.full(len(impostors) - len(impostor_folds), -1)])
    apart = bool(impostor_folds)
    if not apart:
        count = min(len(genuine), len(impostors))
        dealt = np.arange(count) % min(_FOLDS, count)
        folds[:count] = folds[len(genuine) : len(genuine) + count] = dealt
    both = np.concatenate([genuine, np.array(impostors, np.int64)])
    same = np.arange(len(both)) < len(genuine)
    return OwnPairs(both[:, 0], both[:, 1], same, folds.astype(np.int64), apart)


def _permutation(bits: np.random.PCG64, count: int) -> NDArray[np.intp]:
    """Some order of count things. NumPy promises that the bits of a generator stay what they are, no more than that."""
    return np.argsort(bits.random_raw(count), kind="stable")


def _members(persons: NDArray[np.integer], bits: np.random.PCG64) -> list[_Indices]:
    """The images of each person; those with most images first, otherwise in some order."""
    _, starts = np.unique(np.sort(persons), return_index=True)
    images = np.split(np.argsort(persons, kind="stable").astype(np.int64), starts[1:])
    shuffled = [images[place][_permutation(bits, len(images[place]))] for place in _permutation(bits, len(images))]
    return sorted(shuffled, key=len, reverse=True)


def _genuine(members: Sequence[_Indices], limit: int, bits: np.random.PCG64) -> tuple[_Indices, NDArray[np.intp]]:
    """(n, 2) pairs in rounds, one of each person in a round, and (n,) the place in members of each pair's person."""
    counts = np.array([math.comb(len(images), 2) for images in members])
    # So many rounds give the limit; a person may have many more pairs than take part.
    needed = bisect_left(range(limit), limit, key=lambda rounds: int(np.minimum(counts, rounds).sum()))
    pairs, owners, rounds = [], [], []
    for owner, images in enumerate(members):
        chosen = [_pair(number) for number in _draw(int(counts[owner]), min(int(counts[owner]), needed), bits)]
        pairs.append(images[np.array(chosen, np.int64).reshape(-1, 2)])
        owners.append(np.full(len(chosen), owner))
        rounds.append(np.arange(len(chosen)))
    order = np.argsort(np.concatenate(rounds), kind="stable")[:limit]
    return np.concatenate(pairs)[order], np.concatenate(owners)[order]


def _draw(total: int, count: int, bits: np.random.PCG64) -> list[int]:
    """So many of the numbers from 0 to total - 1, each once, in some order; as a shuffle that stops after them."""
    moved: dict[int, int] = {}  # what stands at a place, where it is not the place's own number
    drawn = []
    for place, raw in enumerate(bits.random_raw(count).tolist()):
        other = place + raw % (total - place)
        drawn.append(moved.get(other, other))
        moved[other] = moved.pop(place, place)
    return drawn


def _pair(number: int) -> tuple[int, int]:
    """The pair (i, j), i < j, of a number: (0, 1), (0, 2), (1, 2), (0, 3) and so on from 0."""
    j = (1 + math.isqrt(1 + 8 * number)) // 2
    return number - j * (j - 1) // 2, j


def _deal(images: Sequence[int]) -> list[int]:
    """The fold of each person, given the number of images of each, descending; all -1 if there cannot be two folds.

    They are dealt forth and back, so that the folds have about as many images of about as many persons.
    """
    folds = min(_FOLDS, len(images) // 2, sum(count > 1 for count in images))
    if folds < 2:
        return [-1] * len(images)
    there_and_back = [*range(folds), *reversed(range(folds))]
    return [there_and_back[place % len(there_and_back)] for place in range(len(images))]


def _impostors(members: Sequence[_Indices], most: int) -> list[tuple[int, int]]:
    """Pairs of images of different persons: all of them, or the first ones if there are more.

    In a round, everybody meets everybody once: first the next one, all being in a circle, then the one after that, and
    so on. So at any time all have been in about as many pairs, but for those who have no more left. In each round, two
    persons show two images that they have not shown to each other.
    """
    people = len(members)
    meetings: Iterable[tuple[int, int, int]] = (
        (step, one, (one + step) % people)
        for step in range(1, people // 2 + 1)
        for one in range(people if 2 * step < people else people // 2)  # across the circle, the others have met these
    )
    found: list[tuple[int, int]] = []
    turn = 0
    while True:
        going_on = []
        for step, one, other in meetings:
            if len(found) == most:
                return found
            a, b = members[one], members[other]
            # Both go round; when they would begin again, the second one goes a step ahead.
            shift = turn // math.lcm(len(a), len(b))
            found.append((int(a[(step + turn) % len(a)]), int(b[(step + turn + shift) % len(b)])))
            if turn + 1 < len(a) * len(b):
                going_on.append((step, one, other))
        if not going_on:
            return found
        meetings, turn = going_on, turn + 1
