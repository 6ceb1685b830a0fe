"""Verification pairs of any of the formats that are read here, with their images."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from btnet_eval.base import DataError, Problems
from btnet_eval.datasets import lfw
from btnet_eval.datasets.bin import read_bin
from btnet_eval.datasets.images import NamedImages
from btnet_eval.datasets.lists import at_line, known_pairs
from btnet_eval.verification import Pairs
from btnet_eval.verification import read_pairs as read_table


@dataclass(frozen=True)
class PairSet:
    """Pairs as a file has them, and the images that they name; path: of the file."""

    path: Path
    pairs: Pairs
    images: NamedImages

    def place(self, pair: int) -> str:
        """Where a pair stands, for messages."""
        return f"{self.path}, pair {pair + 1}" if _is_bin(self.path) else at_line(self.path, pair + 2)

    def known(self, problems: Problems) -> Pairs:
        """The pairs without those of which an image is missing. Raises DataError if none remains."""
        return known_pairs(self.pairs, self.images, self.place, problems)


def open_pairs(path: Path, images: NamedImages | None) -> PairSet:
    """Read insightface's FILE.bin, a table of `verification.read_pairs` (.tsv), or a pairs.txt of LFW or XQLFW.

    images: those that the pairs name; None for a .bin, which has its own. LFW's names end as the first of the images
    does. Raises DataError for what is in none of these formats, and OSError.
    """
    if not path.stat().st_size:
        raise DataError(f"{path} is empty")
    if path.suffix.lower() == ".zip":
        raise DataError(f"{path} is an archive, not a list of pairs: give the list, and the archive with --images")
    if _is_bin(path):
        if images is not None:
            raise DataError(f"{path} has images of its own: leave out {images.where}, --images")
        return PairSet(path, *read_bin(path))
    if images is None:
        raise DataError(f"{path} names images: say where they are with --images")
    if path.suffix.lower() == ".tsv":
        return PairSet(path, read_table(path), images)
    suffix = PurePosixPath(images.names()[0]).suffix
    return PairSet(path, lfw.read_pairs(path, suffix=suffix), images)


def _is_bin(path: Path) -> bool:
    return path.suffix.lower() == ".bin"
