"""Embed images that are in GPU memory already: torch, CuPy or pycuda, without a copy to the host.

    python examples/device_arrays.py MODEL torch|cupy|pycuda

The images here are noise of several sizes; yours come from a decoder or a face detector on the GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import btnet_ext


def to_torch(image: np.ndarray) -> Any:
    """A tensor on the GPU; btnet takes it by DLPack and waits for torch's stream."""
    import torch

    return torch.from_numpy(image).cuda()


def to_cupy(image: np.ndarray) -> Any:
    """An array of CuPy, by the CUDA array interface."""
    import cupy

    return cupy.asarray(image)


def to_pycuda(image: np.ndarray) -> Any:
    """An array of pycuda; its context has to be the device's primary one, which CUDA's runtime shares."""
    import pycuda.autoprimaryctx
    import pycuda.gpuarray

    return pycuda.gpuarray.to_gpu(image)


LIBRARIES: dict[str, Callable[[np.ndarray], Any]] = {"torch": to_torch, "cupy": to_cupy, "pycuda": to_pycuda}


def main() -> None:
    """Embed images of five sizes, from a library's memory."""
    if len(sys.argv) != 3 or sys.argv[2] not in LIBRARIES:
        sys.exit(__doc__)
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (side, side, 3), np.uint8) for side in (7, 12, 25, 112, 250)]
    engine = btnet_ext.Engine(sys.argv[1], device="cuda", precision="f16")
    embeddings = engine.embed([LIBRARIES[sys.argv[2]](image) for image in images])
    for image, resolution, embedding in zip(images, engine.select(images), embeddings, strict=True):
        print(f"{image.shape[1]} x {image.shape[0]} px, branch {resolution}: {embedding[:4].round(4)} ...")


if __name__ == "__main__":
    main()
