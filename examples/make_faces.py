"""Makes the example faces, examples/faces: one aligned crop of each portrait, at several resolutions.

    pip install scikit-image==0.26.0 matplotlib==3.11.2 pillow==13.0.0
    python examples/make_faces.py [FOLDER]

scikit-image and matplotlib bring the two portraits inside their wheels: nothing is downloaded. btnet itself
needs neither of them. Other versions of the three may write other bytes.
"""

import argparse
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

import btnet_ext

Points = npt.NDArray[np.float64]

# The five-point template of ArcFace (Deng et al. 2019) for a 112 x 112 crop, x and y of pixel centres:
# left eye, right eye, tip of the nose, left and right corner of the mouth, as the viewer sees them.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
CANONICAL = 112

# What a face is warped to, in pixels: larger than in both originals, so that the warp itself never shrinks.
WORKING_SIDE = 896


@dataclass
class Portrait:
    """A picture inside a package, and where the template's points are in it, read off by eye."""

    package: str
    path: str
    landmarks: Points  # x and y, (0, 0) is the outer corner of the top left pixel
    sides: tuple[int, ...]  # of the crops, in pixels; the largest is about what the original has


PORTRAITS = {
    "collins": Portrait(
        "skimage",
        "data/astronaut.png",
        np.array([[203.5, 101.5], [247.0, 103.8], [223.5, 127.0], [203.0, 139.5], [247.0, 141.0]]),
        (7, 9, 14, 28, 60, 112, 128),
    ),
    "hopper": Portrait(
        "matplotlib",
        "mpl-data/sample_data/grace_hopper.jpg",
        np.array([[221.6, 189.6], [307.0, 187.0], [267.5, 235.0], [229.0, 280.8], [308.0, 278.0]]),
        (7, 11, 14, 28, 60, 112, 200),
    ),
}


def fit_similarity(source: Points, target: Points) -> Points:
    """Return the (2, 3) matrix of the similarity from `source` to `target`, both (N, 2), by least squares."""
    x, y = source.T
    one, zero = np.ones_like(x), np.zeros_like(x)
    # A similarity is linear in a, b, c, d: (x, y) goes to (a x - b y + c, b x + a y + d).
    equations = np.concatenate([np.stack([x, -y, one, zero], axis=1), np.stack([y, x, zero, one], axis=1)])
    (a, b, c, d), *_ = np.linalg.lstsq(equations, target.T.ravel(), rcond=None)
    return np.array([[a, -b, c], [b, a, d]])


def align(portrait: Portrait) -> Image.Image:
    """Return the face, aligned to the template, as a large square image."""
    with as_file(files(portrait.package) / portrait.path) as path, Image.open(path) as picture:
        image = picture.convert("RGB")
    template = (TEMPLATE + 0.5) * (WORKING_SIDE / CANONICAL)
    matrix = fit_similarity(template, portrait.landmarks)  # PIL asks where in the picture a pixel comes from
    size = (WORKING_SIDE, WORKING_SIDE)
    return image.transform(size, Image.Transform.AFFINE, tuple(matrix.ravel()), resample=Image.Resampling.BICUBIC)


def main() -> None:
    """Write all crops."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).with_name("faces"))
    folder = parser.parse_args().folder
    for person, portrait in PORTRAITS.items():
        face = align(portrait)
        for side in portrait.sides:
            crop = Image.fromarray(btnet_ext.resize(face, (side, side)))
            name = f"{person}_{side:03d}"
            if side < CANONICAL:
                crop.save(folder / f"{name}.png", optimize=True)
            else:
                crop.save(folder / f"{name}.jpg", quality=92)


if __name__ == "__main__":
    main()
