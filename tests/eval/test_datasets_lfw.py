"""LFW's and XQLFW's pairs.txt against scikit-learn's reader of LFW, and files with errors in them."""

from pathlib import Path

import numpy as np
import pytest
from dataset_files import write_images
from sklearn.datasets import fetch_lfw_pairs

from btnet_eval.base import DataError, Problems
from btnet_eval.datasets.images import NamedImages, open_images
from btnet_eval.datasets.lfw import read_pairs
from btnet_eval.datasets.pairs import open_pairs

PEOPLE = {"Ann": 3, "Bob_de_Groot": 2, "Zoë": 12}
TWO_FOLDS = """2\t2
Ann\t1\t3
Zoë\t1\t12
Ann\t2\tBob_de_Groot\t1
Bob_de_Groot\t2\tZoë\t10
Bob_de_Groot\t1\t2
Ann\t1\t2
Zoë\t3\tAnn\t3
Ann\t1\tBob_de_Groot\t1
"""


@pytest.fixture
def images(tmp_path: Path) -> NamedImages:
    names = [f"{name}/{name}_{number:04}.jpg" for name, count in PEOPLE.items() for number in range(1, count + 1)]
    return open_images(write_images(tmp_path / "lfw", names))


def write(folder: Path, text: str) -> Path:
    path = folder / "pairs.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_two_folds(tmp_path: Path) -> None:
    pairs = read_pairs(write(tmp_path, TWO_FOLDS))
    assert pairs.folds.tolist() == [0] * 4 + [1] * 4
    assert pairs.same.tolist() == [True, True, False, False] * 2
    assert pairs.paths_a[:2] == ("Ann/Ann_0001.jpg", "Zoë/Zoë_0001.jpg")
    assert pairs.paths_b[1:4] == ("Zoë/Zoë_0012.jpg", "Bob_de_Groot/Bob_de_Groot_0001.jpg", "Zoë/Zoë_0010.jpg")


def test_spaces_windows_lines_and_empty_lines_at_the_end(tmp_path: Path) -> None:
    tidy = read_pairs(write(tmp_path, TWO_FOLDS))
    untidy = TWO_FOLDS.replace("\t", " ").replace("\n", "\r\n") + "\r\n\n"
    found = read_pairs(write(tmp_path, untidy))
    assert (found.paths_a, found.paths_b) == (tidy.paths_a, tidy.paths_b)


def test_one_number_is_one_fold(tmp_path: Path) -> None:
    text = "2\n" + "".join(TWO_FOLDS.splitlines(keepends=True)[1:5])
    pairs = read_pairs(write(tmp_path, text))
    assert pairs.folds.tolist() == [0] * 4
    assert pairs.same.tolist() == [True, True, False, False]


def test_suffix(tmp_path: Path) -> None:
    assert read_pairs(write(tmp_path, TWO_FOLDS), suffix=".png").paths_a[0] == "Ann/Ann_0001.png"


def test_same_pairs_as_scikit_learn(tmp_path: Path) -> None:
    """fetch_lfw_pairs reads the ten folds of pairs.txt and decodes the images that it names."""
    home = tmp_path / "lfw_home"
    names = [f"P{person}/P{person}_{number:04}.jpg" for person in range(4) for number in range(1, 4)]
    folder = write_images(home / "lfw", names)
    rng = np.random.default_rng(5)  # the seed of the pairs
    lines = ["10\t2"]
    for _ in range(10):
        for _ in range(2):
            person = rng.integers(4)
            lines.append("P{}\t{}\t{}".format(person, *1 + rng.permutation(3)[:2]))
        for _ in range(2):
            a, b = rng.permutation(4)[:2]
            lines.append(f"P{a}\t{rng.integers(1, 4)}\tP{b}\t{rng.integers(1, 4)}")
    path = home / "pairs.txt"
    path.write_text("\n".join(lines) + "\n")
    for name in ("pairsDevTrain.txt", "pairsDevTest.txt"):  # scikit-learn wants to have them
        (home / name).write_text("\n".join(["2", *lines[1:5]]))
    images = open_images(folder)
    mine = read_pairs(path)
    theirs = fetch_lfw_pairs(
        subset="10_folds", data_home=tmp_path, funneled=False, color=True, slice_=None, resize=None,
        download_if_missing=False,
    )  # fmt: skip
    assert mine.same.tolist() == theirs.target.astype(bool).tolist()
    for path_a, path_b, both in zip(mine.paths_a, mine.paths_b, theirs.pairs, strict=True):
        for name, pixels in zip((path_a, path_b), both, strict=True):
            # It gives them from 0 to 1, in the upper left corner of 250 x 250.
            np.testing.assert_array_equal(images.read(name), np.rint(pixels[:8, :6] * 255))


@pytest.mark.parametrize(
    ("line", "to", "number", "message"),
    [
        (1, "10\t300\t7", 1, "expected the number of folds"),
        (1, "Ann\t1\t3", 1, "expected the number of folds"),
        (1, "0\t2", 1, "expected the number of folds"),
        (1, "3\t2", 9, "ends after 8 pairs, expected 12"),
        (1, "1\t2", 9, "ends after 8 pairs, expected 4"),
        (2, "Ann\t1\tBob_de_Groot\t1", 2, "this line and the 3 that follow not 2 of each kind"),
        (8, "Ann\t1\t3", 6, "this line and the 3 that follow not 2 of each kind"),
        (5, "", 5, "expected NAME N1 N2 or"),
        (5, "Ann\t1\tZoë\tx", 5, "the number of an image, not 'x'"),
        (5, "Ann\t-1\tZoë\t1", 5, "the number of an image, not '-1'"),
    ],
)
def test_lines_with_errors(line: int, to: str, number: int, message: str, tmp_path: Path) -> None:
    lines = TWO_FOLDS.splitlines()
    lines[line - 1] = to
    with pytest.raises(DataError, match=rf"pairs\.txt, line {number}: .*{message}"):
        read_pairs(write(tmp_path, "\n".join(lines)))


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_bytes(b"2\t2\nAnn\t1\t3\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"pairs\.txt, line 3: text that is not UTF-8"):
        read_pairs(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"pairs\.txt, line 1: "):
        read_pairs(path)


def test_missing_images_are_counted_or_stop(images: NamedImages, tmp_path: Path) -> None:
    path = write(tmp_path, TWO_FOLDS.replace("Ann\t2\tBob_de_Groot\t1", "Ann\t4\tNobody\t1"))
    problems = Problems()
    pairs = open_pairs(path, images).known(problems)
    assert len(pairs) == 7
    assert pairs.folds.tolist() == [0] * 3 + [1] * 4
    assert pairs.same.tolist() == [True, True, False, True, True, False, False]
    assert problems.count == 2
    assert problems.messages == tuple(
        f"{path}, line 4: {name} is not among the images of {tmp_path / 'lfw'}"
        for name in ("Ann/Ann_0004.jpg", "Nobody/Nobody_0001.jpg")
    )
    with pytest.raises(DataError, match="line 4: Ann/Ann_0004"):
        open_pairs(path, images).known(Problems(strict=True))


def test_any_order_within_a_fold(tmp_path: Path) -> None:
    header, *lines = TWO_FOLDS.splitlines()
    lines[0], lines[3] = lines[3], lines[0]
    pairs = read_pairs(write(tmp_path, "\n".join([header, *lines])))
    assert pairs.same.tolist() == [False, True, False, True, True, True, False, False]
    assert pairs.paths_b[0] == "Zoë/Zoë_0010.jpg"
