"""A whole measurement of stand-in models on faces that are colours: numbers, what is left out, the files."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dataset_files import pattern_pairs, write_patterns
from sessions import session_in

from btnet_eval.base import DataError, Problems
from btnet_eval.cache import EmbeddingCache
from btnet_eval.datasets.images import NamedImages, open_images
from btnet_eval.embedder import Embedder
from btnet_eval.models import Model
from btnet_eval.roc import tar_at_far
from btnet_eval.verification import Pairs, accuracy, cosine_similarities, cross_resolution
from btnet_eval.verify import embed_pairs, usable_pairs, write_verification
from btnet_ext import degrade

SEED = 5
PEOPLE, EACH = 6, 4


def mean_colours(images: Sequence[np.ndarray]) -> np.ndarray:
    """Quarters of an image, their mean colours: about the smallest thing that knows a face again."""
    rows = [[image[y::2, x::2].mean(axis=(0, 1)) for y in (0, 1) for x in (0, 1)] for image in images]
    return np.array(rows, np.float32).reshape(len(images), -1) - 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patterns(tmp_path_factory.mktemp("faces"), PEOPLE, EACH, 32, SEED)


@pytest.fixture
def images(folder: Path) -> NamedImages:
    return open_images(folder)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return pattern_pairs(PEOPLE, EACH, SEED)


MODEL = Model("colours", mean_colours, "1", (112,))


def test_numbers(tmp_path: Path, images: NamedImages, pairs: Pairs) -> None:
    rows = embed_pairs(Embedder(MODEL, EmbeddingCache(tmp_path)), pairs, images, [112, 7])

    def at(resolution: int, paths: Sequence[str]) -> np.ndarray:
        return mean_colours([degrade(images.read(name), resolution) for name in paths])

    a, b = {r: at(r, pairs.paths_a) for r in (112, 7)}, {r: at(r, pairs.paths_b) for r in (112, 7)}
    expected = accuracy(a[112], b[112], pairs.same, pairs.folds)
    measured = rows.measure(112, 112)
    assert (measured.mean, measured.std) == (expected.mean, expected.std)
    scores = cosine_similarities(a[112], b[112])
    assert measured.tars == {far: tar_at_far(scores, pairs.same, far) for far in (1e-1, 1e-2, 1e-3)}

    both = cross_resolution((a[112], b[112]), (a[7], b[7]), pairs.same, pairs.folds)
    measured = rows.measure(112, 7, [0.1])
    assert (measured.mean, measured.std) == (both.mean, both.std)
    scores = np.concatenate([cosine_similarities(a[112], b[7]), cosine_similarities(a[7], b[112])])
    assert measured.tars == {0.1: tar_at_far(scores, [*pairs.same, *pairs.same], 0.1)}


def test_images_that_cannot_be_decoded(tmp_path: Path, folder: Path, pairs: Pairs) -> None:
    copy = tmp_path / "faces"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(b"no image" if file.name == "0_0.png" else file.read_bytes())
    broken, problems = open_images(copy), Problems()
    left = usable_pairs(pairs, broken, problems)
    hit = np.array(["0_0.png" in both for both in zip(pairs.paths_a, pairs.paths_b, strict=True)])
    assert 0 < hit.sum() < 60
    np.testing.assert_array_equal(left.same, pairs.same[~hit])
    np.testing.assert_array_equal(left.folds, pairs.folds[~hit])
    assert left.paths_a == tuple(np.array(pairs.paths_a)[~hit])
    assert problems.count == 1
    assert "0_0.png is not an image" in problems.messages[0]
    with pytest.raises(DataError, match=r"0_0\.png"):
        usable_pairs(pairs, broken, Problems(strict=True))
    for file in copy.iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match="images can be decoded"):
        usable_pairs(pairs, open_images(copy), Problems())
    for file in list(copy.iterdir()):
        file.write_bytes((folder / file.name).read_bytes() if file.name == "0_0.png" else b"no image")
    with pytest.raises(DataError, match="no pair has two images that can be decoded"):
        usable_pairs(pairs, open_images(copy), Problems())
    whole = usable_pairs(pairs, open_images(folder), Problems(strict=True))
    assert (whole.paths_a, whole.paths_b) == (pairs.paths_a, pairs.paths_b)
    np.testing.assert_array_equal(whole.folds, pairs.folds)


def refuse(shown: Sequence[np.ndarray]) -> np.ndarray:
    raise AssertionError("embedded")


def test_pairs_of_one_kind_are_refused_at_once(tmp_path: Path, images: NamedImages, pairs: Pairs) -> None:
    session = session_in(tmp_path, replace(MODEL, embed=refuse))
    for same, kind in ((True, "one person"), (False, "different persons")):
        one_kind = replace(pairs, same=np.full(60, same), where="pairs.tsv")
        with pytest.raises(DataError, match=rf"pairs\.tsv: all 60 pairs are of {kind}, expected pairs of both kinds"):
            write_verification(session, one_kind, images, [112])


def test_pairs_of_one_fold_have_no_accuracy(tmp_path: Path, images: NamedImages, pairs: Pairs) -> None:
    """As those of LFW's pairsDevTest.txt: their TAR and ROC are those of all pairs together."""
    page = write_verification(session_in(tmp_path, MODEL), replace(pairs, folds=np.zeros(60, int)), images, [112, 7])
    in_folds = embed_pairs(Embedder(MODEL, EmbeddingCache(tmp_path / "cache")), pairs, images, [112, 7]).measure(112, 7)
    result = json.loads(page.with_suffix(".json").read_text())
    numbers = result["numbers"]["colours"]["112&7"]
    assert (numbers["mean"], numbers["std"]) == (None, None)
    assert numbers["tar"] == {str(far): tar for far, tar in in_folds.tars.items()}
    sections = {section["title"]: section for section in result["sections"]}
    assert sections["Accuracy"]["rows"] == [["colours", None, None, None]]
    assert "ROC" in sections
    assert "Accuracy and resolution" not in sections


