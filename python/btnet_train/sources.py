"""Where faces come from: folders, zip archives and RecordIO files, taken together as one data set."""

import hashlib
import os
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from btnet_eval.base import DataError
from btnet_train.image_files import ImageFolder, ImageZip, Integers, Pixels, decode
from btnet_train.recordio import RecordImages

__all__ = ["DataError", "Faces"]


class _Source(Protocol):
    """Images of one folder or file, in an order that does not change."""

    identities: list[str]
    labels: Integers  # for each image an index into `identities`, or -1

    def name(self, index: int) -> str: ...
    def encoded(self, index: int) -> bytes: ...
    def update(self, digest: "hashlib._Hash") -> None: ...


class Faces:
    """Images of faces, most of them with the identity, out of one or more sources.

    Args:
        labeled: folders and zip archives of ID/NAME.jpg, and .rec files with an .idx beside them.
        unlabeled: the same, at any depth and without identities; those of .rec files are ignored.
        shared_identities: an identity with the same name in two sources is one class. Else it is two.
        min_images: how many images an identity must have, all its sources together.

    Attributes:
        classes: the identities' names, such as "train112/04930", or "04930" where identities are shared. They are
            in the order of the sources, then of the names, by number in .rec files; shared ones by name alone.
        labels: int64, shape (len,): for each image an index into `classes`, -1 for those without identity.
        names: for each image a name for people, "train112.zip:04930/182641.jpg", made when it is asked for.
        digest: SHA-256 of the names and sizes of all files and of the labels. It is the same wherever the data lies.

    Two sources of the same name are told apart by as many folders above them as it takes. Faces can be pickled, and
    files open in each process when they are first read. Raises DataError, one sentence that names the file.
    """

    def __init__(
        self,
        labeled: Sequence[str | os.PathLike[str]],
        unlabeled: Sequence[str | os.PathLike[str]] = (),
        *,
        shared_identities: bool = False,
        min_images: int = 2,
    ) -> None:
        paths = [Path(path).absolute() for path in (*labeled, *unlabeled)]
        if not paths:
            raise DataError("there are no faces: give a folder, a .zip or a .rec (--data, --unlabeled)")
        self._prefixes, self._suffixes = _tell_apart(paths)
        self._sources = [_open(path, number < len(labeled)) for number, path in enumerate(paths)]
        self._starts = np.cumsum([0, *(len(source.labels) for source in self._sources)]).tolist()
        merge = _share if shared_identities else self._separate
        self.classes, self.labels = merge(self._sources)
        self._positions: Integers = np.arange(len(self.labels))
        self._check_counts(min_images)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> Pixels:
        """Return image `index`, decoded: uint8 RGB, shape (side, side, 3). Raises DataError that names it."""
        source, inside = self._locate(index)
        image = decode(self._sources[source].encoded(inside), self._name(index))
        height, width, _ = image.shape
        if height != width:
            raise DataError(f"{self._name(index)} has {width} x {height} pixels, expected a square: aligned faces")
        return image

    @property
    def names(self) -> Sequence[str]:
        """For each image its source and its name there."""
        return _Names(self._name, len(self))

    @property
    def source_numbers(self) -> Integers:
        """For each image the number of its source, in the order given, labeled ones first."""
        return np.searchsorted(self._starts, self._positions, side="right") - 1

    @cached_property
    def digest(self) -> str:
        """Tells whether it is the same data; in hexadecimal."""
        digest = hashlib.sha256()
        for prefix, suffix, source in zip(self._prefixes, self._suffixes, self._sources, strict=True):
            digest.update(f"{prefix}{suffix}\0".encode("utf-8", "surrogateescape"))
            source.update(digest)
        digest.update(self._positions.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()

    def without(self, classes: Collection[str]) -> "Faces":
        """Return the same faces but for some identities; unlabeled images stay. Raises ValueError for unknown names."""
        left_out = self._mark(classes)
        return self._select(~left_out, keep_unlabeled=True)

    def only(self, classes: Collection[str]) -> "Faces":
        """Return the faces of some identities, and no unlabeled ones. Raises ValueError for unknown names."""
        return self._select(self._mark(classes), keep_unlabeled=False)

    def _mark(self, classes: Collection[str]) -> NDArray[np.bool_]:
        wanted = set(classes)
        unknown = sorted(wanted.difference(self.classes))
        if unknown:
            raise ValueError(f"classes has {unknown[0]!r}, which is none of the {len(self.classes)} identities")
        return np.array([name in wanted for name in self.classes], np.bool_)

    def _select(self, kept: NDArray[np.bool_], *, keep_unlabeled: bool) -> "Faces":
        # Index -1, of images without identity, finds the last element.
        numbers = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)
        labels = numbers[self.labels]
        stay = (labels >= 0) | (keep_unlabeled & (self.labels < 0))
        part = Faces.__new__(Faces)
        part._prefixes, part._suffixes = self._prefixes, self._suffixes
        part._sources, part._starts = self._sources, self._starts
        part.classes = tuple(name for name, keep in zip(self.classes, kept, strict=True) if keep)
        part.labels = labels[stay]
        part._positions = self._positions[stay]
        return part

    def _locate(self, index: int) -> tuple[int, int]:
        """Return the number of an image's source, and its index there."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        position = int(self._positions[index])
        source = bisect_right(self._starts, position) - 1
        return source, position - self._starts[source]

    def _name(self, index: int) -> str:
        source, inside = self._locate(index)
        return f"{self._prefixes[source]}{self._suffixes[source]}:{self._sources[source].name(inside)}"

    def _separate(self, sources: Sequence[_Source]) -> tuple[tuple[str, ...], Integers]:
        classes: list[str] = []
        labels = []
        for prefix, source in zip(self._prefixes, sources, strict=True):
            labels.append(np.where(source.labels < 0, -1, source.labels + len(classes)))
            classes += [f"{prefix}/{identity}" for identity in source.identities]
        return tuple(classes), np.concatenate(labels)

    def _check_counts(self, min_images: int) -> None:
        counts = np.bincount(self.labels[self.labels >= 0], minlength=len(self.classes))
        few = np.flatnonzero(counts < min_images)
        if len(few):
            raise DataError(
                f"identity {self.classes[few[0]]} has too few images, {counts[few[0]]}, expected at least "
                f"{min_images}; so have {len(few)} of {len(self.classes)} identities"
            )


class _Names(Sequence[str]):
    def __init__(self, name: Callable[[int], str], count: int) -> None:
        self._name = name
        self._indices = range(count)

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self._name(each) for each in self._indices[index]]
        return self._name(self._indices[index])


def _share(sources: Sequence[_Source]) -> tuple[tuple[str, ...], Integers]:
    names = {identity for source in sources for identity in source.identities}
    numbered = all(isinstance(source, RecordImages) or not source.identities for source in sources)
    classes = tuple(sorted(names, key=int) if numbered else sorted(names))
    numbers = {name: number for number, name in enumerate(classes)}
    labels = []
    for source in sources:
        # Index -1, of images without identity, finds the last element.
        own = np.array([*(numbers[identity] for identity in source.identities), -1], np.int64)
        labels.append(own[source.labels])
    return classes, np.concatenate(labels)


def _open(path: Path, labeled: bool) -> _Source:
    if path.is_dir():
        return ImageFolder(path, labeled=labeled)
    if not path.exists():
        raise DataError(f"{path} does not exist")
    kinds: dict[str, type[ImageZip] | type[RecordImages]] = {".zip": ImageZip, ".rec": RecordImages}
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path} is neither a folder nor a .zip or .rec")
    return kind(path, labeled=labeled)


def _tell_apart(paths: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Return for each path the shortest end, without suffix, that no other has, and the suffix; "" for a folder."""
    suffixes = ["" if path.is_dir() else path.suffix for path in paths]
    stems = [path if path.is_dir() else path.with_suffix("") for path in paths]
    for depth in range(1, max(len(stem.parts) for stem in stems) + 1):
        prefixes = ["/".join(stem.parts[-depth:]) for stem in stems]
        if len(set(prefixes)) == len(prefixes):
            return prefixes, suffixes
    twice = next(path for path in stems if stems.count(path) > 1)
    raise DataError(f"two sources are called {twice}")
