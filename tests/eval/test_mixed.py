"""Each image of each pair at its own resolution: what models are given, accuracies, what is left out, the files."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import pattern_pairs, write_patterns
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sessions import session_in

from btnet_eval.base import DataError, Problems
from btnet_eval.datasets.images import NamedImages, open_images
from btnet_eval.datasets.lists import at_line
from btnet_eval.mixed import MixedPairs, draw_resolutions, reduced, usable_mixed, write_mixed
from btnet_eval.models import Model, open_model
from btnet_eval.protocols import PROTOCOLS, generate, read_resolutions
from btnet_eval.verification import Pairs, accuracy
from btnet_ext import Engine

SEED = 6
PEOPLE, EACH = 6, 4


def quarters(images: Sequence[np.ndarray]) -> np.ndarray:
    rows = [[image[y::2, x::2].mean(axis=(0, 1)) for y in (0, 1) for x in (0, 1)] for image in images]
    return np.array(rows, np.float32).reshape(len(images), -1) - 100


def with_size(images: Sequence[np.ndarray]) -> np.ndarray:
    """Also knows the size of what it is given."""
    return np.hstack([quarters(images), [[len(image)] for image in images]]).astype(np.float32)


SINGLE = Model("single", with_size, "1", (112,))
BRANCHES = Model("branches", with_size, "2", (7, 14, 28, 112))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patterns(tmp_path_factory.mktemp("faces"), PEOPLE, EACH, 112, SEED)


@pytest.fixture
def images(folder: Path) -> NamedImages:
    return open_images(folder)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return pattern_pairs(PEOPLE, EACH, SEED)


def by_pillow(image: np.ndarray, resolution: int, *, up: bool) -> np.ndarray:
    small = Image.fromarray(image).resize((resolution, resolution), Image.Resampling.BICUBIC)
    return np.asarray(small.resize((112, 112), Image.Resampling.BICUBIC) if up else small)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(st.integers(5, 112))
def test_what_a_model_is_given(resolution: int) -> None:
    """Not what `Model.present` gives: a model with networks for 7 and 14 gets 10 px as they are."""
    image = np.random.default_rng(SEED).integers(0, 256, (112, 112, 3), np.uint8)
    np.testing.assert_array_equal(reduced(SINGLE, image, resolution), by_pillow(image, resolution, up=True))
    np.testing.assert_array_equal(reduced(BRANCHES, image, resolution), by_pillow(image, resolution, up=False))


def test_the_engine_selects(small_bundle: Path, tmp_path: Path, images: NamedImages, pairs: Pairs) -> None:
    """The embeddings of the report's engine are those of the branch that Fig. 8 of the paper names: max and ceil."""
    model = open_model(small_bundle, flip=False)
    resolutions = np.array([5, 7, 8, 14, 15, 28, 29, 112])
    few = Pairs(np.array([0, 0, 1, 1]), pairs.paths_a[:4], pairs.paths_b[:4], pairs.same[:4])
    names = [name for both in zip(few.paths_a, few.paths_b, strict=True) for name in both]
    expected = np.vstack(
        [
            Engine(small_bundle, resolutions=[branch]).embed([by_pillow(images.read(name), int(r), up=False)])
            for name, r, branch in zip(names, resolutions, [7, 7, 14, 14, 28, 28, 112, 112], strict=True)
        ]
    )
    embedded = model.embed([reduced(model, images.read(n), int(r)) for n, r in zip(names, resolutions, strict=True)])
    np.testing.assert_allclose(embedded, expected, atol=1e-5)
    page = write_mixed(session_in(tmp_path, model), MixedPairs(few, {"steps": resolutions}), images)
    result = json.loads(page.with_suffix(".json").read_text())
    assert result["sections"][1]["note"] == "Pixels, of both images of 4 pairs; read from files."
    measured = result["numbers"]["measured"][model.name]["steps"]
    assert measured["mean"] == accuracy(expected[0::2], expected[1::2], few.same, few.folds).mean


def test_report(tmp_path: Path, images: NamedImages, pairs: Pairs) -> None:
    problems = Problems()
    problems.report("pairs.tsv, line 3: nobody")
    mixed = draw_resolutions(pairs, seed=3)
    assert list(mixed.resolutions) == ["low", "mid", "high", "all"]
    steps: list[tuple[str, int, int]] = []
    session = session_in(tmp_path, SINGLE, BRANCHES, problems=problems, progress=lambda *step: steps.append(step))
    page = write_mixed(session, mixed, images)
    assert page == tmp_path / "out" / "mixed.html"
    result = json.loads((tmp_path / "out" / "mixed.json").read_text())
    assert result["models"] == {"single": "1", "branches": "2"}
    assert result["numbers"]["seed"] == 3
    assert result["sections"][1]["note"] == "Pixels, of both images of 60 pairs; drawn from seed 3."
    assert result["problems"]["count"] == 1
    files = len({*pairs.paths_a, *pairs.paths_b})
    assert set(steps) == {
        ("digest of the images", files, files),
        *((f"{model}, {protocol}", 120, 120) for model in ("single", "branches") for protocol in PROTOCOLS),
    }
    means = []
    for model in (SINGLE, BRANCHES):
        for protocol in PROTOCOLS:
            resolutions = generate(protocol, 120, 3)
            rows = [
                with_size([by_pillow(images.read(name), int(r), up=model is SINGLE)])[0]
                for paths, of_side in ((pairs.paths_a, resolutions[0::2]), (pairs.paths_b, resolutions[1::2]))
                for name, r in zip(paths, of_side, strict=True)
            ]
            expected = accuracy(np.array(rows[:60]), np.array(rows[60:]), pairs.same, pairs.folds)
            found = result["numbers"]["measured"][model.name][protocol]
            assert (found["mean"], found["std"]) == (expected.mean, expected.std)
            assert f"{100 * expected.mean:.2f} ± {100 * expected.std:.2f}" in page.read_text()
            means.append(expected.mean)
            lowest, mean, highest = result["numbers"]["resolutions"][protocol]
            assert (lowest, mean, highest) == (resolutions.min(), resolutions.mean(), resolutions.max())
    assert len(set(means)) > 2
    again = session_in(tmp_path, replace(SINGLE, embed=refuse))
    write_mixed(again, mixed, images)
    with pytest.raises(AssertionError, match="embedded again"):
        write_mixed(again, draw_resolutions(pairs, seed=4), images)


