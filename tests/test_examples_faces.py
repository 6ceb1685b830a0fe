"""The example faces: what they are, and that they are what examples/make_faces.py makes."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
FACES = EXAMPLES / "faces"
BRANCH = {7: 7, 9: 14, 11: 14, 14: 14, 28: 28, 60: 112, 112: 112, 128: 112, 200: 112}
"""Side of a crop and the branch that serves it, by hand: rounded up to 7, 14, 28 or 112."""


def crops() -> list[Path]:
    return sorted(path for path in FACES.iterdir() if path.suffix != ".md")


def side_of(path: Path) -> int:
    return int(path.stem.partition("_")[2])


def test_both_people_at_several_resolutions() -> None:
    sides: dict[str, list[int]] = {}
    for path in crops():
        person, side = re.fullmatch(r"(\w+)_(\d{3})\.(?:png|jpg)", path.name).groups()  # type: ignore[union-attr]
        sides.setdefault(person, []).append(int(side))
    assert sides == {"collins": [7, 9, 14, 28, 60, 112, 128], "hopper": [7, 11, 14, 28, 60, 112, 200]}


def test_each_is_a_small_square_rgb_image() -> None:
    for path in crops():
        assert path.stat().st_size < 20_000
        with Image.open(path) as image:
            image.load()
            assert (image.size, image.mode) == ((side_of(path), side_of(path)), "RGB")


def test_resolutions_of_a_person_show_the_same_face() -> None:
    """Shrunk to 7 x 7 by Pillow's box filter, those of one person correlate, those of two people do not."""
    small = {
        path: np.asarray(Image.open(path).resize((7, 7), Image.Resampling.BOX), np.float64).ravel() for path in crops()
    }
    for a, pixels_a in small.items():
        for b, pixels_b in small.items():
            correlation = np.corrcoef(pixels_a, pixels_b)[0, 1]
            if a.name.partition("_")[0] == b.name.partition("_")[0]:
                assert correlation > 0.9, (a.name, b.name)
            else:
                assert correlation < 0.8, (a.name, b.name)


def test_embed(small_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces.npz"
    command: list[str | Path] = [Path(sys.executable).with_name("btnet"), "embed", "examples/faces", "-o", out]
    subprocess.run([*command, "--model", small_bundle], check=True, cwd=EXAMPLES.parent)
    with np.load(out) as written:
        assert written["paths"].tolist() == [f"examples/faces/{path.name}" for path in crops()]
        assert written["resolutions"].tolist() == [BRANCH[side_of(path)] for path in crops()]
        assert set(written["resolutions"].tolist()) == {7, 14, 28, 112}
        np.testing.assert_allclose(np.linalg.norm(written["embeddings"], axis=1), 1, atol=1e-5)


def test_make_faces_makes_these_files(tmp_path: Path) -> None:
    subprocess.run([sys.executable, EXAMPLES / "make_faces.py", tmp_path], check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in crops()]
    for path in crops():
        with Image.open(path) as committed, Image.open(tmp_path / path.name) as made:
            # Other versions of Pillow may encode and, by a rounding, resample otherwise: not the bytes, the pixels.
            difference = np.asarray(committed, np.int16) - np.asarray(made, np.int16)
        assert np.abs(difference).max() <= 2, path.name
