"""Targets of a teacher against ONNX Runtime, Pillow and NumPy; how they are kept."""

import errno
import hashlib
import io
import logging
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from face_files import png, write_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from btnet_eval.base import DataError
from btnet_eval.onnx_network import FaceNetwork, Preprocessing
from btnet_train import teacher as module
from btnet_train.face_rows import face_rows
from btnet_train.sources import Faces
from btnet_train.teacher import teacher_targets
from limited_files import limited_files
from onnx_files import DIM, Pixels, expected_embeddings, random_images, write_model


def unit(rows: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return rows / lengths


class Images:
    """Faces in memory."""

    def __init__(self, images: list[Pixels]) -> None:
        self.images = images
        self.names = [f"faces.zip:{index}.png" for index in range(len(images))]
        self.digest = hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()
        self.reads = 0

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Pixels:
        self.reads += 1
        return self.images[index]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("teacher") / "teacher.onnx")


@pytest.fixture(scope="module")
def teacher(model: Path) -> FaceNetwork:
    return FaceNetwork(model, Preprocessing())


@pytest.fixture(scope="module")
def faces() -> Images:
    """More than a block of them, of different sizes."""
    return Images([*random_images(1, 60), *random_images(2, 5, 40), *random_images(3, 4, 130)])


def expected_targets(model: Path, faces: Images) -> NDArray[np.float64]:
    canonical = [
        np.asarray(Image.fromarray(image).resize((112, 112), Image.Resampling.BICUBIC)) for image in faces.images
    ]
    both = [
        expected_embeddings(model, np.stack(images), (127.5,) * 3, (127.5,) * 3)
        for images in (canonical, [np.fliplr(image) for image in canonical])
    ]
    return unit(both[0] + both[1])


