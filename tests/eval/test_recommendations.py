"""Recommended thresholds: against sorted scores, in a bundle as btnet compare reads it, whole or not at all."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dataset_files import png
from PIL import Image
from sessions import session_in

from btnet_eval.base import DataError, Problems
from btnet_eval.cache import EmbeddingCache
from btnet_eval.datasets.images import NamedImages, open_images
from btnet_eval.embedder import Embedder
from btnet_eval.models import Model, open_model
from btnet_eval.people import read_faces
from btnet_eval.recommendations import (
    LabeledPairs,
    LabeledPeople,
    Recommendations,
    allows,
    recommend_thresholds,
    write_recommendations,
    write_thresholds,
)
from btnet_eval.roc import Threshold
from btnet_eval.verification import Pairs
from btnet_ext import Bundle, Engine, InvalidOption
from btnet_ext.compare import compare
from bundle_copies import BundleCopy
from limited_files import limited_files

SEED = 12
PEOPLE, EACH = 8, 4
SIZES = (5, 7, 8, 10, 14, 15, 20, 28, 29, 40, 56, 79, 112)
PAIRS = [f"{high}&{low}" for low in SIZES for high in SIZES if low <= high]


def small(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def quarters(images: Sequence[np.ndarray]) -> np.ndarray:
    """The mean colours of the quarters of an image."""
    means = [
        [part.mean(axis=(0, 1)) for half in np.array_split(image, 2) for part in np.array_split(half, 2, axis=1)]
        for image in images
    ]
    return np.array(means, np.float32).reshape(len(images), -1) - 120


MODEL = Model("quarters", quarters, "quarters", (112,))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> NamedImages:
    random = np.random.default_rng(SEED)
    folder = tmp_path_factory.mktemp("faces")
    for person in range(PEOPLE):
        pattern = random.integers(0, 256, (2, 2, 3))
        for number in range(EACH):
            noisy = np.kron(pattern, np.ones((20, 20, 1))) + random.normal(0, 100, (40, 40, 3))
            noisy += np.kron(random.normal(0, 70, (2, 2, 3)), np.ones((20, 20, 1)))
            (folder / f"{person}_{number}.png").write_bytes(png(noisy.clip(0, 255).astype(np.uint8)))
    return open_images(folder)


def pairs_of(impostors: int) -> Pairs:
    """All genuine pairs, and so many of the impostor pairs, at random."""
    names = [(person, f"{person}_{number}.png") for person in range(PEOPLE) for number in range(EACH)]
    all_pairs = [(p == q, a, b) for i, (p, a) in enumerate(names) for q, b in names[i + 1 :]]
    genuine = [pair for pair in all_pairs if pair[0]]
    others = [pair for pair in all_pairs if not pair[0]]
    chosen = np.random.default_rng(SEED).permutation(len(others))[:impostors]
    same, first, second = zip(*genuine, *(others[i] for i in chosen), strict=True)
    return Pairs(np.arange(len(same)) % 10, first, second, np.array(same))


def labeled(images: NamedImages, impostors: int, at: Sequence[int] = (7, 40)) -> LabeledPairs:
    return LabeledPairs(pairs_of(impostors), images, at)


def by_hand(genuine: np.ndarray, impostors: np.ndarray, far: float) -> tuple[float, float]:
    """TAR and FAR of the lowest threshold: accept impostors from the highest score down, as many as far lets in."""
    ranked = np.sort(impostors)[::-1]
    count = max(n for n in range(len(ranked) + 1) if n / len(ranked) <= far)
    rejected = ranked[count]
    return float((genuine > rejected).mean()), float((ranked > rejected).mean())


def test_against_sorted_scores(tmp_path: Path, images: NamedImages) -> None:
    inputs = labeled(images, 300)
    found = recommend_thresholds(Embedder(MODEL, EmbeddingCache(tmp_path)), inputs, fars=(0.1, 0.01, 0.001))
    assert (found.impostors, found.left_out) == (300, (0.001,))
    assert list(found.thresholds) == [0.1, 0.01]
    for pair, thresholds in ((name, [found.thresholds[far][name] for far in (0.1, 0.01)]) for name in ("7&7", "40&7")):
        scores, labels = [], []
        for a, b, same in zip(inputs.pairs.paths_a, inputs.pairs.paths_b, inputs.pairs.same, strict=True):
            r, s = (7, 7) if pair == "7&7" else (40, 7)
            for x, y in ((a, b), (b, a)) if r != s else ((a, b),):
                u, v = (
                    quarters([small(images.read(name), side)])[0].astype(np.float64) for name, side in ((x, r), (y, s))
                )
                scores.append(u @ v / np.sqrt((u @ u) * (v @ v)))
                labels.append(same)
        all_scores, truth = np.array(scores), np.array(labels)
        for far, threshold in zip((0.1, 0.01), thresholds, strict=True):
            assert (threshold.tar, threshold.far) == by_hand(all_scores[truth], all_scores[~truth], far)
            assert threshold.impostors == (300 if pair == "7&7" else 600)
            assert np.mean(all_scores[truth] >= threshold.value) == threshold.tar
            assert 0 < threshold.tar < 1, "a test that tells nothing"


def test_the_pairs_count_and_not_their_scores(tmp_path: Path, images: NamedImages) -> None:
    """Sixty impostor pairs give 120 scores between two resolutions, and still no threshold at FAR 0.01."""
    found = recommend_thresholds(Embedder(MODEL, EmbeddingCache(tmp_path)), labeled(images, 60), fars=(0.02, 0.01))
    assert found.left_out == (0.01,)
    assert found.thresholds.keys() == {0.02}
    assert found.thresholds[0.02]["40&7"].impostors == 120


def test_how_many_are_enough() -> None:
    for far, least in ((1e-2, 100), (1e-3, 1000), (1e-4, 10_000), (0.3, 4), (0.07, 15)):
        assert allows(least, far)
        assert not allows(least - 1, far)
    assert not allows(0, 0.5)


def test_report(tmp_path: Path, images: NamedImages) -> None:
    other = Model("grey", lambda shown: quarters([image[..., :1] for image in shown]), "grey", (112,))
    inputs = labeled(images, 200)
    page, recommended = write_recommendations(session_in(tmp_path, MODEL, other), inputs)
    assert recommended.keys() == {"quarters", "grey"}
    assert page == tmp_path / "out" / "thresholds.html"
    result = json.loads((tmp_path / "out" / "thresholds.json").read_text())
    assert result["models"] == {"quarters": "quarters", "grey": "grey"}
    text = (tmp_path / "out" / "thresholds.md").read_text()
    found = recommend_thresholds(Embedder(MODEL, EmbeddingCache(tmp_path / "cache")), inputs)
    assert recommended["quarters"] == found
    numbers = result["numbers"]["quarters"]
    assert numbers["impostors"] == 200
    assert numbers["left_out"] == [1e-3, 1e-4]
    assert list(numbers["far"]) == ["0.01"]
    for pair, threshold in found.thresholds[1e-2].items():
        assert Threshold(**numbers["far"]["0.01"][pair]) == threshold
        row = f"| quarters | {pair.replace('&', chr(92) + '&')} | {threshold.value:.4f} | {threshold.far:.4f} "
        assert f"{row}| {threshold.tar:.4f} | {threshold.impostors} |" in text
    assert "200 impostor pairs are too few, since 1,000 are needed" in text
    assert "200 impostor pairs are too few, since 10,000 are needed" in text
    assert [section["title"] for section in result["sections"]] == ["FAR 0.01", "FAR 0.001", "FAR 0.0001"]


def recommendations(cosine: float = 0.25, tar: float = 0.75, fars: Sequence[float] = (1e-2, 1e-3)) -> Recommendations:
    """Other numbers for every two sizes of the small bundle's ladder."""
    rows = {
        far: {pair: Threshold(cosine + i / 100 + far, far, tar, 5000) for i, pair in enumerate(PAIRS)} for far in fars
    }
    return Recommendations(rows, (1e-4,), 5000)


