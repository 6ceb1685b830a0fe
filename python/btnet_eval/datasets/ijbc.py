"""IJB-B and IJB-C (Maze et al., 2018), as insightface distributes their protocols in a folder meta.

- ijbc_face_tid_mid.txt: `FILE TEMPLATE MEDIUM`, a line for each face;
- ijbc_name_5pts_score.txt: `FILE X1 Y1 ... X5 Y5 SCORE`, the same faces in the same order: eyes, nose and corners of
  the mouth in pixels of the loose crop, left in the image first, and the score of the detector;
- ijbc_template_pair_label.txt: `TEMPLATE1 TEMPLATE2 LABEL`, the pairs of 1:1 verification, 1 for the same person;
- ijbc_1N_gallery_G1.csv, ijbc_1N_gallery_G2.csv, ijbc_1N_probe_mixed.csv: NIST's lists of 1:N search, a line for each
  face, below a header with TEMPLATE_ID and SUBJECT_ID.

In the text files spaces separate the columns. The readers follow insightface's eval_ijbc.py. IJB-B's files are called
ijbb_..., its galleries S1 and S2, and are the same. Loose crops are to be aligned by `align.align`.
"""

import csv
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from btnet_eval.base import DataError, Problems
from btnet_eval.datasets.images import NamedImages
from btnet_eval.datasets.lists import at_line, is_known, read_lines

_POINT_COLUMNS = 12  # name, five points, score


@dataclass(frozen=True)
class Lists:
    """Where the lists of a folder meta are; faces and landmarks may be missing, which their readers say.

    pairs, probes: None where they are missing. galleries: those that there are. found: all files that there are.
    """

    faces: Path
    landmarks: Path
    pairs: Path | None
    galleries: tuple[Path, ...]
    probes: Path | None
    found: tuple[Path, ...]


@dataclass(frozen=True)
class Faces:
    """Faces of templates.

    names: (n,); templates, media: (n,) int64. points: (n, 5, 2) float64, x and y in pixels, or None for faces that are
    aligned. scores: (n,) float64, of the detector, or None where they are not known.
    """

    names: tuple[str, ...]
    templates: NDArray[np.int64]
    media: NDArray[np.int64]
    points: NDArray[np.float64] | None
    scores: NDArray[np.float64] | None


@dataclass(frozen=True)
class TemplatePairs:
    """Pairs of templates: (n,) int32 each, and same: (n,) bool."""

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    same: NDArray[np.bool_]


@dataclass(frozen=True)
class Subjects:
    """Whom templates show: (n,) int64 each, templates in ascending order and each once."""

    templates: NDArray[np.int64]
    subjects: NDArray[np.int64]


def find_lists(meta: str | os.PathLike[str]) -> Lists:
    """Find the lists of IJB-C, or those of IJB-B, in a folder meta. Raises DataError where it has those of neither."""
    folder = Path(meta)
    for name, sets in (("ijbc", ("G1", "G2")), ("ijbb", ("S1", "S2"))):
        faces, landmarks = folder / f"{name}_face_tid_mid.txt", folder / f"{name}_name_5pts_score.txt"
        if faces.is_file():
            pairs, probes = folder / f"{name}_template_pair_label.txt", folder / f"{name}_1N_probe_mixed.csv"
            galleries = tuple(folder / f"{name}_1N_gallery_{part}.csv" for part in sets)
            found = tuple(path for path in (faces, landmarks, pairs, *galleries, probes) if path.is_file())
            return Lists(
                faces,
                landmarks,
                pairs if pairs in found else None,
                tuple(path for path in galleries if path in found),
                probes if probes in found else None,
                found,
            )
    raise DataError(f"{folder} has neither ijbc_face_tid_mid.txt nor ijbb_face_tid_mid.txt")


def read_faces(
    path: str | os.PathLike[str],
    images: NamedImages,
    problems: Problems,
    *,
    landmarks: str | os.PathLike[str] | None = None,
    aligned: bool = False,
) -> Faces:
    """Read which face belongs to which template and medium.

    Args:
        path: ijbc_face_tid_mid.txt.
        images: The folder loose_crop, or one of aligned crops with the same names.
        problems: Told of missing images, which are left out, and so are their landmarks.
        landmarks: ijbc_name_5pts_score.txt, for loose crops, which are to be aligned, or for the scores alone.
        aligned: The images are aligned crops, and landmarks are wanted for the scores alone.

    Raises:
        DataError: A line that is not as above, two files that are not of the same faces, or no image at all.
    """
    rows = [_face(line, at_line(path, number)) for number, line in enumerate(read_lines(path), start=1)]
    details = None
    if landmarks is not None:
        details = _read_landmarks(landmarks, [name for name, _, _ in rows], os.fsdecode(path))
    known = [is_known(row[0], images, at_line(path, number), problems) for number, row in enumerate(rows, start=1)]
    kept = np.flatnonzero(known)
    if not kept.size:
        raise DataError(f"{os.fsdecode(path)}: none of its images is in {images.where}")
    names, templates, media = zip(*(rows[row] for row in kept), strict=True)
    points = None if details is None or aligned else details[kept, :-1].reshape(-1, 5, 2)
    scores = None if details is None else details[kept, -1]
    return Faces(names, np.array(templates, np.int64), np.array(media, np.int64), points, scores)


