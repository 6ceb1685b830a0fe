"""IJB-C's lists, and alignment against scikit-image."""

from pathlib import Path

import numpy as np
import pytest
from dataset_files import face, write_images
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import SimilarityTransform, warp

from btnet_eval.base import DataError, Problems
from btnet_eval.datasets.align import align
from btnet_eval.datasets.ijbc import find_lists, read_faces, read_subjects, read_template_pairs
from btnet_eval.datasets.images import NamedImages, open_images

FACES = "1.jpg 1 69544\n2.jpg 1 69544\n3.jpg 2 28181\n4.jpg 40 7\n"
# insightface's template for 96 columns, and the 8 that it adds to x for 112.
TEMPLATE = np.array(
    [[30.2946, 51.6963], [65.5318, 51.5014], [48.0252, 71.7366], [33.5493, 92.3655], [62.7299, 92.2041]]
) + np.array([8, 0])


@pytest.fixture
def images(tmp_path: Path) -> NamedImages:
    return open_images(write_images(tmp_path / "loose_crop", [f"{number}.jpg" for number in range(1, 5)]))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def landmark_line(number: int) -> str:
    return f"{number}.jpg " + " ".join(f"{number}{place}.5" for place in range(10)) + f" 0.{number}\n"


LANDMARKS = "".join(landmark_line(number) for number in range(1, 5))


def test_faces(images: NamedImages, tmp_path: Path) -> None:
    path = write(tmp_path / "tid_mid.txt", FACES)
    faces = read_faces(path, images, Problems(strict=True))
    assert faces.names == ("1.jpg", "2.jpg", "3.jpg", "4.jpg")
    assert faces.templates.tolist() == [1, 1, 2, 40]
    assert faces.media.tolist() == [69544, 69544, 28181, 7]
    assert faces.points is None
    assert faces.scores is None
    np.testing.assert_array_equal(images.read(faces.names[3]), face(3))


def test_landmarks_go_with_their_faces(images: NamedImages, tmp_path: Path) -> None:
    """Face 5 has no image: its line is left out of both files."""
    path = write(tmp_path / "tid_mid.txt", "5.jpg 3 3\n" + FACES)
    points = write(tmp_path / "points.txt", landmark_line(5) + LANDMARKS)
    problems = Problems()
    faces = read_faces(path, images, problems, landmarks=points)
    assert faces.names[0] == "1.jpg"
    assert faces.points is not None
    assert faces.points.shape == (4, 5, 2)
    assert faces.points[1].tolist() == [[20.5, 21.5], [22.5, 23.5], [24.5, 25.5], [26.5, 27.5], [28.5, 29.5]]
    assert faces.scores is not None
    assert faces.scores.tolist() == [0.1, 0.2, 0.3, 0.4]
    assert problems.messages == (f"{path}, line 1: 5.jpg is not among the images of {images.where}",)
    with pytest.raises(DataError, match="line 1: 5"):
        read_faces(path, images, Problems(strict=True), landmarks=points)
    aligned = read_faces(path, images, Problems(), landmarks=points, aligned=True)
    assert aligned.points is None
    assert aligned.scores is not None
    assert aligned.scores.tolist() == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("3.jpg 2 28181", "3.jpg 2", r"tid_mid\.txt, line 3: expected 2 integers, not '2'"),
        ("3.jpg 2 28181", "3.jpg 2 28181 1", r"tid_mid\.txt, line 3: expected 2 integers"),
        ("3.jpg 2 28181", "3.jpg 2 x", r"tid_mid\.txt, line 3: expected 2 integers, not '2 x'"),
        ("3.jpg 2 28181", "", r"tid_mid\.txt, line 3: expected 2 integers"),
        ("1.jpg 1 69544\n", "", r"points\.txt, line 4: .* after 4 faces; .*tid_mid\.txt has 3"),
        ("3.jpg 2 28181", "2.jpg 2 28181", r"points\.txt, line 3: expected the face 2\.jpg"),
    ],
)
def test_errors_in_faces(old: str, new: str, message: str, images: NamedImages, tmp_path: Path) -> None:
    path = write(tmp_path / "tid_mid.txt", FACES.replace(old, new))
    points = write(tmp_path / "points.txt", LANDMARKS)
    with pytest.raises(DataError, match=message):
        read_faces(path, images, Problems(), landmarks=points)


