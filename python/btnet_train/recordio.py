"""Images in MXNet's RecordIO files, as its im2rec and insightface's face2rec2 write them.

A .rec file is a sequence of records, each at a multiple of four bytes: the magic number; a word of which the upper
three bits say whether this is a whole record (0), or the first (1), a middle (2) or the last part (3) of one, and the
others how long it is; the bytes. The writer cuts a record where its data holds the magic number at a multiple of
four bytes, which the reader puts back between the parts (dmlc-core, recordio.h). The bytes begin with an IRHeader:
flag (uint32), label (float32), id and id2 (uint64); with a flag above 0 the labels are not that one but as many
float32 after the header. Then comes the encoded image. The .idx file has a line KEY, tab, OFFSET for each record.

In insightface's files record 0 has two labels and no image. They are the first key of the identities' records and
the one after the last; these records have two labels and no image, either: an identity's first image and the one
after its last. All other records are images, with their identity's number as their first label.
"""

import hashlib
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from btnet_eval.base import DataError
from btnet_train.image_files import Integers, RandomAccessFile

Labels: TypeAlias = NDArray[np.float32]

_MAGIC = 0xCED7230A
_PRELUDE = struct.Struct("<II")  # magic number, parts and length
_LENGTH_BITS = 29
_LENGTH_MASK = (1 << _LENGTH_BITS) - 1
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_HEADER_BYTES = 24  # IRHeader
_WORDS = 10  # the prelude, the header and two labels
_BLOCK = 2**16  # records whose headers are looked at together
_EXACT = 2**24  # float32 holds all whole numbers up to here


class RecordImages:
    """The images of a .rec file in the order of their keys, read at the offsets in the .idx file beside it.

    Where insightface's records of identities are there, they are read, and the headers of each identity's first and
    last image; otherwise the headers of all records. Raises DataError for anything that is not as it should be.

    identities: the numbers of the identities, as strings, in the order of the numbers. labels: int64, for each image
    an index into `identities`, or -1 if not `labeled`.
    """

    def __init__(self, path: Path, *, labeled: bool) -> None:
        self._path = path
        self._file = RandomAccessFile(path)
        self._keys, self._offsets, first_labels = _find_images(path)
        self._bytes = path.stat().st_size
        self.identities: list[str] = []
        self.labels = np.full(len(self._keys), -1, np.int64)
        if labeled:
            known, self.labels = np.unique(_identity_numbers(path, self._keys, first_labels), return_inverse=True)
            self.identities = [str(number) for number in known.tolist()]

    def name(self, index: int) -> str:
        """Return the key of an image."""
        return str(self._keys[index])

    def encoded(self, index: int) -> bytes:
        """Return an image as its file had it. Raises DataError."""
        what = f"record {self._keys[index]}"
        record = self._read_record(int(self._offsets[index]), what)
        start = _HEADER_BYTES + 4 * int.from_bytes(record[:4], "little")
        if start >= len(record):
            raise DataError(f"{self._path}: {what} holds no image: it has {len(record)} bytes, {start} of them header")
        return record[start:]

    def update(self, digest: "hashlib._Hash") -> None:
        """Add keys and offsets of all images, and the size of the file, to a digest."""
        digest.update(self._keys.tobytes())
        digest.update(self._offsets.tobytes())
        digest.update(str(self._bytes).encode())

    def _read_record(self, offset: int, what: str) -> bytes:
        """Return the bytes of a record, its parts joined."""
        parts: list[bytes] = []
        part = _FIRST
        while part in (_FIRST, _MIDDLE):
            magic, word = _PRELUDE.unpack(self._file.read(offset, _PRELUDE.size, what))
            part, length = word >> _LENGTH_BITS, word & _LENGTH_MASK
            if magic != _MAGIC or part not in ((_MIDDLE, _LAST) if parts else (_WHOLE, _FIRST)):
                raise DataError(f"{self._path}: {what} is damaged, or the index is of another file")
            parts.append(self._file.read(offset + _PRELUDE.size, length, what))
            offset += _PRELUDE.size + (length + 3 & ~3)
        return _MAGIC.to_bytes(4, "little").join(parts)


@dataclass(frozen=True)
class _Headers:
    """What stands at the beginning of n records. Labels that a record does not have are any number."""

    flags: Integers  # (n,)
    labels: Labels  # (n, 2)
    image_bytes: Integers  # (n,), up to the second cut of a record in parts

    @property
    def are_ranges(self) -> NDArray[np.bool_]:
        """Which have two labels and no image."""
        are_ranges: NDArray[np.bool_] = (self.flags == 2) & (self.image_bytes == 0)
        return are_ranges


