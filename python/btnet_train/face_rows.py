"""Arrays with a row for each face, computed once and kept in a file: targets of a teacher, outputs of a trunk."""

import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray
from tqdm import tqdm

from btnet_ext import resize
from btnet_ext.whole_files import whole_file
from btnet_train.topology import CANONICAL

_BLOCK = 64  # faces in memory at a time

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
    again, and the log says why. Several processes may do this at the same time, but then each computes. title: of
    the progress bar. check: raises ValueError for rows that cannot be right.

    Raises what compute raises, and OSError that names the file.
    """
    expected = (len(faces), *shape)
    if path.exists():
        try:
            return _open(path, np.dtype(dtype), expected, check)
        except ValueError as error:
            logger.warning("%s is computed again: %s", path, error)
    header = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": expected})
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as append, tqdm(total=len(faces), desc=title, disable=None) as progress:
        append(header.getvalue())
        for start in range(0, len(faces), _BLOCK):
            indices = range(start, min(start + _BLOCK, len(faces)))
            append(compute(indices).tobytes())
            progress.update(len(indices))
    return _open(path, np.dtype(dtype), expected, check)


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