def refuse(images: Sequence[np.ndarray]) -> np.ndarray:
    raise AssertionError("embedded again")


def test_left_out_pairs_take_their_resolutions_along(tmp_path: Path, folder: Path, pairs: Pairs) -> None:
    """One image is missing, another is none; the resolutions come from a file, which has those of all pairs."""
    copy = tmp_path / "faces"
    copy.mkdir()
    for file in folder.iterdir():
        if file.name != "1_1.png":
            (copy / file.name).write_bytes(b"no image" if file.name == "0_0.png" else file.read_bytes())
    of_all = np.random.default_rng(SEED).integers(5, 113, 120)
    (tmp_path / "all.csv").write_text(",".join(map(str, of_all)) + "\n")
    mixed = MixedPairs(pairs, {"all": read_resolutions(tmp_path / "all.csv", 120)})
    problems, images = Problems(), open_images(copy)
    left = usable_mixed(mixed, images, lambda pair: at_line("pairs.tsv", pair + 2), problems)
    both = list(zip(pairs.paths_a, pairs.paths_b, strict=True))
    kept = [pair for pair, names in enumerate(both) if not {"0_0.png", "1_1.png"} & set(names)]
    assert 0 < len(kept) < 60
    assert left.pairs.paths_a == tuple(pairs.paths_a[pair] for pair in kept)
    assert left.pairs.paths_b == tuple(pairs.paths_b[pair] for pair in kept)
    np.testing.assert_array_equal(left.pairs.folds, pairs.folds[kept])
    np.testing.assert_array_equal(left.pairs.same, pairs.same[kept])
    np.testing.assert_array_equal(left.resolutions["all"].reshape(-1, 2), of_all.reshape(-1, 2)[kept])
    missing = [names.index("1_1.png") for names in both if "1_1.png" in names]
    assert problems.count == len(missing) + 1
    line = next(pair for pair, names in enumerate(both) if "1_1.png" in names) + 2
    assert problems.messages[0].startswith(f"pairs.tsv, line {line}: 1_1.png is not among the images")
    assert "0_0.png is not an image" in problems.messages[-1]
    with pytest.raises(DataError, match=r"1_1\.png"):
        usable_mixed(mixed, images, str, Problems(strict=True))


def test_all_pairs_are_kept(images: NamedImages, pairs: Pairs) -> None:
    mixed = draw_resolutions(pairs, seed=0)
    left = usable_mixed(mixed, images, str, Problems(strict=True))
    assert left.seed == 0
    assert (left.pairs.paths_a, left.pairs.paths_b) == (pairs.paths_a, pairs.paths_b)
    for protocol, resolutions in mixed.resolutions.items():
        np.testing.assert_array_equal(left.resolutions[protocol], resolutions)


@pytest.mark.parametrize(
    ("resolutions", "message"),
    [
        (np.full(119, 7), r"low must have 120 resolutions, not \(119,\)"),
        (np.full((60, 2), 7), r"low must have 120 resolutions, not \(60, 2\)"),
        (np.full(120, 113), "resolutions of low must be from 1 to 112"),
        (np.full(120, 0), "resolutions of low must be from 1 to 112"),
    ],
)
def test_resolutions_that_do_not_fit(resolutions: np.ndarray, message: str, pairs: Pairs) -> None:
    with pytest.raises(ValueError, match=message):
        MixedPairs(pairs, {"low": resolutions})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"same": np.ones(60, bool)}, "pairs: all 60 pairs are of one person, expected pairs of both kinds"),
        ({"folds": np.zeros(60, int)}, "pairs: all pairs are in one fold, expected two at least for an accuracy"),
    ],
)
def test_pairs_without_an_accuracy(
    change: dict[str, Any], message: str, tmp_path: Path, images: NamedImages, pairs: Pairs
) -> None:
    session = session_in(tmp_path, replace(SINGLE, embed=refuse))
    with pytest.raises(DataError, match=message):
        write_mixed(session, draw_resolutions(replace(pairs, **change), seed=0), images)


def test_seeds_draw_other_resolutions(pairs: Pairs) -> None:
    drawn = {draw_resolutions(pairs, seed).resolutions["all"].tobytes() for seed in range(3)}
    assert len(drawn) == 3
