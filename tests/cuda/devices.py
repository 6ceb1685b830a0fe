"""A device for `Engine(device="cuda")`, emulated or real, and ONNX Runtime in TensorRT's place."""

import ctypes
import importlib.util
import sys
import sysconfig
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import emulated
import numpy as np
import nvcc
import onnxruntime
import openvino
import pybind11
from kernels import CSRC, DEVICE_CODE, HERE

from btnet_ext import Bundle

CALLS = HERE / "device_calls.cc"
SOURCES = [
    *DEVICE_CODE,
    *emulated.EMULATOR,
    *(CSRC / "cuda" / name for name in ("request.cc", "lane.cc", "pipeline.cc")),
    *(CSRC / "python" / name for name in ("bind_cuda.cc", "calls.cc", "dlpack.cc", "errors.cc", "image_view.cc")),
    *(CALLS, HERE / "emulated_device.cc"),
]


def build_module(folder: Path, cuda_include: Path, installed: Path) -> Path:
    """Build _cuda with the emulator; `installed` is where the C++ library of this repository is."""
    library = folder / f"_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
    includes = [cuda_include, Path(pybind11.get_include()), Path(sysconfig.get_path("include"))]
    openvino_library = next((Path(openvino.__file__).parent / "libs").glob("libopenvino.so.*"))
    links = [next(installed.rglob("libbtnet.a")), openvino_library]
    return emulated.build(library, includes, sources=SOURCES, links=links)


def build_calls(folder: Path, cuda_home: Path) -> Path:
    """Build device_calls.cc for a GPU."""
    return nvcc.build_library(cuda_home, [CALLS], folder / "device_calls.so", architectures=[])