def test_a_bundle_with_thresholds(tmp_path: Path, small_bundle: Path) -> None:
    copy = BundleCopy(small_bundle, tmp_path / "model.btnet")
    copy.edit_model(lambda model: model.update(licence="é 1", training={"results": [1e-300, 2**70, 0.1, None]}))
    before, old = copy.model, Bundle.open(copy.path)
    files = {file.name: file.read_bytes() for file in copy.path.iterdir() if file.name != "model.json"}
    assert write_thresholds(Engine(copy.path), recommendations(), flip=True) == copy.path
    after = copy.model
    assert list(after) == list(before)
    assert {**after, "thresholds": {}} == before
    assert json.dumps({**after, "thresholds": {}}) == json.dumps(before)
    assert after["thresholds"]["flip"] is True
    assert list(after["thresholds"]["far"]) == ["0.01", "0.001"]
    assert after["thresholds"]["far"]["0.001"]["112&28"] == {
        "cosine": 0.25 + PAIRS.index("112&28") / 100 + 1e-3,
        "tar": 0.75,
    }
    new = Bundle.open(copy.path)
    new.verify()
    assert new.digest != old.digest
    assert new.digest == hashlib.sha256((copy.path / "model.json").read_bytes()).hexdigest()
    assert {file.name: file.read_bytes() for file in copy.path.iterdir() if file.name != "model.json"} == files
    # What was there is replaced, also a FAR that is not measured any more; what others changed meanwhile stays.
    engine = Engine(copy.path)
    copy.edit_model(lambda model: model.update(licence="other"))
    write_thresholds(engine, recommendations(fars=(1e-2,)), flip=False)
    assert copy.model["licence"] == "other"
    assert list(copy.model["thresholds"]["far"]) == ["0.01"]
    assert copy.model["thresholds"]["flip"] is False


