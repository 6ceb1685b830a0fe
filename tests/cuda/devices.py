"""The module btnet_ext._cuda on an emulated device, and ONNX Runtime in TensorRT's place."""

import ctypes
import importlib.util
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import emulated
import numpy as np
import onnxruntime
import openvino
import pybind11

from btnet_ext import Bundle

SOURCES = [
    *emulated.DEVICE_CODE,
    *emulated.EMULATOR,
    *(emulated.CSRC / "cuda" / name for name in ("request.cc", "lane.cc", "pipeline.cc")),
    *(emulated.CSRC / "python" / name for name in ("bind_cuda.cc", "calls.cc", "dlpack.cc", "errors.cc")),
    emulated.CSRC / "python" / "image_view.cc",
    emulated.HERE / "emulated_module.cc",
]


def build_module(folder: Path, cuda_include: Path, installed: Path) -> Path:
    """Build _cuda with the emulator; `installed` is where the C++ library of this repository is."""
    library = folder / f"_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
    includes = [cuda_include, Path(pybind11.get_include()), Path(sysconfig.get_path("include"))]
    openvino_library = next((Path(openvino.__file__).parent / "libs").glob("libopenvino.so.*"))
    links = [next(installed.rglob("libbtnet.a")), openvino_library]
    return emulated.build(library, includes, sources=SOURCES, links=links)


class EmulatedDevice:
    """The module, and what the tests do to its device."""

    def __init__(self, path: Path) -> None:
        # Not the name of the real module: pybind11 gives the first one that was loaded to whoever loads another of
        # its name.
        spec = importlib.util.spec_from_file_location("emulated_device._cuda", path)
        assert spec is not None
        assert spec.loader is not None
        self.module: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self._library = ctypes.CDLL(str(path))
        self._library.emulated_upload.restype = ctypes.c_void_p
        self._library.emulated_live_blocks.restype = ctypes.c_size_t
        self._calls: dict[int, Any] = {}
        self._number = 0
        self._callback = ctypes.CFUNCTYPE(None, ctypes.c_int64)(lambda number: self._calls[number]())

    def call_in(self, stream: int, work: Any) -> None:
        """Have a stream call `work()` when its turn comes; more than once, if it is recorded in a graph."""
        self._number += 1
        self._calls[self._number] = work
        self._library.emulated_call(ctypes.c_void_p(stream), self._callback, ctypes.c_int64(self._number))

    def set_devices(self, count: int) -> None:
        self._library.emulated_set_devices(count)

    def set_capacity(self, size: int) -> None:
        self._library.emulated_set_capacity(ctypes.c_size_t(size))

    def live_blocks(self) -> int:
        """Blocks of device memory that nobody has given back."""
        return int(self._library.emulated_live_blocks())

    def upload(self, array: np.ndarray) -> "UploadedArray":
        return UploadedArray(self._library, array)


class UploadedArray:
    """An array in the memory of the emulated device, with the strides that it had; the CUDA array interface."""

    def __init__(self, library: ctypes.CDLL, array: np.ndarray) -> None:
        self._library = library
        low, high = np.lib.array_utils.byte_bounds(array)
        self._memory = library.emulated_upload(ctypes.c_void_p(low), ctypes.c_size_t(high - low))
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (self._memory + array.__array_interface__["data"][0] - low, True),
            "strides": array.strides,
            "version": 3,
        }

    def __del__(self) -> None:
        self._library.emulated_free(ctypes.c_void_p(self._memory))


class _Tensor(ctypes.Structure):
    """DLTensor of dlpack.h."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("device_type", "device", "ndim")),
        *((name, ctypes.c_uint8) for name in ("code", "bits")),
        ("lanes", ctypes.c_uint16),
        *((name, ctypes.POINTER(ctypes.c_int64)) for name in ("shape", "strides")),
        ("byte_offset", ctypes.c_uint64),
    ]


class DLPackArray:
    """An uploaded array with the DLPack interface, and no other."""

    GPU = 2

    def __init__(self, array: UploadedArray, *, bits: int = 8, capsule_name: bytes = b"dltensor") -> None:
        self._array = array
        self._name = capsule_name
        self.streams: list[int] = []
        interface = array.__cuda_array_interface__
        shape, strides = interface["shape"], interface["strides"]
        numbers = ctypes.c_int64 * len(shape)
        offset = 3  # what frameworks with memory pools have
        self._tensor = _Tensor(
            interface["data"][0] - offset,
            self.GPU,
            0,
            len(shape),
            1,
            bits,
            1,
            numbers(*shape),
            numbers(*strides),
            offset,
        )

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.GPU, 0)

    def __dlpack__(self, *, stream: int) -> object:
        self.streams.append(stream)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self._tensor), self._name, None)


class OnnxExecutor:
    """Runs a bundle's graphs with ONNX Runtime, as work of emulated streams."""

    SIZES = (1, 4, 16)

    def __init__(self, device: EmulatedDevice, bundle: Bundle, resolutions: Sequence[int] | None) -> None:
        self._device = device
        self._dim = bundle.dim
        graphs = bundle.metadata["graphs"]["f32"]
        self._sessions = {
            resolution: onnxruntime.InferenceSession(bundle.path / graphs[str(resolution)])
            for resolution in resolutions or bundle.resolutions
            if resolution in bundle.resolutions
        }

    def dim(self) -> int:
        return self._dim

    def input_element(self) -> str:
        return "f32"

    def batch_sizes(self, resolution: int) -> list[int]:
        return list(self.SIZES)

    def enqueue(self, resolution: int, count: int, input: int, output: int, stream: int, slot: int) -> None:  # noqa: A002
        images = floats_at(input, (count, 3, resolution, resolution))
        rows = floats_at(output, (count, self._dim))

        def run() -> None:
            rows[:] = self._sessions[resolution].run(None, {"input": images})[0]

        self._device.call_in(stream, run)


def floats_at(address: int, shape: tuple[int, ...]) -> np.ndarray:
    values = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
    return np.ctypeslib.as_array(values, shape)


def install(patch: Any, device: EmulatedDevice) -> None:
    """Have btnet_ext find the emulated device and this executor."""
    from btnet_ext import cuda

    patch.setitem(sys.modules, "btnet_ext._cuda", device.module)
    cuda.native.cache_clear()
    patch.setattr(cuda, "find_tensorrt", lambda gpu: None)
    patch.setattr(
        cuda,
        "TensorRTExecutor",
        lambda bundle, *, gpu, precision, resolutions: OnnxExecutor(device, bundle, resolutions),
    )
