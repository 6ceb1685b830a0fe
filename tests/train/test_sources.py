"""Faces out of folders and zip archives: what is found, what it is called, and what is refused."""

import hashlib
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from face_files import encode, pixels, png, write_folder, write_zip
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from btnet_eval.base import DataError
from btnet_train.sources import Faces

FILES = {f"{name}/{number}.png": png(10 * identity + number) for identity, name in enumerate("ba") for number in (2, 1)}
"""Two identities of two images, not in order; pixels(10 * identity + number)."""

Write = Callable[[Path, dict[str, bytes]], Path]


def write_deflated(path: Path, files: dict[str, bytes]) -> Path:
    return write_zip(path.with_suffix(".zip"), files, zipfile.ZIP_DEFLATED)


def write_stored(path: Path, files: dict[str, bytes]) -> Path:
    return write_zip(path.with_suffix(".zip"), files)


WRITERS = pytest.mark.parametrize("write", [write_folder, write_stored, write_deflated])


@WRITERS
def test_identities_in_order_of_their_names(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "set", FILES)
    faces = Faces([path])
    assert len(faces) == 4
    assert faces.classes == ("set/a", "set/b")
    assert faces.labels.dtype == np.int64
    assert faces.labels.tolist() == [0, 0, 1, 1]
    assert list(faces.names) == [f"{path.name}:{name}" for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png")]
    assert faces.names[-1] == faces.names[3] == faces.names[2:][1]
    for index, number in enumerate((11, 12, 1, 2)):
        np.testing.assert_array_equal(faces.read(index), pixels(number))


@WRITERS
def test_what_is_no_image_is_left_out(tmp_path: Path, write: Write) -> None:
    junk = {
        "a/notes.txt": b"x",
        "a/._1.png": b"x",
        ".DS_Store": b"x",
        "__MACOSX/a/1.png": b"x",
        ".thumbs/a/1.png": b"x",
    }
    upper = {"a/3.JPG": encode(pixels(3), "JPEG"), "b/3.WebP": encode(pixels(3), "WEBP", lossless=True)}
    faces = Faces([write(tmp_path / "set", {**FILES, **junk, **upper})])
    assert [name.partition(":")[2] for name in faces.names] == sorted([*FILES, *upper])


@WRITERS
def test_identities_may_lie_deeper_in_one_place(tmp_path: Path, write: Write) -> None:
    faces = Faces([write(tmp_path / "set", {f"data/images/{name}": content for name, content in FILES.items()})])
    assert faces.classes == ("set/a", "set/b")
    assert faces.names[0].endswith(":data/images/a/1.png")


@WRITERS
def test_unlabeled_images_lie_anywhere(tmp_path: Path, write: Write) -> None:
    files = {"1.png": png(1), "x/2.png": png(2), "x/y/3.bmp": encode(pixels(3), "BMP")}
    faces = Faces([write(tmp_path / "one", FILES)], [write(tmp_path / "two", files)])
    assert faces.classes == ("one/a", "one/b")
    assert faces.labels.tolist() == [0, 0, 1, 1, -1, -1, -1]
    np.testing.assert_array_equal(faces.read(6), pixels(3))


def test_the_same_name_in_two_sources(tmp_path: Path) -> None:
    paths = [
        write_folder(tmp_path / "one", FILES),
        write_stored(tmp_path / "two", {"b/1.png": png(5), "c/1.png": png(6)}),
    ]
    separate = Faces(paths, min_images=1)
    assert separate.classes == ("one/a", "one/b", "two/b", "two/c")
    assert separate.labels.tolist() == [0, 0, 1, 1, 2, 3]
    shared = Faces(paths[:1], shared_identities=True).classes, Faces(paths, shared_identities=True, min_images=1)
    assert shared[0] == ("a", "b")
    assert shared[1].classes == ("a", "b", "c")
    assert shared[1].labels.tolist() == [0, 0, 1, 1, 1, 2]


def test_sources_of_one_name_are_told_apart(tmp_path: Path) -> None:
    faces = Faces([write_stored(tmp_path / place / "train", FILES) for place in ("x", "y")])
    assert faces.classes == ("x/train/a", "x/train/b", "y/train/a", "y/train/b")
    assert faces.names[4] == "y/train.zip:a/1.png"


def test_without_and_only(tmp_path: Path) -> None:
    files = {**FILES, "c/1.png": png(7), "c/2.png": png(8)}
    faces = Faces([write_folder(tmp_path / "set", files)], [write_stored(tmp_path / "more", {"x.png": png(9)})])
    rest = faces.without(["set/a"])
    assert rest.classes == ("set/b", "set/c")
    assert rest.labels.tolist() == [0, 0, 1, 1, -1]
    assert list(rest.names) == list(faces.names)[2:]
    np.testing.assert_array_equal(rest.read(4), pixels(9))
    held_out = faces.only({"set/a", "set/c"})
    assert held_out.classes == ("set/a", "set/c")
    assert held_out.labels.tolist() == [0, 0, 1, 1]
    assert list(held_out.names) == [*list(faces.names)[:2], *list(faces.names)[4:6]]
    assert held_out.without(["set/a"]).classes == faces.only(["set/c"]).classes
    assert len({each.digest for each in (faces, rest, held_out)}) == 3
    with pytest.raises(ValueError, match=r"'set/x', which is none of the 3 identities"):
        faces.without(["set/a", "set/x"])


def test_pickled(tmp_path: Path) -> None:
    faces = Faces([write_stored(tmp_path / "one", FILES), write_folder(tmp_path / "two", FILES)])
    faces.read(0)  # opens
    again = pickle.loads(pickle.dumps(faces))  # noqa: S301
    assert (again.classes, list(again.names), again.digest) == (faces.classes, list(faces.names), faces.digest)
    for index in range(8):
        np.testing.assert_array_equal(again.read(index), faces.read(index))


def test_read_by_many_threads_at_once(tmp_path: Path) -> None:
    files = {f"{identity}/{number}.png": png(10 * identity + number) for identity in range(10) for number in range(10)}
    faces = Faces([write_deflated(tmp_path / "set", files)])
    order = np.random.default_rng(0).permutation(100).tolist()
    with ThreadPoolExecutor(4) as pool:
        for index, image in zip(order, pool.map(faces.read, order), strict=True):
            np.testing.assert_array_equal(image, pixels(index))


def test_digest_tells_whether_it_is_the_same_data(tmp_path: Path) -> None:
    for write in (write_folder, write_deflated):
        path = write(tmp_path / write.__name__ / "set", FILES)
        digest = Faces([path]).digest
        assert len(digest) == 2 * hashlib.sha256().digest_size
        moved = path.rename(tmp_path / path.name)
        assert Faces([moved]).digest == digest
        renamed = write(tmp_path / "1" / "set", {name.replace("b/", "c/"): content for name, content in FILES.items()})
        grown = write(tmp_path / "2" / "set", {**FILES, "a/1.png": FILES["a/1.png"] + b"\0"})
        assert len({digest, *(Faces([path]).digest for path in (renamed, grown))}) == 3
        assert Faces([], [moved]).digest != digest


def test_images_are_turned_as_their_exif_orientation_says(tmp_path: Path) -> None:
    """As btnet-eval and the commands have them; 3 is upside down."""
    image = Image.fromarray(pixels(1))
    exif = Image.Exif()
    exif[0x0112] = 3
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a/0.png")
    image.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "a/1.png", exif=exif)
    faces = Faces([tmp_path])
    np.testing.assert_array_equal(faces.read(0), faces.read(1))