class Device:
    """A build of the module _cuda, and the functions of device_calls.cc on the device that it uses."""

    def __init__(self, module: ModuleType, calls: Path) -> None:
        self.module = module
        self._library = ctypes.CDLL(str(calls))
        for function in ("device_upload", "device_pin", "device_make_stream"):
            getattr(self._library, function).restype = ctypes.c_void_p
        self._works: dict[int, Callable[[], None]] = {}
        self._callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda number: self._works[number]())

    def call_in(self, stream: int, work: Callable[[], None]) -> None:
        """Have a stream call `work()` when its turn comes; more than once, if it is recorded in a graph."""
        number = len(self._works) + 1
        self._works[number] = work
        self._check("device_call", ctypes.c_void_p(stream), self._callback, ctypes.c_void_p(number))

    def copy_in(self, stream: int, to: int, start: int, size: int) -> None:
        """Have a stream copy between the device and pinned memory."""
        addresses = map(ctypes.c_void_p, (stream, to, start))
        self._check("device_copy", *addresses, ctypes.c_size_t(size))

    def make_stream(self, owner: object) -> int:
        """Return a stream, for as long as `owner` lives, that the default stream does not wait for."""
        stream = self._library.device_make_stream()
        if stream is None:
            raise RuntimeError("device_make_stream: there is none")
        weakref.finalize(owner, self._check, "device_end_stream", ctypes.c_void_p(stream))
        return int(stream)

    def let_wait(self, stream: int, other: int) -> None:
        """Have a stream wait for what is in another one by now."""
        self._check("device_let_wait", ctypes.c_void_p(stream), ctypes.c_void_p(other))

    def upload(self, array: np.ndarray) -> "UploadedArray":
        return UploadedArray(self, array)

    def copy_to_device(self, start: int, size: int) -> int:
        """Return the address of a copy in device memory, which `free` gives back."""
        return self._address("device_upload", ctypes.c_void_p(start), size)

    def free(self, address: int) -> None:
        self._check("device_free", ctypes.c_void_p(address))

    def pin(self, owner: object, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """Return an array in host memory that streams copy from and to, for as long as `owner` lives."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = self._address("device_pin", size)
        weakref.finalize(owner, self._check, "device_unpin", ctypes.c_void_p(address))
        memory = memoryview((ctypes.c_char * size).from_address(address))
        array: np.ndarray = np.frombuffer(memory, dtype).reshape(shape)
        return array

    def _address(self, function: str, *arguments: Any) -> int:
        *others, size = arguments
        address = getattr(self._library, function)(*others, ctypes.c_size_t(size))
        if address is None:
            raise MemoryError(f"{function}: no {size} bytes")
        return int(address)

    def _check(self, function: str, *arguments: object) -> None:
        if error := getattr(self._library, function)(*arguments):
            raise RuntimeError(f"{function}: CUDA's error {error}")


class EmulatedDevice(Device):
    """One that is emulated, and what can be done to no other."""

    def __init__(self, path: Path) -> None:
        # Not the name of the real module: pybind11 gives the first one that was loaded to whoever loads another of
        # its name.
        spec = importlib.util.spec_from_file_location("emulated_device._cuda", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        super().__init__(module, path)
        self._library.emulated_live_blocks.restype = ctypes.c_size_t

    def set_devices(self, count: int) -> None:
        self._library.emulated_set_devices(count)

    def set_capacity(self, size: int) -> None:
        self._library.emulated_set_capacity(ctypes.c_size_t(size))

    def live_blocks(self) -> int:
        """Blocks of device memory that nobody has given back."""
        return int(self._library.emulated_live_blocks())


class UploadedArray:
    """An array in the memory of a device, with the strides that it had; the CUDA array interface."""

    def __init__(self, device: Device, array: np.ndarray) -> None:
        self._device = device
        low, high = np.lib.array_utils.byte_bounds(array)
        self._memory = device.copy_to_device(low, high - low)
        self.__cuda_array_interface__: dict[str, Any] = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (self._memory + array.__array_interface__["data"][0] - low, True),
            "strides": array.strides,
            "version": 3,
        }

    def let_wait(self, stream: int) -> None:
        """Have a stream wait until the values are there: they are."""

    def __del__(self) -> None:
        self._device.free(self._memory)


class LateArray(UploadedArray):
    """As a library returns it that goes on in a stream of its own: the values, in C order, come after a while."""

    STEPS = 100  # many, since emulated streams take turns
    DELAY = 5e-4  # seconds, of each

    def __init__(self, device: Device, array: np.ndarray) -> None:
        super().__init__(device, np.zeros(array.shape, array.dtype))
        self._stream = device.make_stream(self)
        pinned = device.pin(self, array.shape, array.dtype.type)
        pinned[:] = array
        for _ in range(self.STEPS):
            device.call_in(self._stream, partial(time.sleep, self.DELAY))
        device.copy_in(self._stream, self._memory, pinned.ctypes.data, pinned.nbytes)
        self.__cuda_array_interface__["stream"] = self._stream

    def let_wait(self, stream: int) -> None:
        self._device.let_wait(stream, self._stream)


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

    def __init__(
        self, array: UploadedArray, *, bits: int = 8, capsule_name: bytes = b"dltensor", device: int = 0
    ) -> None:
        self._array = array
        self._device = device
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
        return (self.GPU, self._device)

    def __dlpack__(self, *, stream: int) -> object:
        self.streams.append(stream)
        self._array.let_wait(stream)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self._tensor), self._name, None)


class OnnxExecutor:
    """Runs a bundle's graphs with ONNX Runtime on the host, as work of the device's streams."""

    SIZES = (1, 4, 16)
    element = "f32"

    def __init__(self, device: Device, bundle: Bundle, resolutions: Sequence[int] | None) -> None:
        self._device = device
        self._dim = bundle.dim
        graphs = bundle.metadata["graphs"]["f32"]
        used = [resolution for resolution in bundle.resolutions if resolution in (resolutions or bundle.resolutions)]
        self._sessions = {
            resolution: onnxruntime.InferenceSession(bundle.path / graphs[str(resolution)]) for resolution in used
        }
        most = self.SIZES[-1]
        self._buffers = {
            (resolution, slot): (
                device.pin(
                    self, (most, 3, resolution, resolution), {"f32": np.float32, "f16": np.float16}[self.element]
                ),
                device.pin(self, (most, self._dim), np.float32),
            )
            for resolution in used
            for slot in (0, 1)
        }

    def dim(self) -> int:
        return self._dim

    def input_element(self) -> str:
        return self.element

    def batch_sizes(self, resolution: int) -> list[int]:
        return list(self.SIZES)

    def enqueue(self, resolution: int, count: int, input: int, output: int, stream: int, slot: int) -> None:  # noqa: A002
        images, rows = (buffer[:count] for buffer in self._buffers[resolution, slot])
        session = self._sessions[resolution]

        def run() -> None:
            rows[:] = session.run(None, {"input": images.astype(np.float32)})[0]

        self._device.copy_in(stream, images.ctypes.data, input, images.nbytes)
        self._device.call_in(stream, run)
        self._device.copy_in(stream, output, rows.ctypes.data, rows.nbytes)

    def release_memory(self) -> None:
        """It has none of the device's."""


def install(patch: Any, device: Device, executor: type[OnnxExecutor] = OnnxExecutor) -> None:
    """Have btnet_ext use this device, with this kind of executor."""
    from btnet_ext import cuda

    patch.setitem(sys.modules, "btnet_ext._cuda", device.module)
    cuda.native.cache_clear()
    patch.setattr(cuda, "find_tensorrt", lambda gpu: None)
    patch.setattr(
        cuda,
        "TensorRTExecutor",
        lambda bundle, *, gpu, allocate, precision, resolutions: executor(device, bundle, resolutions),
    )
