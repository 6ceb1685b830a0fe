"""What callers pass as images, turned into uint8 arrays without copying pixels where that can be helped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from btnet_ext._native import core
from btnet_ext.device_arrays import DeviceMemory, is_on_device, split
from btnet_ext.errors import InvalidImage

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""H x W x 3, H x W x 1 or H x W."""

_EXPECTED = "expected an H x W x 3 uint8 array, a PIL image, or an object with the array or DLPack interface"
DEEP_MODES = ("I", "F")  # more than 8 bits a channel; I;16 and its like begin with I, too


def as_pixels(image: Any, name: str, *, color: str = "rgb") -> Pixels:
    """View one image as a uint8 array of shape (H, W, 3), (H, W, 1) or (H, W), at least 1 x 1.

    PIL images are converted to RGB and, for `color="bgr"`, viewed in that order. `name` stands for the image in the
    message of `InvalidImage`, which is raised for anything that is not an 8-bit image in host memory.
    """
    array = _from_pil(image, name, color) if isinstance(image, Image.Image) else as_array(image, name)
    if array.dtype != np.uint8:
        raise InvalidImage(f"{name} has dtype {array.dtype}, expected uint8 (0 to 255)")
    if array.ndim not in (2, 3):
        raise InvalidImage(f"{name} has shape {array.shape}, expected (height, width, 3) or (height, width)")
    if array.ndim == 3 and array.shape[2] not in (1, 3):
        raise InvalidImage(f"{name} has {array.shape[2]} channels (shape {array.shape}), expected 3, or 1 for grey")
    if 0 in array.shape:
        raise InvalidImage(f"{name} has no pixels: its shape is {array.shape}")
    if max(array.shape) > core.LONGEST_SIDE:
        raise InvalidImage(f"{name} has a side of {max(array.shape)} pixels, expected at most {core.LONGEST_SIDE}")
    return array


def as_pixel_list(images: Any, *, color: str = "rgb", memory: DeviceMemory | None = None, first: int = 0) -> list[Any]:
    """View a batch, as `Engine.embed` takes it, as a list of arrays; `first` is the index of its first image.

    A list or tuple of images of any sizes, or one N x H x W x 3 array (also through DLPack). With `memory`, those that
    are in the memory of its GPU become what the native pipeline takes for such images.
    """
    if isinstance(images, (list, tuple)):
        batch: Sequence[Any] = images
    elif not is_array(images):
        hint = "; embed_stream takes any iterable" if isinstance(images, Iterator) else ""
        raise InvalidImage(
            f"images is a {type(images).__name__}, expected a list or tuple of images or one N x H x W x 3 array{hint}"
        )
    elif memory is not None and is_on_device(images):
        view = memory.view(images, "images")
        _check_batch(view.shape)
        return [memory.image(part, f"images[{index}]") for index, part in enumerate(split(view), first)]
    else:
        array = as_array(images, "images")
        _check_batch(array.shape)
        batch = list(array)
    return [
        memory.image(memory.view(image, f"images[{index}]"), f"images[{index}]")
        if memory is not None and is_on_device(image)
        else as_pixels(image, f"images[{index}]", color=color)
        for index, image in enumerate(batch, first)
    ]


def _check_batch(shape: tuple[int, ...]) -> None:
    if len(shape) != 4:
        hint = "; for a single image pass a list, [image]" if len(shape) in (2, 3) else ""
        raise InvalidImage(f"images is one array of shape {shape}, expected N x H x W x 3{hint}")


def is_array(value: object) -> bool:
    """Tell whether an object offers its contents as an array; one that is a class, or a PIL image, does not count."""
    if isinstance(value, (type, Image.Image)):
        return False
    return any(
        hasattr(value, name) for name in ("__array__", "__array_interface__", "__dlpack__", "__cuda_array_interface__")
    )


def as_array(value: Any, name: str) -> npt.NDArray[Any]:
    """View an object with the array or DLPack interface as a NumPy array, or raise `InvalidImage`."""
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidImage(f"{name} has a mask, which images do not have")
    if isinstance(value, np.ndarray):
        return value
    if not is_array(value):
        raise InvalidImage(f"{name} is a {type(value).__name__}, {_EXPECTED}")
    if is_on_device(value):
        raise InvalidImage(f"{name} is in GPU memory, expected host memory for device 'cpu'")
    try:
        if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
            return np.asarray(value)
        return np.from_dlpack(value)
    except Exception as error:
        raise InvalidImage(f"{name} ({type(value).__name__}) does not give up its pixels: {error}") from error


def _from_pil(image: Image.Image, name: str, color: str) -> Pixels:
    if image.mode.startswith(DEEP_MODES):
        raise InvalidImage(f"{name} is a PIL image of mode {image.mode!r}, expected 8 bits a channel")
    try:
        pixels = np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's readers raise errors of all kinds; a file that was closed: AssertionError
        raise InvalidImage(f"{name} cannot be decoded: {str(error) or repr(error)}") from error
    return pixels[..., ::-1] if color == "bgr" else pixels
