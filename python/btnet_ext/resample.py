"""Resizing that is bit-exact with Pillow, the one way in which btnet resamples images everywhere."""

from __future__ import annotations

import operator
from typing import Any

from btnet_ext._native import core
from btnet_ext.errors import InvalidOption
from btnet_ext.images import Pixels, as_pixels


def resize(image: Any, size: tuple[int, int], *, filter: str = "bicubic") -> Pixels:  # noqa: A002
    """Resize an image, bit-exact with `Image.resize(size, BICUBIC | BILINEAR)` of Pillow 13.

    Cubic convolution has a = -0.5 (Keys 1981), and the support of both filters grows with the down-scale factor,
    so that shrinking does not alias.

    Args:
        image: uint8, H x W or H x W x C with C 1 or 3, with any strides; or a PIL image, which is taken as RGB;
            or an object with the array or DLPack interface. It is never written to.
        size: (height, width) of the result, in pixels.
        filter: "bicubic" or "bilinear".

    Returns:
        A new contiguous array of shape (height, width) or (height, width, C), as the image has it.

    Raises:
        InvalidImage: `image` is not such an image, or has no pixels.
        InvalidOption: `size` is not two integers from 1 to 65535, or `filter` is neither of the two.

    """
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise InvalidOption(f"size is {size!r}, expected (height, width)")
    height, width = _side("size", size[0]), _side("size", size[1])
    result: Pixels = core.resize(as_pixels(image, "image"), height, width, _filter(filter))
    return result


def degrade(image: Any, resolution: int, *, filter: str = "bicubic", canonical: int = 112) -> Pixels:  # noqa: A002
    """Reduce an image to the detail of a low resolution: down to it and up again (Knoche et al. 2021, Eq. 1).

    Args:
        image: as `resize` takes it.
        resolution: side in pixels of the small square image in between.
        filter: "bicubic" or "bilinear", for both steps.
        canonical: side in pixels of the result.

    Returns:
        A new contiguous array: canonical x canonical, or canonical x canonical x C, as the image has it.

    Raises:
        InvalidImage: `image` is not such an image, or has no pixels.
        InvalidOption: `resolution` or `canonical` is not an integer from 1 to 65535, or `filter` is neither of the two.

    """
    small, large = _side("resolution", resolution), _side("canonical", canonical)
    result: Pixels = core.degrade(as_pixels(image, "image"), small, large, _filter(filter))
    return result


_LONGEST_SIDE = 2**16 - 1


def _side(name: str, value: Any) -> int:
    try:
        side = operator.index(value)
    except TypeError:
        side = 0
    if isinstance(value, bool) or not 1 <= side <= _LONGEST_SIDE:
        raise InvalidOption(f"{name} is {value!r}, expected a whole number of pixels from 1 to {_LONGEST_SIDE}")
    return side


def _filter(name: Any) -> str:
    if not isinstance(name, str):
        raise InvalidOption(f"filter is {name!r}, expected 'bicubic' or 'bilinear'")
    return name
