"""Resizing with Pillow 13's bits, whichever Pillow is installed."""

import numpy as np
import PIL
from PIL import Image

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
PILLOW_MAJOR = int(PIL.__version__.partition(".")[0])


def pillow_resize(image: np.ndarray, height: int, width: int, name: str) -> np.ndarray:
    """Resize with Pillow; up to 12 it never began with the rows, so there that is done in two steps."""
    pixels = np.ascontiguousarray(image if image.ndim == 2 or image.shape[2] == 3 else image[..., 0])
    picture = Image.fromarray(pixels)
    fewer_rows, fewer_columns = picture.height - height, picture.width - width
    if PILLOW_MAJOR < 13 and fewer_rows > 0 and fewer_rows > 2 * fewer_columns:
        picture = picture.resize((picture.width, height), FILTERS[name])
    return np.asarray(picture.resize((width, height), FILTERS[name])).reshape(height, width, *image.shape[2:])