class _HeaderTable:
    """The headers of all records, looked at many at a time."""

    def __init__(self, path: Path, keys: Integers, offsets: Integers) -> None:
        self._path, self._keys, self._offsets = path, keys, offsets
        self._bytes = path.stat().st_size
        if self._bytes < _PRELUDE.size + _HEADER_BYTES:
            raise DataError(f"{path} is truncated: it has {self._bytes} bytes")
        self._words = np.memmap(path, "<u4", "r", shape=self._bytes // 4)

    def read(self, which: slice | Integers) -> _Headers:
        """Read and check the headers of records, given by their places among all keys."""
        keys, offsets = self._keys[which], self._offsets[which]
        blocks = [
            self._read_block(keys[start : start + _BLOCK], offsets[start : start + _BLOCK])
            for start in range(0, len(keys), _BLOCK)
        ]
        return _Headers(
            np.concatenate([block.flags for block in blocks]),
            np.concatenate([block.labels for block in blocks]),
            np.concatenate([block.image_bytes for block in blocks]),
        )

    def _read_block(self, keys: Integers, offsets: Integers) -> _Headers:
        places = np.minimum(offsets[:, None] // 4 + np.arange(_WORDS), len(self._words) - 1)
        words = np.asarray(self._words[places])
        parts, lengths = words[:, 1] >> _LENGTH_BITS, (words[:, 1] & _LENGTH_MASK).astype(np.int64)
        flags = words[:, 2].astype(np.int64)
        # The magic number that a record was cut at belongs to it.
        image_bytes = lengths - _HEADER_BYTES - 4 * flags + 4 * (parts == _FIRST)
        # In this order: of a record outside the file nothing else is known.
        problems = {
            "begins outside the file, which is truncated, or its index is of another one": (
                offsets > self._bytes - _PRELUDE.size - _HEADER_BYTES
            ),
            "does not begin where the index says: it is of another file, or damaged": (
                (offsets % 4 != 0) | (words[:, 0] != _MAGIC) | ((parts != _WHOLE) & (parts != _FIRST))
            ),
            "goes on past the end of the file, which is truncated": offsets + _PRELUDE.size + lengths > self._bytes,
            "has a garbled header, longer than the record": image_bytes < 0,
        }
        for problem, where in problems.items():
            if where.any():
                raise DataError(f"{self._path}: record {keys[np.argmax(where)]} {problem}")
        alone, listed = words[:, 3:4].copy().view("<f4"), words[:, 8:10].copy().view("<f4")
        return _Headers(flags, np.where(flags[:, None] > 0, listed, alone), image_bytes)


def _find_images(path: Path) -> tuple[Integers, Integers, Labels]:
    """Return keys, offsets and first labels of the records that are images."""
    keys, offsets = _read_index(path)
    table = _HeaderTable(path, keys, offsets)
    first = table.read(slice(0, 1))
    is_insightface = bool(keys[0] == 0 and first.are_ranges[0])
    start, end = first.labels[0].tolist()
    if is_insightface and end < _EXACT:
        if end != len(keys) or keys[-1] != end - 1 or not 1 < start < end or start % 1:
            raise DataError(
                f"{path}: record 0 says that identities have records {start:g} to {end:g} - 1, the last ones, "
                f"but the index lists {len(keys)} records up to {keys[-1]}"
            )
        images = slice(1, int(start))
        labels = _labels_by_range(path, table, slice(int(start), len(keys)))
        if labels is not None:
            return keys[images].copy(), offsets[images].copy(), labels
    headers = table.read(slice(0, len(keys)))
    kept = ~(headers.are_ranges & is_insightface)
    empty = np.flatnonzero(kept & (headers.image_bytes == 0))
    if len(empty):
        raise DataError(f"{path}: record {keys[empty[0]]} holds no image")
    return keys[kept], offsets[kept], headers.labels[kept, 0]


def _labels_by_range(path: Path, table: _HeaderTable, identities: slice) -> Labels | None:
    """Return the first labels of the images from key 1 to the first identity's; None if they have no ranges."""
    headers = table.read(identities)
    wrong = np.flatnonzero(~headers.are_ranges)
    if len(wrong):
        raise DataError(f"{path}: record {identities.start + wrong[0]} is not an identity's first and last image")
    ranges = headers.labels[np.argsort(headers.labels[:, 0])]
    firsts, ends = ranges.T
    if not np.array_equal(np.append(firsts, identities.start), np.append(1, ends)):
        return None
    if not (np.all(firsts < ends) and np.all(ranges % 1 == 0)):
        return None
    counts = (ends - firsts).astype(np.int64)
    places = firsts.astype(np.int64)
    labels = table.read(places).labels[:, 0]
    differ = np.flatnonzero(labels != table.read(places + counts - 1).labels[:, 0])
    if len(differ):
        first = places[differ[0]]
        raise DataError(
            f"{path}: records {first} to {first + counts[differ[0]] - 1} should be one identity's, but the first "
            "and the last have different labels"
        )
    return np.repeat(labels, counts)


def _identity_numbers(path: Path, keys: Integers, labels: Labels) -> Integers:
    with np.errstate(invalid="ignore"):
        wrong = np.flatnonzero(~((labels >= 0) & (labels <= _EXACT) & (labels % 1 == 0)))
    if len(wrong):
        key, label = keys[wrong[0]], labels[wrong[0]]
        raise DataError(f"{path}: record {key} has label {label:g}, expected the number of an identity")
    return labels.astype(np.int64)


def _read_index(path: Path) -> tuple[Integers, Integers]:
    """Return the keys, sorted, and the offsets in the .idx file beside a .rec file."""
    index = path.with_suffix(".idx")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of an empty file
            table = np.loadtxt(index, np.int64, comments=None, ndmin=2)
    except FileNotFoundError:
        raise DataError(f"{index} does not exist; it must lie beside {path.name}") from None
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(f"{index} is not made of lines of a key and an offset: {error}") from error
    if not len(table) or table.shape[1] != 2 or table.min() < 0:
        raise DataError(f"{index} is not made of lines of a key and an offset, neither of them negative")
    keys, offsets = np.ascontiguousarray(table[np.argsort(table[:, 0], kind="stable")].T)
    for what, values in (("key", keys), ("offset", np.sort(offsets))):
        twice = np.flatnonzero(values[1:] == values[:-1])
        if len(twice):
            raise DataError(f"{index} has {what} {values[twice[0]]} twice")
    return keys, offsets
