"""Encoded faces in folders and zip archives, and their decoding.

Many millions of files must fit, and worker processes must share what describes them: names and positions are kept
in arrays, not in Python objects, and files are read at given offsets, so that no process moves another's position.
"""

import hashlib
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from btnet_eval.base import DataError
from btnet_ext.images import DEEP_MODES
from btnet_ext.sources import upright

Pixels: TypeAlias = NDArray[np.uint8]
"""H x W x 3, RGB."""

Integers: TypeAlias = NDArray[np.int64]

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
"""What makes a file an image, in small or capital letters."""

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
_UNPACKED = ".bmp"  # images of one size have files of one size
_LARGEST_FILE = 2**28  # bytes; what unpacks to more is no face
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip's member: signature, lengths of name and extra field


def decode(encoded: bytes, name: str) -> Pixels:
    """Decode an image to RGB, shape (H, W, 3). Raises DataError, which calls it `name`, whatever is wrong with it."""
    try:
        with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise DataError(f"{name} has {image.width} x {image.height} pixels, far more than a face")
            if image.mode.startswith(DEEP_MODES):
                raise DataError(f"{name} has pixels of mode {image.mode}, expected 8 bits a channel")
            turned = upright(image, name)
            return np.array(turned if turned.mode == "RGB" else turned.convert("RGB"))
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"{name} is no image in one of the formats {', '.join(_FORMATS)}") from None
    except Exception as error:  # Pillow's readers of damaged files raise errors of all kinds
        raise DataError(f"{name} cannot be decoded: {str(error) or repr(error)}") from error


class RandomAccessFile:
    """A file that is read at given offsets, by any process and thread.

    It opens at the first reading. A forked process may go on with the descriptor, which has no position that is
    used; a pickle opens the file anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._bytes = 0

    def __reduce__(self) -> tuple[type["RandomAccessFile"], tuple[Path]]:
        return RandomAccessFile, (self.path,)

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def read(self, offset: int, length: int, what: str) -> bytes:
        """Return `length` bytes from `offset` on. Raises DataError that says that `what` is cut off."""
        try:
            if self._descriptor is None:
                descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
                self._bytes = os.fstat(descriptor).st_size
                self._descriptor = descriptor
            # The length may come out of a damaged file: nothing is allocated for bytes that are not there.
            found = os.pread(self._descriptor, length, offset) if offset + length <= self._bytes else b""
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}") from error
        if len(found) != length:
            raise DataError(f"{self.path} is truncated: {what} goes on past its end at byte {self._bytes}")
        return found


class Strings:
    """Strings in one piece of memory."""

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
        self._bytes = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __getitem__(self, index: int) -> str:
        start, end = self._ends[index], self._ends[index + 1]
        return self._bytes[start:end].decode("utf-8", "surrogateescape")

    def update(self, digest: "hashlib._Hash") -> None:
        """Add the strings to a digest."""
        digest.update(self._ends.tobytes())
        digest.update(self._bytes)


class ImageFolder:
    """The images below a folder, ID/NAME.jpg, sorted by name.

    The folders of the identities may lie below the given one at any depth, but all in one place. Without `labeled`
    images may lie anywhere. Hidden files and folders and files without one of `SUFFIXES` are left out; links to
    folders are followed. Raises DataError for anything else, and for a folder without images.

    identities: sorted by name. labels: int64, for each image an index into `identities`, or -1 if not `labeled`.
    """

    def __init__(self, path: Path, *, labeled: bool) -> None:
        self._path = path
        files, folders = _walk(path)
        self.identities, self.labels = _group(path, files, folders, labeled)
        self._names = Strings(files)

    def name(self, index: int) -> str:
        """Return the path of an image, relative to the folder."""
        return self._names[index]

    def encoded(self, index: int) -> bytes:
        """Return an image as its file has it. Raises DataError."""
        file = self._path / self._names[index]
        try:
            return file.read_bytes()
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}") from error

    def update(self, digest: "hashlib._Hash") -> None:
        """Add names and sizes of all images to a digest, and checksums where the size says nothing."""
        self._names.update(digest)
        files = [self._path / self._names[index] for index in range(len(self.labels))]
        try:
            digest.update(np.array([file.stat().st_size for file in files], np.int64).tobytes())
        except OSError as error:
            raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
        for index, file in enumerate(files):
            if file.suffix.lower() == _UNPACKED:
                digest.update(zlib.crc32(self.encoded(index)).to_bytes(4, "little"))


class ImageZip:
    """The images in a zip archive, as `ImageFolder` finds them in a folder; members are stored or deflated.

    Python's zipfile lists them. It is not used for reading: it takes five times as long, and its lock and position
    are of one process.
    """

    def __init__(self, path: Path, *, labeled: bool) -> None:
        members, folders = _list_archive(path)
        files = list(members)
        self.identities, self.labels = _group(path, files, folders, labeled)
        self._names = Strings(files)
        self._file = RandomAccessFile(path)
        table = [(m.header_offset, m.compress_size, m.file_size, m.CRC, m.compress_type) for m in members.values()]
        self._table = np.array(table, np.int64)

    def name(self, index: int) -> str:
        """Return the name of an image in the archive."""
        return self._names[index]

    def encoded(self, index: int) -> bytes:
        """Return an image, unpacked. Raises DataError."""
        name = self._names[index]
        offset, packed, unpacked, checksum, method = self._table[index].tolist()
        header = self._file.read(offset, _LOCAL_HEADER.size, name)
        signature, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        data = self._file.read(offset + _LOCAL_HEADER.size + name_length + extra_length, packed, name)
        try:
            if method == zipfile.ZIP_DEFLATED:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, unpacked + 1)
        except zlib.error as error:
            raise DataError(f"{self._file.path}:{name} cannot be unpacked: {error}") from error
        if signature != b"PK\3\4" or len(data) != unpacked or zlib.crc32(data) != checksum:
            raise DataError(f"{self._file.path}:{name} is damaged: it is not what the archive's directory says")
        return data

    def update(self, digest: "hashlib._Hash") -> None:
        """Add names, sizes and checksums of all images to a digest."""
        self._names.update(digest)
        digest.update(self._table[:, 2:4].tobytes())


def _walk(path: Path) -> tuple[list[str], set[str]]:
    """List the images below a folder, sorted, and all folders, as paths relative to it."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error

    files: list[str] = []
    folders: set[str] = set()
    seen: set[tuple[int, int]] = set()
    for found, below, names in os.walk(path, onerror=refuse, followlinks=True):
        status = Path(found).stat()
        if (status.st_dev, status.st_ino) in seen:
            raise DataError(f"{found} is met twice below {path}: a link leads to a folder that is there already")
        seen.add((status.st_dev, status.st_ino))
        below[:] = [name for name in below if not _is_junk(name)]
        folder = os.path.relpath(found, path)
        prefix = "" if folder == "." else f"{folder}/"
        folders.add(folder)
        files += [prefix + name for name in names if _is_image(name)]
    return sorted(files), folders - {"."}


