"""TinyFace (Cheng et al., ACCV 2018): closed-set identification among distractors.

The release's Testing_Set has the folders Gallery_Match, Probe and Gallery_Distractor, and the files
gallery_match_img_ID_pairs.mat (variables gallery_set and gallery_ids) and probe_img_ID_pairs.mat (probe_set and
probe_ids). Distractors have no list: they are all images in their folder, and are searched together with the gallery.
Aligned copies keep the names of folders and files. This is how AdaFace's validate_tinyface.py (Kim et al., CVPR 2022)
reads them, and the release's own evaluation in MATLAB.
"""

from dataclasses import dataclass
from pathlib import Path

from btnet_eval.base import Problems
from btnet_eval.datasets.images import NamedImages
from btnet_eval.datasets.lists import Labeled, known_labeled, with_mates
from btnet_eval.datasets.mat import read_labeled


@dataclass(frozen=True)
class TinyFace:
    """Each identity in `probes` is in `gallery`; nobody in `distractors`, which may be empty, is in `probes`."""

    gallery: Labeled
    probes: Labeled
    distractors: tuple[str, ...]


def read_tinyface(lists: Path, images: NamedImages, problems: Problems) -> TinyFace:
    """Read gallery, probes and distractors.

    Args:
        lists: The folder with the two .mat files.
        images: The folder with the folders Gallery_Match, Probe and Gallery_Distractor.
        problems: Told of images that are missing, and of probes of which the gallery has no image; and, once, if there
            are no distractors, without which rates are not those of the papers.

    Raises:
        DataError: A file that is not as above, or nothing left of the gallery or of the probes.
    """
    gallery_file = lists / "gallery_match_img_ID_pairs.mat"
    probe_file = lists / "probe_img_ID_pairs.mat"
    gallery = read_labeled(gallery_file, "gallery_set", "gallery_ids", "Gallery_Match")
    gallery = known_labeled(gallery, images, gallery_file, problems)
    probes = read_labeled(probe_file, "probe_set", "probe_ids", "Probe")
    probes = with_mates(known_labeled(probes, images, probe_file, problems), gallery, problems)
    distractors = images.names("Gallery_Distractor")
    if not distractors:
        problems.report(f"{images.where}: has no images in the folder Gallery_Distractor")
    return TinyFace(gallery, probes, distractors)