def test_digest_of_images_that_are_all_of_one_size(tmp_path: Path) -> None:
    """BMP is not compressed: other pixels are other data, though no file has another size."""
    digests = set()
    for seeds in ((1, 2), (1, 3)):
        for number, seed in enumerate(seeds):
            (tmp_path / "a").mkdir(exist_ok=True)
            Image.fromarray(pixels(seed)).save(tmp_path / f"a/{number}.BMP")
        digests.add(Faces([tmp_path]).digest)
    assert len(digests) == 2


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    stream = io.BytesIO()
    Image.fromarray(pixels(1)).convert(mode).save(stream, kind)
    path = write_folder(tmp_path / "set", {f"1.{kind.lower()}": stream.getvalue()})
    expected = np.asarray(Image.open(stream).convert("RGB"))
    image = Faces([], [path]).read(0)
    assert image.flags.writeable
    np.testing.assert_array_equal(image, expected)


BROKEN = {
    "empty": (b"", "is no image in one of the formats JPEG, PNG, BMP, WEBP"),
    "text": (b"<html>not found</html>", "is no image"),
    "truncated": (encode(pixels(1, 64), "JPEG")[:1500], "cannot be decoded: image file is truncated"),
    "gif": (encode(pixels(1), "GIF"), "is no image"),
    "deep": (encode(np.zeros((8, 8), np.uint16)), "has pixels of mode I;16, expected 8 bits a channel"),
    "no pixels": (b"\x89PNG\r\n\x1a\n" + bytes(50), "."),
}


