"""Alignment of faces by five landmarks."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import affine_transform

from btnet_eval.base import Image

_ARCFACE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
_SIZE = 112


def align(image: Image, points: ArrayLike) -> Image:
    """Crop a face to 112 x 112 so that its landmarks lie, by least squares, where ArcFace's are (Deng et al., 2019).

    The face is moved, turned and scaled. Pixels are interpolated linearly; outside the image is black.

    Args:
        image: H x W x 3.
        points: (5, 2), x and y in pixels: eyes, nose and corners of the mouth, left in the image first.

    Raises:
        ValueError: Another shape, numbers that are not finite, or five times the same point.
    """
    landmarks = np.asarray(points, np.float64)
    if landmarks.shape != (5, 2) or not np.isfinite(landmarks).all():
        raise ValueError(f"points must be (5, 2) finite numbers, not of shape {landmarks.shape}")
    # As complex numbers, p = turn * q + shift is a similarity. It is fitted to the landmarks first, as by Umeyama
    # (1991), and then turned round, because for each pixel of the crop its place in the image is needed.
    source, target = (corners @ (1, 1j) for corners in (landmarks, _ARCFACE))
    spread = source - source.mean()
    length = float(np.sum(np.abs(spread) ** 2))
    if length == 0:
        raise ValueError("points must not be five times the same point")
    turn = 1 / (np.vdot(spread, target - target.mean()) / length)
    shift = source.mean() - turn * target.mean()
    rows_and_columns = np.array([[turn.real, turn.imag], [-turn.imag, turn.real]])
    crop = np.empty((_SIZE, _SIZE, 3), np.float64)
    for channel in range(3):
        affine_transform(
            image[..., channel].astype(np.float64),
            rows_and_columns,
            offset=(shift.imag, shift.real),
            output=crop[..., channel],
            output_shape=(_SIZE, _SIZE),
            order=1,
            mode="grid-constant",
        )
    return np.rint(crop).astype(np.uint8)