@pytest.mark.parametrize(
    ("old", "new"),
    [(" 0.3", ""), ("35.5", "nan"), ("35.5", "x"), (" 0.3", " 0.3 1"), (landmark_line(3).strip(), "3.jpg 38.3")],
)
def test_errors_in_landmarks(old: str, new: str, images: NamedImages, tmp_path: Path) -> None:
    path = write(tmp_path / "tid_mid.txt", FACES)
    points = write(tmp_path / "points.txt", LANDMARKS.replace(old, new))
    with pytest.raises(DataError, match=r"points\.txt, line 3: expected five points and a score"):
        read_faces(path, images, Problems(), landmarks=points)


def test_no_image_at_all(images: NamedImages, tmp_path: Path) -> None:
    for text in ("", "9.jpg 1 1\n"):
        with pytest.raises(DataError, match=r"tid_mid\.txt: none of its images"):
            read_faces(write(tmp_path / "tid_mid.txt", text), images, Problems())


def test_lines_with_nothing_in_them_count(tmp_path: Path) -> None:
    """NumPy passes over them."""
    problems = Problems()
    path = write(tmp_path / "label.txt", "\n1 2 0\n\n   \n1 99 1\n2 1 0\n\n98 1 1\n")
    assert len(read_template_pairs(path, [1, 2], problems).same) == 2
    both = [(5, "1 and 99"), (8, "98 and 1")]
    assert problems.messages == tuple(f"{path}, line {line}: not both templates {t} have a face" for line, t in both)
    with pytest.raises(DataError, match=r"label\.txt, line 4: expected 1 or 0"):
        read_template_pairs(write(path, "1 2 0\n\n\n1 2 5\n1 2 6\n"), [1, 2], Problems())


def test_template_pairs(tmp_path: Path) -> None:
    path = write(tmp_path / "label.txt", "1 2 0\n2 40 1\n40 3 1\n1 40 0\n\n")
    problems = Problems()
    pairs = read_template_pairs(path, [40, 1, 1, 2], problems)
    assert pairs.first.tolist() == [1, 2, 1]
    assert pairs.second.tolist() == [2, 40, 40]
    assert pairs.same.tolist() == [False, True, False]
    assert problems.messages == (f"{path}, line 3: not both templates 40 and 3 have a face",)
    with pytest.raises(DataError, match="line 3"):
        read_template_pairs(path, [40, 1, 2], Problems(strict=True))
    with pytest.raises(DataError, match="no pair whose templates"):
        read_template_pairs(path, [7], Problems())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 0\n1 2\n", "line 2: expected two templates and a label"),
        ("1 2 0\n1 2 0\n1 b 0\n", "line 3: expected two templates and a label"),
        ("1 2 0\n1.5 2 0\n", "line 2: expected two templates and a label"),
        ("1 2 0 1\n", "line 1: expected two templates and a label"),
        ("1 2 0\n1 2 2\n", "line 2: expected 1 or 0"),
        ("1 2 300\n", "expected"),
        ("4294967297 2 1\n", "expected integers"),
    ],
)
def test_errors_in_template_pairs(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"label\.txt.*{message}"):
        read_template_pairs(write(tmp_path / "label.txt", text), [1, 2], Problems())


def test_no_template_pairs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"label\.txt: has no pairs"):
        read_template_pairs(write(tmp_path / "label.txt", "\n"), [1, 2], Problems())


HEADER = "TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID,FACE_X\n"