@pytest.mark.parametrize("name", BROKEN)
@WRITERS
def test_an_image_that_cannot_be_decoded(tmp_path: Path, name: str, write: Write) -> None:
    content, problem = BROKEN[name]
    path = write(tmp_path / "set", {**FILES, "a/3.jpg": content})
    faces = Faces([path])
    with pytest.raises(DataError, match=f"^{path.name}:a/3.jpg {problem}"):
        faces.read(2)
    np.testing.assert_array_equal(faces.read(3), pixels(1))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [20, 63])
def test_a_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    faces = Faces([write_folder(tmp_path / "set", FILES)])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DataError, match=r"^set:a/1\.png "):
        faces.read(0)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64)
    faces.read(0)


def test_indices_outside(tmp_path: Path) -> None:
    faces = Faces([write_folder(tmp_path / "set", FILES)])
    for index in (-1, 4):
        with pytest.raises(IndexError):
            faces.read(index)
    with pytest.raises(IndexError):
        faces.names[4]


@WRITERS
@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (
            {**FILES, "c/1.png": png(1), "d/1.png": png(1)},
            "identity set/c has too few images, 1, expected at least 2; so have 2 of 4 identities",
        ),
        ({**FILES, "1.png": png(1)}, r"1\.png does not lie where it has an identity"),
        ({**FILES, "a/x/3.png": png(1)}, "x/3.png does not lie where it has an identity: expected ID/NAME"),
        ({"train/a/1.png": png(1), "val/b/1.png": png(1)}, "val/b/1.png does not lie .* expected train/ID/NAME"),
        ({"a/1.gif": png(1)}, r"set(\.zip)? holds no images: no \.bmp, \.jpeg"),
    ],
)
def test_what_has_no_place(tmp_path: Path, write: Write, files: dict[str, bytes], problem: str) -> None:
    path = write(tmp_path / "set", files)
    with pytest.raises(DataError, match=problem):
        Faces([path])


@pytest.mark.parametrize("place", ["", "top/"])
def test_an_empty_identity(tmp_path: Path, place: str) -> None:
    files = {f"{place}{name}": content for name, content in FILES.items()}
    folder = write_folder(tmp_path / "set", files)
    (folder / place / "c").mkdir()
    write_zip(tmp_path / "set.zip", {**files, f"{place}a/": b"", f"{place}c/": b"", f"{place}c/x/": b""})
    for path in (folder, tmp_path / "set.zip"):
        with pytest.raises(DataError, match=f"^{path}:{place}c is an identity without images, one of 1$"):
            Faces([path])
        Faces([], [path])


