"""Images that are in GPU memory already: torch, CuPy, numba, pycuda and others, by either of two interfaces.

The CUDA array interface (numba's documentation, versions 2 and 3) and DLPack (1.x, also without a version). Memory has
to be that of the GPU's primary context, which all of them use but pycuda.autoinit: there it is
pycuda.autoprimaryctx.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from btnet_ext._native import core
from btnet_ext.errors import InvalidImage

_DLPACK_GPU = (2, 13)  # kDLCUDA, kDLCUDAManaged
_DLPACK_UNSIGNED = 1
_LEGACY_STREAM = 1


class DeviceView(NamedTuple):
    """uint8 values in device memory, and the object that owns them; strides in bytes."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    owner: Any


def is_on_device(value: object) -> bool:
    """Tell whether an object says that its values are in GPU memory."""
    if isinstance(value, type):
        return False
    try:
        if hasattr(value, "__cuda_array_interface__"):
            return True
    except (RuntimeError, KeyError):  # torch's, for tensors that require a gradient or are of float8: `view` says so
        return True
    try:
        return hasattr(value, "__dlpack_device__") and value.__dlpack_device__()[0] in _DLPACK_GPU
    except (BufferError, RuntimeError, ValueError):  # in no memory at all, as torch's meta tensors
        return False


class DeviceMemory:
    """Reads arrays in the memory of one GPU. native: the module `btnet_ext._cuda`."""

    def __init__(self, native: Any, device: int) -> None:
        self._native = native
        self._device = device

    def view(self, value: Any, name: str) -> DeviceView:
        """View an array, without copying it, once what its library still does to it is done.

        Raises `InvalidImage` for anything but uint8 on this GPU; `name` stands for it in the message.
        """
        with self._native.CurrentDevice(self._device):  # a default stream is that of the current device
            interface = _interface_of(value, name)
            # Without a stream, the interface does not say what the values still have to wait for. DLPack does.
            if interface is not None and (interface.get("stream") or not hasattr(value, "__dlpack__")):
                view = self._from_interface(value, interface, name)
            else:
                view = self._from_dlpack(value, name)
            if 0 not in view.shape:
                self._check_device(view.address, name)
        return view

    def image(self, view: DeviceView, name: str) -> Any:
        """Return a view of (height, width, 1 or 3) or (height, width) as the native pipeline takes it."""
        shape, strides = view.shape, view.strides
        if len(shape) not in (2, 3):
            raise InvalidImage(f"{name} has shape {shape}, expected (height, width, 3) or (height, width)")
        if len(shape) == 2:
            shape, strides = (*shape, 1), (*strides, 1)
        if shape[2] not in (1, 3):
            raise InvalidImage(f"{name} has {shape[2]} channels (shape {shape}), expected 3, or 1 for grey")
        if 0 in shape:
            raise InvalidImage(f"{name} has no pixels: its shape is {view.shape}")
        if max(shape) > core.LONGEST_SIDE:
            raise InvalidImage(f"{name} has a side of {max(shape)} pixels, expected at most {core.LONGEST_SIDE}")
        return self._native.DeviceArray(view.address, *shape, strides, view.owner)

    def _from_interface(self, value: Any, interface: Any, name: str) -> DeviceView:
        if interface["typestr"][1:] != "u1":
            raise InvalidImage(f"{name} has type {interface['typestr']!r} in GPU memory, expected uint8 (0 to 255)")
        if interface.get("mask") is not None:
            raise InvalidImage(f"{name} has a mask, which images do not have")
        shape = tuple(interface["shape"])
        strides = interface.get("strides") or _packed(shape)
        self._native.synchronize(interface.get("stream") or _LEGACY_STREAM)
        return DeviceView(interface["data"][0], shape, tuple(strides), value)

    def _from_dlpack(self, value: Any, name: str) -> DeviceView:
        device = value.__dlpack_device__()[1]
        if device != self._device:
            raise self._elsewhere(device, name)
        # On that stream the library has its work done, or waited for, before the stream goes on.
        try:
            capsule = value.__dlpack__(stream=_LEGACY_STREAM)
        except (BufferError, RuntimeError) as error:  # torch's, for tensors that require a gradient
            raise InvalidImage(f"{name} cannot be read in GPU memory: {error}") from error
        address, shape, strides, code, bits, lanes, _, _ = self._native.read_dlpack(capsule)
        if (code, bits, lanes) != (_DLPACK_UNSIGNED, 8, 1):
            raise InvalidImage(f"{name} has another type than uint8 (0 to 255) in GPU memory")
        self._native.synchronize(_LEGACY_STREAM)
        return DeviceView(address, shape, strides, (value, capsule))

    def _check_device(self, address: int, name: str) -> None:
        device = self._native.device_of(address)
        if device not in (self._device, self._native.ANY_DEVICE):
            raise self._elsewhere(device, name)

    def _elsewhere(self, device: int, name: str) -> InvalidImage:
        where = "in host memory" if device < 0 else f"in the memory of cuda:{device}"
        return InvalidImage(f"{name} is {where}, expected that of cuda:{self._device}")


def _interface_of(value: Any, name: str) -> Any:
    """Return an object's CUDA array interface, or None where it has DLPack's alone."""
    try:
        return getattr(value, "__cuda_array_interface__", None)
    except (RuntimeError, KeyError) as error:  # torch's, for tensors that require a gradient or are of float8
        raise InvalidImage(f"{name} cannot be read in GPU memory: {error}") from error


def split(view: DeviceView) -> list[DeviceView]:
    """Views of the images of a batch (N, height, width, 3)."""
    return [
        DeviceView(view.address + index * view.strides[0], view.shape[1:], view.strides[1:], view.owner)
        for index in range(view.shape[0])
    ]


def _packed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of bytes in C order."""
    strides = [1]
    for length in reversed(shape[1:]):
        strides.append(strides[-1] * length)
    return tuple(reversed(strides))
