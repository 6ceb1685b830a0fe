"""How far an image interpolated from a low resolution can be from the face: a bound of the error, from the image."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from btnet_eval.onnx_network import CANONICAL
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
