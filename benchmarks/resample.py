"""Resizing one image: btnet's code paths against Pillow, torch and OpenCV, on one thread and on all.

    python benchmarks/resample.py

Square H x W x 3 uint8 images, bicubic. Every candidate is called from Python and returns a new result, and all take
turns; so a call's overhead in Python, about a microsecond for btnet and torch alike, is in the figures. `torch` takes
uint8, channels last; `torch_float` the same values in float32, contiguous, whose conversion is not timed. OpenCV's
INTER_CUBIC does not antialias: it reads 16 pixels for each one it makes, whatever the scale. Then 1, 2, 4, ... and all
threads that call the same function: btnet on its best path, Pillow, torch's uint8 and OpenCV. Last the stages of a
resize, measured from inside by resample_stages.cc.

Bytes are counted, not measured. The least is to read the image once and to write the result once. Moved is what the two
passes read and write: the image, what the first hands to the second, written and read again, and the result. Taps are
left out, and so are the few rows that a pass holds in the first cache. Writes results/resample.json and a figure; times
are in microseconds.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias

import torch
from PIL import Image

import common
import mixes
from btnet_ext import resize
from btnet_ext._native import core
from btnet_ext.errors import InvalidOption
from comparing import refuse_others
from publish import publish
from resample_stages import ISAS, stages

try:
    import cv2
except ModuleNotFoundError:
    sys.exit("btnet is compared with OpenCV, which is not installed: pip install --group bench")

SIZES = [(250, 112), (112, 14), (14, 112), (900, 112)]
CALLS, ROUNDS, QUICK_ROUNDS = 5, 200, 10
SECONDS_OF_A_THREAD, ROUNDS_OF_THREADS, QUICK_ROUNDS_OF_THREADS = 0.04, 21, 3
BYTES_BETWEEN = {"avx512": 1, "avx2": 2, "plain": 1}
"""That a sample takes between the two passes (Isa::group samples to 4 bytes in csrc/resample/passes_*.cc)."""

Calls: TypeAlias = dict[str, Callable[[], object]]
"""By the name of a candidate, a function that resizes once."""


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


def peers(source: int, target: int) -> Calls:
    """Return what btnet is compared with, for one pair of sides."""
    image = mixes.squares(source, 1)[0]
    picture = Image.fromarray(image)
    tensor = torch.from_numpy(image)[None].permute(0, 3, 1, 2)  # channels last
    floats = tensor.float().contiguous()
    interpolate = partial(torch.nn.functional.interpolate, size=(target, target), mode="bicubic", antialias=True)
    return {
        "pillow": lambda: picture.resize((target, target), Image.Resampling.BICUBIC),
        "torch": lambda: interpolate(tensor),
        "torch_float": lambda: interpolate(floats),
        "opencv_not_antialiased": lambda: cv2.resize(image, (target, target), interpolation=cv2.INTER_CUBIC),
    }


def candidates(source: int, target: int, paths: list[str]) -> Calls:
    """Return what is compared for one pair of sides, each as CALLS calls."""
    image, half = mixes.squares(source, 1)[0], (127.5,) * 3
    calls: Calls = {name: partial(common.repeat, call, CALLS) for name, call in peers(source, target).items()}
    for simd in paths:
        plain = partial(core.resize, image, target, target, "bicubic")
        fused = partial(core.resize_normalize, image, target, target, half, half, False, False, "bicubic")
        calls[simd] = partial(on_path, simd, plain)
        calls[f"{simd}_normalized"] = partial(on_path, simd, fused)
    return calls


def on_path(simd: str, call: Callable[[], object]) -> None:
    """Call one of btnet's functions CALLS times on one of its code paths."""
    os.environ["BTNET_SIMD"] = simd
    common.repeat(call, CALLS)


def count_bytes(source: int, target: int, paths: list[str]) -> dict[str, Any]:
    """Bytes of a colour image from one side to another: the least possible, and those that each code path moves."""
    least = 3 * (source**2 + target**2)
    between = 3 * source * target  # the columns have their new number, the rows still the old one
    return {"least": least, "moved": {simd: least + 2 * BYTES_BETWEEN[simd] * between for simd in paths}}


def compare(source: int, target: int, paths: list[str], rounds: int) -> dict[str, Any]:
    """Microseconds of every candidate, the ratios that matter, and bytes."""
    seconds = common.interleave(candidates(source, target, paths), rounds=rounds)
    times = {name: common.summary([1e6 * value / CALLS for value in values]) for name, values in seconds.items()}
    ratios = {}
    for simd in paths:
        ratios[f"{simd}_to_torch"] = common.ratios(seconds[simd], seconds["torch"])
        fused = f"{simd}_normalized"
        ratios[f"{fused}_to_plain_resize"] = common.ratios(seconds[fused], seconds[simd])
    bytes_ = count_bytes(source, target, paths)
    return {"microseconds": times, "ratios": ratios, "output_pixels": target**2, "bytes": bytes_}


def threads(source: int, target: int, rounds: int) -> dict[str, Any]:
    """Images/s of 1, 2, 4, ... and all threads that call a function, and their speed-up over one, by candidate."""
    image = mixes.squares(source, 1)[0]
    calls = {"btnet": lambda: resize(image, (target, target)), **peers(source, target)}
    del calls["torch_float"]
    counts = common.thread_counts()
    runs: dict[tuple[str, int], Callable[[], object]] = {}
    of_a_thread: dict[str, int] = {}
    with ThreadPoolExecutor(counts[-1]) as pool:

        def together(call: Callable[[], object], count: int, times: int) -> None:
            for done in [pool.submit(common.repeat, call, times) for _ in range(count)]:
                done.result()

        for name, call in calls.items():
            once = min(common.interleave({name: call}, rounds=rounds)[name])
            of_a_thread[name] = math.ceil(SECONDS_OF_A_THREAD / once)
            runs |= {(name, count): partial(together, call, count, of_a_thread[name]) for count in counts}
        seconds = common.interleave(runs, rounds=rounds)
    rates = {
        (name, count): [count * of_a_thread[name] / value for value in values]
        for (name, count), values in seconds.items()
    }
    return {
        name: {
            str(count): {
                "images_per_second": common.summary(rates[name, count]),
                "speed_up": common.ratios(rates[name, count], rates[name, 1]),
            }
            for count in counts
        }
        for name in calls
    }


def main() -> None:
    """Compare, measure the threads and the stages, write the results."""
    options = common.arguments(__doc__).parse_args()
    settings = {"seed": mixes.SEED, "quick": options.quick}
    refuse_others(settings, options)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rounds, rounds_of_threads = (
        (QUICK_ROUNDS, QUICK_ROUNDS_OF_THREADS) if options.quick else (ROUNDS, ROUNDS_OF_THREADS)
    )
    paths = available()
    names = {f"{source} -> {target}": (source, target) for source, target in SIZES}
    resized = {name: compare(*sides, paths, rounds) for name, sides in names.items()}
    del os.environ["BTNET_SIMD"]  # all threads take the best path, as users' do
    results = {
        "settings": settings,
        "resize": resized,
        "threads": {name: threads(*sides, rounds_of_threads) for name, sides in names.items()},
        "stages": {simd: stages(simd, SIZES) for simd in paths if simd in ISAS},
    }
    publish("resample", results, options)


if __name__ == "__main__":
    main()
