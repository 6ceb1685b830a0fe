"""Embeddings kept on disk, so that a model embeds the same images once, and a run that was broken off goes on."""

import hashlib
import io
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from btnet_eval.base import Image, Rows
from btnet_eval.models import Model
from btnet_ext.whole_files import discard_parts, locked, whole_file

Progress: TypeAlias = Callable[[int, int], None]
"""Is told how many rows are done, and of how many."""

_SEAL = hashlib.sha256().digest_size
_CHUNK = 2**20  # bytes read at a time

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Images:
    """Images in an order.

    digest: stands for all of them, contents and order. names: of each, for messages. read: the image at an index.
    """

    digest: str
    names: Sequence[str]
    read: Callable[[int], Image]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.names)


class EmbeddingCache:
    """Embeddings of images by models, as files in a folder: one for each model, images and resolution.

    A file is an array in NumPy's format, .npy, and after it the SHA-256 of what it is for and of the array. It appears
    whole or not at all. One that is damaged, or is for something else, is computed again, and the log says so. Several
    processes may use a folder: those that want the same rows wait for the one that computes them.

    folder: made where it is missing. block: images embedded at a time; so many are in memory, and a run that is broken
    off goes on after the last full block.
    """

    def __init__(self, folder: str | os.PathLike[str], *, block: int = 512) -> None:
        if block < 1:
            raise ValueError(f"block must be at least 1, not {block}")
        self._folder = Path(folder)
        self._block = block

    def rows(
        self, model: Model, images: Images, resolution: int | npt.ArrayLike | None, *, progress: Progress | None = None
    ) -> Rows:
        """The embeddings of all images by a model, (images.count, D), mapped from the file read-only.

        Args:
            model: what embeds them.
            images: what to embed, one at least.
            resolution: what each image is presented at (see `Model.present`), one for all or (images.count,); None: the
                images as they are.
            progress: called after each block, also after one that an earlier run has left, and once if all is there.

        Raises:
            ValueError: there are no images, resolutions that do not fit them, embeddings that cannot be used.
            OSError: from the file system; and whatever reading and embedding the images raises.
        """
        if images.count < 1:
            raise ValueError("there must be an image at least")
        task = _Task(model, images, _resolutions(resolution, images.count))
        path = self._folder / f"{task.key}.npy"
        rows = _open(path, task.key)
        if rows is None:
            return self._compute(task, path, progress or (lambda done, total: None))
        if progress is not None:
            progress(images.count, images.count)
        return rows

    def _compute(self, task: "_Task", path: Path, progress: Progress) -> Rows:
        total = task.images.count
        with _alone_in(path.with_suffix("")) as blocks:
            rows = _open(path, task.key)  # of another process, for which this one waited
            if rows is None:
                parts = []
                for start in range(0, total, self._block):
                    stop = min(start + self._block, total)
                    parts.append(_block(blocks, task, start, stop))
                    if parts[-1].shape[1] != parts[0].shape[1]:
                        lengths = f"{parts[0].shape[1]} and {parts[-1].shape[1]}"
                        raise ValueError(f"{task.model.name} gives embeddings of different lengths: {lengths}")
                    progress(stop, total)
                discard_parts(path)
                _write(path, task.key, (total, parts[0].shape[1]), parts)
                rows = _map(path)
            shutil.rmtree(blocks, ignore_errors=True)  # one that waited may be removing it, too
        return rows


class _Task:
    """What is embedded by what. key: names it. resolutions: (count,), or None for images as they are."""

    def __init__(self, model: Model, images: Images, resolutions: npt.NDArray[np.int64] | None) -> None:
        self.model, self.images, self.resolutions = model, images, resolutions
        presented = b"as they are" if resolutions is None else resolutions.astype("<i8").tobytes()
        self.key = hashlib.sha256(f"{model.digest} {images.digest} ".encode() + presented).hexdigest()

    def embed(self, start: int, stop: int) -> Rows:
        """The embeddings of some of the images."""
        shown = [self._image(index) for index in range(start, stop)]
        rows = np.asarray(self.model.embed(shown), np.float32)
        if rows.ndim != 2 or len(rows) != len(shown):
            raise ValueError(f"{self.model.name} gives embeddings of shape {rows.shape} for {len(shown)} images")
        lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
        usable = np.isfinite(lengths) & (lengths > 0)
        if not usable.all():
            name = self.images.names[start + int(np.argmin(usable))]
            raise ValueError(f"{self.model.name} gives an embedding of {name} that is zero or not finite")
        return rows

    def _image(self, index: int) -> Image:
        image = self.images.read(index)
        return image if self.resolutions is None else self.model.present(image, int(self.resolutions[index]))


def _resolutions(resolution: int | npt.ArrayLike | None, count: int) -> npt.NDArray[np.int64] | None:
    if resolution is None:
        return None
    resolutions = np.asarray(resolution)
    if resolutions.dtype.kind not in "iu" or resolutions.shape not in ((), (count,)):
        given = f"{resolutions.dtype} {resolutions.shape}"
        raise ValueError(f"resolution must be an integer, or one for each of the {count} images, not {given}")
    return np.broadcast_to(resolutions.astype(np.int64), (count,))


def _block(folder: Path, task: _Task, start: int, stop: int) -> Rows:
    """Some of the rows, from the file of an earlier run or computed and written."""
    name = f"{start}-{stop}"
    path, key = folder / f"{name}.npy", f"{task.key} {name}"
    rows = _open(path, key)
    if rows is None:
        rows = task.embed(start, stop)
        _write(path, key, (stop - start, rows.shape[1]), [rows])
        rows = _map(path)
    return rows


@contextmanager
def _alone_in(folder: Path) -> Iterator[Path]:
    """Make a folder, and wait until no other process is in it."""
    with locked(
        folder, lambda: logger.info("waiting for another process, which computes what belongs into %s", folder)
    ):
        folder.mkdir(exist_ok=True)  # the other one removed it at its end
        yield folder


def _write(path: Path, key: str, shape: tuple[int, int], parts: Iterable[Rows]) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    seal = hashlib.sha256(key.encode())
    with whole_file(path) as append:
        seal.update(header.getvalue())
        append(header.getvalue())
        for part in parts:
            content = part.astype("<f4").tobytes()
            seal.update(content)
            append(content)
        append(seal.digest())


def _open(path: Path, key: str) -> Rows | None:
    """Map the rows of a file. None where there is none; one that is damaged or has another key is removed."""
    try:
        with path.open("rb") as file:
            rest = os.fstat(file.fileno()).st_size - _SEAL
            seal = hashlib.sha256(key.encode())
            while rest > 0 and (content := file.read(min(rest, _CHUNK))):
                seal.update(content)
                rest -= len(content)
            whole = rest == 0 and file.read() == seal.digest()
    except FileNotFoundError:
        return None
    if whole:
        return _map(path)
    logger.warning("%s is damaged, or is for something else: it is removed, and computed again", path)
    path.unlink(missing_ok=True)
    return None


def _map(path: Path) -> Rows:
    rows: Rows = np.lib.format.open_memmap(path, "r")
    return rows
