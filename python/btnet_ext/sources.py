"""Images out of files, folders and zip archives, decoded ahead of their use by a few threads."""

from __future__ import annotations

import io
import logging
import os
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from btnet_ext.errors import InvalidImage, reason
from btnet_ext.images import Pixels, as_pixels

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""What makes a file in a folder or an archive an image; one that is named itself may be called anything."""

_UPRIGHT = 1
"""The EXIF orientation of an image whose first row is at the top and first column on the left."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One encoded image that can be read: its name for people, and the way to its bytes."""

    name: str
    read: Callable[[], bytes]


def find_images(path: Path, open_archives: ExitStack) -> list[Source]:
    """List the images at `path`: a zip archive's or a folder's, at any depth, sorted; else `path` itself.

    In folders and archives, files without one of `SUFFIXES` are left out, and so is what is hidden; links to folders
    are not followed. Archives stay open until `open_archives` is closed. Raises OSError that names what cannot be
    opened.
    """
    if path.is_dir():
        return [Source(str(file), file.read_bytes) for file in sorted(_files_below(path))]
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.suffix.lower() != ".zip":
        return [Source(str(path), path.read_bytes)]
    try:
        archive = open_archives.enter_context(zipfile.ZipFile(path))
    except zipfile.BadZipFile as error:
        raise OSError(f"{path} is not a zip archive, or a damaged one: {error}") from error
    members = (member for member in archive.infolist() if not member.is_dir())
    images = [member for member in members if _is_image(PurePath(member.filename))]
    images.sort(key=lambda member: PurePath(member.filename))
    return [Source(f"{path}/{member.filename}", _member_reader(archive, member)) for member in images]


def decode(source: Source) -> Pixels:
    """Read and decode an image, to RGB, turned as its EXIF orientation says.

    Raises `InvalidImage`, which names it, whatever is wrong with it.
    """
    try:
        with Image.open(io.BytesIO(source.read())) as image:
            return as_pixels(upright(image, source.name), source.name)
    except InvalidImage:
        raise
    except UnidentifiedImageError:
        raise InvalidImage(f"{source.name} is not an image that Pillow can read") from None
    except Exception as error:  # Pillow's and zipfile's readers of damaged files raise errors of all kinds
        raise InvalidImage(f"{source.name} cannot be read: {reason(error)}") from error


def upright(image: Image.Image, name: str) -> Image.Image:
    """Turn an image as its EXIF orientation says; with damaged EXIF it stays as it lies, and the log says so."""
    image.load()  # now: a PNG is read to its end for its EXIF, and what is wrong with its pixels must come out
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, _UPRIGHT)
    except Exception as error:  # noqa: BLE001 - Pillow's reader raises errors of all kinds
        _log.info("%s has damaged EXIF, and is taken as it lies: %s", name, error)
        return image
    return image if orientation == _UPRIGHT else ImageOps.exif_transpose(image)


def decode_all(
    sources: Iterable[Source], *, threads: int = 4, ahead: int = 32
) -> Iterator[tuple[Source, Pixels | InvalidImage]]:
    """Decode images in order, up to `ahead` of them before they are asked for. Failures come as results."""
    pending: deque[tuple[Source, Future[Pixels]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="btnet-decode") as pool:
        for source in sources:
            pending.append((source, pool.submit(decode, source)))
            if len(pending) > ahead:
                yield _result(*pending.popleft())
        while pending:
            yield _result(*pending.popleft())


def _result(source: Source, decoding: Future[Pixels]) -> tuple[Source, Pixels | InvalidImage]:
    try:
        return source, decoding.result()
    except InvalidImage as error:
        return source, error


def _files_below(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    for name, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [below for below in folders if not below.startswith(".")]
        yield from (Path(name, file) for file in files if _is_image(PurePath(file)))


def _is_image(path: PurePath) -> bool:
    # Archives made on a Mac hold a hidden ._NAME.jpg, which is no image, for each NAME.jpg.
    hidden = any(part.startswith(".") for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def _member_reader(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Callable[[], bytes]:
    return lambda: archive.read(member)
