"""Lists in MATLAB's .mat files, as QMUL-SurvFace and TinyFace have them: cells of file names, arrays of identities."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from btnet_eval.base import DataError
from btnet_eval.datasets.lists import Labeled


def read_names(path: Path, variable: str) -> NDArray[np.object_]:
    """File names in a cell array, in its shape, as an array of str.

    Raises DataError for a file that SciPy cannot read, for another variable and for cells that are not names, and
    OSError from the file system.
    """
    cells = _read(path, variable)
    names = np.empty(cells.shape, np.object_)
    for place, cell in np.ndenumerate(cells):
        names[place] = _name(cell)
        if not names[place]:
            row = place[0] + 1 if place else 1
            raise DataError(f"{path}, row {row}: expected the name of a file in {variable}")
    return names


def read_labeled(path: Path, names: str, identities: str, folder: str) -> Labeled:
    """Two variables of a file, names and identities, as images below `folder`.

    Raises DataError as `read_names` does, and for identities that are not as many integers.
    """
    files = read_names(path, names).reshape(-1)
    numbers = _read(path, identities).reshape(-1)
    whole = numbers.dtype.kind in "iuf" and bool((numbers == np.floor(numbers)).all())
    if not whole or len(numbers) != len(files):
        raise DataError(f"{path}: expected an integer in {identities} for each of the {len(files)} names in {names}")
    return Labeled(tuple(f"{folder}/{file}" for file in files), numbers.astype(np.int64))


def _read(path: Path, variable: str) -> NDArray[Any]:
    file = io.BytesIO(path.read_bytes())
    try:
        content: dict[str, NDArray[Any]] = loadmat(file, variable_names=[variable])
    except Exception as error:  # of all kinds for foreign files
        raise DataError(f"{path}: not a MATLAB file of version 7 or before, or cut off: {error!r}") from error
    if variable not in content:
        raise DataError(f"{path}: has no variable {variable}")
    return content[variable]


def _name(cell: Any) -> str | None:
    """A cell is an array of one string; a row of a character array is a string padded with spaces."""
    while isinstance(cell, np.ndarray) and cell.size == 1:
        cell = cell.item()
    return cell.strip() if isinstance(cell, str) else None
