"""QMUL-SurvFace's and TinyFace's lists in .mat files."""

from pathlib import Path

import numpy as np
import pytest
from dataset_files import cells, face, write_images, write_labeled
from scipy.io import savemat

from btnet_eval.base import DataError, Problems
from btnet_eval.datasets.images import open_images
from btnet_eval.datasets.mat import read_labeled, read_names
from btnet_eval.datasets.survface import find_lists, read_identification, read_verification
from btnet_eval.datasets.tinyface import read_tinyface


def survface_pairs(folder: Path, positive: list[list[str]], negative: list[list[str]]) -> Path:
    for kind, rows in (("positive", positive), ("negative", negative)):
        savemat(folder / f"{kind}_pairs_names.mat", {f"{kind}_pairs_names": cells(rows)})
    return folder


def survface_sets(folder: Path, gallery: dict[str, int], mated: dict[str, int]) -> Path:
    for file, kind, rows in (("gallery", "gallery", gallery), ("mated_probe", "mated_probe", mated)):
        names, identities = {f"{kind}_set": list(rows)}, {f"{kind}_ids": list(rows.values())}
        write_labeled(folder / f"{file}_img_ID_pairs.mat", names, identities)
    return folder


def test_survface_verification(tmp_path: Path) -> None:
    names = [f"{person}_cam{camera}_1.jpg" for person in (7, 10002) for camera in (1, 2)]
    images = open_images(write_images(tmp_path / "verification_images", names))
    positive, negative = [names[:2], names[2:]], [[names[0], names[2]], [names[1], "8_cam1_1.jpg"], names[1:3]]
    problems = Problems()
    pairs = read_verification(survface_pairs(tmp_path, positive, negative), images, problems)
    assert pairs.paths_a == (names[0], names[2], names[0], names[1])
    assert pairs.paths_b == (names[1], names[3], names[2], names[2])
    assert pairs.same.tolist() == [True, True, False, False]
    assert problems.messages == (
        f"{tmp_path}/negative_pairs_names.mat, row 2: 8_cam1_1.jpg is not among the images of {images.where}",
    )
    with pytest.raises(DataError, match="8_cam1_1"):
        read_verification(tmp_path, images, Problems(strict=True))


def test_survface_folds_are_tenths_of_each_list(tmp_path: Path) -> None:
    """Of 20 pairs of each kind; a pair that is left out leaves the others where they are."""
    names = [f"{number}.jpg" for number in range(40)]
    images = open_images(write_images(tmp_path / "verification_images", names[1:]))
    positive, negative = (list(map(list, zip(names[start::2], names[start::2], strict=True))) for start in (0, 1))
    pairs = read_verification(survface_pairs(tmp_path, positive, negative), images, Problems())
    tenths = [fold for fold in range(10) for _ in range(2)]
    assert pairs.folds.tolist() == tenths[1:] + tenths
    assert pairs.same.tolist() == [True] * 19 + [False] * 20


def test_survface_lists_are_found(tmp_path: Path) -> None:
    assert find_lists(tmp_path) == (None, None)
    pairs, search = tmp_path / "Face_Verification_Test_Set", tmp_path / "Face_Identification_Evaluation"
    for file in (pairs / "positive_pairs_names.mat", search / "gallery_img_ID_pairs.mat"):
        file.parent.mkdir()
        file.touch()
    assert find_lists(tmp_path) == (search, pairs)
    assert find_lists(pairs) == (None, pairs)
    assert find_lists(search) == (search, None)


def test_survface_verification_with_a_missing_positive(tmp_path: Path) -> None:
    images = open_images(write_images(tmp_path / "verification_images", ["a.jpg", "b.jpg"]))
    problems = Problems()
    survface_pairs(tmp_path, [["a.jpg", "c.jpg"]], [["a.jpg", "b.jpg"]])
    assert read_verification(tmp_path, images, problems).same.tolist() == [False]
    assert "positive_pairs_names.mat, row 1: c.jpg" in problems.messages[0]
    survface_pairs(tmp_path, [["a.jpg", "c.jpg"]], [["d.jpg", "b.jpg"]])
    with pytest.raises(DataError, match="no pair has both"):
        read_verification(tmp_path, images, problems)


def test_survface_verification_needs_two_columns(tmp_path: Path) -> None:
    images = open_images(write_images(tmp_path / "verification_images", ["a.jpg"]))
    survface_pairs(tmp_path, [["a.jpg", "a.jpg"]], [["a.jpg", "a.jpg", "a.jpg"]])
    with pytest.raises(DataError, match=r"negative_pairs_names\.mat: expected two columns"):
        read_verification(tmp_path, images, Problems())


def test_survface_identification(tmp_path: Path) -> None:
    files = ["gallery/1_cam1_1.jpg", "gallery/1_cam1_2.jpg", "gallery/5_cam2_1.jpg", "mated_probe/1_cam3_1.jpg"]
    unmated = ["unmated_probe/9_cam1_1.jpg", "unmated_probe/8_cam1_1.jpg"]
    images = open_images(write_images(tmp_path / "Face_Identification_Test_Set", files + unmated))
    gallery = {"1_cam1_1.jpg": 1, "1_cam1_2.jpg": 1, "5_cam2_1.jpg": 2, "6_cam2_1.jpg": 3}
    mated = {"1_cam3_1.jpg": 1, "5_cam3_1.jpg": 2}
    problems = Problems()
    lists = survface_sets(tmp_path / "Face_Identification_Evaluation", gallery, mated)
    found = read_identification(lists, images, problems)
    assert found.gallery.names == tuple(files[:3])
    assert found.gallery.identities.tolist() == [1, 1, 2]
    assert found.gallery.identities.dtype == np.int64
    assert found.mated.names == ("mated_probe/1_cam3_1.jpg",)
    assert found.mated.identities.tolist() == [1]
    assert found.unmated == tuple(sorted(unmated))
    np.testing.assert_array_equal(images.read(found.gallery.names[2]), face(2))
    assert [message.split(": ")[0] for message in problems.messages] == [
        f"{lists}/gallery_img_ID_pairs.mat, row 4",
        f"{lists}/mated_probe_img_ID_pairs.mat, row 2",
    ]


