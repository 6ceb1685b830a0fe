"""SCface by its file names."""

from pathlib import Path

import pytest
from dataset_files import write_images

from btnet_eval.base import DataError, Problems
from btnet_eval.datasets.images import open_images
from btnet_eval.datasets.scface import METERS, VISIBLE, read_scface

MUGSHOTS = [f"mugshots/{person:03}_frontal.jpg" for person in (1, 2, 51)]
PROBES = [
    f"cameras/{person:03}_cam{camera}_{distance}.jpg"
    for person in (1, 2, 51)
    for camera in range(1, 8)
    for distance in METERS
]
UNUSED = ["poses/001_L1.jpg", "mugshots/001_cam8.jpg", "cameras/001_cam1_4.jpg", "cameras/1_cam1_1.jpg", "logo.png"]


def test_all_distances(tmp_path: Path) -> None:
    images = open_images(write_images(tmp_path, MUGSHOTS + PROBES + UNUSED))
    found = read_scface(images, Problems(strict=True))
    assert found.gallery.names == tuple(MUGSHOTS)
    assert found.gallery.identities.tolist() == [1, 2, 51]
    assert sorted(found.probes) == [1, 2, 3]
    for distance, probes in found.probes.items():
        expected = [f"cameras/{who:03}_cam{camera}_{distance}.jpg" for who in (1, 2, 51) for camera in VISIBLE]
        assert list(probes.names) == expected
        assert probes.identities.tolist() == [1] * 5 + [2] * 5 + [51] * 5


def test_cameras_and_people(tmp_path: Path) -> None:
    images = open_images(write_images(tmp_path, MUGSHOTS + PROBES))
    found = read_scface(images, Problems(strict=True), cameras=(6, 7), people=range(51, 131))
    assert found.gallery.names == ("mugshots/051_frontal.jpg",)
    assert found.probes[3].names == ("cameras/051_cam6_3.jpg", "cameras/051_cam7_3.jpg")


def test_a_person_without_a_mugshot(tmp_path: Path) -> None:
    problems = Problems()
    found = read_scface(open_images(write_images(tmp_path, MUGSHOTS[:2] + PROBES)), problems)
    assert 51 not in found.probes[1].identities
    assert problems.count == 5 * 3
    assert problems.messages[0] == "cameras/051_cam1_1.jpg: the gallery has no image of identity 51"


def test_the_same_image_twice(tmp_path: Path) -> None:
    copies = ["z/001_frontal.jpg", "z/001_cam1_1.jpg"]
    problems = Problems()
    found = read_scface(open_images(write_images(tmp_path, MUGSHOTS + PROBES + copies)), problems)
    assert "mugshots/001_frontal.jpg" in found.gallery.names
    assert len(found.probes[1]) == 15
    assert problems.messages == (
        "z/001_cam1_1.jpg: cameras/001_cam1_1.jpg is the same image by its name",
        "z/001_frontal.jpg: mugshots/001_frontal.jpg is the same image by its name",
    )


def test_nothing_to_use(tmp_path: Path) -> None:
    write_images(tmp_path, [PROBES[0], PROBES[1]])
    with pytest.raises(DataError, match="has no mugshot"):
        read_scface(open_images(tmp_path), Problems())
    write_images(tmp_path, MUGSHOTS)
    with pytest.raises(DataError, match="no images at distance 3"):
        read_scface(open_images(tmp_path), Problems())