def test_compare_reads_what_was_measured(tmp_path: Path, small_bundle: Path, images: NamedImages) -> None:
    """The real bundle, flip-summed: the verdict on two faces is that of the threshold, at each of two sizes."""
    model = open_model(small_bundle, flip=True)
    assert model.ladder == SIZES
    assert model.engine is not None
    inputs = labeled(images, 120, model.ladder)
    found = recommend_thresholds(Embedder(model, EmbeddingCache(tmp_path / "cache")), inputs, fars=(1e-2, 1e-3))
    path = write_thresholds(model.engine, found, flip=True, out=tmp_path / "copy.btnet")
    engine = Engine(path)
    for number in range(12):
        a, b = (small(images.read(f"{number % PEOPLE}_{i}.png"), side) for i, side in ((0, 30), (1, 7)))
        u, v = (row.astype(np.float64) for row in (model.embed([a])[0], model.embed([b])[0]))
        answer = compare(engine, [a, b], far=1e-2, least_tar=0)
        threshold = found.thresholds[1e-2]["29&7"]
        assert (answer.threshold, answer.tar, answer.resolutions) == (threshold.value, threshold.tar, (112, 7))
        similarity = float(u @ v / np.sqrt((u @ u) * (v @ v)))
        assert answer.similarity == pytest.approx(similarity, abs=1e-5)
        assert answer.verdict == ("same" if answer.similarity >= threshold.value else "different")
    assert threshold.value != found.thresholds[1e-2]["112&7"].value, "a test that tells nothing"
    demanding = compare(engine, [a, b], far=1e-2, least_tar=np.nextafter(threshold.tar, 2)).verdict
    assert demanding == ("same" if answer.verdict == "same" else "too small to tell")
    with pytest.raises(InvalidOption, match=r"far must be one of 0\.01, .* not 0\.001"):
        compare(engine, [a, b], far=1e-3)