def test_targets_are_the_normalised_flip_sum(model: Path, teacher: FaceNetwork, faces: Images, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    targets = teacher_targets(teacher, faces, folder)
    assert targets.shape == (69, DIM)
    assert targets.dtype == np.float32
    assert isinstance(targets, np.memmap)
    assert not targets.flags.writeable
    np.testing.assert_allclose(targets, expected_targets(model, faces), atol=2e-5)
    (kept,) = folder.iterdir()
    assert kept.name.startswith("teacher_")
    assert np.array_equal(np.load(kept), targets)


def test_targets_are_computed_once(teacher: FaceNetwork, faces: Images, tmp_path: Path) -> None:
    first = teacher_targets(teacher, faces, tmp_path)
    before = faces.reads
    assert np.array_equal(teacher_targets(teacher, faces, tmp_path), first)
    assert faces.reads == before


def test_targets_of_other_teachers_and_faces_lie_beside(model: Path, teacher: FaceNetwork, tmp_path: Path) -> None:
    few, others = Images(list(random_images(1, 3))), Images(list(random_images(2, 3)))
    results = [
        teacher_targets(teacher, few, tmp_path),
        teacher_targets(teacher, others, tmp_path),
        teacher_targets(FaceNetwork(model, Preprocessing(color="bgr")), few, tmp_path),
    ]
    assert len(list(tmp_path.iterdir())) == 3
    assert len({result.tobytes() for result in results}) == 3


def npy(array: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


ROWS = unit(np.random.default_rng(0).normal(size=(3, DIM))).astype(np.float32)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is damaged"),
        (b"not a file of NumPy's", "it is damaged"),
        (b"PK\x03\x04" + bytes(100), "it is damaged"),
        (npy(ROWS)[:-1], "it is damaged"),
        (npy(np.array([{}])), "it is damaged"),
        (npy(ROWS[:2]), r"it holds float32 \(2, 16\), expected float32 \(3, 16\)"),
        (npy(ROWS.astype(np.float64)), "it holds float64"),
        (npy(np.asfortranarray(ROWS)), "it holds"),
        (npy(ROWS * [[1], [0], [1]]), "it holds float64"),
        (npy(ROWS * np.array([[1], [0], [1]], np.float32)), "row 1 has not the length 1"),
        (npy(ROWS * np.array([[1], [1], [np.nan]], np.float32)), "row 2 has not the length 1"),
    ],
)
def test_damaged_targets_are_computed_again(
    teacher: FaceNetwork, tmp_path: Path, content: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    few = Images(list(random_images(1, 3)))
    expected = np.array(teacher_targets(teacher, few, tmp_path))
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    assert np.array_equal(teacher_targets(teacher, few, tmp_path), expected)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert re.match(f"{re.escape(str(path))} is computed again: {reason}", record.getMessage())
    assert list(tmp_path.iterdir()) == [path]
    assert np.array_equal(teacher_targets(teacher, few, tmp_path), expected)
    assert len(caplog.records) == 1


@settings(
    deadline=None, max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.integers(0, 140), replacement=st.binary(min_size=1, max_size=8))
def test_no_damage_of_a_file_of_targets_raises_anything_else(tmp_path: Path, position: int, replacement: bytes) -> None:
    content = npy(ROWS)
    path = tmp_path / "targets.npy"
    path.write_bytes(content[:position] + replacement + content[position + len(replacement) :])
    anew: list[int] = []

    def compute(indices: Sequence[int]) -> NDArray[np.float32]:
        anew.extend(indices)
        return ROWS[list(indices)]

    faces = Images(list(random_images(1, len(ROWS), side=8)))
    check = module._check_lengths
    targets = face_rows(path, faces, "<f4", ROWS.shape[1:], compute, title="teacher", check=check)
    assert anew in ([], [0, 1, 2])
    if anew:
        np.testing.assert_array_equal(targets, ROWS)
    np.testing.assert_allclose(np.linalg.norm(targets, axis=1), 1, atol=2e-3)


@pytest.mark.parametrize("cut", ["not at all", "power", "lost"])
def test_an_interruption_costs_no_more_than_a_block(
    model: Path, teacher: FaceNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    """Of 70 faces the first 64 are computed once; a power cut may leave bytes after them, or take what was there."""
    faces = Images(list(random_images(1, 70)))
    read = faces.read

    def interrupt(index: int) -> Pixels:
        if index == 66:  # in the second block
            raise KeyboardInterrupt
        return read(index)

    monkeypatch.setattr(faces, "read", interrupt)
    with pytest.raises(KeyboardInterrupt):
        teacher_targets(teacher, faces, tmp_path)
    monkeypatch.undo()
    part = next(tmp_path.glob(".*.part"))
    if cut == "power":
        part.write_bytes(part.read_bytes() + bytes(1000))
    elif cut == "lost":
        part.write_bytes(part.read_bytes()[:-1])
    faces.reads = 0
    targets = teacher_targets(teacher, faces, tmp_path)
    assert faces.reads == (70 if cut == "lost" else 6)
    np.testing.assert_allclose(targets, expected_targets(model, faces), atol=2e-5)
    (kept,) = tmp_path.iterdir()
    assert kept.suffix == ".npy"


def test_one_process_computes_and_the_others_wait(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Here threads, which have the lock apart, as processes have it."""
    faces = Images(list(random_images(1, 3)))
    computed: list[int] = []
    begun, waiting = threading.Event(), threading.Event()

    def compute(indices: Sequence[int]) -> NDArray[np.float32]:
        begun.set()
        assert waiting.wait(60)
        computed.extend(indices)
        return ROWS[list(indices)]

    def rows() -> NDArray[Any]:
        return face_rows(tmp_path / "rows.npy", faces, "<f4", ROWS.shape[1:], compute, title="teacher")

    class Waits(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert record.getMessage() == f"waiting for another process, which computes in {tmp_path}"
            waiting.set()

    log = logging.getLogger("btnet_train.face_rows")
    handler = Waits()
    with caplog.at_level(logging.INFO), ThreadPoolExecutor() as pool:
        log.addHandler(handler)
        try:
            first = pool.submit(rows)
            assert begun.wait(60)
            second = pool.submit(rows)
            for one in (first, second):
                np.testing.assert_array_equal(one.result(), ROWS)
        finally:
            log.removeHandler(handler)
    assert computed == [0, 1, 2]


def test_a_full_disk_is_named_and_nothing_is_left(teacher: FaceNetwork, tmp_path: Path) -> None:
    named = rf"{re.escape(str(tmp_path))}/teacher_[0-9a-f]+\.npy"
    # The first block is 4096 bytes.
    with limited_files(3000), pytest.raises(OSError, match=named) as caught:
        teacher_targets(teacher, Images(list(random_images(1, 64))), tmp_path)
    assert caught.value.errno == errno.EFBIG
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(teacher: FaceNetwork, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=str(tmp_path / "file")):
        teacher_targets(teacher, Images(list(random_images(1, 2))), tmp_path / "file" / "folder")


def test_a_face_that_cannot_be_read_is_the_error(teacher: FaceNetwork, tmp_path: Path) -> None:
    files = {f"{number}.png": png(number, 112) for number in range(2)} | {"2.png": png(2, 112, 100)}
    faces = Faces([], [write_folder(tmp_path / "set", files)])
    with pytest.raises(DataError, match=r"set:2\.png has 100 x 112 pixels, expected a square: aligned faces"):
        teacher_targets(teacher, faces, tmp_path / "targets")
    assert not list((tmp_path / "targets").iterdir())


@pytest.mark.parametrize("scale", [0.0, float("inf"), float("nan")])
def test_a_face_without_an_embedding_is_named(tmp_path: Path, scale: float) -> None:
    teacher = FaceNetwork(write_model(tmp_path / "teacher.onnx", scale=scale), Preprocessing())
    with pytest.raises(DataError, match=r"embedding of faces\.zip:0\.png is zero or not finite"):
        teacher_targets(teacher, Images(list(random_images(1, 2))), tmp_path / "targets")
    assert not list((tmp_path / "targets").iterdir())