def _list_archive(path: Path) -> tuple[dict[str, zipfile.ZipInfo], set[str]]:
    """List the images in an archive by their names, sorted, and its folders."""
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # damaged archives raise errors of all kinds
        raise DataError(f"{path} is no zip archive, or a damaged one: {error}") from error
    images: dict[str, zipfile.ZipInfo] = {}
    folders = set()
    for member in members:
        parts = [part for part in member.filename.split("/") if part not in ("", ".")]
        if any(map(_is_junk, parts)):
            continue
        if member.is_dir():
            folders.add("/".join(parts))
        elif _is_image(parts[-1] if parts else ""):
            _check_member(path, member, size)
            images["/".join(parts)] = member
    return dict(sorted(images.items())), folders


def _check_member(path: Path, member: zipfile.ZipInfo, archive_size: int) -> None:
    if not 0 <= member.header_offset <= archive_size - member.compress_size:
        raise DataError(f"{path} is truncated or damaged: it does not hold all of {member.filename}")
    if member.flag_bits & 1:
        raise DataError(f"{path}:{member.filename} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            f"{path}:{member.filename} is packed by method {member.compress_type}, expected deflate or none"
        )
    if member.file_size > _LARGEST_FILE:
        raise DataError(f"{path}:{member.filename} unpacks to {member.file_size} bytes, far more than a face")


def _is_junk(name: str) -> bool:
    # Archives made on a Mac hold a hidden ._NAME.jpg, which is no image, for each NAME.jpg.
    return name.startswith(".") or name == "__MACOSX"


def _is_image(name: str) -> bool:
    return not _is_junk(name) and name.lower().endswith(SUFFIXES)


def _group(path: Path, files: Sequence[str], folders: set[str], labeled: bool) -> tuple[list[str], Integers]:
    """Return the identities, sorted, and for each file the index of its own: that of its folder."""
    if not files:
        raise DataError(f"{path} holds no images: no {', '.join(SUFFIXES)}")
    if not labeled:
        return [], np.full(len(files), -1, np.int64)
    place = files[0].rpartition("/")[0].rpartition("/")[0]
    owners = []
    for file in files:
        folder, _, _ = file.rpartition("/")
        above, _, identity = folder.rpartition("/")
        if not folder or above != place:
            raise DataError(
                f"{path}:{file} does not lie where it has an identity: expected {place and place + '/'}ID/NAME"
            )
        owners.append(identity)
    identities = sorted(set(owners))
    inside = f"{place}/" if place else ""
    below = {folder.removeprefix(inside).partition("/")[0] for folder in folders if folder.startswith(inside)}
    empty = sorted(below.difference(identities))
    if empty:
        raise DataError(f"{path}:{inside}{empty[0]} is an identity without images, one of {len(empty)}")
    numbers = {identity: number for number, identity in enumerate(identities)}
    return identities, np.array([numbers[owner] for owner in owners], np.int64)
