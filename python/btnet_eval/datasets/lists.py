"""What the benchmarks' lists have in common: lines of text, images with identities, names checked against images."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from btnet_eval.base import DataError, Problems
from btnet_eval.datasets.images import NamedImages
from btnet_eval.verification import Pairs


@dataclass(frozen=True)
class Labeled:
    """Images and whom they show. names: (n,), as `NamedImages` has them; identities: (n,) int64."""

    names: tuple[str, ...]
    identities: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """Lines of a UTF-8 file without the white space at their ends; empty lines at the end of the file are left out.

    Raises DataError, which names the line that is not UTF-8, and OSError from the file system.
    """
    lines: list[str] = []
    with open(path, "rb") as file:  # noqa: PTH123  (any path that open takes)
        for number, line in enumerate(file, start=1):
            try:
                lines.append(line.decode().strip())
            except UnicodeDecodeError:
                raise DataError(f"{at_line(path, number)}: text that is not UTF-8") from None
    while lines and not lines[-1]:
        lines.pop()
    return lines


def at_line(path: str | os.PathLike[str], number: int) -> str:
    """What messages begin with; lines count from 1."""
    return f"{os.fsdecode(path)}, line {number}"


def is_known(name: str, images: NamedImages, place: str, problems: Problems) -> bool:
    """Tell whether there is an image of that name; if not, that is a problem at `place`, such as `FILE, line 3`."""
    if name in images:
        return True
    problems.report(f"{place}: {name} is not among the images of {images.where}")
    return False


def known_pairs(pairs: Pairs, images: NamedImages, place: Callable[[int], str], problems: Problems) -> Pairs:
    """Leave out pairs of which an image is missing; `place(i)` says where pair i was read.

    For the pairs of `verification.read_pairs(path)` that is `lambda pair: at_line(path, pair + 2)`. Raises DataError
    if no pair remains.
    """
    known = np.ones(len(pairs), np.bool_)
    for pair, names in enumerate(zip(pairs.paths_a, pairs.paths_b, strict=True)):
        for name in names:
            known[pair] &= is_known(name, images, place(pair), problems)
    kept = np.flatnonzero(known)
    if not kept.size:
        raise DataError(f"{place(0)}: of this pair and all that follow, no pair has both its images in {images.where}")
    return pairs.take(kept)


def known_labeled(labeled: Labeled, images: NamedImages, path: str | os.PathLike[str], problems: Problems) -> Labeled:
    """Leave out rows of `path` of which the image is missing. Raises DataError if none remains."""
    rows = enumerate(labeled.names, start=1)
    kept = np.flatnonzero([is_known(name, images, f"{os.fsdecode(path)}, row {row}", problems) for row, name in rows])
    if not kept.size:
        raise DataError(f"{os.fsdecode(path)}: none of its images is in {images.where}")
    return Labeled(tuple(labeled.names[row] for row in kept), labeled.identities[kept])


def with_mates(probes: Labeled, gallery: Labeled, problems: Problems) -> Labeled:
    """Leave out probes whose identity the gallery does not have. Raises DataError if none remains."""
    mated = np.isin(probes.identities, gallery.identities)
    for row in np.flatnonzero(~mated):
        problems.report(f"{probes.names[row]}: the gallery has no image of identity {probes.identities[row]}")
    if not mated.any():
        raise DataError(f"{probes.names[0]}: the gallery has no image of this person, nor of anyone in a probe")
    return Labeled(tuple(probes.names[row] for row in np.flatnonzero(mated)), probes.identities[mated])
