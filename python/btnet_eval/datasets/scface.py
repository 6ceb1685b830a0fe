"""SCface (Grgic et al., 2011): mugshots as gallery, faces of surveillance cameras at three distances as probes.

Everything is in the file names: 001_frontal.jpg is the mugshot of person 1, 001_cam2_3.jpg the person at distance 3
from camera 2. Distances 1, 2 and 3 are 4.20, 2.60 and 1.00 m. Cameras 1 to 5 see visible light; cam6 and cam7 are
infrared. Other files of the release (poses such as 001_L1.jpg, infrared mugshots 001_cam8.jpg) are not used. This is
from the README of Idiap's protocol for SCface (McLaren and Wallace, 2012).
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar

import numpy as np

from btnet_eval.base import DataError, Problems
from btnet_eval.datasets.images import NamedImages
from btnet_eval.datasets.lists import Labeled, with_mates

METERS = {1: 4.2, 2: 2.6, 3: 1.0}
"""How far from the camera the distances are."""

VISIBLE = (1, 2, 3, 4, 5)
"""The cameras that see visible light."""

_Key = TypeVar("_Key")
_MUGSHOT = re.compile(r"(\d{3})_frontal")
_PROBE = re.compile(r"(\d{3})_cam(\d)_([123])")


@dataclass(frozen=True)
class SCface:
    """gallery: a mugshot a person. probes: for each distance, 1 to 3, images of people in the gallery."""

    gallery: Labeled
    probes: dict[int, Labeled]


def read_scface(
    images: NamedImages,
    problems: Problems,
    *,
    cameras: Collection[int] = VISIBLE,
    people: Collection[int] | None = None,
) -> SCface:
    """Sort images by their file names; folders do not count.

    Args:
        images: A folder with mugshots and images of the cameras. The release has each image several times (cropped and
            original, by distance and all in one): copy or link those that are to be used into one folder.
        problems: Told of images with a name that another one has, and of probes without a mugshot.
        cameras: The cameras whose images are the probes.
        people: Numbers of the people who count, 1 to 130; all if None. Models that were fine-tuned on the first 50 are
            tested on range(51, 131).

    Raises:
        DataError: No mugshot, or no probe at one of the distances.
    """
    mugshots: dict[int, str] = {}
    found: dict[tuple[int, int, int], str] = {}
    for name in images.names():
        stem = PurePosixPath(name).stem
        if (match := _MUGSHOT.fullmatch(stem)) and _counts(int(match[1]), people):
            _keep(mugshots, int(match[1]), name, problems)
        elif (match := _PROBE.fullmatch(stem)) and _counts(int(match[1]), people) and int(match[2]) in cameras:
            _keep(found, (int(match[3]), int(match[1]), int(match[2])), name, problems)
    if not mugshots:
        raise DataError(f"{images.where}: has no mugshot, such as 001_frontal.jpg")
    gallery = Labeled(tuple(mugshots.values()), np.array(list(mugshots), np.int64))
    probes: dict[int, Labeled] = {}
    for distance in METERS:
        at = {key: name for key, name in found.items() if key[0] == distance}
        if not at:
            raise DataError(f"{images.where}: has no images at distance {distance}, such as 001_cam1_{distance}.jpg")
        people_at = np.array([person for _, person, _ in at], np.int64)
        probes[distance] = with_mates(Labeled(tuple(at.values()), people_at), gallery, problems)
    return SCface(gallery, probes)


def _counts(person: int, people: Collection[int] | None) -> bool:
    return people is None or person in people


def _keep(images: dict[_Key, str], key: _Key, name: str, problems: Problems) -> None:
    if key in images:
        problems.report(f"{name}: {images[key]} is the same image by its name")
    else:
        images[key] = name
