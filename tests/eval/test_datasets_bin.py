"""insightface's .bin files, of all protocols and of Python 2, and pickles that are something else."""

import os
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import face, png, python2_array_bin, python2_bin
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold

from btnet_eval.base import DataError
from btnet_eval.datasets.bin import read_bin

IMAGES = [png(face(number)) for number in range(6)]
SAME = [True, False, True]


def arrays(images: list[bytes]) -> list[np.ndarray]:
    return [np.frombuffer(image, np.uint8).copy() for image in images]


def python3(protocol: int, images: Any = IMAGES, same: Any = SAME) -> bytes:
    return pickle.dumps((images, same), protocol)


CONTENTS: dict[str, bytes] = {
    **{f"protocol {protocol}": python3(protocol) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)},
    **{f"arrays, protocol {protocol}": python3(protocol, arrays(IMAGES)) for protocol in range(2, 6)},
    **{f"NumPy's bool, protocol {protocol}": python3(protocol, same=list(np.array(SAME))) for protocol in range(2, 6)},
    **{f"array of bool, protocol {protocol}": python3(protocol, same=np.array(SAME)) for protocol in range(2, 6)},
    "lists in a list": pickle.dumps([tuple(IMAGES), tuple(SAME)]),
    "labels 0 and 1": python3(4, same=[1, 0, 1]),
    "Python 2": python2_bin(IMAGES, SAME),
    "Python 2, arrays": python2_array_bin(IMAGES, SAME),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_all_ways_of_writing(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "lfw.bin"
    path.write_bytes(content)
    pairs, images = read_bin(path)
    assert pairs.paths_a == ("0", "2", "4")
    assert pairs.paths_b == ("1", "3", "5")
    assert pairs.same.tolist() == SAME
    assert pairs.folds.tolist() == [0, 1, 2]
    for number in range(6):
        assert images.encoded(str(number)) == IMAGES[number]
        np.testing.assert_array_equal(images.read(str(number)), face(number))


def test_the_files_of_python_2_are_what_python_3_reads_so() -> None:
    """The opcodes written by hand mean what they should, as Python's own reader takes them."""
    assert pickle.loads(python2_bin(IMAGES, SAME), encoding="bytes") == (IMAGES, SAME)  # noqa: S301
    found, same = pickle.loads(python2_array_bin(IMAGES, SAME), encoding="bytes")  # noqa: S301
    assert [array.tobytes() for array in found] == IMAGES
    assert same == SAME


@settings(derandomize=True, deadline=None, max_examples=20)
@given(count=st.integers(10, 200))
def test_folds_are_scikit_learns(count: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("bin") / "many.bin"
    path.write_bytes(python3(4, [b"image"] * 2 * count, [True] * count))
    folds = read_bin(path)[0].folds
    for fold, (_, held_out) in enumerate(KFold(10).split(np.arange(count))):
        np.testing.assert_array_equal(np.flatnonzero(folds == fold), held_out)


class Runs:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_pickle_that_would_run_something(protocol: int, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    path = tmp_path / "evil.bin"
    path.write_bytes(python3(protocol, [Runs(os.mkdir, str(trap)), *IMAGES[1:]]))
    with pytest.raises(DataError, match=r"evil\.bin: .*mkdir"):
        read_bin(path)
    assert not trap.exists()
    pickle.loads(path.read_bytes())  # noqa: S301
    assert trap.exists(), "the pickle is harmless, and the test shows nothing"


@pytest.mark.parametrize(
    "item",
    [
        np.fromfile,
        np.array,
        eval,
        Runs(getattr, "text", "upper"),
        Path("x"),
        np.zeros(3, object),  # the array is refused, not built
        np.float32(1),
        np.zeros((2, 2), np.uint8),
        np.zeros(2, np.uint16),
        "text",
        7,
        None,
        [b"image"],
    ],
    ids=lambda item: type(item).__name__,
)
def test_items_that_are_no_images(item: Any, tmp_path: Path) -> None:
    path = tmp_path / "lfw.bin"
    for protocol in range(2, 6):
        path.write_bytes(python3(protocol, [item, *IMAGES[1:]]))
        with pytest.raises(DataError, match=r"lfw\.bin"):
            read_bin(path)


def test_names_in_names_and_states_of_names(tmp_path: Path) -> None:
    """numpy.dtype is allowed, numpy's `dtype.type` is not; and a name that is allowed cannot be changed."""
    path = tmp_path / "lfw.bin"
    dotted = b"\x80\x04\x8c\x05numpy\x8c\x0adtype.type\x93."
    state = b"\x80\x02cnumpy\ndtype\n}b."
    for content, message in [(dotted, r"dtype\.type"), (state, "state of dtype")]:
        assert list(pickletools.genops(content))[-1][0].name == "STOP"
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_bin(path)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps((IMAGES[:5], SAME)),
        pickle.dumps((IMAGES, SAME[:2])),
        pickle.dumps((IMAGES, SAME, [])),
        pickle.dumps(([], [])),
        pickle.dumps((IMAGES, [True, False, 2])),
        pickle.dumps((IMAGES, [True, False, None])),
        pickle.dumps((IMAGES, [True, False, 1.0])),
        pickle.dumps((IMAGES, list(np.array([1, 0, 1])))),
        pickle.dumps((b"image", SAME)),
        pickle.dumps({"images": IMAGES}),
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"name\tn1\tn2\n",
        bytes(1000),
    ],
)
def test_other_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"other\.bin"):
        read_bin(path)


@pytest.mark.parametrize("content", [CONTENTS["Python 2"], CONTENTS["protocol 4"], CONTENTS["arrays, protocol 2"]])
def test_cut_off_anywhere(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.bin"
    for length in range(0, len(content), 29):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"cut\.bin: not a pickle"):
            read_bin(path)


def test_a_damaged_image_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lfw.bin"
    path.write_bytes(python3(4, [b"junk", *IMAGES[1:]]))
    images = read_bin(path)[1]
    np.testing.assert_array_equal(images.read("1"), face(1))
    with pytest.raises(DataError, match=r"lfw\.bin, image 0 is not an image"):
        images.read("0")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_bin(tmp_path / "absent.bin")
