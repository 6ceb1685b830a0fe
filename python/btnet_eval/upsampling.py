"""How far an image interpolated from a low resolution can be from the face: a bound of the error, from the image."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from btnet_eval.base import DataError, Image
from btnet_eval.datasets.images import NamedImages
from btnet_eval.onnx_network import CANONICAL
from btnet_eval.plots import resolution_plot
from btnet_eval.report import Section
from btnet_eval.session import Run
from btnet_ext import resize

SMALLEST = 3
"""The operator spans so many pixels."""


def error_bound(image: npt.NDArray[np.uint8], resolution: int) -> float:
    """|d4 f / dx2 dy2| / 64 of an image f reduced to resolution x resolution, the mean over pixels and channels.

    Linear interpolation between pixels a distance of 1 apart is wrong by at most |f''| / 8; between rows and columns,
    this is the product of both (He et al., BMVC 2023, Fig. 1). The derivative is the convolution with
    [[1, -2, 1], [-2, 4, -2], [1, -2, 1]], where the operator lies inside the image.

    Args:
        image: uint8, 112 x 112 or 112 x 112 x 3.
        resolution: side in pixels, from 3 to 112.

    Returns:
        Levels of grey, of 255.

    Raises:
        ValueError: another image, or another resolution.
    """
    if image.dtype != np.uint8 or image.shape not in ((CANONICAL, CANONICAL), (CANONICAL, CANONICAL, 3)):
        raise ValueError(f"image must be uint8 112 x 112 or 112 x 112 x 3, not {image.dtype} {image.shape}")
    if not SMALLEST <= resolution <= CANONICAL:
        raise ValueError(f"resolution must be from {SMALLEST} to {CANONICAL}, not {resolution}")
    small = resize(image, (resolution, resolution)).astype(np.int64)
    # The operator is the outer product of [1, -2, 1] with itself: second differences down, then across.
    derivative = np.diff(np.diff(small, n=2, axis=0), n=2, axis=1)
    return float(np.abs(derivative).mean()) / 64


@dataclass(frozen=True)
class ErrorCurve:
    """The bound against resolution: `bounds[i]`, the mean over images, at `relative[i]`, resolution relative to 112."""

    resolutions: tuple[int, ...]
    relative: tuple[float, ...]
    bounds: tuple[float, ...]


def curve(images: Iterable[npt.NDArray[np.uint8]], resolutions: Sequence[int]) -> ErrorCurve:
    """The mean of `error_bound` over images at each resolution. Images are read once, one after the other.

    Raises ValueError where there are no images or no resolutions, and as `error_bound`.
    """
    bounds = [[error_bound(image, resolution) for resolution in resolutions] for image in images]
    if not bounds or not resolutions:
        raise ValueError("there must be an image and a resolution at least")
    return ErrorCurve(
        resolutions=tuple(resolutions),
        relative=tuple(resolution / CANONICAL for resolution in resolutions),
        bounds=tuple(np.mean(bounds, axis=0).tolist()),
    )


def write_upsampling(run: Run, images: NamedImages, resolutions: Sequence[int]) -> Path:
    """Write the curve of all images as OUT/upsampling.json, .md, .html and a figure (He et al., BMVC 2023, Fig. 1).

    Images that cannot be decoded, or are not 112 x 112, are a problem, and left out; resolutions: sides in pixels, from
    3 to 112, in any order. Returns the page's path. Raises DataError where no image remains, ValueError as `curve`, and
    OSError.
    """
    used: list[str] = []
    found = curve(_canonical_images(run, images, used), sorted(set(resolutions)))
    run.note(images, used)
    plot = resolution_plot(
        {"bound": (found.relative, found.bounds, None)},
        value="bound of the error, of 255",
        resolution=f"resolution relative to {CANONICAL}",
    )
    note = (
        f"|d4 f / dx2 dy2| / 64 of an image f reduced to the resolution, in levels of grey, of 255: the bound for the "
        f"error of interpolating from there of He et al., the mean over pixels and channels of {len(used):,} images."
    )
    rows = list(zip(found.resolutions, found.relative, found.bounds, strict=True))
    columns, figure = ["pixels", f"of {CANONICAL}", "bound"], run.draw("upsampling", plot)
    section = Section("Error of up-sampling", columns, rows, note, figure)
    return run.write("upsampling", "Error of up-sampling", {"images": len(used), "curve": found}, [section], {})


def _canonical_images(run: Run, images: NamedImages, used: list[str]) -> Iterator[Image]:
    """The images of 112 x 112; their names are put into used."""
    for done, name in enumerate(images.names(), start=1):
        try:
            image = images.read(name)
            if image.shape != (CANONICAL, CANONICAL, 3):
                size = f"{image.shape[0]} x {image.shape[1]}"
                raise DataError(f"{name} of {images.where} is {size}, not {CANONICAL} x {CANONICAL}")
        except DataError as error:
            run.problems.report(str(error))
        else:
            used.append(name)
            yield image
        if run.progress is not None:
            run.progress("error of up-sampling", done, len(images))
    if not used:
        raise DataError(f"{images.where} has no image of {CANONICAL} x {CANONICAL} pixels")
