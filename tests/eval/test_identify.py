"""A gallery and probes out of folders, and the report of a whole measurement, against counting in NumPy."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import face, png, write_zip
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sessions import session_in

from btnet_eval.base import DataError, Problems
from btnet_eval.cache import EmbeddingCache
from btnet_eval.datasets.images import NamedImages, open_images
from btnet_eval.datasets.survface import OpenSet
from btnet_eval.embedder import Embedder
from btnet_eval.identify import embed_open_set, rates, split_gallery, write_identification
from btnet_eval.models import Model, open_model
from btnet_eval.session import image_sizes
from btnet_ext import degrade, resize
from btnet_ext.errors import InvalidOption

SEED = 17
PEOPLE, EACH = 9, 7
Show = Callable[[np.ndarray], np.ndarray]


def mean_colours(images: Sequence[np.ndarray]) -> np.ndarray:
    """Quarters of an image, their mean colours: about the smallest thing that knows a face again."""
    rows = [[image[y::2, x::2].mean(axis=(0, 1)) for y in (0, 1) for x in (0, 1)] for image in images]
    return np.array(rows, np.float32).reshape(len(images), -1) - 100


MODEL = Model("colours", mean_colours, "1", (112,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine persons, seven images each: a pattern of colours and noise."""
    random = np.random.default_rng(SEED)
    place = tmp_path_factory.mktemp("people")
    for person in range(PEOPLE):
        (place / f"{person}").mkdir()
        pattern = random.integers(100, 156, (4, 4, 3))
        for number in range(EACH):
            noisy = np.kron(pattern, np.ones((8, 8, 1))) + random.normal(0, 90, (32, 32, 3))
            (place / f"{person}" / f"{number}.png").write_bytes(png(noisy.clip(0, 255).astype(np.uint8)))
    return place


@pytest.fixture
def images(folder: Path) -> NamedImages:
    return open_images(folder)


@pytest.fixture
def people(images: NamedImages) -> OpenSet:
    return split_gallery(images.names(), Problems(strict=True))


def test_split_by_hand() -> None:
    """People a to f in this order, whatever the order of the names; every third, c and f, is not in the gallery."""
    names = [f"{person}/{number}.png" for number in (5, 1, 3, 2, 4) for person in "fbdace"]
    split = split_gallery(names, Problems(strict=True))
    assert split.gallery.names == tuple(f"{person}/{number}.png" for person in "abde" for number in (1, 2, 3))
    assert split.gallery.identities.tolist() == [0] * 3 + [1] * 3 + [3] * 3 + [4] * 3
    assert split.mated.names == tuple(f"{person}/{number}.png" for person in "abde" for number in (4, 5))
    assert split.mated.identities.tolist() == [0, 0, 1, 1, 3, 3, 4, 4]
    assert split.unmated == tuple(f"{person}/{number}.png" for person in "cf" for number in range(1, 6))


def test_people_without_a_probe() -> None:
    problems = Problems()
    names = ["a/1.png", "a/2.png", "b/1.png", "b/2.png", "b/3.png", "c/1.png", "alone.png"]
    split = split_gallery(names, problems, gallery_images=2, unmated=0)
    assert split.gallery.names == ("a/1.png", "a/2.png", "b/1.png", "b/2.png", "c/1.png")
    assert split.mated.names == ("b/3.png",)
    assert split.unmated == ()
    assert problems.messages == (
        "alone.png: it is in no folder of a person",
        "a: has 2 images, of which none is left for a probe",
        "c: has 1 image, of which none is left for a probe",
    )
    with pytest.raises(DataError, match="alone"):
        split_gallery(names, Problems(strict=True))


