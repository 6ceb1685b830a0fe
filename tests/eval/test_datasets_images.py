"""Images by name out of folders and zip archives."""

import hashlib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from dataset_files import face, png, write_images, write_zip
from PIL import Image

from btnet_eval.base import DataError
from btnet_eval.datasets import images as module
from btnet_eval.datasets.images import NamedImages, open_images

NAMES = ["Ann/Ann_0001.png", "Ann/Ann_0002.png", "Bob/Bob_0001.png", "Annex/far/below.png"]


@pytest.fixture(params=["folder", "zip", "folder in a zip"])
def images(request: pytest.FixtureRequest, tmp_path: Path) -> NamedImages:
    if request.param == "folder":
        return open_images(write_images(tmp_path / "faces", NAMES))
    if request.param == "zip":
        return open_images(write_zip(tmp_path / "faces.zip", NAMES))
    path = write_zip(tmp_path / "faces.ZIP", [f"lfw/{name}" for name in NAMES] + ["lfw2/other.png"])
    return open_images(path / "lfw")


def test_all_places_give_the_same(images: NamedImages) -> None:
    with images:
        assert images.names() == tuple(sorted(NAMES))
        assert images.names("Ann") == ("Ann/Ann_0001.png", "Ann/Ann_0002.png")  # not Annex
        assert len(images) == 4
        assert "Bob/Bob_0001.png" in images
        assert "Bob/../Bob/Bob_0001.png" not in images
        for number, name in enumerate(NAMES):
            np.testing.assert_array_equal(images.read(name), face(number))
            assert images.encoded(name) == png(face(number))


def test_threads(images: NamedImages) -> None:
    with images, ThreadPoolExecutor(8) as pool:
        for number, pixels in enumerate(pool.map(images.read, NAMES * 50)):
            np.testing.assert_array_equal(pixels, face(number % 4))


def test_digest(images: NamedImages) -> None:
    each = [hashlib.sha256(png(face(number))).digest() for number in (2, 0)]
    assert images.digest([NAMES[2], NAMES[0]]) == hashlib.sha256(b"".join(each)).hexdigest()


def test_a_file_is_read_once_for_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lists it is in; progress is told every so often, and at the end of what is read."""
    monkeypatch.setattr(module, "PROGRESS", 2)
    images = open_images(write_images(tmp_path / "faces", ["a.png", "b.png", "c.png", "d.png"]))
    steps: list[tuple[int, int]] = []
    names = ["c.png", "a.png", "c.png", "b.png"]
    whole = images.digest(names, lambda *step: steps.append(step))
    assert steps == [(2, 3), (3, 3)]
    for name in names:
        (tmp_path / "faces" / name).unlink(missing_ok=True)
    assert images.digest(names, lambda *step: steps.append(step)) == whole
    images.digest(["d.png", "a.png"], lambda *step: steps.append(step))
    assert steps == [(2, 3), (3, 3), (1, 1)]


def test_missing(images: NamedImages) -> None:
    for ask in (images.read, images.encoded):
        with pytest.raises(DataError, match=r"Ann/Ann_0003\.png is not among the images of .*faces"):
            ask("Ann/Ann_0003.png")


def test_grey_becomes_rgb_and_16_bits_are_refused(tmp_path: Path) -> None:
    grey = face(0)[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16)).save(tmp_path / "deep.png")
    images = open_images(tmp_path)
    np.testing.assert_array_equal(images.read("grey.png"), np.stack([grey] * 3, axis=2))
    with pytest.raises(DataError, match=r"deep\.png .*8 bits"):
        images.read("deep.png")


def test_damaged_images(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "cut.png").write_bytes(png(face(0, 64, 64))[:200])
    images = open_images(tmp_path)
    for name in ("text.jpg", "cut.png"):
        with pytest.raises(DataError, match=rf"{tmp_path}/{name} "):
            images.read(name)


def test_damaged_member(tmp_path: Path) -> None:
    """A member whose checksum is wrong is named, read or decoded."""
    path = write_zip(tmp_path / "faces.zip", ["a.png"])
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 10] ^= 1
    path.write_bytes(content)
    with open_images(path) as images:
        for ask in (images.read, images.encoded):
            with pytest.raises(DataError, match=r"faces\.zip/a\.png cannot be read"):
                ask("a.png")


def test_hidden_files_and_others_are_left_out(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "faces", ["a.png", "._a.png", ".trash/b.png"])
    (folder / "pairs.txt").write_text("10 300")
    assert open_images(folder).names() == ("a.png",)


def test_nothing_to_open(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("no archive")
    (tmp_path / "file").touch()
    with zipfile.ZipFile(tmp_path / "good.zip", "w") as archive:
        archive.writestr("a.png", png(face(0)))
    for place, message in [
        ("absent", "does not exist"),
        ("file", "is neither a folder nor a zip archive"),
        ("empty", "has no images"),
        ("text.zip", "cannot be opened"),
        ("good.zip/lfw", "has no images"),
    ]:
        with pytest.raises(DataError, match=rf"{place} {message}"):
            open_images(tmp_path / place)


def test_below_a_folder(tmp_path: Path) -> None:
    images = open_images(write_images(tmp_path / "set", ["a/1.png", "a/b/2.png", "ab/3.png", "4.png"]))
    below = images.below("a")
    assert below.names() == ("1.png", "b/2.png")
    np.testing.assert_array_equal(below.read("b/2.png"), face(1))
    assert below.where == f"{tmp_path}/set/a"
    assert len(images.below("c")) == 0
