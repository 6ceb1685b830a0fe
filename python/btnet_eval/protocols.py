"""Resolutions for the images of pairs, at random: the protocols of Knoche et al. for arbitrary resolutions.

M. Knoche, S. Hörmann, G. Rigoll: Susceptibility to Image Resolution in Face Recognition and Training Strategies to
Enhance Robustness, LITES 8(1), 2022. Each image of each pair gets a resolution of its own.
"""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from btnet_eval.base import DataError

PROTOCOLS = {"low": (5, 10), "mid": (10, 40), "high": (40, 112), "all": (5, 112)}
"""The lowest and the highest resolution of each, in pixels, both included."""

_HIGHEST = 112


def generate(protocol: str, count: int, seed: int) -> npt.NDArray[np.int64]:
    """(count,) resolutions of a protocol in pixels, each as likely as the others, the same for a seed on any machine.

    Of n pairs, count is 2 n: the first image of the first pair, its second image, the first one of the second pair,
    and so on. Raises ValueError for another protocol than "low", "mid", "high" or "all", and for negative numbers.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, not {protocol!r}")
    if count < 0 or seed < 0:
        raise ValueError(f"count and seed must not be negative, got {count} and {seed}")
    lowest, highest = PROTOCOLS[protocol]
    # NumPy promises that the bits of a generator stay what they are, but not so for its integers of a range.
    bits = np.random.PCG64(seed).random_raw(count) >> np.uint64(32)
    places = bits * np.uint64(highest - lowest + 1) >> np.uint64(32)
    return lowest + places.astype(np.int64)


def read_resolutions(path: str | os.PathLike[str], count: int) -> npt.NDArray[np.int64]:
    """Read the resolutions of `count` images, in the order that `generate` has: one line, commas between the numbers.

    Each is an integer from 1 to 112, in pixels. Raises `DataError` for anything else, and OSError.
    """
    try:
        lines = Path(path).read_bytes().decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{os.fsdecode(path)}: the resolutions must be numbers with commas between them") from None
    for number, line in enumerate(lines[1:], start=2):
        if line.strip():
            raise DataError(f"{os.fsdecode(path)}, line {number}: all resolutions must be in the first line")
    fields = lines[0].split(",") if lines else []
    for place, field in enumerate(fields, start=1):
        digits = field.strip()
        if not (digits.isdecimal() and len(digits) <= 3 and 1 <= int(digits) <= _HIGHEST):
            raise DataError(
                f"{os.fsdecode(path)}, line 1: resolution {place} must be an integer from 1 to {_HIGHEST}, "
                f"not {digits!r:.40}"
            )
    if len(fields) != count:
        raise DataError(f"{os.fsdecode(path)}, line 1: it has {len(fields)} resolutions for {count} images")
    return np.array([int(field) for field in fields], np.int64)