def read_template_pairs(path: str | os.PathLike[str], templates: ArrayLike, problems: Problems) -> TemplatePairs:
    """Read the pairs of 1:1 verification, 15.7 million in IJB-C.

    Args:
        path: ijbc_template_pair_label.txt.
        templates: Integers, the templates that have faces, in any order and number.
        problems: Told of pairs of other templates, which are left out.

    Raises:
        DataError: A line that is not as above, or no pair whose templates both have faces.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "loadtxt: input contained no data", UserWarning)
            warnings.simplefilter("error", DeprecationWarning)  # older NumPy warns and takes 1.5 for 1
            table = np.loadtxt(path, dtype=[("first", "i4"), ("second", "i4"), ("same", "i1")], comments=None, ndmin=1)
    except (ValueError, DeprecationWarning) as error:
        raise DataError(f"{_first_bad_pair(path)} ({error})") from None
    if not table.size:
        raise DataError(f"{os.fsdecode(path)}: has no pairs")
    wrong = ~np.isin(table["same"], (0, 1))
    if wrong.any():
        (line,) = _lines_of(path, wrong.nonzero()[0][:1])
        raise DataError(f"{at_line(path, line)}: expected 1 or 0 for the same person or not")
    unknown = ~(np.isin(table["first"], templates) & np.isin(table["second"], templates))
    rows = np.flatnonzero(unknown)
    for row, line in zip(rows, _lines_of(path, rows), strict=True):
        both = f"{table['first'][row]} and {table['second'][row]}"
        problems.report(f"{at_line(path, line)}: not both templates {both} have a face")
    if unknown.all():
        raise DataError(f"{os.fsdecode(path)}: has no pair whose templates both have faces")
    table = table[~unknown]
    first, second = (np.ascontiguousarray(table[side]) for side in ("first", "second"))
    return TemplatePairs(first, second, table["same"] == 1)


def read_subjects(path: str | os.PathLike[str], templates: ArrayLike, problems: Problems) -> Subjects:
    """Read a gallery or the probes of 1:N search.

    Args:
        path: ijbc_1N_gallery_G1.csv, ijbc_1N_gallery_G2.csv or ijbc_1N_probe_mixed.csv.
        templates: Integers, the templates that have faces, in any order and number.
        problems: Told, once for each, of other templates, which are left out.

    Raises:
        DataError: A file without the two columns, a line without integers in them, a template of two subjects, or none
            that has faces.
    """
    lines = csv.reader(read_lines(path))
    header = next(lines, [])
    if not {"TEMPLATE_ID", "SUBJECT_ID"} <= set(header):
        raise DataError(f"{at_line(path, 1)}: expected a header with TEMPLATE_ID and SUBJECT_ID")
    columns = header.index("TEMPLATE_ID"), header.index("SUBJECT_ID")
    having_faces = set(np.unique(np.asarray(templates)).tolist())
    found: dict[int, int] = {}
    lost: set[int] = set()
    for number, line in enumerate(lines, start=2):
        place = at_line(path, number)
        template, subject = _integers([line[column] for column in columns if column < len(line)], 2, place)
        if found.setdefault(template, subject) != subject:
            raise DataError(f"{place}: template {template} is of subject {found[template]} in a line before")
        if template not in having_faces and template not in lost:
            problems.report(f"{place}: template {template} has no face")
            lost.add(template)
    kept = sorted(found.keys() - lost)
    if not kept:
        raise DataError(f"{os.fsdecode(path)}: has no template that has faces")
    return Subjects(np.array(kept, np.int64), np.array([found[template] for template in kept], np.int64))


def _face(line: str, place: str) -> tuple[str, int, int]:
    name, *numbers = line.split() or [""]
    template, medium = _integers(numbers, 2, place)
    return name, template, medium


def _integers(columns: list[str], count: int, place: str) -> list[int]:
    try:
        numbers = [int(column) for column in columns]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise DataError(f"{place}: expected {count} integers, not {' '.join(columns)!r:.60}")
    return numbers


def _read_landmarks(path: str | os.PathLike[str], names: list[str], faces: str) -> NDArray[np.float64]:
    """(n, 11), points and scores of those faces."""
    lines = read_lines(path)
    if len(lines) != len(names):
        raise DataError(
            f"{at_line(path, len(lines))}: the file ends after {len(lines)} faces; {faces} has {len(names)}"
        )
    details = np.empty((len(names), _POINT_COLUMNS - 1))
    for row, (line, name) in enumerate(zip(lines, names, strict=True)):
        columns = line.split()
        if columns[:1] != [name]:
            raise DataError(f"{at_line(path, row + 1)}: expected the face {name}, as in {faces}, not {line!r:.60}")
        try:
            numbers = [float(column) for column in columns[1:]]
        except ValueError:
            numbers = []
        if len(numbers) != _POINT_COLUMNS - 1 or not np.isfinite(numbers).all():
            raise DataError(f"{at_line(path, row + 1)}: expected five points and a score after the name")
        details[row] = numbers
    return details


def _lines_of(path: str | os.PathLike[str], rows: NDArray[np.intp]) -> Iterator[int]:
    """The numbers of the lines that rows, ascending, were read from: NumPy leaves out lines with nothing in them."""
    wanted = iter(rows.tolist())
    row = next(wanted, None)
    with open(path, "rb") as lines:  # noqa: PTH123
        filled = (number for number, line in enumerate(lines, start=1) if line.strip())
        for place, number in enumerate(filled):
            if place == row:
                yield number
                row = next(wanted, None)


def _first_bad_pair(path: str | os.PathLike[str]) -> str:
    """Where a file that NumPy could not read is not three integers a line."""
    with open(path, "rb") as lines:  # noqa: PTH123
        for number, line in enumerate(lines, start=1):
            columns = line.split()
            if columns and not (len(columns) == 3 and all(column.isdigit() for column in columns)):
                return f"{at_line(path, number)}: expected two templates and a label"
    return f"{os.fsdecode(path)}: expected integers below 2^31"
