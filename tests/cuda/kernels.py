"""The CUDA kernels, called with NumPy arrays: on the emulated device, or on a GPU."""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
DEVICE_CODE = [
    *(CSRC / "cuda" / name for name in ("resample.cu", "dispatch.cu", "resize_plan.cc", "device.cc")),
    CSRC / "resample" / "views.cc",
]
SOURCES = [*DEVICE_CODE, HERE / "kernel_calls.cc"]
FILTERS = ["bicubic", "bilinear"]
SANITIZED = "BTNET_SANITIZED_KERNELS"
"""The variable that names the library in processes with AddressSanitizer."""
GPU = pytest.param("gpu", marks=pytest.mark.gpu)
"""A parameter of fixtures that have an emulated device and a GPU."""
ORDERS = {"forward": 0, "reverse": 1, "seed 2": 2, "seed 3": 3, "seed 4": 4}
"""In which the emulator gives threads their turns: see EmulatedKernels.set_order."""
if SANITIZED in os.environ:  # slower, and what sanitizers find does not depend on all of them
    ORDERS = {"reverse": 1, "seed 2": 2}


class HostImage(ctypes.Structure):
    """Field for field what kernel_calls.cc has."""

    _fields_ = [
        ("bytes", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("size", "first", "height", "width", "channels")),
        *((name, ctypes.c_int64) for name in ("row_stride", "column_stride", "channel_stride")),
        *((name, ctypes.c_int64) for name in ("shift", "resolution", "side")),
        ("out", ctypes.c_void_p),
        ("mirrored", ctypes.c_void_p),
    ]


def describe(image: np.ndarray, side: int, shift: int) -> HostImage:
    """An array with any strides as the kernels' tests take it; HxW is one channel."""
    view = image if image.ndim == 3 else image[..., np.newaxis]
    spans = [(length - 1) * stride for length, stride in zip(view.shape, view.strides, strict=True) if length > 0]
    data = view.__array_interface__["data"][0]
    low, high = data + sum(min(span, 0) for span in spans), data + sum(max(span, 0) for span in spans) + 1
    return HostImage(low, high - low, data - low, *view.shape, *view.strides, shift, 0, side)


class Kernels:
    """A library of kernels with the functions of kernel_calls.cc."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        for function in ("resize_normalize", "degrade", "scatter_rows"):
            getattr(self._library, f"call_{function}").restype = ctypes.c_char_p

    def set_order(self, order: int) -> None:
        """Ask for an order of threads, which only the emulator can keep."""

    def resize_normalize(
        self,
        images: Sequence[np.ndarray],
        sides: Sequence[int],
        *,
        name: str = "bicubic",
        mean: Sequence[float] = (0, 0, 0),
        std: Sequence[float] = (1, 1, 1),
        swap: bool = False,
        dtype: type = np.float32,
        mirror: bool = False,
        shift: int = 0,
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """One launch for all images: their planes, and those of the mirror images where asked for."""
        outs: list[np.ndarray] = [np.full((3, side, side), np.nan, dtype) for side in sides]
        mirrored = [np.full_like(out, np.nan) for out in outs] if mirror else []
        jobs = [describe(image, side, shift) for image, side in zip(images, sides, strict=True)]
        for i, job in enumerate(jobs):
            job.out = outs[i].ctypes.data
            job.mirrored = mirrored[i].ctypes.data if mirror else None
        table = (HostImage * len(jobs))(*jobs)
        floats = ctypes.c_float * 3
        self._call(
            "resize_normalize",
            table,
            len(jobs),
            FILTERS.index(name),
            floats(*mean),
            floats(*std),
            int(swap),
            int(dtype == np.float16),
        )
        return outs, mirrored

    def count_tables(self, images: Sequence[np.ndarray], sides: Sequence[int]) -> int:
        """How many tables of taps a plan has for these images."""
        jobs = [describe(image, side, 0) for image, side in zip(images, sides, strict=True)]
        count: int = self._library.call_count_tables((HostImage * len(jobs))(*jobs), len(jobs))
        return count

    def degrade(
        self, images: Sequence[np.ndarray], resolutions: Sequence[int], *, canonical: int = 112, name: str = "bicubic"
    ) -> list[np.ndarray]:
        """One launch for all images: down and up again."""
        outs = [np.zeros((canonical, canonical, *image.shape[2:]), np.uint8) for image in images]
        jobs = [describe(image, canonical, 0) for image in images]
        for job, out, resolution in zip(jobs, outs, resolutions, strict=True):
            job.out, job.resolution = out.ctypes.data, resolution
        self._call("degrade", (HostImage * len(jobs))(*jobs), len(jobs), FILTERS.index(name))
        return outs

    def scatter_rows(
        self,
        rows: np.ndarray,
        mirrored: np.ndarray | None,
        destinations: np.ndarray,
        out: np.ndarray,
        *,
        normalize: bool,
        shift: int = 0,
    ) -> None:
        """Rows to their destinations in `out`, in place."""
        pointers = [None if a is None else ctypes.c_void_p(a.ctypes.data) for a in (rows, mirrored, destinations, out)]
        count, dim = rows.shape
        self._call("scatter_rows", *pointers[:3], count, dim, shift, int(normalize), pointers[3], len(out))

    def _call(self, function: str, *arguments: object) -> None:
        message = getattr(self._library, f"call_{function}")(*arguments)
        if message is not None:
            raise RuntimeError(message.decode())


class EmulatedKernels(Kernels):
    """Those that the emulator runs."""

    order = 0

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for function in ("run_case", "last_failure"):
            getattr(self._library, f"emulated_{function}").restype = ctypes.c_char_p

    def set_order(self, order: int) -> None:
        """In which order threads run: 0 and 1 ascending and descending, others the seed of a shuffle."""
        self.order = order
        self._library.emulated_set_order(order)

    def run_case(self, name: str, values: np.ndarray) -> None:
        """One of faulty_kernels.cu, on int32 values that it changes in place."""
        message = self._library.emulated_run_case(name.encode(), ctypes.c_void_p(values.ctypes.data), len(values))
        if message is not None:
            raise RuntimeError(message.decode())

    def _call(self, function: str, *arguments: object) -> None:
        try:
            super()._call(function, *arguments)
        except RuntimeError as error:  # of a launch, the runtime says no more than that it failed
            raise RuntimeError(f"{error}: {self._library.emulated_last_failure().decode()}") from error
