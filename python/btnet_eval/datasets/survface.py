"""QMUL-SurvFace (Cheng et al., 2018): faces of surveillance cameras, for verification and identification.

The release has Face_Verification_Test_Set with positive_pairs_names.mat, negative_pairs_names.mat (cells of two
columns in the variables positive_pairs_names and negative_pairs_names) and the folder verification_images; and
Face_Identification_Test_Set with the folders gallery, mated_probe and unmated_probe. gallery_img_ID_pairs.mat
(variables gallery_set and gallery_ids) and mated_probe_img_ID_pairs.mat (mated_probe_set and mated_probe_ids) lie there
in some copies, and in Face_Identification_Evaluation in others. Unmated probes have no list: they are all images in
their folder. This is how the evaluation of BTNet (He et al., BMVC 2023) and other public code read them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from btnet_eval.base import DataError, Problems
from btnet_eval.datasets.images import NamedImages
from btnet_eval.datasets.lists import Labeled, known_labeled, known_pairs, with_mates
from btnet_eval.datasets.mat import read_labeled, read_names
from btnet_eval.verification import Pairs

SEARCH, PAIRS = "Face_Identification_Test_Set", "Face_Verification_Test_Set"
"""The folders of the release."""

_FOLDS = 10


@dataclass(frozen=True)
class OpenSet:
    """Lists of open-set identification. Each identity in `mated` is in `gallery`, no person in `unmated` is."""

    gallery: Labeled
    mated: Labeled
    unmated: tuple[str, ...]


def find_lists(folder: Path) -> tuple[Path | None, Path | None]:
    """Where the lists of identification are, and those of verification, in the release or in one of its folders.

    None: nowhere.
    """
    places = [folder, *(folder / name for name in (SEARCH, "Face_Identification_Evaluation", PAIRS))]

    def place_of(file: str) -> Path | None:
        return next((place for place in places if (place / file).is_file()), None)

    return place_of("gallery_img_ID_pairs.mat"), place_of("positive_pairs_names.mat")


def read_verification(lists: Path, images: NamedImages, problems: Problems) -> Pairs:
    """Read the pairs, the positive ones first.

    The ten folds are tenths of each list, in its order: so test_face_verification.m of the release has them, by what
    its ports to Python say.

    Args:
        lists: The folder with the two .mat files.
        images: The folder verification_images.
        problems: Told of pairs of which an image is missing; they are left out.

    Raises:
        DataError: A file that is not as above, or no pair with both images.
    """
    files = [lists / f"{kind}_pairs_names.mat" for kind in ("positive", "negative")]
    positive, negative = (read_names(file, file.stem) for file in files)
    for file, names in zip(files, (positive, negative), strict=True):
        if names.ndim != 2 or names.shape[1] != 2:
            raise DataError(f"{file}: expected two columns of names in {file.stem}, not the shape {names.shape}")
    first, second = np.concatenate([positive, negative]).T
    same = np.arange(len(first)) < len(positive)
    folds = np.concatenate([_tenths(len(positive)), _tenths(len(negative))])
    pairs = Pairs(folds, tuple(first), tuple(second), same, str(lists))

    def place(pair: int) -> str:
        return f"{files[0]}, row {pair + 1}" if same[pair] else f"{files[1]}, row {pair + 1 - len(positive)}"

    return known_pairs(pairs, images, place, problems)


def read_identification(lists: Path, images: NamedImages, problems: Problems) -> OpenSet:
    """Read gallery and probes.

    Args:
        lists: The folder with the two .mat files.
        images: The folder Face_Identification_Test_Set.
        problems: Told of images that are missing, and of mated probes of which the gallery has no image.

    Raises:
        DataError: A file that is not as above, or nothing left of the gallery or of the probes of either kind.
    """
    gallery_file = lists / "gallery_img_ID_pairs.mat"
    mated_file = lists / "mated_probe_img_ID_pairs.mat"
    gallery = read_labeled(gallery_file, "gallery_set", "gallery_ids", "gallery")
    gallery = known_labeled(gallery, images, gallery_file, problems)
    mated = read_labeled(mated_file, "mated_probe_set", "mated_probe_ids", "mated_probe")
    mated = with_mates(known_labeled(mated, images, mated_file, problems), gallery, problems)
    unmated = images.names("unmated_probe")
    if not unmated:
        raise DataError(f"{images.where}: has no images in the folder unmated_probe")
    return OpenSet(gallery, mated, unmated)


def _tenths(count: int) -> NDArray[np.int64]:
    """The fold of each row of a list."""
    return np.arange(count, dtype=np.int64) * _FOLDS // max(count, 1)
