"""1:1 and 1:N of templates against the public programs' steps in float64, and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from public_programs import search_in_all, search_in_one, tar_at_nearest_far

from btnet_eval import template_measures as module
from btnet_eval.base import DataError
from btnet_eval.datasets.ijbc import Subjects, TemplatePairs
from btnet_eval.template_measures import (
    CURVE_FARS,
    FARS,
    FPIRS,
    Identified,
    Measured,
    Search,
    compare_pairs,
    mean,
    measure,
    search_each,
    search_together,
)
from btnet_eval.templates import Templates

SEED = 11


def faces_of(people: np.ndarray, random: np.random.Generator, spread: float = 1.0) -> Templates:
    """A template for each entry, ids in steps of 3, those of one person near each other."""
    centres = random.normal(size=(int(people.max()) + 1, 8))
    rows = centres[people] + spread * random.normal(size=(len(people), 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Templates(3 * np.arange(len(people)), rows.astype(np.float32))


def similarities(a: Templates, b: Templates) -> np.ndarray:
    return a.rows.astype(np.float64) @ b.rows.astype(np.float64).T


def all_pairs(people: np.ndarray) -> TemplatePairs:
    first, second = np.triu_indices(len(people), 1)
    return TemplatePairs((3 * first).astype("i4"), (3 * second).astype("i4"), people[first] == people[second])


def test_fars_of_the_curve() -> None:
    assert len(CURVE_FARS) == 51
    assert set(FARS) < set(CURVE_FARS)
    assert list(CURVE_FARS) == sorted(CURVE_FARS)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    count=st.integers(6, 40),
    people=st.integers(2, 5),
    block=st.integers(1, 50),
    seed=st.integers(0, 999),
    two=st.booleans(),
)
def test_tar_by_definition(count: int, people: int, block: int, seed: int, two: bool) -> None:
    """The largest TAR of all thresholds with a FAR of at most that, of the same or of two sets of embeddings."""
    random = np.random.default_rng(seed)
    whose = np.arange(count) % people
    first = faces_of(whose, random)
    second = faces_of(whose, random) if two else first
    pairs = all_pairs(whose)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        tail = compare_pairs(first, second, pairs)
    scores = similarities(first, second)[pairs.first // 3, pairs.second // 3]
    genuine, impostors = scores[pairs.same], scores[~pairs.same]
    thresholds = np.concatenate([scores, [2.0]])
    far_of = np.array([np.mean(impostors >= threshold) for threshold in thresholds])
    tar_of = np.array([np.mean(genuine >= threshold) for threshold in thresholds])
    for far in CURVE_FARS:
        assert tail.at_far(far).tar == tar_of[far_of <= far].max()


@pytest.mark.parametrize("far", [1e-3, 1e-2, 1e-1])
def test_tar_as_arcface_torch_reads_it(far: float) -> None:
    """Of 1,000 impostor pairs: there is a threshold with this very FAR. No two scores are equal."""
    random = np.random.default_rng(SEED)
    whose = np.arange(60) % 12
    templates, pairs = faces_of(whose, random), all_pairs(whose)
    kept = np.sort(np.concatenate([np.flatnonzero(pairs.same), np.flatnonzero(~pairs.same)[:1000]]))
    pairs = TemplatePairs(pairs.first[kept], pairs.second[kept], pairs.same[kept])
    scores = similarities(templates, templates)[pairs.first // 3, pairs.second // 3]
    assert len(np.unique(scores)) == len(scores)
    tar = compare_pairs(templates, templates, pairs).at_far(far).tar
    assert tar == tar_at_nearest_far(pairs.same, scores, far)
    assert 0 < tar < 1


def test_fewer_impostors_than_far_needs_by_hand() -> None:
    """Two impostor pairs: at FARs below one half, none may be accepted, which one genuine pair of two survives."""
    rows = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]], np.float32)
    pairs = TemplatePairs(
        np.array([0, 0, 0, 1], "i4"), np.array([1, 3, 2, 2], "i4"), np.array([True, True, False, False])
    )
    assert compare_pairs(Templates(np.arange(4), rows), Templates(np.arange(4), rows), pairs).at_far(1e-6).tar == 0
    pairs = TemplatePairs(pairs.first, pairs.second, np.array([False, True, False, True]))
    # Genuine 0 and 0.96, impostors 0.8 and 0.6.
    assert compare_pairs(Templates(np.arange(4), rows), Templates(np.arange(4), rows), pairs).at_far(0.1).tar == 0.5


def searched(people: int, probes: int, galleries: int, seed: int, strangers: int = 0) -> tuple[Templates, Search]:
    """The first templates are the galleries, person i in gallery i modulo their number, then come the probes."""
    random = np.random.default_rng(seed)
    whose = np.concatenate([np.arange(people), random.integers(0, people, probes), people + np.arange(strangers)])
    whose[people : people + galleries] = np.arange(galleries)  # so that each gallery has a mated probe
    ids = 3 * np.arange(len(whose))
    parts = [np.arange(people) % galleries == part for part in range(galleries)]
    search = Search(
        [Subjects(ids[:people][part], 100 + whose[:people][part]) for part in parts],
        Subjects(ids[people:], 100 + whose[people:]),
    )
    return faces_of(whose, random), search


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    people=st.integers(3, 25),
    probes=st.integers(3, 60),
    galleries=st.integers(1, 3),
    strangers=st.integers(0, 3),
    seed=st.integers(0, 999),
)
def test_together_as_ijb_1n(people: int, probes: int, galleries: int, strangers: int, seed: int) -> None:
    """Probes of nobody in a gallery do not count."""
    templates, search = searched(people, probes, galleries, seed, strangers)
    gallery = np.concatenate([part.templates for part in search.galleries])
    subjects = np.concatenate([part.subjects for part in search.galleries])
    known = np.isin(search.probes.subjects, subjects)
    scores = similarities(templates, templates)[search.probes.templates[known] // 3][:, gallery // 3]
    mask = [int(np.flatnonzero(subjects == subject)[0]) for subject in search.probes.subjects[known]]
    tpirs, tops = search_in_all(scores, mask, FPIRS)
    found = search_together(templates, templates, search)
    assert list(found.tpirs.values()) == tpirs
    assert list(found.tops.values()) == tops


@settings(derandomize=True, deadline=None, max_examples=60)
@given(people=st.integers(4, 25), probes=st.integers(4, 60), galleries=st.integers(2, 3), seed=st.integers(0, 999))
def test_each_as_ijb_evals(people: int, probes: int, galleries: int, seed: int) -> None:
    templates, search = searched(people, probes, galleries, seed)
    everything = similarities(templates, templates)[search.probes.templates // 3]
    of_parts = [
        search_in_one(everything[:, part.templates // 3], search.probes.subjects, part.subjects, FPIRS)
        for part in search.galleries
    ]
    found = search_each(templates, templates, search)
    expected = np.mean([tpirs for tpirs, _, _ in of_parts], axis=0)
    np.testing.assert_allclose(np.array(list(found.tpirs.values()), float), expected, atol=1e-12)
    mates = sum(mated for _, _, mated in of_parts)
    expected = np.sum([tops for _, tops, _ in of_parts], axis=0) / mates
    np.testing.assert_allclose(list(found.tops.values()), expected, atol=1e-12)


def test_search_by_hand() -> None:
    """Two galleries of one person each, three probes; scores are the first coordinate for 1 and the second for 2.

    Together: of three probes the ceil(0.3) = first impostor score, 0.8, is the threshold of both FPIRs; only the mate's
    0.96 is above it. Rank 1 for probes 20 (0.96 against 0.28) and 22 (0.8 against 0.6), not for 21 (0.6 against 0.8).
    Each: in gallery 1, probe 22 is non-mated with 0.6, so the mates of 20 and 21 are accepted with 0.96, and with 0.6
    not, which is as high and no higher; in gallery 2, the non-mated 20 and 21 have 0.28 and 0.8, and 22 has 0.8.
    """
    rows = np.array([[1, 0], [0, 1], [0.96, 0.28], [0.6, 0.8], [0.6, 0.8]], np.float32)
    templates = Templates(np.array([10, 11, 20, 21, 22]), rows)
    search = Search(
        [Subjects(np.array([10]), np.array([1])), Subjects(np.array([11]), np.array([2]))],
        Subjects(np.array([20, 21, 22]), np.array([1, 1, 2])),
    )
    together = search_together(templates, templates, search)
    assert together.tpirs == {0.01: 1 / 3, 0.1: 1 / 3}
    assert together.tops == {1: 2 / 3, 5: 1, 10: 1}
    each = search_each(templates, templates, search)
    assert each.tpirs == {0.01: 0.25, 0.1: 0.25}
    assert each.tops == {1: 1, 5: 1, 10: 1}


def test_no_threshold_for_tpir() -> None:
    """One person in the gallery: no pair of two persons, and no non-mated probe."""
    templates, search = searched(people=1, probes=3, galleries=1, seed=0)
    assert search_together(templates, templates, search) == Identified({0.01: None, 0.1: None}, {1: 1, 5: 1, 10: 1})
    assert search_each(templates, templates, search) == Identified({0.01: None, 0.1: None}, {1: 1, 5: 1, 10: 1})


def test_galleries_and_probes_at_their_resolutions() -> None:
    """The galleries' embeddings come from the first, the probes' from the second; so it is with pairs."""
    templates, search = searched(people=6, probes=20, galleries=2, seed=3)
    nothing = np.zeros(len(templates))
    gallery_only, probes_only = templates.rows.copy(), templates.rows.copy()
    gallery_only[6:], probes_only[:6] = nothing[6:, None], nothing[:6, None]
    first, second = Templates(templates.ids, gallery_only), Templates(templates.ids, probes_only)
    pairs = TemplatePairs(np.array([0, 3, 6], "i4"), np.array([18, 21, 24], "i4"), np.array([True, False, False]))
    assert measure(first, second, pairs, search) == measure(templates, templates, pairs, search)
    with pytest.raises(ValueError, match="length zero"):
        measure(second, first, pairs, search)


def test_what_is_not_measured() -> None:
    templates, search = searched(people=6, probes=20, galleries=2, seed=3)
    pairs = TemplatePairs(np.array([0, 3], "i4"), np.array([18, 21], "i4"), np.array([True, False]))
    assert measure(templates, templates, None, search).tars is None
    without = measure(templates, templates, pairs, None)
    assert (without.together, without.each) == (None, None)
    assert mean(without, measure(templates, templates, None, search)) == Measured(None, None, None)


def test_mean() -> None:
    a, b = Identified({0.01: 0.5, 0.1: None}, {1: 0.25}), Identified({0.01: 1.0, 0.1: 0.5}, {1: 0.75})
    assert mean(Measured({0.1: 0.5}, a, b), Measured({0.1: 0.75}, b, b)) == Measured(
        {0.1: 0.625}, Identified({0.01: 0.75, 0.1: None}, {1: 0.5}), b
    )


def subjects(templates: list[int], people: list[int]) -> Subjects:
    return Subjects(np.array(templates, np.int64), np.array(people, np.int64))


@pytest.mark.parametrize(
    ("galleries", "message"),
    [
        ([], "there must be a gallery"),
        ([subjects([1], [7]), subjects([2], [7])], "subject 7 has several templates in the galleries"),
        ([subjects([1, 2], [7, 7])], "subject 7 has several templates"),
        ([subjects([1], [7]), subjects([2], [8])], "gallery 2 of 2 has none of the probes' subjects"),
    ],
)
def test_searches_that_cannot_be_measured(galleries: list[Subjects], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Search(galleries, subjects([5, 6], [7, 9]))
