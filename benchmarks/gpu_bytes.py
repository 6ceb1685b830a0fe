"""How many bytes the CUDA kernels move, against the least possible, and what that means on paper: no GPU is used.

    python benchmarks/gpu_bytes.py

The kernels' loads and stores are counted from the sizes of images, tiles and windows (csrc/cuda/resize_tile.cuh),
and divided by what the data sheets say of two GPUs. Results go to results/gpu_bytes.json.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from common import write

SOURCES_OF_KERNELS = [Path(__file__).parents[1] / "csrc/cuda" / name for name in ("resize_plan.h", "resize_tile.cuh")]
CONSTANTS = dict(re.findall(r"constexpr int (k\w+) = (\d+);", "".join(map(Path.read_text, SOURCES_OF_KERNELS))))
TILE_LINES, TILE_PIXELS, THREADS, LINES_PER_THREAD, MAX_LANES, LOAD = (
    int(CONSTANTS[name]) for name in ("kTileLines", "kTilePixels", "kThreads", "kLinesPerThread", "kMaxLanes", "kLoad")
)
IMAGES = 1000
DIM = 512
SOURCES = {112: [112, 250], 56: [56, 40], 28: [28, 22], 14: [14, 11], 7: [7, 250]}
"""Sides of source images for each branch."""
GPUS = {
    "A100": {"bytes_per_second": 2.039e12, "multiply_adds_per_second": 108 * 64 * 1.41e9},
    "H100": {"bytes_per_second": 3.35e12, "multiply_adds_per_second": 132 * 64 * 1.98e9},
}
"""NVIDIA's data sheets: A100 80 GB SXM and H100 SXM; memory, and multiprocessors x int32 lanes x boost clock."""


def windows(source: int, side: int) -> list[tuple[int, int]]:
    """First source pixel and the one after the last, of each output pixel (bicubic; csrc/resample/taps.h)."""
    if source == side:
        return [(i, i + 1) for i in range(side)]
    scale = source / side
    support = 2 * max(scale, 1)
    centers = [(i + 0.5) * scale for i in range(side)]
    return [(max(int(c - support + 0.5), 0), min(int(c + support + 0.5), source)) for c in centers]


def taps_bytes(source: int, side: int) -> int:
    """A table of taps: what fill_taps writes of it, for each pixel the place of its taps, their number, and them."""
    return sum(4 * (2 + end - first) for first, end in windows(source, side))


def resize(source: int, side: int) -> dict[str, int]:
    """One square colour image: bytes of pixels and of taps that blocks load, and multiply-adds."""
    axis = windows(source, side)
    lanes = MAX_LANES
    while lanes * min(side, TILE_PIXELS) > THREADS:
        lanes //= 2
    chunk = LINES_PER_THREAD * lanes
    pixels = taps = operations = 0
    for line in range(0, side, TILE_LINES):
        rows = axis[line : line + TILE_LINES]
        lines = rows[-1][1] - rows[0][0]
        chunks = math.ceil(lines / chunk)
        for pixel in range(0, side, TILE_PIXELS):
            columns = axis[pixel : pixel + TILE_PIXELS]
            along = sum(end - first for first, end in columns)
            pixels += lines * (columns[-1][1] - columns[0][0] // LOAD * LOAD) * 3
            taps += 4 * (along * chunks + sum(end - first for first, end in rows))
            operations += 3 * (chunks * chunk * along + lines * len(columns) * TILE_LINES)
    return {"pixels": pixels, "taps": taps, "multiply_adds": operations}


def entry(moved: int, least: int, multiply_adds: int) -> dict[str, Any]:
    """A batch: its bytes, and the microseconds that they and the arithmetic take at the least."""
    microseconds = {
        gpu: {
            "least": least / rates["bytes_per_second"] * 1e6,
            "moved": moved / rates["bytes_per_second"] * 1e6,
            "arithmetic": multiply_adds / rates["multiply_adds_per_second"] * 1e6,
        }
        for gpu, rates in GPUS.items()
    }
    return {"moved": moved, "least": least, "multiply_adds": multiply_adds, "microseconds": microseconds}


def main() -> None:
    """Count and write."""
    kernels: dict[str, Any] = {}
    for side, sources in SOURCES.items():
        for source in sources:
            one, image, planes = resize(source, side), 3 * source * source, 2 * 3 * side * side
            moved = IMAGES * (one["pixels"] + one["taps"] + planes)
            least = IMAGES * (image + planes)
            kernels[f"resize_images, {source} to {side}"] = entry(moved, least, IMAGES * one["multiply_adds"])
    down, up, image = resize(112, 14), resize(14, 112), 3 * 112 * 112
    moved = IMAGES * (down["pixels"] + down["taps"] + up["taps"] + image)
    operations = IMAGES * (down["multiply_adds"] + up["multiply_adds"])
    kernels["degrade_images, 112 to 14 to 112"] = entry(moved, IMAGES * 2 * image, operations)
    tables = IMAGES * 2 * taps_bytes(250, 112)  # every image of another size: the worst case
    kernels["fill_taps, 250 to 112"] = entry(tables, tables, 0)
    rows = IMAGES * DIM * 4
    kernels["scatter"] = entry(3 * rows, 2 * rows, 0)  # a row is read for its length, and again to be scaled
    kernels["scatter, with mirror images"] = entry(5 * rows, 3 * rows, 0)
    write("gpu_bytes", {"images": IMAGES, "dim": DIM, "gpus": GPUS, "kernels": kernels})


if __name__ == "__main__":
    main()
