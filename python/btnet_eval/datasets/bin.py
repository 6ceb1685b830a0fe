"""Verification sets in insightface's .bin files: lfw.bin, agedb_30.bin, cfp_fp.bin and their like.

Such a file is a pickle of two lists, as insightface's lfw2pack.py writes it and eval/verification.py reads it: the
encoded images, two for each pair, and for each pair whether the two are the same person. Python 2 wrote the public
ones, with strings where Python 3 has bytes. Images may also be one-dimensional arrays of uint8, and labels NumPy's
bool, because readers in NumPy take these as well.

A pickle is a program. Here no class and no function that it names is looked up: the few names that bytes and arrays
need are recorded with their arguments, and what they stand for is put together here. All others are refused.
"""

import io
import os
import pickle
from functools import partial
from pathlib import Path

import numpy as np

from btnet_eval.base import DataError
from btnet_eval.datasets.images import NamedImages
from btnet_eval.verification import Pairs
from btnet_ext.sources import Source

_FOLDS = 10
_NAMES = frozenset(
    {
        ("_codecs", "encode"),  # how Python 3 writes bytes in protocols up to 2
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy.core.numeric", "_frombuffer"),  # arrays in protocol 5
    }
)


def read_bin(path: str | os.PathLike[str]) -> tuple[Pairs, NamedImages]:
    """Read a .bin file: its pairs, and its images by the names that the pairs have, "0", "1" and so on.

    The folds are insightface's: ten blocks of pairs in a row, of which the first ones have a pair more where ten does
    not divide their number. Images are decoded only when they are read.

    Raises:
        DataError: a file that is cut off, or that holds anything else. OSError comes from the file system.
    """
    where = os.fsdecode(path)
    file = io.BytesIO(Path(path).read_bytes())
    try:
        content = _Unpickler(file, encoding="bytes").load()
    except Exception as error:  # damaged pickles raise errors of all kinds
        raise DataError(f"{where}: not a pickle of encoded images and labels, or cut off: {error!r}") from error
    if not (isinstance(content, (tuple, list)) and len(content) == 2):
        raise DataError(f"{where}: expected a pickle of two lists, images and labels")
    images = [_image(item, f"{where}, image {number}") for number, item in enumerate(_items(content[0], where))]
    same = _labels(content[1], where)
    if not same or len(images) != 2 * len(same):
        raise DataError(f"{where}: {len(images)} images for {len(same)} pairs, expected two for each, and a pair")
    sources = {
        str(number): Source(f"{where}, image {number}", partial(bytes, image)) for number, image in enumerate(images)
    }
    folds = np.concatenate([np.full(len(block), fold) for fold, block in enumerate(np.array_split(same, _FOLDS))])
    pairs = Pairs(folds, tuple(sources)[::2], tuple(sources)[1::2], np.array(same, np.bool_), where)
    # By another name than the file: reports have a digest of either.
    return pairs, NamedImages(f"{where}, images", sources)


class _Call:
    """A call that a pickle asks for, not done: a name, the arguments, and the state that is set afterwards."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: tuple[object, ...]) -> None:
        self.name = name
        self.arguments = arguments
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Name:
    """Something that a pickle names, not looked up."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: object) -> _Call:
        return _Call(self.name, arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError(f"it sets the state of {self.name}")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> _Name:
        if (module.replace("numpy._core", "numpy.core"), name) not in _NAMES:  # _core since NumPy 2
            raise pickle.UnpicklingError(f"it names {module}.{name}, which images and labels do not need")
        return _Name(name)


def _items(content: object, where: str) -> list[object] | tuple[object, ...]:
    if not isinstance(content, (list, tuple)):
        raise DataError(f"{where}: expected a list, not {type(content).__name__}")
    return content


def _image(item: object, place: str) -> bytes:
    encoded = _bytes(item)
    if encoded is None:
        encoded = _array(item, "u1")
    if encoded is None:
        raise DataError(f"{place}: expected bytes or a one-dimensional array of uint8")
    return encoded


def _labels(content: object, where: str) -> list[bool]:
    packed = _array(content, "b1")
    if packed is not None:
        return [bool(label) for label in packed]
    labels: list[bool] = []
    for number, item in enumerate(_items(content, where)):
        label = _scalar(item) if isinstance(item, _Call) else item
        if not isinstance(label, int) or label not in (0, 1):
            raise DataError(f"{where}, label {number}: expected True or False")
        labels.append(bool(label))
    return labels


def _bytes(item: object) -> bytes | None:
    """Bytes, however a protocol writes them; None for anything else."""
    match item:
        case bytes() | bytearray():
            return bytes(item)
        case _Call(name="encode", arguments=(str(text), "latin1" | b"latin1"), state=None):
            try:
                return text.encode("latin1")
            except UnicodeEncodeError:
                return None
        case _:
            return None


def _array(item: object, dtype: str) -> bytes | None:
    """The bytes of a one-dimensional array of one-byte items of that type; None for anything else."""
    match item:
        case _Call(name="_reconstruct", state=(_, (int(length),), kind, _, data)):
            pass
        case _Call(name="_frombuffer", arguments=(data, kind, (int(length),), _)):
            pass
        case _:
            return None
    content = _bytes(data)
    return content if _is_dtype(kind, dtype) and content is not None and len(content) == length else None


def _scalar(item: _Call) -> int | None:
    match item:
        case _Call(name="scalar", arguments=(kind, data)) if _is_dtype(kind, "b1"):
            content = _bytes(data)
            return content[0] if content is not None and len(content) == 1 else None
        case _:
            return None


def _is_dtype(kind: object, dtype: str) -> bool:
    match kind:
        case _Call(name="dtype", arguments=(str() | bytes() as name, *_)):
            return name in (dtype, dtype.encode())
        case _:
            return False