def test_images_are_reduced_and_the_model_selects(tmp_path: Path, small_bundle: Path, images: NamedImages) -> None:
    """At 29 px a bundle is measured by what its engine makes of images of 29 px, against sorted scores."""
    model, inputs = open_model(small_bundle), labeled(images, 100, (29,))
    found = recommend_thresholds(Embedder(model, EmbeddingCache(tmp_path)), inputs, fars=(0.05,))
    engine = Engine(small_bundle)
    a, b = (
        engine.embed([small(images.read(name), 29) for name in paths], flip=True).astype(np.float64)
        for paths in (inputs.pairs.paths_a, inputs.pairs.paths_b)
    )
    scores = np.sum(a * b, axis=1)
    expected = by_hand(scores[inputs.pairs.same], scores[~inputs.pairs.same], 0.05)
    assert (found.thresholds[0.05]["29&29"].tar, found.thresholds[0.05]["29&29"].far) == expected


def test_a_copy(tmp_path: Path, small_bundle: Path) -> None:
    before = {file.name: file.read_bytes() for file in small_bundle.iterdir()}
    target = tmp_path / "copy.btnet"
    assert write_thresholds(Engine(small_bundle), recommendations(), flip=True, out=target) == target
    assert {file.name: file.read_bytes() for file in small_bundle.iterdir()} == before
    assert sorted(file.name for file in target.iterdir()) == sorted(before)
    for name in before.keys() - {"model.json"}:
        assert (target / name).read_bytes() == before[name]
        assert not (target / name).samefile(small_bundle / name)
    Bundle.open(target).verify()
    images = [np.random.default_rng(SEED).integers(0, 256, (side, side, 3), np.uint8) for side in (5, 28, 60)]
    np.testing.assert_array_equal(Engine(target).embed(images), Engine(small_bundle).embed(images))
    with pytest.raises(FileExistsError, match="exists: it is not overwritten"):
        write_thresholds(Engine(small_bundle), recommendations(), flip=True, out=target)
    with pytest.raises(OSError, match=r"copy cannot be written .No such file"):
        write_thresholds(Engine(small_bundle), recommendations(), flip=True, out=tmp_path / "nowhere" / "copy")


def test_whole_or_not_at_all(tmp_path: Path, small_bundle: Path) -> None:
    copy = BundleCopy(small_bundle, tmp_path / "model.btnet")
    before = {file.name: file.read_bytes() for file in copy.path.iterdir()}
    with limited_files(1000), pytest.raises(OSError, match=r"model\.json cannot be saved .* is intact"):
        write_thresholds(Engine(copy.path), recommendations(), flip=True)
    assert {file.name: file.read_bytes() for file in copy.path.iterdir()} == before
    with limited_files(100_000), pytest.raises(OSError, match=r"copy cannot be written .File too large.$"):
        write_thresholds(Engine(copy.path), recommendations(), flip=True, out=tmp_path / "copy")
    assert list(tmp_path.iterdir()) == [copy.path]


