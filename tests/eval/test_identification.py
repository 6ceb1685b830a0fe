"""Search against NumPy's full matrix; rates against counting, and numbers worked out by hand."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from btnet_eval import identification as module
from btnet_eval.identification import Identification, identify, mean_average_precision, search
from btnet_eval.templates import prototypes

ANGLES = np.radians([5, 22, 39, 56, 73])
"""Of the gallery's rows, from the first axis. No cosine of one is the sine of another."""


def at(*angles: int) -> np.ndarray:
    """Rows in the directions ANGLES[i]."""
    return np.stack([np.cos(ANGLES[list(angles)]), np.sin(ANGLES[list(angles)])], axis=1)


def rate_at(found: Identification, fpir: float, rank: int) -> tuple[float, float]:
    """FPIR and TPIR at the threshold that was chosen."""
    threshold = found.threshold(fpir)
    return float(np.mean(found.unmated_scores >= threshold)), found.tpir(fpir, rank)


def test_by_hand() -> None:
    """Persons 10, 20 and 30 lie at 5, 39 and 73 degrees; the probes on the axes.

    On the first axis the order is 10, 20, 30, with cosines of 0.996, 0.777 and 0.292; on the second it is the opposite,
    with 0.956, 0.629 and 0.087. Mated: 10 and 20 on the first, so ranks 1 and 2; 30 and 10 on the second: 1 and 3.
    Not mated: two on the second axis and none on the first, so that 0.956 is the only score.
    """
    gallery, ids = at(0, 2, 4), [10, 20, 30]
    probes = [[1, 0], [1, 0], [0, 1], [0, 1], [0, 2], [0, 3]]
    found = identify(gallery, ids, probes, [10, 20, 30, 10, 40, 50], max_rank=3)
    assert found.ranks.tolist() == [1, 2, 1, 3]
    scores = [np.cos(ANGLES[0]), np.cos(ANGLES[2]), np.sin(ANGLES[4]), np.sin(ANGLES[0])]
    np.testing.assert_allclose(found.mate_scores, scores, atol=1e-7)
    np.testing.assert_allclose(found.unmated_scores, np.sin(ANGLES[4]), atol=1e-7)
    assert [found.top(k) for k in (1, 2, 3)] == [0.5, 0.75, 1.0]
    assert found.threshold(0.3) == np.nextafter(found.unmated_scores[0], 1)
    assert [found.tpir(0.3, rank) for rank in (1, 2, 3)] == [0.25] * 3  # 0.996 alone is above 0.956
    # 0.996 wins twice, 30 at 0.956 ties twice, the others lose: 3 of 8.
    assert found.auc(3) == found.auc(1) == 3 / 8


def test_ties_count_against_the_mate() -> None:
    """A model that sees no difference finds nobody, however the gallery is sorted."""
    rows = np.ones((5, 4))
    for mate in range(5):
        found = identify(rows, np.arange(5), rows[:1], [mate], max_rank=4)
        assert found.ranks.tolist() == [5]
        assert found.top(4) == 0
    assert identify(rows, np.arange(5), rows[:1], [3], max_rank=5).top(5) == 1


def test_best_of_several_rows_counts() -> None:
    """Person 1 has three rows, of which the best stands behind one row of person 2; two rows of 1 do not."""
    found = identify(at(2, 3, 4, 1, 0), [1, 1, 1, 3, 2], [[1, 0]] * 2, [1, 3], max_rank=3)
    assert found.ranks.tolist() == [3, 2]


def test_prototypes_as_gallery() -> None:
    """Rows 5 and 39 degrees have their mean at 22, which is nearer to 22 than either."""
    gallery = prototypes(np.concatenate([at(0, 2, 4), at(4)]), ["b", "b", "a", "a"])
    found = identify(gallery.rows, gallery.ids, at(1), ["b"])
    assert found.top(1) == 1
    assert found.mate_scores[0] == pytest.approx(1, abs=1e-6)
    assert len(gallery) == 2


def test_threshold_below_what_the_probes_can_tell() -> None:
    """With 4 non-mated probes nothing below 1/4 can be told from 0."""
    found = Identification(np.array([1, 1]), np.array([0.5, 0.6]), np.array([0.1, 0.2, 0.3, 0.5]), 20)
    assert [rate_at(found, fpir, 20) for fpir in (0, 0.01, 0.2499)] == [(0, 0.5)] * 3
    assert rate_at(found, 0.25, 20) == (0.25, 1)
    assert found.threshold(0.01) == np.nextafter(0.5, 1)


