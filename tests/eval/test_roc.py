"""ROC, TAR at FAR and their streaming form against counting, SciPy's Mann-Whitney U, and numbers worked out by hand."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from btnet_eval import roc as module
from btnet_eval.roc import ScoreTail, auc, compare_all, lowest_threshold, roc, tar_at_far

SCORES = [0.9, 0.8, 0.8, 0.7, 0.6, 0.5, 0.4]
SAME = [1, 1, 0, 1, 0, 1, 0]
PAIRS = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=60).filter(
    lambda pairs: len({same for _, same in pairs}) == 2
)


def columns(pairs: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    """Scores that float32 rounds, up or down, and whether the pairs are the same."""
    steps, same = zip(*pairs, strict=True)
    return np.array(steps) / 10, np.array(same)


def largest_tar(scores: np.ndarray, same: np.ndarray, far: float) -> float:
    """The best of all thresholds that matter, by counting."""
    thresholds = [*scores, np.inf]
    return max(float(np.mean(scores[same] >= t)) for t in thresholds if np.mean(scores[~same] >= t) <= far)


def test_by_hand() -> None:
    """Four genuine pairs and three impostors; those at 0.8 come together."""
    curve = roc(SCORES, SAME)
    np.testing.assert_allclose(curve.thresholds, [np.inf, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    np.testing.assert_allclose(curve.tar, [0, 0.25, 0.5, 0.75, 0.75, 1, 1])
    np.testing.assert_allclose(curve.far, [0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1])
    # Of 12 comparisons, 0.9 wins 3, 0.8 wins 2 and ties 1, 0.7 wins 2, 0.5 wins 1.
    assert auc(SCORES, SAME) == pytest.approx(8.5 / 12)
    assert [tar_at_far(SCORES, SAME, far) for far in (0, 0.33, 1 / 3, 0.5, 2 / 3, 0.99)] == [
        0.25,
        0.25,
        0.75,
        0.75,
        1,
        1,
    ]


def test_no_point_is_left_out() -> None:
    """Those on a straight line are there, too."""
    assert roc([4, 3, 2, 1, 0], [1, 1, 1, 0, 0]).thresholds.tolist() == [np.inf, 4, 3, 2, 1, 0]


def test_everything_tied() -> None:
    curve = roc([0.5] * 5, [1, 0, 0, 1, 0])
    assert curve.far.tolist() == curve.tar.tolist() == [0, 1]
    assert auc([0.5] * 5, [1, 0, 0, 1, 0]) == 0.5
    assert tar_at_far([0.5] * 5, [1, 0, 0, 1, 0], 0.99) == 0


def test_far_below_what_the_impostors_can_tell() -> None:
    """None of 10 may be accepted at FAR 0.09; the threshold is above all of them, however little."""
    scores = np.array([*np.arange(10) / 10, 0.9, np.nextafter(0.9, 1)])
    same = np.arange(12) > 9
    assert tar_at_far(scores, same, 0.09) == tar_at_far(scores, same, 0) == 0.5
    assert tar_at_far(scores, same, 0.1) == 1
    assert lowest_threshold(scores[~same], 0.09) == np.nextafter(0.9, 1)


@pytest.mark.parametrize(("far", "count"), [(0.29, 29), (0.57, 57), (0.58, 58), (np.nextafter(0.29, 0), 28)])
def test_rates_are_not_lost_to_rounding(far: float, count: int) -> None:
    """0.29 * 100 is 28.999999999999996, but 29 / 100 is 0.29."""
    assert lowest_threshold(np.arange(100), far) == np.nextafter(99 - count, np.inf)
    tail = ScoreTail(100, far)
    tail.add(np.arange(101), np.arange(101) == 100)
    assert tail.at_far(far).far == count / 100


@given(pairs=PAIRS, far=st.one_of(st.floats(0, 0.999), st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5])))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_equals_counting(pairs: list[tuple[int, bool]], far: float) -> None:
    """Few different scores, so that ties are common."""
    scores, same = columns(pairs)
    assert tar_at_far(scores, same, far) == pytest.approx(largest_tar(scores, same, far), abs=1e-15)
    curve = roc(scores, same)
    for threshold, found_far, found_tar in zip(curve.thresholds, curve.far, curve.tar, strict=True):
        assert found_far == np.mean(scores[~same] >= threshold)
        assert found_tar == np.mean(scores[same] >= threshold)
    expected = mannwhitneyu(scores[same], scores[~same]).statistic / (np.sum(same) * np.sum(~same))
    assert auc(scores, same) == pytest.approx(expected, abs=1e-12)


@given(pairs=PAIRS, max_far=st.floats(0, 0.999), part=st.floats(0, 1), seed=st.integers(0, 99))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_blocks_equal_the_whole(pairs: list[tuple[int, bool]], max_far: float, part: float, seed: int) -> None:
    """In blocks of any sizes, some of float32, in which 0.1, 0.2 and so on are others than in float64."""
    scores, same = columns(pairs)
    random = np.random.default_rng(seed)
    cuts = np.sort(random.integers(0, len(scores) + 1, 6))
    tail = ScoreTail(int(np.sum(~same)), max_far)
    values = []
    for block, truth in zip(np.split(scores, cuts), np.split(same, cuts), strict=True):
        values.append(block.astype(random.choice(["f4", "f8"])))
        tail.add(values[-1], truth)
    scores, far = np.concatenate([block.astype(np.float64) for block in values]), part * max_far
    found = tail.at_far(far)
    assert found.tar == largest_tar(scores, same, far)
    assert found.far == np.mean(scores[~same] >= found.value) <= far
    assert found.tar == np.mean(scores[same] >= found.value)
    assert found.value == lowest_threshold(scores[~same], far)
    assert np.mean(scores[~same] >= np.nextafter(found.value, -np.inf)) > far  # the next lower one lets in too many
    assert found.impostors == np.sum(~same)


def test_floor_between_two_float32_scores() -> None:
    """The floor is a float64 score, which float32 rounds up to the very score that comes next: it must be let in."""
    low = 0.1
    above = np.float32(low)
    assert float(above) > low
    tail = ScoreTail(4, 0.0)
    tail.add([low, 0.0, -0.1], [False] * 3)  # more than twice what is kept: the floor is 0.1 now
    tail.add(np.array([above, 0.5], np.float32), [False, True])
    assert tail.at_far(0).value == np.nextafter(float(above), 1)


def test_memory_does_not_grow_with_the_pairs() -> None:
    """Two million scores, of which 401 impostor ones are kept: 16 MB in float64 all together, 80 kB a block."""
    random = np.random.default_rng(11)
    tail = ScoreTail(200 * 9_990, 2e-4)
    genuine = np.arange(10_000) % 1000 == 0
    tracemalloc.start()
    try:
        for _ in range(200):
            tail.add(random.normal(size=10_000) + 2 * genuine, genuine)
        found = tail.at_far(2e-4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.far == 399 / 1_998_000
    assert peak < 1_000_000


def test_all_pairs_of_two_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row against every row in float64, at once; the blocks are of two rows and the last of one."""
    monkeypatch.setattr(module, "_BLOCK", 2 * 40)
    random = np.random.default_rng(3)
    a, b = random.normal(size=(31, 16)).astype(np.float32), random.normal(size=(40, 16)) * 50
    ids_a, ids_b = random.integers(0, 9, 31), random.integers(3, 12, 40)
    cosines = (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T
    same = ids_a[:, None] == ids_b
    tail = compare_all(a, ids_a, b, ids_b, max_far=0.3)
    for far in (0.0, 0.01, 0.1, 0.3):
        found = tail.at_far(far)
        assert found.impostors == np.sum(~same)
        threshold = lowest_threshold(cosines[~same], far)
        assert found.value == pytest.approx(threshold, abs=1e-6)
        assert found.far == np.mean(cosines[~same] >= threshold)
        assert found.tar == np.mean(cosines[same] >= threshold)
    by_name = compare_all(a, ids_a.astype(str), b, ids_b.astype(str), max_far=0.3)
    assert by_name.at_far(0.1) == tail.at_far(0.1)


@pytest.mark.parametrize("turned", [False, True])
def test_equal_rows_have_equal_scores(turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row of each person who is looked for stands there a second time, for a stranger, and each probe three times.

    In plain float32 products of these sizes, some of these scores differ in the last bits: on some CPUs where a block
    has 70 rows, on others where it has one.
    """
    random = np.random.default_rng(21)
    rows = random.normal(size=(1007, 512)).astype(np.float32)
    rows[-40:] = rows[39::-1]
    wanted = np.tile(np.arange(40), 4)
    noise = np.linspace(0.3, 0.9, 160)[:, None]  # differs, so that the scores of different probes do
    probes = rows[wanted] + (noise * random.normal(size=(160, 512))).astype(np.float32)
    unit, seen = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, probes))
    products = [np.concatenate([seen[i : i + step] @ unit.T for i in range(0, 160, step)]) for step in (1, 70)]
    each = np.arange(160)
    assert any((p[each, wanted] != p[each, -1 - wanted]).any() for p in products), "a test that tells nothing"
    people = np.arange(1007)
    probes, wanted = np.tile(probes, (3, 1)), np.tile(wanted, 3)
    if turned:
        people = people[::-1]
    impostors = 480 * 1006
    for step in (1, 70):
        monkeypatch.setattr(module, "_BLOCK", step * 1007)
        tail = compare_all(probes, wanted, rows, people, max_far=0.01)
        for allowed in range(481):  # of three equal probes and their two equal rows, all are accepted or none
            found = tail.at_far(allowed / impostors)
            assert round(found.tar * 480) == round(found.far * impostors) == allowed // 3 * 3
        one_way = tail.at_far(480 / impostors)
        other_way = compare_all(rows, people, probes, wanted, max_far=0.01).at_far(480 / impostors)
        assert replace(other_way, value=one_way.value) == one_way
        assert other_way.value == pytest.approx(one_way.value, abs=1e-6)  # summed in another order


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        ([0.1, 0.2], [1, 1], "both kinds"),
        ([0.1, 0.2], [False, False], "both kinds"),
        ([], np.array([], bool), "both kinds"),
        ([0.1, 0.2], [1, 0, 0], r"one shape, not \(2,\) and \(3,\)"),
        ([[0.1, 0.2]], [[1, 0]], r"an \(n,\) array"),
        ([0.1, np.nan], [1, 0], "finite"),
        ([0.1, np.inf], [1, 0], "finite"),
        (["a", "b"], [1, 0], "real numbers, not <U1"),
        ([0.1, 0.2], [2, 0], "bool, or 0 and 1"),
        ([0.1, 0.2], [0.0, 1.0], "bool, or 0 and 1"),
    ],
)
def test_bad_pairs(scores: Any, same: Any, message: str) -> None:
    functions: list[Callable[[Any, Any], object]] = [roc, auc, lambda scores, same: tar_at_far(scores, same, 0.1)]
    for function in functions:
        with pytest.raises(ValueError, match=message):
            function(scores, same)


@pytest.mark.parametrize("far", [-0.1, 1, 1.5, np.nan])
def test_bad_rates(far: float) -> None:
    message = "must be at least 0 and below 1"
    with pytest.raises(ValueError, match=f"^far {message}"):
        tar_at_far(SCORES, SAME, far)
    with pytest.raises(ValueError, match=f"^far {message}"):
        lowest_threshold(np.arange(3), far)
    with pytest.raises(ValueError, match=f"^max_far {message}"):
        ScoreTail(3, far)


def test_what_a_tail_cannot_tell() -> None:
    with pytest.raises(ValueError, match="impostors must be at least 1, not 0"):
        ScoreTail(0, 0.1)
    tail = ScoreTail(3, 0.5)
    tail.add(SCORES[:4], SAME[:4])
    with pytest.raises(ValueError, match="3 impostor pairs were announced, but 1 came"):
        tail.at_far(0.1)
    tail.add([], np.array([], bool))
    tail.add(SCORES[4:], SAME[4:])
    assert tail.at_far(1 / 3).tar == 0.75
    with pytest.raises(ValueError, match=r"far must be 0 to 0\.5"):
        tail.at_far(0.6)
    with pytest.raises(ValueError, match="finite"):
        tail.add([np.nan], [False])
    strangers = ScoreTail(2, 0.5)
    strangers.add([0.1, 0.2], [False, False])
    with pytest.raises(ValueError, match="no TAR without genuine pairs"):
        strangers.at_far(0.1)


def test_bad_sets() -> None:
    rows = np.eye(3)
    with pytest.raises(ValueError, match="ids_b must have one value for each of 3 rows"):
        compare_all(rows, [0, 1, 2], rows, [0, 1], max_far=0.1)
    with pytest.raises(ValueError, match="ids_a and ids_b must be of one type"):
        compare_all(rows, [0, 1, 2], rows, ["0", "1", "2"], max_far=0.1)
    with pytest.raises(ValueError, match="number of columns, not 3 and 2"):
        compare_all(rows, [0, 1, 2], rows[:, :2] + 1, [0, 1, 2], max_far=0.1)
    with pytest.raises(ValueError, match="row 1 of rows_b has length zero"):
        compare_all(rows, [0, 1, 2], rows * [[1], [0], [1]], [0, 1, 2], max_far=0.1)
    with pytest.raises(ValueError, match="no FAR without impostor pairs"):
        compare_all(rows, [7, 7, 7], rows, [7, 7, 7], max_far=0.1)