def test_a_bundle_that_can_only_be_read(small_bundle: Path) -> None:
    """Also for root, who may write anywhere: as nobody, in a folder that everybody can reach."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        folder.chmod(0o755)
        path = Path(shutil.copytree(small_bundle, folder / "shipped.btnet"))
        path.chmod(0o555)
        before = (path / "model.json").read_bytes()
        engine = Engine(path)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(
                PermissionError, match=r"shipped\.btnet cannot be changed .Permission denied.: thresh.* copy"
            ):
                write_thresholds(engine, recommendations(), flip=True)
        finally:
            os.seteuid(user)
        assert (path / "model.json").read_bytes() == before
        path.chmod(0o755)
    finally:
        shutil.rmtree(folder)


def test_what_cannot_be_written(tmp_path: Path, small_bundle: Path) -> None:
    target = tmp_path / "copy"
    nothing = Recommendations({}, (1e-3, 1e-4), 40)
    with pytest.raises(
        DataError, match=r"no threshold to write: 40 impostor pairs are too few for a FAR of 0\.001 or 0"
    ):
        write_thresholds(Engine(small_bundle), nothing, flip=True, out=target)
    rows = recommendations()
    fewer = {far: {pair: t for pair, t in pairs.items() if pair != "29&7"} for far, pairs in rows.thresholds.items()}
    with pytest.raises(
        InvalidOption, match=r"found must be for every two of the sizes 5, 7, 8, .*, 112 of .*, not for"
    ):
        write_thresholds(Engine(small_bundle), replace(rows, thresholds=fewer), flip=True, out=target)
    assert not target.exists()


@pytest.mark.parametrize(("device", "precision"), [("cpu", "bf16"), ("cuda:0", "f32")])
def test_what_compare_does_not_embed_with_is_not_written(
    device: str, precision: str, tmp_path: Path, small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(small_bundle)
    monkeypatch.setattr(Engine, "device", device)
    monkeypatch.setattr(Engine, "precision", precision)
    with pytest.raises(InvalidOption, match=f"measured on the device cpu with precision f32, .* not on {device} with"):
        write_thresholds(engine, recommendations(), flip=True, out=tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_pairs_that_do_not_serve(tmp_path: Path, images: NamedImages) -> None:
    inputs = labeled(images, 60)
    cache = EmbeddingCache(tmp_path)
    for fars in ((), (0.0,), (0.1, 1.0)):
        with pytest.raises(InvalidOption, match="fars must be one or more numbers above 0"):
            recommend_thresholds(Embedder(MODEL, cache), inputs, fars=fars)
    pairs = inputs.pairs
    for same in (True, False):
        one_kind = replace(pairs, same=np.full(len(pairs), same), where="pairs.tsv")
        with pytest.raises(DataError, match=r"pairs\.tsv: all .* expected pairs of both kinds"):
            LabeledPairs(one_kind, images, (7,))


def test_all_images_of_a_half_with_all_of_the_other(tmp_path: Path) -> None:
    """By hand: the images of a person go to the halves in turn, and every pair across them counts once."""
    folder = tmp_path / "people"
    random = np.random.default_rng(SEED)
    counts = {"a": 5, "b": 4, "c": 1, "d": 6}
    for person, count in counts.items():
        (folder / person).mkdir(parents=True)
        pattern = np.kron(random.integers(0, 256, (2, 2, 3)), np.ones((20, 20, 1)))
        for number in range(count):
            noisy = pattern + np.kron(random.normal(0, 90, (2, 2, 3)), np.ones((20, 20, 1)))
            (folder / person / f"{number}.png").write_bytes(png(noisy.clip(0, 255).astype(np.uint8)))
    images = open_images(folder)
    people = LabeledPeople(read_faces(images, Problems()), images, (7, 40))
    halves = [[name for name in images.names() if int(name[2]) % 2 == side] for side in (0, 1)]
    pairs = [(a, b) for a in halves[0] for b in halves[1]]
    assert sum(a[0] == b[0] for a, b in pairs) == 3 * 2 + 2 * 2 + 3 * 3
    assert people.impostors == len(pairs) - (3 * 2 + 2 * 2 + 3 * 3)
    found = recommend_thresholds(Embedder(MODEL, EmbeddingCache(tmp_path / "cache")), people, fars=(0.1, 0.05, 0.001))
    assert found.left_out == (0.001,)
    for name, (low, high) in {"7&7": (7, 7), "40&7": (7, 40), "40&40": (40, 40)}.items():
        scores = []
        for a, b in pairs:
            u, v = (
                quarters([small(images.read(image), side)])[0].astype(np.float64)
                for image, side in ((a, low), (b, high))
            )
            scores.append(u @ v / np.sqrt((u @ u) * (v @ v)))
        all_scores, truth = np.array(scores), np.array([a[0] == b[0] for a, b in pairs])
        for far in (0.1, 0.05):
            threshold = found.thresholds[far][name]
            assert (threshold.tar, threshold.far) == by_hand(all_scores[truth], all_scores[~truth], far)
