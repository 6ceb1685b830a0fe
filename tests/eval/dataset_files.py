"""Writes small files in the formats of the public benchmarks, for the tests of their readers."""

import io
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from btnet_eval.verification import Pairs


def face(number: int, height: int = 8, width: int = 6) -> np.ndarray:
    """An image of its own for each number, H x W x 3."""
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


def pillow_resize(image: np.ndarray, side: int, how: Image.Resampling = Image.Resampling.BICUBIC) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), how))


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def write_images(folder: Path, names: Iterable[str]) -> Path:
    """Image i of the names shows face(i). All files are PNG, whatever their names end with, which readers ignore."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(face(number)))
    return folder


def write_zip(path: Path, names: Iterable[str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(name, png(face(number)))
    return path


def cells(names: Sequence[str] | Sequence[Sequence[str]]) -> np.ndarray:
    """A cell array: a column for a list of names, as many columns as in a row for a list of rows."""
    rows = [[name] if isinstance(name, str) else list(name) for name in names]
    array = np.empty((len(rows), len(rows[0])), object)
    for place, _ in np.ndenumerate(array):
        array[place] = rows[place[0]][place[1]]
    return array


def write_labeled(path: Path, names: Mapping[str, Sequence[str]], identities: Mapping[str, Sequence[int]]) -> Path:
    """A .mat file as SurvFace and TinyFace have them: a column of names, a column of uint16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {key: np.array(values, np.uint16)[:, None] for key, values in identities.items()}
    savemat(path, {key: cells(values) for key, values in names.items()} | columns)
    return path


def python2_bin(images: Sequence[bytes], same: Sequence[bool]) -> bytes:
    """What Python 2 pickles with protocol 2 for ([str, ...], [bool, ...]), by the opcodes: strings are BINSTRING."""
    strings = b"".join(b"T" + struct.pack("<i", len(image)) + image for image in images)
    return python2_pickle(strings, same)


def python2_array_bin(images: Sequence[bytes], same: Sequence[bool]) -> bytes:
    """The same with one-dimensional arrays of uint8, as NumPy of that time reduced them."""
    return python2_pickle(b"".join(_python2_array(image) for image in images), same)


def python2_pickle(items: bytes, same: Sequence[bool]) -> bytes:
    labels = b"".join(b"\x88" if label else b"\x89" for label in same)
    return b"\x80\x02](" + items + b"e](" + labels + b"e\x86."


def _python2_array(content: bytes) -> bytes:
    shape = b"M" + struct.pack("<H", len(content)) + b"\x85"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    data = b"T" + struct.pack("<i", len(content)) + content
    return empty + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb"


def write_patterns(folder: Path, people: int, each: int, side: int, seed: int) -> Path:
    """Faces PERSON_NUMBER.png of side x side: four by four colours that are the person's, and noise."""
    random = np.random.default_rng(seed)
    for person in range(people):
        pattern = random.integers(0, 256, (4, 4, 3))
        for number in range(each):
            noise = random.normal(0, 60, (side, side, 3))
            noisy = np.kron(pattern, np.ones((side // 4, side // 4, 1))) + noise
            (folder / f"{person}_{number}.png").write_bytes(png(noisy.clip(0, 255).astype(np.uint8)))
    return folder


def pattern_pairs(people: int, each: int, seed: int) -> Pairs:
    """Sixty pairs of such faces in three folds, half of them of one person."""
    random = np.random.default_rng(seed)
    first, second, same = [], [], []
    for number in range(60):
        a, b = random.choice(people, 2, replace=False)
        x, y = random.choice(each, 2, replace=False)
        same.append(number % 2 == 0)
        first.append(f"{a}_{x}.png")
        second.append(f"{a if same[-1] else b}_{y}.png")
    return Pairs(np.arange(60) // 20, tuple(first), tuple(second), np.array(same))
