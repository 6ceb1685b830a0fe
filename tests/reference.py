"""The independent way from images to embeddings: Pillow resizes, PyTorch runs the networks of the bundle."""

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from btnet_train.networks import IResNet
from btnet_train.random_weights import random_networks
from pillow_reference import pillow_resize

Embeddings = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


class Reference:
    """The networks of the fixture small_bundle."""

    def __init__(self) -> None:
        self.networks: dict[int, IResNet] = random_networks("res18", 0.25, seed=0)

    def raw(self, images: Sequence[Pixels], resolution: int) -> Embeddings:
        """Embeddings of RGB images (H x W x 3) through one branch, not normalised."""
        small = [pillow_resize(image, resolution, resolution, "bicubic") for image in images]
        inputs = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).to(torch.float32).sub(127.5).div(127.5)
        with torch.inference_mode():
            return np.concatenate([self.networks[resolution](part)[0].numpy() for part in torch.split(inputs, 64)])

    def selected(self, images: Sequence[Pixels]) -> Embeddings:
        """Embeddings through the branch of each image, for the longer side rounded up; normalised."""
        out = np.empty((len(images), 512), np.float32)
        branches = np.array([ceil_resolution(max(image.shape[:2])) for image in images])
        for resolution in np.unique(branches):
            rows = np.flatnonzero(branches == resolution).tolist()
            out[rows] = self.raw([images[row] for row in rows], int(resolution))
        return normalized(out)


@cache
def small_reference() -> Reference:
    """Return the one of this process: making the networks takes seconds."""
    return Reference()


def ceil_resolution(side: int) -> int:
    """Read off the table in DESIGN.md, ceil with {7, 14, 28, 112}."""
    return 7 if side <= 7 else 14 if side <= 14 else 28 if side <= 28 else 112


def normalized(embeddings: Embeddings) -> Embeddings:
    lengths: npt.NDArray[np.float64] = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    return (embeddings / lengths).astype(np.float32)


def cosines(a: Embeddings, b: Embeddings) -> npt.NDArray[np.float64]:
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    products: npt.NDArray[np.float64] = (a64 * b64).sum(axis=1)
    lengths: npt.NDArray[np.float64] = np.linalg.norm(a64, axis=1) * np.linalg.norm(b64, axis=1)
    return products / lengths


def faces(sizes: Iterable[tuple[int, int]], seed: int) -> list[Pixels]:
    """Smooth random images of (height, width): noise alone looks the same to a network, whatever the seed."""
    generator = np.random.default_rng(seed)
    images = []
    for height, width in sizes:
        coarse = Image.fromarray(generator.integers(0, 256, (5, 4, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        noise = generator.integers(-20, 21, (height, width, 3), dtype=np.int16)
        images.append(np.clip(smooth + noise, 0, 255).astype(np.uint8))
    return images