def test_links(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", FILES)
    other = write_folder(tmp_path / "other", {"1.png": png(1), "2.png": png(2)})
    (folder / "c").symlink_to(other)
    assert Faces([folder]).classes == ("set/a", "set/b", "set/c")
    (folder / "c" / "loop").symlink_to(folder)
    with pytest.raises(DataError, match="is met twice below"):
        Faces([folder])


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    paths = write_folder(tmp_path / "one", FILES), write_stored(tmp_path / "two", FILES)
    faces = Faces(paths)
    (paths[0] / "a/1.png").unlink()
    paths[1].unlink()
    for index, name in ((0, "one/a/1.png"), (4, r"two\.zip")):
        with pytest.raises(DataError, match=f"{name} cannot be read: No such file"):
            faces.read(index)
    with pytest.raises(DataError, match=r"one/a/1\.png cannot be read"):
        _ = faces.digest


def test_no_source(tmp_path: Path) -> None:
    write_folder(tmp_path, {"x.tar": b"x", "x.zip": b"PK", "y.zip": b""})
    for paths, problem in (
        ([], "there are no faces"),
        ([tmp_path / "none"], "none does not exist"),
        ([tmp_path / "x.tar"], r"x\.tar is neither a folder nor a \.zip or \.rec"),
        ([tmp_path / "x.zip"], r"x\.zip is no zip archive, or a damaged one"),
        ([tmp_path / "y.zip"], r"y\.zip is no zip archive, or a damaged one"),
        ([tmp_path, tmp_path], f"two sources are called {tmp_path}"),
    ):
        with pytest.raises(DataError, match=problem):
            Faces(paths)


def change_directory(path: Path, place: int, form: str, value: int) -> None:
    """Change a field of the first entry in an archive's directory."""
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, content.index(b"PK\1\2") + place, value)
    path.write_bytes(content)


def test_archives_that_cannot_be_used(tmp_path: Path) -> None:
    for number, (place, form, value, problem) in enumerate(
        [
            (8, "<H", 1, "is encrypted"),
            (10, "<H", 12, "is packed by method 12, expected deflate or none"),
            (24, "<I", 2**29, "unpacks to 536870912 bytes"),
            (20, "<I", 10_000, "it does not hold all of b/2.png"),
        ]
    ):
        path = write_stored(tmp_path / f"set{number}", FILES)
        change_directory(path, place, form, value)
        with pytest.raises(DataError, match=rf"set{number}\.zip.*{problem}"):
            Faces([path])


@pytest.mark.parametrize("write", [write_stored, write_deflated])
def test_a_damaged_member(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "set", FILES)
    content = bytearray(path.read_bytes())
    content[60] ^= 255  # in the data of the first member, b/2.png
    path.write_bytes(content)
    faces = Faces([path])
    with pytest.raises(DataError, match=r"set\.zip:b/2\.png (is damaged|cannot be unpacked)"):
        faces.read(3)
    faces.read(2)


ORIGINAL = {pixels(10 * identity + number).tobytes() for identity in range(2) for number in (1, 2)}


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    deflated=st.booleans(),
    changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.none() | st.integers(0, 2**10),
)
def test_a_damaged_archive_gives_the_right_images_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, deflated: bool, changes: list[tuple[int, int]], cut: int | None
) -> None:
    path = (write_deflated if deflated else write_stored)(tmp_path_factory.mktemp("fuzz") / "set", FILES)
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    path.write_bytes(content[:cut])
    try:
        faces = Faces([], [path])
    except DataError:
        return
    for index in range(len(faces)):
        try:
            assert faces.read(index).tobytes() in ORIGINAL
        except DataError:
            continue


def test_the_real_faces(data_folder: Path) -> None:
    """Numbers as the README of the data has them."""
    faces = Faces(
        [data_folder / "celeba" / "val112.zip"], [os.path.relpath(data_folder / "utkface" / "unlabeled112.zip")]
    )
    assert (len(faces), len(faces.classes), int((faces.labels < 0).sum())) == (2473 + 19526, 110, 19526)
    assert faces.read(0).shape == faces.read(len(faces) - 1).shape == (112, 112, 3)