def test_folders_in_folders() -> None:
    """A person is the first folder; folders in it are the same person's."""
    split = split_gallery(["x/a/1.png", "x/b/1.png", "y/a/1.png", "y/b/1.png"], Problems(), gallery_images=1, unmated=0)
    assert split.mated.names == ("x/b/1.png", "y/b/1.png")
    assert split.mated.identities.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("names", "options", "error", "message"),
    [
        ([], {}, DataError, "of 0 people, nobody has 3 images for the gallery and one to look for"),
        (["1.png", "2.png"], {}, DataError, "of 0 people"),
        (["a/1.png", "b/1.png"], {"gallery_images": 1}, DataError, "of 2 people, nobody has 1 images"),
        (
            ["a/1.png", "a/2.png"],
            {"gallery_images": 1},
            DataError,
            "of 1 people, one is in the gallery, whom each search finds: there must be two at least",
        ),
        (["a/1.png", "a/2.png", "b/1.png"], {"gallery_images": 1, "unmated": 0.5}, DataError, "of 2 people, one is in"),
        (["a/1.png"], {"gallery_images": 0}, ValueError, "gallery_images must be at least 1, not 0"),
        (["a/1.png"], {"unmated": 1}, ValueError, "unmated must be at least 0 and below 1, not 1"),
        (["a/1.png"], {"unmated": -0.1}, ValueError, "unmated must be at least 0"),
        (["a/1.png"], {"unmated": float("nan")}, ValueError, "unmated must be at least 0"),
    ],
)
def test_nothing_to_split(names: list[str], options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        split_gallery(names, Problems(), **options)


@given(
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=40),
    gallery_images=st.integers(1, 4),
    every=st.integers(2, 9),
    seed=st.integers(0, 99),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_split_of_any_sizes(counts: list[int], gallery_images: int, every: int, seed: int) -> None:
    """A part of 1 / every takes every so-manieth person, exactly."""
    names = [f"{person:03}/{number}.png" for person, count in enumerate(counts) for number in range(count)]
    strangers = [name for name in names if int(name[:3]) % every == every - 1]
    others = [name for name in names if name not in strangers]
    gallery = [name for name in others if int(name[4]) < gallery_images]
    mated = [name for name in others if name not in gallery]
    shuffled = np.random.default_rng(seed).permutation(names).tolist()
    problems = Problems()

    def split() -> OpenSet:
        return split_gallery(shuffled, problems, gallery_images=gallery_images, unmated=1 / every)

    if not mated or len({name[:3] for name in gallery}) == 1:
        with pytest.raises(DataError, match="one is in the gallery" if mated else "nobody has"):
            split()
        return
    found = split()
    assert (list(found.gallery.names), list(found.mated.names), list(found.unmated)) == (gallery, mated, strangers)
    assert found.gallery.identities.tolist() == [int(name[:3]) for name in gallery]
    assert found.mated.identities.tolist() == [int(name[:3]) for name in mated]
    short = [number for number, count in enumerate(counts) if number % every != every - 1 and count <= gallery_images]
    assert problems.count == len(short)


@given(people=st.integers(2, 300), part=st.floats(0, 0.95))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_part_is_spread_evenly(people: int, part: float) -> None:
    assume(people * (1 - part) >= 2)
    names = [f"{person:03}/{number}.png" for person in range(people) for number in range(2)]
    found = split_gallery(names, Problems(), gallery_images=1, unmated=part)
    strangers = {int(name[:3]) for name in found.unmated}
    for first in range(1, people + 1):
        assert abs(len([person for person in strangers if person < first]) - first * part) <= 1 + 1e-6


def test_split_of_real_faces(data_folder: Path) -> None:
    """110 people with at least 12 images: 36 are not in the gallery, and 74 are, with 3 images each."""
    with open_images(data_folder / "celeba" / "val112.zip") as images:
        split = split_gallery(images.names(), Problems(strict=True))
        strangers = {name.split("/")[0] for name in split.unmated}
        assert (len(strangers), len({*split.gallery.identities.tolist()}), len(split.gallery)) == (36, 74, 222)
        assert len(split.mated) + len(split.unmated) == 2473 - 222
        assert strangers.isdisjoint(name.split("/")[0] for name in (*split.gallery.names, *split.mated.names))


def counted(
    images: NamedImages,
    people: OpenSet,
    shown: tuple[Show, Show],
    embed: Callable[[Sequence[np.ndarray]], np.ndarray] = mean_colours,
) -> dict[str, float]:
    """The rates by float64 and full sorting. shown: what is done with an image of the gallery, and of a probe."""
    of_gallery, of_probe = shown

    def rows(names: Sequence[str], show: Show) -> np.ndarray:
        return np.asarray(embed([show(images.read(name)) for name in names]), np.float64)

    def unit(rows: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = rows / np.linalg.norm(rows, axis=1)[:, None]
        return scaled

    embedded, ids = rows(people.gallery.names, of_gallery), people.gallery.identities
    persons = np.unique(ids)
    gallery = unit(np.stack([embedded[ids == person].mean(axis=0) for person in persons]))
    scores = unit(rows(people.mated.names, of_probe)) @ gallery.T
    mates = scores[np.arange(len(scores)), np.searchsorted(persons, people.mated.identities)]
    ranks = 1 + np.sum(scores > mates[:, None], axis=1)
    found = {f"Top-{k}": np.mean(ranks <= k) for k in (1, 5, 10)}
    if people.unmated:
        best = (unit(rows(people.unmated, of_probe)) @ gallery.T).max(axis=1)
        for fpir in (0.1, 0.01):
            thresholds = [t for t in [*best, *mates, np.inf] if np.mean(best >= t) <= fpir]
            found[f"TPIR at FPIR {fpir:g}"] = np.mean((ranks <= 1) & (mates >= min(thresholds)))
    return found


def test_numbers(tmp_path: Path, images: NamedImages, people: OpenSet) -> None:
    rows = embed_open_set(Embedder(MODEL, EmbeddingCache(tmp_path)), people, images, [112, 6])
    show = {r: lambda image, r=r: degrade(image, r) for r in (112, 6)}
    for r1, r2 in ((112, 112), (112, 6), (6, 6), (6, 112)):
        found = rates(rows.search(r1, r2))
        assert found == counted(images, people, (show[r1], show[r2]))
        assert 0.2 < found["Top-1"] < 1  # not so easy that everything is found
        assert found["TPIR at FPIR 0.01"] < found["Top-1"]


def test_branches_are_shown_their_resolution(tmp_path: Path, images: NamedImages, people: OpenSet) -> None:
    """A resolution that is a branch's is shown at its size; another one is degraded to it and shown at 112."""
    sizes: set[tuple[int, ...]] = set()

    def embed(shown: Sequence[np.ndarray]) -> np.ndarray:
        sizes.update(image.shape for image in shown)
        return mean_colours(shown)

    model = Model("branches", embed, "3", (7, 112))
    rows = embed_open_set(Embedder(model, EmbeddingCache(tmp_path)), people, images, [7, 56])
    assert sizes == {(7, 7, 3), (112, 112, 3)}
    shown = (lambda image: degrade(image, 56)), (lambda image: resize(image, (7, 7)))
    assert rates(rows.search(56, 7)) == counted(images, people, shown)


def test_report(tmp_path: Path, images: NamedImages, people: OpenSet) -> None:
    other = Model("grey", lambda shown: mean_colours([image[..., :1] for image in shown]), "2", (112,))
    problems = Problems()
    problems.report("0/9.png is not an image")
    steps: list[tuple[str, int, int]] = []
    session = session_in(tmp_path, MODEL, other, problems=problems, progress=lambda *step: steps.append(step))
    page = write_identification(session, images, people, [6, 112, 28, 6])
    assert page == tmp_path / "out" / "identification.html"
    embedded = {f"{model} at {r} px" for model in ("colours", "grey") for r in (112, 28, 6)}
    assert {step[0] for step in steps} == {"digest of the images", *embedded}
    result = json.loads((tmp_path / "out" / "identification.json").read_text())
    assert result["models"] == {"colours": "1", "grey": "2"}
    assert result["problems"]["count"] == 1
    rows = embed_open_set(Embedder(MODEL, EmbeddingCache(tmp_path / "cache")), people, images, [112, 28, 6])
    pairs = [(112, 112), (112, 28), (112, 6), (28, 28), (6, 6)]
    assert list(result["numbers"]["colours"]) == ["{}&{}".format(*pair) for pair in pairs]
    tables = {section["title"]: section for section in result["sections"]}
    assert tables["Gallery and probes"]["rows"] == [[6, 18, 24, 21]]
    split = (
        "Of 9 people, 3 are not in the gallery; of the others, the first 3 images are. Among 6 people, everybody is in"
    )
    assert tables["Gallery and probes"]["note"].endswith(f"{split} the top 6.")
    for title in ("Top-1", "Top-5", "Top-10", "TPIR at FPIR 0.1", "TPIR at FPIR 0.01"):
        expected = [rates(rows.search(*pair))[title] for pair in pairs]
        assert [values[title] for values in result["numbers"]["colours"].values()] == expected
        assert tables[title]["columns"] == ["model", *result["numbers"]["colours"]]
        assert tables[title]["rows"][0] == ["colours", *(f"{100 * rate:.2f}" for rate in expected)]
        assert tables[title]["rows"][1][0] == "grey"
    text = page.read_text()
    assert 'src="identification_top1.png"' in text
    assert "TPIR at FPIR 0.01" in (tmp_path / "out" / "identification.md").read_text()
    assert (tmp_path / "out" / "identification_top1.svg").stat().st_size > 1000


def test_without_unmated_people(tmp_path: Path, images: NamedImages) -> None:
    people = split_gallery(images.names(), Problems(), unmated=0)
    out = tmp_path / "out"
    write_identification(session_in(tmp_path, MODEL), images, people, [112])
    result = json.loads((out / "identification.json").read_text())
    assert list(result["numbers"]["colours"]["112&112"]) == ["Top-1", "Top-5", "Top-10"]
    assert "no TPIR" in result["sections"][0]["note"]
    assert "FPIR 0" not in (out / "identification.html").read_text()


def test_images_that_cannot_be_decoded(tmp_path: Path) -> None:
    """The first three that can be decoded are in the gallery."""
    for name in [*(f"a/{number}" for number in range(5)), "b/0"]:
        path = tmp_path / "faces" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image" if name == "a/1" else png(face(int(name[2:]))))
    images, problems = open_images(tmp_path / "faces"), Problems()
    people = split_gallery(tuple(image_sizes(images.names(), images, problems)), problems, unmated=0)
    assert people.gallery.names == ("a/0.png", "a/2.png", "a/3.png", "b/0.png")
    assert people.mated.names == ("a/4.png",)
    assert [message.split(": ")[-1] for message in problems.messages[1:]] == [
        "has 1 image, of which none is left for a probe"
    ]
    assert "1.png is not an image" in problems.messages[0]


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no images"):
        open_images(tmp_path)


@pytest.mark.parametrize("resolutions", [[], [0, 112], [-7]])
def test_no_such_resolution(tmp_path: Path, images: NamedImages, people: OpenSet, resolutions: list[int]) -> None:
    with pytest.raises(ValueError, match="resolutions must be positive, one at least, not"):
        write_identification(session_in(tmp_path, MODEL), images, people, resolutions)
    assert not (tmp_path / "out").exists()


def test_a_probe_of_no_pixels(tmp_path: Path, images: NamedImages, people: OpenSet) -> None:
    with pytest.raises(InvalidOption, match="resolution is 0, expected a whole number of pixels from 1"):
        embed_open_set(Embedder(MODEL, EmbeddingCache(tmp_path)), people, images, [0])


def test_a_bundle(tmp_path: Path, small_bundle: Path) -> None:
    """Through the engine, out of an archive: at 14 px and 112 px its networks see resized images."""
    archive = write_zip(tmp_path / "faces.zip", [f"{person}/{number}.png" for person in "abc" for number in range(3)])
    model = open_model(small_bundle)
    with open_images(archive) as images:
        people = split_gallery(images.names(), Problems(strict=True), gallery_images=2)
        write_identification(session_in(tmp_path, model), images, people, [14, 112])
        show = {r: lambda image, r=r: resize(image, (r, r)) for r in (14, 112)}
        result = json.loads((tmp_path / "out" / "identification.json").read_text())
        assert result["models"] == {"small": model.digest}
        for pair, found in result["numbers"]["small"].items():
            r1, r2 = map(int, pair.split("&"))
            assert found == counted(images, people, (show[r1], show[r2]), model.embed)
