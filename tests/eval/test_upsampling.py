"""The bound of the interpolation error: by hand, and by SciPy's convolution of what Pillow reduces."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
from dataset_files import png
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from btnet_eval.base import DataError, Problems
from btnet_eval.datasets.images import open_images
from btnet_eval.session import Run
from btnet_eval.upsampling import curve, error_bound, write_upsampling

OPERATOR = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])


def expected_bound(image: NDArray[np.uint8], resolution: int) -> float:
    small = np.asarray(Image.fromarray(image).resize((resolution, resolution), Image.Resampling.BICUBIC), np.float64)
    channels = small[..., None] if small.ndim == 2 else small
    derivatives = [
        scipy.signal.convolve2d(channels[..., channel], OPERATOR, mode="valid") for channel in range(channels.shape[2])
    ]
    return float(np.mean(np.abs(derivatives))) / 64


def random_image(seed: int, *, grey: bool) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (112, 112) if grey else (112, 112, 3), np.uint8)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(3, 112), st.booleans(), st.integers(0, 1000))
def test_as_by_convolution(resolution: int, grey: bool, seed: int) -> None:
    image = random_image(seed, grey=grey)
    assert error_bound(image, resolution) == pytest.approx(expected_bound(image, resolution), rel=1e-12)


def test_a_product_of_triangular_numbers_by_hand() -> None:
    triangular = np.array([0, 0, 1, 3, 6, 10] + [0] * 106, np.uint8)
    # Its second differences are 1, 1, 1, 1, -14, 10, 0 and so on: 28 in all, without signs.
    image = np.outer(triangular, triangular)
    assert error_bound(image, 112) == pytest.approx(28**2 / 110**2 / 64, rel=1e-12)


def test_a_single_pixel_by_hand() -> None:
    image = np.zeros((112, 112, 3), np.uint8)
    image[50, 60, 1] = 255
    # The absolute weights of the operator sum to 16; one of three channels has them.
    assert error_bound(image, 112) == pytest.approx(255 * 16 / (3 * 110**2) / 64, rel=1e-12)


@pytest.mark.parametrize("resolution", [3, 7, 28, 112])
def test_planes_have_none(resolution: int) -> None:
    assert error_bound(np.full((112, 112, 3), 77, np.uint8), resolution) == 0
    stripes = np.repeat(np.arange(112, dtype=np.uint8)[None], 112, axis=0)
    assert error_bound(stripes, resolution) == 0


def test_a_curve_is_the_mean_over_images() -> None:
    images = [random_image(seed, grey=False) for seed in range(3)]
    found = curve(iter(images), [7, 28, 112])
    assert found.resolutions == (7, 28, 112)
    assert found.relative == (0.0625, 0.25, 1.0)
    expected = [np.mean([expected_bound(image, resolution) for image in images]) for resolution in (7, 28, 112)]
    assert found.bounds == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "image", [np.zeros((112, 111), "u1"), np.zeros((112, 112, 4), "u1"), np.zeros((112, 112)), np.zeros((56, 56), "u1")]
)
def test_other_images_are_refused(image: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"image must be uint8 112 x 112 or 112 x 112 x 3, not (uint8|float64) \("):
        error_bound(image, 28)


@pytest.mark.parametrize("resolution", [-1, 0, 2, 113])
def test_other_resolutions_are_refused(resolution: int) -> None:
    with pytest.raises(ValueError, match=f"resolution must be from 3 to 112, not {resolution}"):
        error_bound(random_image(0, grey=True), resolution)


def test_a_curve_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="there must be an image and a resolution at least"):
        curve([], [7])
    with pytest.raises(ValueError, match="there must be an image and a resolution at least"):
        curve([random_image(0, grey=True)], [])


def write_faces(folder: Path, *, canonical: int) -> Path:
    """Random faces, one that is too small, and one that is no image."""
    folder.mkdir()
    for number in range(canonical):
        (folder / f"{number}.png").write_bytes(png(random_image(number, grey=False)))
    (folder / "small.png").write_bytes(png(random_image(0, grey=False)[:100]))
    (folder / "text.png").write_bytes(b"no image")
    return folder


def test_report(tmp_path: Path) -> None:
    images, problems = open_images(write_faces(tmp_path / "faces", canonical=3)), Problems()
    steps: list[tuple[str, int, int]] = []
    run = Run(
        out=tmp_path / "out",
        command=["btnet-eval", "upsampling"],
        problems=problems,
        progress=lambda *step: steps.append(step),
        read={"faces": "abc"},
    )
    page = write_upsampling(run, images, [112, 7, 28, 7])
    assert page == tmp_path / "out" / "upsampling.html"
    assert steps == [*(("error of up-sampling", done, 5) for done in range(1, 6)), ("digest of the images", 3, 3)]
    assert problems.count == 2
    assert problems.messages[0].endswith("is 100 x 112, not 112 x 112")
    assert "text.png is not an image" in problems.messages[1]
    result = json.loads((tmp_path / "out" / "upsampling.json").read_text())
    assert result["data"].keys() == {"faces", images.where}
    assert result["numbers"]["images"] == 3
    found = result["numbers"]["curve"]
    assert found["resolutions"] == [7, 28, 112]
    assert found["relative"] == [0.0625, 0.25, 1.0]
    expected = [
        np.mean([expected_bound(random_image(seed, grey=False), resolution) for seed in range(3)])
        for resolution in (7, 28, 112)
    ]
    assert found["bounds"] == pytest.approx(expected, rel=1e-12)
    for bound in expected:
        assert f"{bound:.4f}</td>" in page.read_text()
    assert 'src="upsampling.png"' in page.read_text()
    assert (tmp_path / "out" / "upsampling.svg").stat().st_size > 1000


def test_images_that_cannot_be_used(tmp_path: Path) -> None:
    images = open_images(write_faces(tmp_path / "faces", canonical=0))
    with pytest.raises(DataError, match="has no image of 112 x 112 pixels"):
        write_upsampling(Run(out=tmp_path / "out", command=["x"]), images, [7])
    with pytest.raises(DataError, match=r"small\.png of .*faces is 100 x 112"):
        write_upsampling(Run(out=tmp_path / "out", command=["x"], problems=Problems(strict=True)), images, [7])
    assert not (tmp_path / "out").exists()
