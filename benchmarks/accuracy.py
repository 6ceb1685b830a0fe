"""The engine against PyTorch on real face crops: lowest cosine for each branch, in every precision.

    python benchmarks/accuracy.py FOLDER_OR_ZIP_OF_CROPS [--arch res50] [--width 1.0] [--precision f32]

Every crop goes through every branch (`resolutions=[r]`) of a bundle with random weights. The reference resizes with
Pillow and runs the networks that the bundle was written from in PyTorch, f32. Writes results/accuracy.json and a table.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import bundles
import common
from btnet_eval.base import DataError
from btnet_eval.datasets.images import open_images
from btnet_ext import Bundle, Engine
from publish import publish

BATCH = 16
QUICK_CROPS = 8

Pixels: TypeAlias = NDArray[np.uint8]
Rows: TypeAlias = NDArray[np.float64]


def read_crops(source: str, most: int | None) -> list[Pixels]:
    """All images of a zip or a folder, RGB, sorted by name, or the first so many; ends the run if there are none."""
    try:
        with open_images(source) as images:
            return [images.read(name) for name in images.names()[:most]]
    except DataError as error:
        sys.exit(str(error))


def reference(network: torch.nn.Module, crops: list[Pixels], resolution: int) -> Rows:
    """(N, D) embeddings of length 1 from PyTorch, after Pillow's bicubic resize."""
    size, filtering = (resolution, resolution), Image.Resampling.BICUBIC
    pixels = np.stack([np.asarray(Image.fromarray(crop).resize(size, filtering)) for crop in crops])
    inputs = torch.from_numpy((pixels.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5)
    with torch.inference_mode():
        embeddings = torch.cat([network.eval()(block)[0] for block in torch.split(inputs, BATCH)])
    return torch.nn.functional.normalize(embeddings.double()).numpy()


def compare(bundle: Bundle, precision: str, crops: list[Pixels], expected: Mapping[int, Rows]) -> dict[str, Any]:
    """Lowest and mean cosine of every branch to what is expected."""
    found = {}
    for resolution, rows in expected.items():
        engine = Engine(bundle.path, precision=precision, resolutions=[resolution])
        embeddings = engine.embed(crops).astype(np.float64)
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)  # past the rounding of float32
        cosines = np.sum(embeddings * rows, axis=1)
        found[str(resolution)] = {"lowest": float(cosines.min()), "mean": float(cosines.mean())}
        print(precision, resolution, found[str(resolution)])
    return found


def main() -> None:
    """Compare all branches in every precision that there is, and write the JSON."""
    parser = common.arguments(__doc__, comparable=False)
    parser.add_argument("crops", help="folder or zip of images")
    bundles.add_options(parser)
    bundles.add_precision(parser)
    options = parser.parse_args()
    crops = read_crops(options.crops, QUICK_CROPS if options.quick else None)
    with bundles.opened(parser, options) as bundle:
        precisions, absent = bundles.available(bundle, options.precision)
        networks = bundles.networks(bundle, bundle.resolutions[::-1])
        expected = {resolution: reference(network, crops, resolution) for resolution, network in networks.items()}
        results = {precision: compare(bundle, precision, crops, expected) for precision in precisions}
        settings = bundles.description(bundle, options)
    sides = [side for crop in crops for side in crop.shape[:2]]
    others = {str(r): float(np.median((e @ e.T)[np.triu_indices(len(e), 1)])) for r, e in expected.items()}
    publish(
        "accuracy",
        {
            "settings": settings,
            "crops": {"number": len(crops), "shortest_side": min(sides), "longest_side": max(sides)},
            "cosine": results,
            "median_cosine_of_two_crops": others,
            "absent": absent,
        },
        options,
    )


if __name__ == "__main__":
    main()