def test_report(tmp_path: Path, images: NamedImages, pairs: Pairs) -> None:
    other = Model("grey", lambda shown: mean_colours([image[..., :1] for image in shown]), "2", (112,))
    problems = Problems()
    problems.report("pairs.tsv, line 3: nobody")
    steps: list[tuple[str, int, int]] = []
    session = session_in(tmp_path, MODEL, other, problems=problems, progress=lambda *step: steps.append(step))
    page = write_verification(session, pairs, images, [7, 112, 28])
    assert page == tmp_path / "out" / "verification.html"
    embedded = {f"{model} at {r} px" for model in ("colours", "grey") for r in (112, 28, 7)}
    assert {step[0] for step in steps} == {"digest of the images", *embedded}
    result = json.loads((tmp_path / "out" / "verification.json").read_text())
    assert result["models"] == {"colours": "1", "grey": "2"}
    assert result["problems"]["count"] == 1
    rows = embed_pairs(Embedder(MODEL, EmbeddingCache(tmp_path / "cache")), pairs, images, [112, 28, 7])
    for pair in ((112, 112), (112, 28), (112, 7), (28, 28), (28, 7), (7, 7)):
        numbers = result["numbers"]["colours"]["{}&{}".format(*pair)]
        expected = rows.measure(*pair)
        assert (numbers["mean"], numbers["std"]) == (expected.mean, expected.std)
        assert numbers["tar"] == {str(far): tar for far, tar in expected.tars.items()}
        assert numbers["flip"] is False
        assert expected.mean is not None
        assert expected.std is not None
        assert f"{100 * expected.mean:.2f} ± {100 * expected.std:.2f}" in page.read_text()
    notes = {section["figure"]: section["note"] for section in result["sections"]}
    for figure in ("roc", "distances_1", "distances_2"):
        assert notes[f"verification_{figure}.png"] == "Both images of a pair are at the same resolution."
    for figure in ("accuracy", "roc", "distances_1", "distances_2"):
        figure = f"verification_{figure}"
        assert f'src="{figure}.png"' in page.read_text()
        assert (tmp_path / "out" / f"{figure}.svg").stat().st_size > 1000
