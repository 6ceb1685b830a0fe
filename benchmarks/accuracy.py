"""The engine against PyTorch on real face crops: lowest cosine for each branch, in f32 and bf16.

    python benchmarks/accuracy.py FOLDER_OR_ZIP_OF_CROPS

Every crop goes through every branch (`resolutions=[r]`) of a res50 of width 1 with random weights. The
reference resizes with Pillow and runs the networks that the bundle was written from in PyTorch, f32.
Writes results/accuracy.json.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import common
from btnet_ext import Engine
from btnet_train.export import write_bundle
from btnet_train.random_weights import random_networks

SEED = 0
BATCH = 16


def read_crops(source: Path) -> list[Image.Image]:
    """All images of a zip or a folder, as RGB, sorted by name."""
    if source.is_dir():
        return [Image.open(path).convert("RGB") for path in sorted(source.iterdir())]
    with zipfile.ZipFile(source) as archive:
        return [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in sorted(archive.namelist())]


def reference(network: torch.nn.Module, crops: list[Image.Image], resolution: int) -> np.ndarray:
    """(N, D) embeddings of length 1 from PyTorch, after Pillow's bicubic resize."""
    pixels = np.stack([np.asarray(crop.resize((resolution, resolution), Image.Resampling.BICUBIC)) for crop in crops])
    inputs = torch.from_numpy((pixels.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5)
    with torch.inference_mode():
        embeddings = torch.cat([network.eval()(block)[0] for block in inputs.split(BATCH)])
    return torch.nn.functional.normalize(embeddings.double()).numpy()


def main() -> None:
    """Compare all branches in both precisions and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crops", type=Path)
    arguments = parser.parse_args()
    crops = read_crops(arguments.crops)
    networks = random_networks("res50", 1.0, seed=SEED)
    expected = {resolution: reference(network, crops, resolution) for resolution, network in networks.items()}
    results: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_bundle(Path(folder) / "res50.btnet", networks, name="res50", license="none")
        for precision in ("f32", "bf16"):
            results[precision] = {}
            for resolution in networks:
                engine = Engine(bundle, precision=precision, resolutions=[resolution])
                embeddings = engine.embed(crops).astype(np.float64)
                embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)  # past the rounding of float32
                cosines = np.sum(embeddings * expected[resolution], axis=1)
                results[precision][str(resolution)] = {"lowest": float(cosines.min()), "mean": float(cosines.mean())}
                print(precision, resolution, results[precision][str(resolution)])
    others = {str(r): float(np.median((e @ e.T)[np.triu_indices(len(e), 1)])) for r, e in expected.items()}
    print(common.write("accuracy", {"crops": len(crops), "cosine": results, "median_cosine_of_two_crops": others}))


if __name__ == "__main__":
    main()