def test_subjects(tmp_path: Path) -> None:
    rows = ["40,9,img/1.png,1,", "1,8,img/2.png,2,3.5", '40,9,"img/3,4.png",1,', "7,5,img/4.png,1,", "7,5,img/5.png,1,"]
    text = "\n".join([HEADER.strip(), *rows])
    path = write(tmp_path / "G1.csv", text)
    problems = Problems()
    found = read_subjects(path, np.array([1, 2, 40, 40]), problems)
    assert found.templates.tolist() == [1, 40]
    assert found.subjects.tolist() == [8, 9]
    assert problems.messages == (f"{path}, line 5: template 7 has no face",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected a header"),
        ("TEMPLATE_ID,FILENAME\n1,a.png\n", "line 1: expected a header"),
        (HEADER + "1,8,a.png\n1,9,b.png\n", "line 3: template 1 is of subject 8"),
        (HEADER + "1,8,a.png\n2\n", "line 3: expected 2 integers"),
        (HEADER + "1,x,a.png\n", "line 2: expected 2 integers"),
        (HEADER, "no template that has faces"),
        (HEADER + "3,8,a.png\n", "no template that has faces"),
    ],
)
def test_errors_in_subjects(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"G1\.csv.*{message}"):
        read_subjects(write(tmp_path / "G1.csv", text), [1, 2], Problems())


def by_scikit_image(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    fitted = SimilarityTransform.from_estimate(points, TEMPLATE)
    warped: np.ndarray = warp(  # type: ignore[no-untyped-call]
        image, fitted.inverse, output_shape=(112, 112), order=1, preserve_range=True
    )
    return warped


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(2, 150), st.integers(2, 150)),
    scale=st.floats(0.2, 3),
    angle=st.floats(-3.1, 3.1),
    noise=st.floats(0, 5),
)
def test_align_is_scikit_images(seed: int, size: tuple[int, int], scale: float, angle: float, noise: float) -> None:
    """Turned, scaled and inexact landmarks, also ones for which most of the crop is outside of the image."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (TEMPLATE - 56) @ turn.T + np.array(size[::-1]) / 2 + noise * rng.standard_normal((5, 2))
    aligned = align(image, points)
    assert aligned.dtype == np.uint8
    # No more than the rounding to integers.
    assert np.abs(aligned - by_scikit_image(image, points)).max() <= 0.5 + 1e-6


def test_align_of_an_aligned_face_is_the_face() -> None:
    image = face(1, 112, 112)
    np.testing.assert_array_equal(align(image, TEMPLATE), image)
    np.testing.assert_array_equal(align(np.pad(image, ((5, 0), (9, 0), (0, 0))), TEMPLATE + np.array([9, 5])), image)


@pytest.mark.parametrize("points", [np.ones((5, 2)), np.full((5, 2), np.nan), TEMPLATE[:4], TEMPLATE.T])
def test_points_that_cannot_be_used(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="points must"):
        align(face(0), points)


@pytest.mark.parametrize(("name", "parts"), [("ijbc", ("G1", "G2")), ("ijbb", ("S1", "S2"))])
def test_lists_of_a_folder(tmp_path: Path, name: str, parts: tuple[str, str]) -> None:
    with pytest.raises(DataError, match=r"has neither ijbc_face_tid_mid\.txt nor ijbb_face_tid_mid\.txt"):
        find_lists(tmp_path)
    faces = write(tmp_path / f"{name}_face_tid_mid.txt", FACES)
    lists = find_lists(tmp_path)
    assert (lists.faces, lists.pairs, lists.galleries, lists.probes, lists.found) == (faces, None, (), None, (faces,))
    files = [
        "name_5pts_score.txt",
        "template_pair_label.txt",
        f"1N_gallery_{parts[0]}.csv",
        f"1N_gallery_{parts[1]}.csv",
    ]
    paths = [write(tmp_path / f"{name}_{file}", "") for file in [*files, "1N_probe_mixed.csv"]]
    lists = find_lists(tmp_path)
    assert [lists.landmarks, lists.pairs, *lists.galleries, lists.probes] == paths
    assert lists.found == (faces, *paths)
