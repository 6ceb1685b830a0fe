"""Images with a folder for each person: whose each one is, which can be used.

A person is the first folder of an image's name. Folders in it, of sessions for instance, are the same person's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from btnet_eval.base import DataError, Problems
from btnet_eval.datasets.images import NamedImages
from btnet_eval.embedder import Progress
from btnet_eval.session import image_sizes


@dataclass(frozen=True)
class Faces:
    """The images that can be used: names, (n,) the place of each one's person in people, (n, 2) heights and widths.

    There are two persons at least, and one of them has two images.
    """

    names: tuple[str, ...]
    persons: NDArray[np.int64]
    people: tuple[str, ...]
    sides: NDArray[np.int64]


def person_of(name: str) -> str:
    """The first folder of an image's name; empty where it is in none."""
    return name.partition("/")[0] if "/" in name else ""


def in_folders(names: Sequence[str], problems: Problems) -> list[str]:
    """The names that are in a person's folder; each other one is a problem."""
    for name in names:
        if not person_of(name):
            problems.report(f"{name}: it is in no folder of a person")
    return [name for name in names if person_of(name)]


def read_faces(images: NamedImages, problems: Problems, progress: Progress | None = None) -> Faces:
    """Decode all images; what cannot be used is a problem, and so is a person with one image, who has no genuine pair.

    Raises DataError if that leaves one person or none, or nobody with two images.
    """
    inside = in_folders(images.names(), problems)
    sizes = image_sizes(inside, images, problems, progress) if inside else {}
    people, persons = np.unique([person_of(name) for name in sizes], return_inverse=True)
    if len(people) < 2:
        found = f"only {people[0]}" if len(people) else "none"
        raise DataError(
            f"{images.where} must have a folder with images for each of two persons or more, but has {found}"
        )
    counts = np.bincount(persons)
    for person in people[counts == 1]:
        problems.report(f"{images.where}: {person} has one image, and so no pair of one person")
    if counts.max() < 2:
        raise DataError(f"{images.where}: nobody has two images, so that there is no pair of one person")
    return Faces(tuple(sizes), persons, tuple(people.tolist()), np.array(list(sizes.values())))
