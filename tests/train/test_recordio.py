"""RecordIO files as MXNet and insightface write them, and damaged ones."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from face_files import MAGIC, framed, insightface_records, pixels, png, record, write_records
from hypothesis import given, settings
from hypothesis import strategies as st

from btnet_eval.base import DataError
from btnet_train.recordio import RecordImages
from btnet_train.sources import Faces

MAGIC_BYTES = struct.pack("<I", MAGIC)

IDENTITIES: Mapping[int, Sequence[bytes]] = {0: [png(1), png(2), png(3)], 7: [png(4), png(5)], 12: [png(6), png(7)]}
"""Seven images, pixels(1) to pixels(7), of three identities."""


def check_identities(faces: Faces, labels: Sequence[int]) -> None:
    assert faces.classes == ("train/0", "train/7", "train/12")
    assert faces.labels.dtype == np.int64
    assert faces.labels.tolist() == list(labels)
    for index in range(len(faces)):
        np.testing.assert_array_equal(faces.read(index), pixels(index + 1))


def test_insightface(tmp_path: Path) -> None:
    faces = Faces([write_records(tmp_path / "train.rec", insightface_records(IDENTITIES))])
    check_identities(faces, [0, 0, 0, 1, 1, 2, 2])
    assert list(faces.names) == [f"train.rec:{key}" for key in range(1, 8)]


@pytest.mark.parametrize("array", [False, True])
def test_im2rec(tmp_path: Path, array: bool) -> None:
    """One label, or an array of which the first is the identity; keys out of order, with gaps."""
    order = [(40, 12, 7), (3, 0, 1), (10, 7, 4), (4, 0, 2), (30, 12, 6), (5, 0, 3), (11, 7, 5)]
    records = {key: record([label, 5, 6] if array else label, png(n), key) for key, label, n in order}
    faces = Faces([write_records(tmp_path / "train.rec", records)])
    check_identities(faces, [0, 0, 0, 1, 1, 2, 2])
    assert faces.names[6] == "train.rec:40"


def test_record_0_may_be_an_image(tmp_path: Path) -> None:
    records = {key: record([label, 1], png(key + 1), key) for key, label in enumerate([0, 0, 0, 7, 7, 12, 12])}
    check_identities(Faces([write_records(tmp_path / "train.rec", records)]), [0, 0, 0, 1, 1, 2, 2])


def test_ranges_spare_the_headers_between(tmp_path: Path) -> None:
    """An image amid others of an identity is not looked at until it is read."""
    records = insightface_records(IDENTITIES)
    records[2] = record([99, 1], png(2))
    check_identities(Faces([write_records(tmp_path / "train.rec", records)]), [0, 0, 0, 1, 1, 2, 2])


def test_ranges_that_leave_images_out(tmp_path: Path) -> None:
    """All images are taken, with the labels that they have themselves."""
    records = insightface_records(IDENTITIES)
    records[9] = record([5, 6])
    check_identities(Faces([write_records(tmp_path / "train.rec", records)]), [0, 0, 0, 1, 1, 2, 2])


def test_more_records_than_float32_can_count(tmp_path: Path) -> None:
    """From 2^24 on ranges are rounded; what is an image is seen from the records themselves."""
    records = insightface_records(IDENTITIES)
    records[0] = record([2**24 + 8, 2**24 + 12])
    check_identities(Faces([write_records(tmp_path / "train.rec", records)]), [0, 0, 0, 1, 1, 2, 2])


def test_an_identity_in_two_ranges(tmp_path: Path) -> None:
    records = insightface_records({0: [png(1), png(2)], 1: [png(3), png(4)], 2: [png(5), png(6)]})
    records[5], records[6] = record([0, 1], png(5)), record([0, 1], png(6))
    faces = Faces([write_records(tmp_path / "train.rec", records)])
    assert faces.classes == ("train/0", "train/1")
    assert faces.labels.tolist() == [0, 0, 1, 1, 0, 0]


def test_unlabeled(tmp_path: Path) -> None:
    """Labels may be anything."""
    one = write_records(tmp_path / "train.rec", insightface_records(IDENTITIES))
    two = write_records(tmp_path / "more.rec", {5: record(float("nan"), png(8)), 6: record([0.5, -1], png(9))})
    faces = Faces([], [one, two])
    assert (faces.classes, faces.labels.tolist()) == ((), [-1] * 9)
    for index in range(9):
        np.testing.assert_array_equal(faces.read(index), pixels(index + 1))


def test_shared_identities_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    paths = [write_records(tmp_path / f"{name}.rec", insightface_records(IDENTITIES)) for name in "ab"]
    faces = Faces(paths, shared_identities=True)
    assert faces.classes == ("0", "7", "12")
    assert faces.labels.tolist() == [0, 0, 0, 1, 1, 2, 2] * 2
    assert faces.digest != Faces(paths).digest


@pytest.mark.parametrize(
    "image",
    [
        MAGIC_BYTES,
        b"1234" + MAGIC_BYTES + b"5",
        b"1234" + 2 * MAGIC_BYTES + b"56" + MAGIC_BYTES,  # the last not at a multiple of four: not cut
        MAGIC_BYTES * 3 + b"12345678" + MAGIC_BYTES,
        b"12" + MAGIC_BYTES,
    ],
)
@pytest.mark.parametrize("labels", [3, [3, 4, 5]])
def test_records_in_parts(tmp_path: Path, image: bytes, labels: float | list[float]) -> None:
    path = write_records(
        tmp_path / "train.rec", {1: record(labels, b"first"), 2: record(labels, image), 3: record(3, b"x")}
    )
    images = RecordImages(path, labeled=True)
    assert [images.encoded(index) for index in range(3)] == [b"first", image, b"x"]
    assert images.identities == ["3"]


def test_no_padding_at_the_end(tmp_path: Path) -> None:
    path = write_records(tmp_path / "train.rec", {1: record(3, b"12345")})
    path.write_bytes(path.read_bytes()[:-3])
    assert RecordImages(path, labeled=True).encoded(0) == b"12345"


@pytest.mark.parametrize("cut", [1, 8, 100, 400])
@pytest.mark.parametrize("insightface", [False, True])
def test_truncated(tmp_path: Path, cut: int, insightface: bool) -> None:
    records = insightface_records(IDENTITIES)
    path = write_records(tmp_path / "train.rec", records if insightface else {7: records[7], 6: records[6]})
    path.write_bytes(path.read_bytes()[: -4 - cut])
    with pytest.raises(DataError, match=rf"^{path}: record \d+ .* truncated"):
        Faces([path])


def test_nearly_nothing(tmp_path: Path) -> None:
    path = write_records(tmp_path / "train.rec", insightface_records(IDENTITIES))
    for size in (31, 3, 0):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(DataError, match=rf"^{path} is truncated: it has {size} bytes"):
            Faces([path])


def test_truncated_afterwards(tmp_path: Path) -> None:
    path = write_records(tmp_path / "train.rec", insightface_records(IDENTITIES))
    faces = Faces([path])
    path.write_bytes(path.read_bytes()[:800])
    with pytest.raises(DataError, match=rf"^{path} is truncated: record 7 goes on past its end at byte 800$"):
        faces.read(6)


def test_the_index_of_another_file(tmp_path: Path) -> None:
    path = write_records(tmp_path / "train.rec", insightface_records(IDENTITIES))
    other = {0: [png(1, 9), png(2), png(3)], 7: [png(4), png(5)], 12: [png(6), png(7)]}
    for identities in (other, {0: other[0]}, {**other, 13: other[0]}):
        index = write_records(tmp_path / "other.rec", insightface_records(identities)).with_suffix(".idx")
        index.rename(path.with_suffix(".idx"))
        with pytest.raises(DataError, match=r"the index lists \d+ records|or its index is of another|it is of another"):
            Faces([path])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "idx does not exist; it must lie beside train.rec"),
        ("", "is not made of lines of a key and an offset"),
        ("\n\n", "is not made of lines of a key and an offset"),
        ("1\n2\n", "is not made of lines of a key and an offset"),
        ("1\t0\n2\n", "is not made of lines of a key and an offset: .*row 2"),
        ("1\t0\nx\t4\n", "is not made of lines of a key and an offset: .*'x'"),
        ("1\t0\n2\t1e3\n", "is not made of lines of a key and an offset"),
        ("1\t0\n2\t99999999999999999999\n", "is not made of lines of a key and an offset"),
        ("1\t-4\n", "neither of them negative"),
        ("1\t0\n1\t4\n", "has key 1 twice"),
        ("1\t0\n2\t0\n", "has offset 0 twice"),
        ("1\t2\n", r"record 1 does not begin where the index says"),
        ("1\t4\n", r"record 1 does not begin where the index says"),
        ("1\t9223372036854775807\n", r"record 1 begins outside the file"),
    ],
)
def test_a_garbled_index(tmp_path: Path, content: str | None, problem: str) -> None:
    path = write_records(tmp_path / "train.rec", insightface_records(IDENTITIES))
    path.with_suffix(".idx").unlink()
    if content is not None:
        path.with_suffix(".idx").write_text(content)
    with pytest.raises(DataError, match=problem):
        Faces([path])


@pytest.mark.parametrize(
    ("key", "replacement", "problem"),
    [
        (0, record([8, 12]), r"record 0 says .* records 8 to 12 - 1, .* lists 11 records up to 10"),
        (0, record([1, 11]), "record 0 says"),
        (0, record([7.5, 11]), "record 0 says"),
        (0, record([float("nan"), 11]), "record 0 says"),
        (0, record([7, 11]), "record 7 is not an identity's first and last image"),
        (9, record([4, 6], b"image"), "record 9 is not an identity's first and last image"),
        (9, record(4), "record 9 is not an identity's first and last image"),
        (5, record([8, 1], png(5)), "records 4 to 5 should be one identity's"),
        (4, struct.pack("<IfQQ", 2**32 - 1, 0, 0, 0) + png(4), "record 4 has a garbled header, longer than the record"),
        (4, b"", "record 4 has a garbled header"),
    ],
)
def test_garbled_headers(tmp_path: Path, key: int, replacement: bytes, problem: str) -> None:
    records = {**insightface_records(IDENTITIES), key: replacement}
    path = write_records(tmp_path / "train.rec", records)
    with pytest.raises(DataError, match=f"^{path}: {problem}"):
        Faces([path])


@pytest.mark.parametrize("label", [0.5, -1, float("nan"), float("inf"), 1e30])
def test_a_label_that_is_no_identity(tmp_path: Path, label: float) -> None:
    path = write_records(tmp_path / "train.rec", {1: record(3, b"x"), 2: record(label, b"x")})
    with pytest.raises(DataError, match=f"^{path}: record 2 has label .*, expected the number of an identity"):
        Faces([path])


def test_a_record_without_an_image(tmp_path: Path) -> None:
    path = write_records(tmp_path / "train.rec", {1: record(3, b"x"), 2: record(3)})
    with pytest.raises(DataError, match=f"^{path}: record 2 holds no image"):
        Faces([path])


@pytest.mark.parametrize(
    ("kinds", "problem"),
    [
        ((2,), "does not begin where"),
        ((7,), "does not begin where"),
        ((1, 0), "is damaged, or the index is of another file"),
        ((1, 1), "is damaged"),
        ((1, 2), "is truncated: record 1 goes on past its end"),
    ],
)
def test_parts_that_do_not_follow_one_another(tmp_path: Path, kinds: Sequence[int], problem: str) -> None:
    data = framed(record(3, png(1)))
    content = b"".join(data[:4] + struct.pack("<I", kind << 29 | len(data) - 8) + data[8:] for kind in kinds)
    (tmp_path / "train.rec").write_bytes(content)
    (tmp_path / "train.idx").write_text("1\t0\n")
    with pytest.raises(DataError, match=problem):
        Faces([tmp_path / "train.rec"], min_images=1).read(0)


ORIGINAL = {pixels(number).tobytes() for number in range(1, 8)}
CHANGES = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4)
CUTS = st.none() | st.integers(0, 2**10)


def mutate(path: Path, changes: Sequence[tuple[int, int]], cut: int | None) -> None:
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    path.write_bytes(content[:cut])


def write_either(folder: Path, insightface: bool) -> Path:
    records = insightface_records(IDENTITIES)
    if not insightface:
        records = {key: data for key, data in records.items() if 1 <= key <= 7}
    return write_records(folder / "train.rec", records)


def read_all(path: Path, labeled: bool) -> list[bytes]:
    """Return the pixels of all images that do not raise DataError."""
    images = []
    try:
        faces = Faces([path], min_images=1) if labeled else Faces([], [path])
    except DataError:
        return []
    for index in range(len(faces)):
        try:
            images.append(faces.read(index).tobytes())
        except DataError:
            continue
    return images


@settings(max_examples=100, deadline=None, derandomize=True)
@given(insightface=st.booleans(), labeled=st.booleans(), changes=CHANGES, cut=CUTS)
def test_a_damaged_index_gives_the_right_images_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory,
    insightface: bool,
    labeled: bool,
    changes: Sequence[tuple[int, int]],
    cut: int | None,
) -> None:
    path = write_either(tmp_path_factory.mktemp("fuzz"), insightface)
    mutate(path.with_suffix(".idx"), changes, cut)
    images = read_all(path, labeled)
    assert len(set(images)) == len(images)
    assert ORIGINAL.issuperset(images)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(insightface=st.booleans(), labeled=st.booleans(), changes=CHANGES, cut=CUTS)
def test_a_damaged_file_gives_images_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory,
    insightface: bool,
    labeled: bool,
    changes: Sequence[tuple[int, int]],
    cut: int | None,
) -> None:
    """PNG has checksums: an image is right as long as it decodes."""
    path = write_either(tmp_path_factory.mktemp("fuzz"), insightface)
    mutate(path, changes, cut)
    images = read_all(path, labeled)
    assert ORIGINAL.issuperset(images)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    words=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2**32 - 1)), min_size=1, max_size=3),
    key=st.integers(0, 10),
)
def test_damaged_words_of_a_header(
    tmp_path_factory: pytest.TempPathFactory, words: Sequence[tuple[int, int]], key: int
) -> None:
    """Magic number, length, flag and labels are hit, which a random place seldom is."""
    path = write_either(tmp_path_factory.mktemp("fuzz"), insightface=True)
    start = int(path.with_suffix(".idx").read_text().splitlines()[key].split()[1])
    content = bytearray(path.read_bytes())
    for word, value in words:
        struct.pack_into("<I", content, min(start + 4 * word, len(content) - 4), value)
    path.write_bytes(content)
    assert ORIGINAL.issuperset(read_all(path, labeled=True))
