"""Pairs of LFW (Huang et al., 2007) and of XQLFW (Knoche et al., 2021), which has LFW's files and layout.

pairs.txt begins with the number of folds and the number k of pairs of each kind in a fold, `10 300`, or with k alone,
which stands for one fold (pairsDevTrain.txt and pairsDevTest.txt). In each fold k lines `NAME N1 N2` follow, which are
the same person, and k lines `NAME1 N1 NAME2 N2`, which are different ones, with tabs between the columns. Here they may
be in any order within a fold. The tenth image of George_W_Bush is George_W_Bush/George_W_Bush_0010.jpg. All this is
from LFW's README.txt; XQLFW's release has xqlfw_pairs.txt, and images in folders of the same names.
"""

import os

import numpy as np

from btnet_eval.base import DataError
from btnet_eval.datasets.lists import at_line, read_lines
from btnet_eval.verification import Pairs

_Row = tuple[str, str, bool]


def read_pairs(path: str | os.PathLike[str], *, suffix: str = ".jpg") -> Pairs:
    """Read a pairs.txt, or XQLFW's xqlfw_pairs.txt. Folds count from 0; pair i is in line i + 2.

    suffix: how the images' names end; some aligned copies of LFW are .png. Raises DataError for a line that is not as
    above, and for a file with more or fewer of them.
    """
    lines = read_lines(path)
    folds, kind = _read_header(path, lines)
    expected = folds * kind * 2
    if len(lines) - 1 != expected:
        raise DataError(
            f"{at_line(path, len(lines))}: the file ends after {len(lines) - 1} pairs, expected {expected} by line 1"
        )
    rows = [_parse(line, at_line(path, pair + 2), suffix) for pair, line in enumerate(lines[1:])]
    paths_a, paths_b, same = zip(*rows, strict=True)
    numbers = np.repeat(np.arange(folds, dtype=np.int64), 2 * kind)
    pairs = Pairs(numbers, paths_a, paths_b, np.array(same, np.bool_), os.fsdecode(path))
    uneven = np.flatnonzero(pairs.same.reshape(folds, -1).sum(axis=1) != kind)
    if uneven.size:
        first = int(uneven[0]) * 2 * kind + 2
        raise DataError(
            f"{at_line(path, first)}: in this line and the {2 * kind - 1} that follow not {kind} of each kind"
        )
    return pairs


def _read_header(path: str | os.PathLike[str], lines: list[str]) -> tuple[int, int]:
    columns = lines[0].split() if lines else []
    numbers = [int(column) for column in columns if _is_number(column)]
    if len(numbers) != len(columns) or len(numbers) not in (1, 2) or 0 in numbers:
        raise DataError(
            f"{at_line(path, 1)}: expected the number of folds and of pairs of each kind in a fold, such as 10 300"
        )
    return (1, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


def _parse(line: str, place: str, suffix: str) -> _Row:
    columns = line.split()
    if len(columns) not in (3, 4):
        raise DataError(f"{place}: expected NAME N1 N2 or NAME1 N1 NAME2 N2, not {line!r:.80}")
    same = len(columns) == 3
    if same:
        columns.insert(2, columns[0])
    names = []
    for person, number in (columns[:2], columns[2:]):
        if not _is_number(number):
            raise DataError(f"{place}: expected the number of an image, not {number!r:.40}")
        names.append(f"{person}/{person}_{int(number):04}{suffix}")
    return names[0], names[1], same


def _is_number(column: str) -> bool:
    return column.isascii() and column.isdecimal() and len(column) <= 9
