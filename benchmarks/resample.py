"""Resizing one image on one thread: btnet's code paths against Pillow, torch and OpenCV.

    python benchmarks/resample.py

Square H x W x 3 uint8 images, bicubic. Every candidate is called from Python and returns a new result, and all take
turns; so a call's overhead in Python, about a microsecond for btnet and torch alike, is in the figures. OpenCV's
INTER_CUBIC does not antialias: it reads 16 pixels for each one it makes, whatever the scale. Then the stages of a
resize, measured from inside by resample_stages.cc. Writes results/resample.json; times are in microseconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

import common
from btnet_ext._native import core
from btnet_ext.errors import InvalidOption

SIZES = [(250, 112), (112, 14), (14, 112), (900, 112)]
CALLS, ROUNDS = 5, 200
SEED = 20260
SOURCES = Path(__file__).parents[1] / "csrc"
ISAS = {
    "avx512": ("Avx512", ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512vbmi", "-mavx512vnni"]),
    "avx2": ("Avx2", ["-mavx2"]),
}


def repeat(call: Callable[[], object], simd: str | None = None) -> Callable[[], None]:
    """Return a function that calls CALLS times, on one of btnet's code paths if it is one of btnet's functions."""

    def run() -> None:
        if simd is not None:
            os.environ["BTNET_SIMD"] = simd
        for _ in range(CALLS):
            call()

    return run


def available() -> list[str]:
    """Code paths that this CPU runs."""
    paths = []
    for simd in ("avx512", "avx2", "plain"):
        os.environ["BTNET_SIMD"] = simd
        try:
            paths.append(core.simd())
        except InvalidOption as error:
            sys.stderr.write(f"{error}\n")
    return paths


def candidates(source: int, target: int, paths: list[str]) -> dict[str, Callable[[], None]]:
    """Return what is compared for one pair of sides."""
    image = np.random.default_rng(SEED).integers(0, 256, (source, source, 3), dtype=np.uint8)
    picture = Image.fromarray(image)
    tensor = torch.from_numpy(image)[None].permute(0, 3, 1, 2)  # channels last
    half = (127.5,) * 3
    result = {
        "pillow": repeat(lambda: picture.resize((target, target), Image.Resampling.BICUBIC)),
        "torch": repeat(
            lambda: torch.nn.functional.interpolate(tensor, (target, target), mode="bicubic", antialias=True)
        ),
        "opencv_not_antialiased": repeat(lambda: cv2.resize(image, (target, target), interpolation=cv2.INTER_CUBIC)),
    }
    for simd in paths:
        result[simd] = repeat(lambda: core.resize(image, target, target, "bicubic"), simd)
        result[f"{simd}_normalized"] = repeat(
            lambda: core.resize_normalize(image, target, target, half, half, False, False, "bicubic"), simd
        )
    return result


def compare(source: int, target: int, paths: list[str]) -> dict[str, object]:
    """Microseconds of every candidate, and the ratios that matter."""
    seconds = common.interleave(candidates(source, target, paths), rounds=ROUNDS)
    times = {name: common.summary([1e6 * value / CALLS for value in values]) for name, values in seconds.items()}
    ratios = {}
    for simd in paths:
        ratios[f"{simd}_to_torch"] = times[simd]["median"] / times["torch"]["median"]
        ratios[f"{simd}_to_pillow"] = times[simd]["median"] / times["pillow"]["median"]
        ratios[f"{simd}_normalized_to_plain_resize"] = times[f"{simd}_normalized"]["median"] / times[simd]["median"]
    return {"microseconds": times, "ratios": ratios}


def stages(simd: str) -> dict[str, dict[str, float]]:
    """Microseconds of the stages of a resize in one of the vector code paths."""
    isa, flags = ISAS[simd]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "stages"
        command = ["c++", "-O3", "-DNDEBUG", "-std=c++17", "-ffp-contract=off", *flags]
        command += [f"-I{SOURCES}", f"-I{SOURCES / 'include'}", f"-DISA={isa}"]
        command += [f'-DPASSES="resample/passes_{simd}.cc"', "-o", str(program)]
        command += [str(Path(__file__).with_name("resample_stages.cc"))]
        command += [str(SOURCES / "resample" / name) for name in ("passes_plain.cc", "scratch.cc")]
        subprocess.run(command, check=True)
        sides = [str(side) for pair in SIZES for side in pair]
        output = subprocess.run([program, *sides], check=True, capture_output=True, text=True).stdout
    names = [f"{source} -> {target}" for source, target in SIZES]
    return dict(zip(names, map(json.loads, output.splitlines()), strict=True))


def main() -> None:
    """Compare, measure the stages, write the results."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    paths = available()
    results = {f"{source} -> {target}": compare(source, target, paths) for source, target in SIZES}
    path = common.write(
        "resample", {"resize": results, "stages": {simd: stages(simd) for simd in paths if simd in ISAS}}
    )
    for name, result in results.items():
        print(name, json.dumps(result["ratios"]))
    print(path)


if __name__ == "__main__":
    main()
