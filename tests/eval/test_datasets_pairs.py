"""Pairs of any format: which one a file has, where a pair stands, what is left out."""

import pickle
from pathlib import Path

import pytest
from dataset_files import face, png, write_images, write_zip
from test_datasets_lfw import PEOPLE, TWO_FOLDS, write

from btnet_eval.base import DataError, Problems
from btnet_eval.datasets.images import open_images
from btnet_eval.datasets.pairs import open_pairs

TABLE = "fold\tpath_a\tpath_b\tsame\n0\ta.png\tb.png\t1\n1\ta.png\tgone.png\t0\n"


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_lfw_with_its_images(suffix: str, tmp_path: Path) -> None:
    names = [f"{name}/{name}_{number:04}{suffix}" for name, count in PEOPLE.items() for number in range(1, count + 1)]
    found = open_pairs(write(tmp_path, TWO_FOLDS), open_images(write_images(tmp_path / "lfw", names)))
    assert len(found.known(Problems(strict=True))) == 8
    assert found.place(3) == f"{tmp_path}/pairs.txt, line 5"


def test_table(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text(TABLE)
    found = open_pairs(tmp_path / "pairs.tsv", open_images(write_images(tmp_path / "faces", ["a.png", "b.png"])))
    problems = Problems()
    known = found.known(problems)
    assert (known.paths_a, known.paths_b, known.same.tolist()) == (("a.png",), ("b.png",), [True])
    assert problems.messages == (f"{tmp_path}/pairs.tsv, line 3: gone.png is not among the images of {tmp_path}/faces",)
    with pytest.raises(DataError, match=r"pairs\.tsv names images: say where they are with --images"):
        open_pairs(tmp_path / "pairs.tsv", None)


@pytest.mark.parametrize("name", ["pairs.tsv", "pairs.txt", "pairs.bin"])
def test_empty_files(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=rf"{name} is empty$"):
        open_pairs(tmp_path / name, None)


def test_images_in_place_of_pairs(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "faces.zip", ["a.png"])
    with pytest.raises(DataError, match=r"faces\.zip is an archive, not a list of pairs: .* --images"):
        open_pairs(archive, None)


def test_bin_has_its_own_images(tmp_path: Path) -> None:
    encoded = png(face(1))
    (tmp_path / "faces.bin").write_bytes(pickle.dumps(([encoded] * 4, [True, False])))
    found = open_pairs(tmp_path / "faces.bin", None)
    assert found.known(Problems(strict=True)).same.tolist() == [True, False]
    assert found.place(1) == f"{tmp_path}/faces.bin, pair 2"
    faces = open_images(write_images(tmp_path / "faces", ["a.png"]))
    with pytest.raises(DataError, match=r"faces\.bin has images of its own: leave out .*faces, --images"):
        open_pairs(tmp_path / "faces.bin", faces)