SETS = st.tuples(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=25),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=1, max_size=40),
).filter(lambda sets: bool({person for _, person in sets[0]} & {person for _, person in sets[1]}))


@given(sets=SETS, max_rank=st.integers(1, 8), fpir=st.sampled_from([0.0, 0.01, 0.1, 0.2, 0.3, 0.5, 0.9]))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_equals_counting(sets: Any, max_rank: int, fpir: float) -> None:
    """Rows in five directions and probes on two axes, so that ties are common, and exact."""
    (directions, people), (axes, wanted) = (np.array(columns).T for columns in sets)
    table = np.stack([np.cos(ANGLES), np.sin(ANGLES)])
    scores = table[axes][:, directions]
    is_mate = wanted[:, None] == people
    mated = is_mate.any(axis=1)
    found = identify(at(*directions), people, np.eye(2)[axes], wanted, max_rank=max_rank)
    rows = list(zip(scores[mated], is_mate[mated], strict=True))
    mate_scores = np.array([row[mates].max() for row, mates in rows])
    ranks = np.array([1 + np.sum(row[~mates] >= row[mates].max()) for row, mates in rows])
    assert found.ranks.tolist() == np.minimum(ranks, max_rank + 1).tolist()
    assert [found.top(k) for k in range(1, max_rank + 1)] == [np.mean(ranks <= k) for k in range(1, max_rank + 1)]
    np.testing.assert_allclose(found.mate_scores[ranks <= max_rank], mate_scores[ranks <= max_rank], atol=1e-6)
    best = scores[~mated].max(axis=1)
    np.testing.assert_allclose(found.unmated_scores, best, atol=1e-6)
    if not best.size:
        return
    thresholds = [np.inf, *sorted({*best, *mate_scores}, reverse=True)]
    curve = [(np.mean(best >= t), np.mean((ranks <= max_rank) & (mate_scores >= t))) for t in thresholds]
    assert found.tpir(fpir, max_rank) == max(tpir for reached, tpir in curve if reached <= fpir)
    assert found.auc(max_rank) == pytest.approx(sklearn.metrics.auc(*zip(*curve, strict=True)), abs=1e-12)


def area_under_precision_and_recall(is_mate: np.ndarray) -> float:
    """Of a ranking, best first: the polygon through (recall, precision) after each place, from (0, 1)."""
    found = np.cumsum(is_mate)
    recall, precision = np.append(0, found / found[-1]), np.append(1, found / np.arange(1, len(found) + 1))
    return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2))


def test_average_precision_by_hand() -> None:
    """From the first axis the order is 1, 2, 1, 3, 2.

    For 1: places 1 and 3, so (1 + 1) / 2 and (1/2 + 2/3) / 2. For 3: place 4, so (0 + 1/4) / 2. The last probe has no
    mate, and does not count.
    """
    of_one, of_three = (1 + 7 / 12) / 2, 1 / 8
    ids = [1, 2, 1, 3, 2]
    assert mean_average_precision(at(0, 1, 2, 3, 4), ids, [[1, 0]], [1]) == pytest.approx(of_one, abs=1e-12)
    probes = [[2, 0], [3, 0], [0, 1]]
    expected = (of_one + of_three) / 2
    assert mean_average_precision(at(0, 1, 2, 3, 4), ids, probes, [1, 3, 9]) == pytest.approx(expected, abs=1e-12)


def test_average_precision_with_ties() -> None:
    """Three others before both mates: (0 + 1/4) / 2 and (1/4 + 2/5) / 2; the mates may tie among themselves."""
    for ids in ([1, 2, 1, 2, 2], [2, 2, 2, 1, 1]):
        found = mean_average_precision(np.ones((5, 3)), ids, np.ones((1, 3)), [1])
        assert found == pytest.approx((1 / 8 + 13 / 40) / 2, abs=1e-12)


