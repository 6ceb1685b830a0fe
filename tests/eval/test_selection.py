"""Branch selection against the published program's ranges, a plain search and the engine; embeddings by strategy."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import png
from hypothesis import example, given, settings
from hypothesis import strategies as st

from btnet_eval.cache import EmbeddingCache
from btnet_eval.datasets.images import NamedImages, open_images
from btnet_eval.embedder import Embedder
from btnet_eval.models import Model
from btnet_eval.selection import DEFAULT, STRATEGIES, Strategy, embed_selected, select
from btnet_ext import Engine, resize

BRANCHES = (7, 14, 28, 112)
PUBLISHED = {
    "floor": {112: (112, 1000), 28: (28, 111), 14: (14, 27), 7: (1, 13)},
    "near": {112: (71, 1000), 28: (22, 70), 14: (11, 21), 7: (1, 10)},
    "ceil": {112: (29, 1000), 28: (15, 28), 14: (8, 14), 7: (1, 7)},
}
"""By rounding and branch, from where to where the indicator goes in eval_survface_1n_multi_reso.py."""


def shapes(images: Sequence[np.ndarray]) -> np.ndarray:
    """A model that tells what it was shown: the size, and the mean of all values."""
    return np.array([[*image.shape[:2], image.mean() + 1] for image in images], np.float32)


def faces(folder: Path, sizes: Sequence[tuple[int, int]]) -> NamedImages:
    random = np.random.default_rng(11)
    folder.mkdir(exist_ok=True)
    for number, size in enumerate(sizes):
        (folder / f"{number:02}.png").write_bytes(png(random.integers(0, 256, (*size, 3), np.uint8)))
    return open_images(folder)


def test_all_nine() -> None:
    assert len(STRATEGIES) == len({*STRATEGIES}) == 9
    assert DEFAULT in STRATEGIES
    assert str(DEFAULT) == "max ceil"


@pytest.mark.parametrize("rounding", PUBLISHED)
def test_ranges_of_the_published_program(rounding: str) -> None:
    for resolution, (first, last) in PUBLISHED[rounding].items():
        sides = np.arange(first, last + 1)
        for indicator in ("max", "min", "avg"):
            found = select(np.stack([sides, sides], axis=1), BRANCHES, Strategy(indicator, rounding))
            assert (found == resolution).all()


def test_by_hand() -> None:
    """Of 13 x 30 pixels the longer side is 30, the shorter 13, and the mean 21, rounded down from 21.5."""
    found = {strategy: select([[13, 30]], BRANCHES, strategy).tolist() for strategy in STRATEGIES}
    assert found == {
        ("max", "floor"): [28],
        ("max", "near"): [28],
        ("max", "ceil"): [112],
        ("min", "floor"): [7],
        ("min", "near"): [14],
        ("min", "ceil"): [14],
        ("avg", "floor"): [14],
        ("avg", "near"): [14],  # 21 is as far from 28
        ("avg", "ceil"): [28],
    }


@given(
    sizes=st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), min_size=1, max_size=30),
    resolutions=st.sets(st.integers(1, 150), min_size=1, max_size=5).map(sorted),
    strategy=st.sampled_from(STRATEGIES),
)
@settings(max_examples=200, deadline=None, derandomize=True)
@example(sizes=[(1, 1), (200, 200)], resolutions=[50], strategy=DEFAULT)
def test_equals_a_plain_search(sizes: list[tuple[int, int]], resolutions: list[int], strategy: Strategy) -> None:
    def one(height: int, width: int) -> int:
        side = {"max": max(height, width), "min": min(height, width), "avg": (height + width) // 2}[strategy.indicator]
        if strategy.rounding == "near":
            return min(resolutions, key=lambda r: (abs(r - side), r))
        if strategy.rounding == "ceil":
            return min((r for r in resolutions if r >= side), default=resolutions[-1])
        return max((r for r in resolutions if r <= side), default=resolutions[0])

    assert select(sizes, resolutions, strategy).tolist() == [one(*size) for size in sizes]


def test_the_engine_selects_the_same(small_bundle: Path) -> None:
    sides = [1, 6, 7, 8, 10, 11, 14, 15, 21, 22, 27, 28, 29, 70, 71, 111, 112, 113, 250]
    sizes = list(product(sides, sides))
    images = [np.zeros((*size, 3), np.uint8) for size in sizes]
    for strategy in STRATEGIES:
        engine = Engine(small_bundle, indicator=strategy.indicator, rounding=strategy.rounding)
        np.testing.assert_array_equal(select(sizes, engine.resolutions, strategy), engine.select(images))


@pytest.mark.parametrize(
    ("sizes", "resolutions", "strategy", "message"),
    [
        ([[3, 0]], BRANCHES, DEFAULT, "sizes must be .* positive integers"),
        ([[3.0, 4.0]], BRANCHES, DEFAULT, "sizes must be .* not float64"),
        ([3, 4], BRANCHES, DEFAULT, r"not int64 of shape \(2,\)"),
        ([[3, 4]], (), DEFAULT, "resolutions must be ascending, one at least"),
        ([[3, 4]], (14, 7), DEFAULT, r"resolutions must be ascending.*\[14, 7\]"),
        ([[3, 4]], BRANCHES, Strategy("max", "bottom"), "not max bottom"),
        ([[3, 4]], BRANCHES, Strategy("mean", "ceil"), "not mean ceil"),
    ],
)
def test_what_cannot_be_selected(sizes: Any, resolutions: Sequence[int], strategy: Strategy, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select(sizes, resolutions, strategy)


@given(sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_each_image_as_each_strategy_selects(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("selected")
    images = faces(folder / "faces", sizes)
    embedded: list[np.ndarray] = []

    def embed(shown: Sequence[np.ndarray]) -> np.ndarray:
        embedded.extend(shown)
        return shapes(shown)

    model, names = Model("shapes", embed, "1", (7, 14, 28)), images.names()
    named = dict(zip(names, sizes, strict=True))
    embedder = Embedder(model, EmbeddingCache(folder / "cache", block=3))
    selected = embed_selected(embedder, images, named, STRATEGIES)
    pairs = set()
    for strategy in STRATEGIES:
        resolutions = select(sizes, (7, 14, 28), strategy)
        pairs |= {*zip(names, resolutions.tolist(), strict=True)}
        shown = [resize(images.read(name), (r, r)) for name, r in zip(names, resolutions, strict=True)]
        np.testing.assert_array_equal(selected.of(str(strategy), names[::-1]), shapes(shown)[::-1])
        assert selected.of(str(strategy), []).shape == (0, 3)
    assert len(embedded) == len(pairs)  # nothing twice
    assert list(selected.places) == [str(strategy) for strategy in STRATEGIES]


def test_other_strategies_other_rows(tmp_path: Path) -> None:
    """What the cache keeps for one set of strategies is not taken for another."""
    sizes = [(10, 10), (12, 12)]
    images, cache = faces(tmp_path / "faces", sizes), EmbeddingCache(tmp_path / "cache")
    model, named = Model("shapes", shapes, "1", (7, 14)), dict(zip(images.names(), sizes, strict=True))
    for rounding, side in (("floor", 7), ("ceil", 14), ("near", 7)):
        selected = embed_selected(Embedder(model, cache), images, named, [Strategy("max", rounding)])
        rows = selected.of(f"max {rounding}", ["00.png"])
        assert rows[0, 0] == side


def test_one_network_resizes_itself(tmp_path: Path) -> None:
    sizes = [(10, 30), (50, 20)]
    images, steps = faces(tmp_path / "faces", sizes), []
    model, named = Model("shapes", shapes, "1", (112,)), dict(zip(images.names(), sizes, strict=True))
    embedder = Embedder(model, EmbeddingCache(tmp_path / "cache"), lambda *step: steps.append(step))
    selected = embed_selected(embedder, images, named, STRATEGIES)
    assert list(selected.places) == ["one network"]
    assert selected.of("one network", ["01.png", "00.png"])[:, :2].tolist() == [[50, 20], [10, 30]]
    assert steps == [("shapes", 2, 2)]
    with pytest.raises(ValueError, match="strategies must be one at least"):
        embed_selected(embedder, images, named, [])
