"""Arrays with a row for each face, computed once and kept in a file: targets of a teacher, outputs of a trunk."""

import io
import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray
from tqdm import tqdm

from btnet_ext import resize
from btnet_ext.whole_files import locked, naming, whole_file, write_all
from btnet_train.topology import CANONICAL

_BLOCK = 64  # faces in memory at a time
_KEPT = 1024  # faces that a power cut may cost

logger = logging.getLogger(__name__)


class FaceImages(Protocol):
    """What is needed of `btnet_train.sources.Faces`."""

    @property
    def digest(self) -> str: ...  # noqa: D102

    @property
    def names(self) -> Sequence[str]: ...  # noqa: D102

    def __len__(self) -> int: ...

    def read(self, index: int) -> NDArray[np.uint8]: ...  # noqa: D102


def face_rows(
    path: Path,
    faces: FaceImages,
    dtype: DTypeLike,
    shape: tuple[int, ...],
    compute: Callable[[Sequence[int]], NDArray[Any]],
    *,
    title: str,
    check: Callable[[NDArray[Any]], None] = lambda rows: None,
) -> NDArray[Any]:
    """Return an array (len(faces), *shape), mapped read-only, whose rows `compute` gives for numbers of faces.

    They are computed once and kept in `path`. The file appears whole or not at all; one that is damaged is computed
    again, and the log says why. What an interrupted process has computed is gone on with. Of several processes that
    want the same, on one machine, one computes and the others wait. title: of the progress bar. check: raises
    ValueError for rows that cannot be right.

    Raises what compute raises, and OSError that names the file.
    """
    kind, expected = np.dtype(dtype), (len(faces), *shape)
    with locked(path.parent, lambda: logger.info("waiting for another process, which computes in %s", path.parent)):
        if path.exists():
            try:
                return _open(path, kind, expected, check)
            except ValueError as error:
                logger.warning("%s is computed again: %s", path, error)
        with _Growing(path, kind, expected) as file, tqdm(total=len(faces), desc=title, disable=None) as progress:
            progress.update(file.rows)
            for start in range(file.rows, len(faces), _BLOCK):
                indices = range(start, min(start + _BLOCK, len(faces)))
                file.append(compute(indices))
                progress.update(len(indices))
        return _open(path, kind, expected, check)


class _Growing:
    """The file that becomes `path` once it has all rows, at the end of a `with`.

    After an error it stays as it is and is gone on with, but for one of the disk: then it is removed. rows: those that
    it has. How many are on the disk for sure is in a file of its own, since after a power cut a file may be longer than
    what was written of it.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._path, self._count = path, shape[0]
        self._part, self._mark = (path.with_name(f".{path.name}.{kind}") for kind in ("part", "rows"))
        header = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(dtype)
        np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
        self._header = header.getvalue()
        self._row = dtype.itemsize * math.prod(shape[1:])
        self.rows = int(self._mark.read_text()) if self._part.exists() and self._mark.exists() else 0
        if self.rows and self._part.stat().st_size < self._end:
            self.rows = 0
        self._kept = self.rows

    @property
    def _end(self) -> int:
        return len(self._header) + self.rows * self._row

    def __enter__(self) -> "_Growing":
        with naming(self._path):
            self._file = self._part.open("r+b" if self.rows else "wb", buffering=0)
            if self.rows:
                self._file.truncate(self._end)
                self._file.seek(self._end)
            else:
                write_all(self._file, self._header)
        return self

    def append(self, rows: NDArray[Any]) -> None:
        """Write some more rows."""
        with naming(self._path):
            write_all(self._file, rows.tobytes())
        self.rows += len(rows)
        if self.rows - self._kept >= _KEPT:
            self._keep()

    def _keep(self) -> None:
        with naming(self._path):
            os.fsync(self._file.fileno())
        with whole_file(self._mark) as append:
            append(str(self.rows).encode())
        self._kept = self.rows

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if self.rows == self._count:
                with naming(self._path):
                    os.fsync(self._file.fileno())
                    self._part.rename(self._path)
            elif self.rows and not isinstance(error, OSError):
                self._keep()
                return
        self._part.unlink(missing_ok=True)
        self._mark.unlink(missing_ok=True)


def read_canonical(faces: FaceImages, indices: Sequence[int]) -> NDArray[np.uint8]:
    """Return faces (n, 112, 112, 3), resized where they are not of that size. Raises as `faces.read`."""
    return np.stack([resize(faces.read(index), (CANONICAL, CANONICAL)) for index in indices])


def _open(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], check: Callable[[NDArray[Any]], None]
) -> NDArray[Any]:
    """Map a file of rows. ValueError for one that is damaged, or holds something else."""
    try:
        rows: NDArray[Any] = np.lib.format.open_memmap(path, "r")
    except OSError:
        raise
    except Exception as error:  # headers of damaged files raise nearly anything
        raise ValueError(f"it is damaged ({error})") from error
    if rows.dtype != dtype or rows.shape != shape or not rows.flags.c_contiguous:
        raise ValueError(f"it holds {rows.dtype} {rows.shape}, expected {dtype} {shape}")
    check(rows)
    return rows