@given(
    people=st.lists(st.integers(0, 3), min_size=1, max_size=30),
    wanted=st.lists(st.integers(0, 4), min_size=1, max_size=20),
    block=st.sampled_from([1, 40, 1000]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_average_precision_equals_the_area(people: list[int], wanted: list[int], block: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    gallery, probes = random.normal(size=(len(people), 6)), random.normal(size=(len(wanted), 6))
    scores = probes @ (gallery / np.linalg.norm(gallery, axis=1)[:, None]).T
    ranked = np.array(people)[np.argsort(-scores)]
    areas = [
        area_under_precision_and_recall(row == person)
        for row, person in zip(ranked, wanted, strict=True)
        if person in people
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SCORES", block)
        if areas:
            found = mean_average_precision(gallery, people, probes, wanted)
            assert found == pytest.approx(np.mean(areas), abs=1e-12)
        else:
            with pytest.raises(ValueError, match="no mated probe"):
                mean_average_precision(gallery, people, probes, wanted)


def test_average_precision_of_columns_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="number of columns, not 2 and 3"):
        mean_average_precision(at(0, 4), [1, 2], np.eye(3), [1, 2, 3])


@pytest.fixture(scope="module")
def twins() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, 40 of which are there twice, 400 probes near these, and which each is near: row r and row -1 - r.

    In plain float32 products of these sizes, many of these scores differ in the last bits: on some CPUs for all probes
    at once, on others for a single one.
    """
    random = np.random.default_rng(22)
    rows = random.normal(size=(1007, 512)).astype(np.float32)
    rows[-40:] = rows[39::-1]
    wanted = np.tile(np.arange(40), 10)
    probes = rows[wanted] + 0.02 * random.normal(size=(400, 512)).astype(np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    products = [probes @ unit.T, np.concatenate([probe @ unit.T for probe in probes[:, None]])]
    each = np.arange(400)
    assert any((p[each, wanted] != p[each, -1 - wanted]).any() for p in products), "a test that tells nothing"
    return rows, probes, wanted


@pytest.mark.parametrize("turned", [False, True])
def test_equal_rows_of_two_people(twins: tuple[np.ndarray, np.ndarray, np.ndarray], turned: bool) -> None:
    """Each mate stands beside an equal row of a stranger, who counts before, whoever is first."""
    rows, probes, wanted = twins
    ids = np.append(np.arange(40), np.full(967, -1))
    ids = ids[::-1] if turned else ids
    assert mean_average_precision(rows, ids, probes, wanted) == pytest.approx(0.25, abs=1e-12)  # (0 + 1/2) / 2
    assert identify(rows, ids, probes, wanted).ranks.tolist() == [2] * 400
    for one in np.flatnonzero(wanted < 4):
        found = mean_average_precision(rows, ids, probes[one : one + 1], wanted[one : one + 1])
        assert found == pytest.approx(0.25, abs=1e-12)


def test_search_finds_both_of_equal_rows(twins: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    rows, probes, wanted = twins
    indices, scores = search(rows, probes, 3)
    assert indices[:, :2].tolist() == np.stack([wanted, 1006 - wanted], axis=1).tolist()
    assert (scores[:, 0] == scores[:, 1]).all()
    assert (scores[:, 1] > scores[:, 2]).all()
    assert search(rows, probes, 1)[0].ravel().tolist() == wanted.tolist()


def test_many_rows_of_somebody_who_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distractors may all have one id: the search is as deep as the persons who are looked for need."""
    depths = []

    class Recorded(faiss.IndexFlatIP):
        def search(self, rows: Any, k: int) -> Any:  # type: ignore[override]
            depths.append(k)
            return super().search(rows, k)

    monkeypatch.setattr(faiss, "IndexFlatIP", Recorded)
    random = np.random.default_rng(3)
    ids = np.array([7, 7, 8] + [-1] * 400)
    found = identify(random.normal(size=(403, 5)), ids, random.normal(size=(2, 5)), [7, 8], max_rank=10)
    assert depths == [12]
    assert len(found.ranks) == 2


def test_a_person_of_many_rows_takes_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 probes, and a person of 1,900 rows: 3.9 million scores and places, 47 MB, are never there at once."""
    random = np.random.default_rng(4)
    gallery, probes = random.normal(size=(2000, 8)), random.normal(size=(2000, 8))
    ids = np.append(np.zeros(1900, int), np.arange(1, 101))
    wanted = np.arange(2000) % 150
    whole = identify(gallery, ids, probes, wanted)
    monkeypatch.setattr(module, "_FOUND", 1 << 16)
    tracemalloc.start()
    try:
        found = identify(gallery, ids, probes, wanted)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000
    for values in ("ranks", "mate_scores", "unmated_scores"):
        np.testing.assert_allclose(getattr(found, values), getattr(whole, values), atol=1e-6)


@given(n=st.integers(1, 300), p=st.integers(1, 60), d=st.integers(1, 40), part=st.floats(0, 1), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_search_equals_the_full_matrix(n: int, p: int, d: int, part: float, seed: int) -> None:
    """Float64 products of all; rows whose scores differ by rounding alone may change places."""
    random = np.random.default_rng(seed)
    gallery, probes = random.normal(size=(n, d)) * 7, random.normal(size=(p, d)).astype(np.float32)
    k = 1 + int(part * (n - 1))
    indices, scores = search(gallery, probes, k)
    full = (probes / np.linalg.norm(probes, axis=1)[:, None]) @ (gallery / np.linalg.norm(gallery, axis=1)[:, None]).T
    assert indices.shape == scores.shape == (p, k)
    assert all(len(set(row)) == k for row in indices.tolist())
    np.testing.assert_allclose(scores, -np.sort(-full)[:, :k], atol=1e-6)
    np.testing.assert_allclose(scores, np.take_along_axis(full, indices, axis=1), atol=1e-6)


def test_equal_rows_come_in_the_order_of_the_gallery() -> None:
    indices, scores = search(at(3, 0, 1, 0, 3, 0), [[2, 0], [0, 5]], 6)
    assert indices.tolist() == [[1, 3, 5, 2, 0, 4], [0, 4, 2, 1, 3, 5]]
    assert scores.dtype == np.float32


def test_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(8)
    gallery, probes = random.normal(size=(50, 8)), random.normal(size=(45, 8))
    whole = search(gallery, probes, 5)
    monkeypatch.setattr(module, "_BLOCK", 22)
    blocks = search(gallery, probes, 5)
    np.testing.assert_array_equal(blocks[0], whole[0])
    np.testing.assert_allclose(blocks[1], whole[1], atol=1e-6)


def test_without_non_mated_probes() -> None:
    found = identify(at(0, 4), ["a", "b"], at(1), ["a"])
    assert found.top(1) == 1
    rates: list[Callable[[], float]] = [
        lambda: found.tpir(0.1, 20),
        lambda: found.threshold(0.1),
        lambda: found.auc(20),
    ]
    for rate in rates:
        with pytest.raises(ValueError, match="no FPIR without non-mated probes"):
            rate()


@pytest.mark.parametrize("rank", [0, -1, 21])
def test_ranks_out_of_range(rank: int) -> None:
    found = identify(at(0, 4), [1, 2], at(1, 2), [1, 3])
    for rate in (found.top, found.auc, lambda rank: found.tpir(0.1, rank)):
        with pytest.raises(ValueError, match=f"the rank must be 1 to 20.*, not {rank}"):
            rate(rank)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"probe_ids": [8, 9]}, "no mated probe"),
        ({"probes": np.empty((0, 2)), "probe_ids": np.empty(0, int)}, "probes must be .* at least one row"),
        ({"gallery": np.empty((0, 2)), "gallery_ids": np.empty(0, int)}, "gallery must be .* at least one row"),
        ({"gallery": 3.0}, "gallery must be an"),
        ({"gallery_ids": [1]}, "gallery_ids must have one value for each of 2 rows"),
        ({"probe_ids": [[1, 2]]}, "probe_ids must have one value for each of 2 rows"),
        ({"probe_ids": ["1", "2"]}, "gallery_ids and probe_ids must be of one type"),
        ({"probe_ids": [1.0, 2.0]}, "probe_ids must hold integers or strings, not float64"),
        ({"probes": np.eye(3)[:2]}, "number of columns, not 2 and 3"),
        ({"probes": [[1.0, 0.0], [0.0, 0.0]]}, "row 1 of probes has length zero"),
        ({"gallery": [[1.0, np.nan], [1.0, 0.0]]}, "row 0 of gallery has values that are not finite"),
        ({"max_rank": 0}, "max_rank must be at least 1, not 0"),
    ],
)
def test_bad_sets(changed: dict[str, Any], message: str) -> None:
    good = {"gallery": at(0, 4), "gallery_ids": [1, 2], "probes": at(1, 2), "probe_ids": [1, 3]}
    with pytest.raises(ValueError, match=message):
        identify(**{**good, **changed})


@pytest.mark.parametrize("k", [0, 3])
def test_more_than_the_gallery(k: int) -> None:
    with pytest.raises(ValueError, match=f"k must be 1 to 2, the rows of the gallery, not {k}"):
        search(at(0, 4), at(1), k)
