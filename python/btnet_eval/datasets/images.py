"""Images by name, out of a folder, a zip archive or memory."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePath
from types import TracebackType

from btnet_eval.base import DataError, Image
from btnet_ext.errors import InvalidImage
from btnet_ext.sources import Source, decode, find_images

PROGRESS = 1000
"""Files that are read between two reports of progress."""


class NamedImages:
    """Named images, which are read and decoded when asked for, by any number of threads.

    where: what the images are from, for messages. To be closed after use, which `with` does.
    """

    def __init__(self, where: str, sources: Mapping[str, Source], opened: ExitStack | None = None) -> None:
        self.where = where
        self._sources = sources
        self._opened = opened or ExitStack()
        self._digests: dict[str, bytes] = {}  # of the files, by name

    def __enter__(self) -> "NamedImages":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the archive; images cannot be read any more."""
        self._opened.close()

    def __len__(self) -> int:
        return len(self._sources)

    def __contains__(self, name: str) -> bool:
        return name in self._sources

    def names(self, folder: str = "") -> tuple[str, ...]:
        """Names of all images, or of those at any depth below a folder such as `gallery`, sorted."""
        return tuple(sorted(name for name in self._sources if not folder or name.startswith(f"{folder}/")))

    def below(self, folder: str) -> "NamedImages":
        """The images below a folder such as `gallery`, by their names there; they are closed with these."""
        start = f"{folder}/"
        inside = {name[len(start) :]: source for name, source in self._sources.items() if name.startswith(start)}
        return NamedImages(f"{self.where}/{folder}", inside)

    def encoded(self, name: str) -> bytes:
        """The image file's bytes. Raises DataError for an unknown name, or one that cannot be read."""
        source = self._source(name)
        try:
            return source.read()
        except Exception as error:  # zipfile raises errors of all kinds for damaged members
            raise DataError(f"{source.name} cannot be read: {str(error) or repr(error)}") from error

    def read(self, name: str) -> Image:
        """The image, decoded to RGB. Raises DataError for an unknown name, and for what is no image of 8 bits."""
        source = self._source(name)
        try:
            return decode(source)
        except InvalidImage as error:
            raise DataError(str(error)) from error

    def digest(self, names: Sequence[str], progress: Callable[[int, int], None] | None = None) -> str:
        """SHA-256, in hexadecimal, of the named files' contents in this order; the names do not count.

        A file is read when it is first asked for. progress: told of how many files those are that are read now, and how
        many of them are done.
        """
        missing = [name for name in dict.fromkeys(names) if name not in self._digests]
        for done, name in enumerate(missing, start=1):
            self._digests[name] = hashlib.sha256(self.encoded(name)).digest()
            if progress is not None and (done % PROGRESS == 0 or done == len(missing)):
                progress(done, len(missing))
        return hashlib.sha256(b"".join(self._digests[name] for name in names)).hexdigest()

    def _source(self, name: str) -> Source:
        try:
            return self._sources[name]
        except KeyError:
            raise DataError(f"{name} is not among the images of {self.where}") from None


def open_images(path: str | os.PathLike[str]) -> NamedImages:
    """Find all images in a folder, in a zip archive, or in a folder of one: `ARCHIVE.zip/FOLDER`.

    Their names are paths relative to that folder, with slashes: `NAME/NAME_0001.jpg`. What counts as an image, and
    what is left out, `btnet_ext.sources.find_images` says. Raises DataError where there is none.
    """
    place = Path(path)
    archive = next((part for part in (place, *place.parents) if part.suffix.lower() == ".zip" and part.is_file()), None)
    if archive is None and not place.is_dir():
        what = "is neither a folder nor a zip archive" if place.exists() else "does not exist"
        raise DataError(f"{place} {what}")
    opened = ExitStack()
    try:
        found = find_images(archive or place, opened)
    except OSError as error:
        raise DataError(f"{place} cannot be opened: {error}") from error
    paths = ((PurePath(source.name), source) for source in found)
    sources = {file.relative_to(place).as_posix(): source for file, source in paths if file.is_relative_to(place)}
    if not sources:
        opened.close()
        raise DataError(f"{place} has no images")
    return NamedImages(str(place), sources, opened)