def test_survface_probes_without_a_mate(tmp_path: Path) -> None:
    """Identity 2 has no image in the gallery: its probe would count as never found."""
    files = ["gallery/a.jpg", "mated_probe/b.jpg", "mated_probe/c.jpg", "unmated_probe/d.jpg"]
    images = open_images(write_images(tmp_path / "set", files))
    problems = Problems()
    survface_sets(tmp_path, {"a.jpg": 1}, {"b.jpg": 2, "c.jpg": 1})
    assert read_identification(tmp_path, images, problems).mated.names == ("mated_probe/c.jpg",)
    assert problems.messages == ("mated_probe/b.jpg: the gallery has no image of identity 2",)
    survface_sets(tmp_path, {"a.jpg": 1}, {"b.jpg": 2})
    with pytest.raises(DataError, match=r"mated_probe/b\.jpg: the gallery has no image"):
        read_identification(tmp_path, images, problems)


def test_survface_without_unmated_probes(tmp_path: Path) -> None:
    images = open_images(write_images(tmp_path / "set", ["gallery/a.jpg", "mated_probe/b.jpg"]))
    survface_sets(tmp_path, {"a.jpg": 1}, {"b.jpg": 1})
    with pytest.raises(DataError, match="unmated_probe"):
        read_identification(tmp_path, images, Problems())


def test_tinyface(tmp_path: Path) -> None:
    files = ["Gallery_Match/1_1.jpg", "Gallery_Match/2_1.jpg", "Probe/1_2.jpg", "Probe/2_2.jpg"]
    folder = write_images(tmp_path / "Testing_Set", [*files, "Gallery_Distractor/x.jpg"])
    write_labeled(
        folder / "gallery_match_img_ID_pairs.mat",
        {"gallery_set": ["1_1.jpg", "2_1.jpg"]},
        {"gallery_ids": [3, 65535]},
    )
    probes = {"probe_set": ["2_2.jpg", "1_2.jpg", "1_3.jpg"]}
    write_labeled(folder / "probe_img_ID_pairs.mat", probes, {"probe_ids": [65535, 3, 3]})
    images, problems = open_images(folder), Problems()
    found = read_tinyface(folder, images, problems)
    assert found.gallery.names == tuple(files[:2])
    assert found.gallery.identities.tolist() == [3, 65535]
    assert found.probes.names == ("Probe/2_2.jpg", "Probe/1_2.jpg")
    assert found.probes.identities.tolist() == [65535, 3]
    assert found.distractors == ("Gallery_Distractor/x.jpg",)
    assert problems.count == 1
    assert "probe_img_ID_pairs.mat, row 3: Probe/1_3.jpg" in problems.messages[0]
    (folder / "Gallery_Distractor/x.jpg").unlink()
    assert read_tinyface(folder, open_images(folder), problems).distractors == ()
    assert "Gallery_Distractor" in problems.messages[2]


def test_rows_columns_and_character_arrays(tmp_path: Path) -> None:
    """MATLAB also keeps names as rows of a character array, padded with spaces, and integers as doubles."""
    path = tmp_path / "list.mat"
    savemat(path, {"names": np.array(["a.jpg", "bcd.jpg"]), "numbers": np.array([[1.0, 2.0]])})
    found = read_labeled(path, "names", "numbers", "below")
    assert found.names == ("below/a.jpg", "below/bcd.jpg")
    assert found.identities.tolist() == [1, 2]
    savemat(path, {"names": cells([["a.jpg", "b.jpg"]]), "numbers": np.array([[1], [2]])})
    assert read_labeled(path, "names", "numbers", "below").names == ("below/a.jpg", "below/b.jpg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"other": cells(["a.jpg"]), "numbers": [[1]]}, "no variable names"),
        ({"names": cells(["a.jpg"])}, "no variable numbers"),
        ({"names": cells(["a.jpg", "b.jpg"]), "numbers": [[1]]}, "for each of the 2 names"),
        ({"names": cells(["a.jpg"]), "numbers": [[1.5]]}, "expected an integer"),
        ({"names": cells(["a.jpg"]), "numbers": [[np.nan]]}, "expected an integer"),
        ({"names": cells(["a.jpg"]), "numbers": cells(["1"])}, "expected an integer"),
        ({"names": cells(["a.jpg", ""]), "numbers": [[1], [2]]}, "row 2: expected the name of a file"),
        ({"names": np.array([[1.0], [2.0]]), "numbers": [[1], [2]]}, "row 1: expected the name of a file"),
    ],
)
def test_other_contents(content: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "list.mat"
    savemat(path, content)
    with pytest.raises(DataError, match=rf"list\.mat.*{message}"):
        read_labeled(path, "names", "numbers", "below")


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "list.mat"
    savemat(path, {"names": cells([f"{number}.jpg" for number in range(100)])})
    whole = path.read_bytes()
    for content in (b"", b"names\n", bytes(300), whole[: len(whole) // 2], b"\x89HDF\r\n\x1a\n" + bytes(600)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"list\.mat"):
            read_names(path, "names")
    with pytest.raises(FileNotFoundError):
        read_names(tmp_path / "absent.mat", "names")
