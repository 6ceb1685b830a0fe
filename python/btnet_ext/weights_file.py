"""The file that all graphs of a bundle take their tensors from: every distinct tensor once, aligned."""

from __future__ import annotations

import hashlib
from typing import Any, BinaryIO

import numpy.typing as npt
from onnx import TensorProto, helper

WEIGHTS = "weights.bin"
"""What the file is called in a bundle."""

ALIGNMENT = 4096
"""Every tensor begins at a multiple of this many bytes, a page, so that it can be mapped by itself."""


class WeightsFile:
    """The file of weights being written: every distinct tensor, by its bytes, once and aligned.

    file: where new tensors go, at its end; the graphs, in the same folder, call it WEIGHTS.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offsets: dict[bytes, int] = {}

    def add(self, name: str, values: npt.NDArray[Any], shape: tuple[int, ...]) -> TensorProto:
        """Write the bytes unless they are there already, and return an initializer that points to them.

        values: of a type that ONNX has, which is also the type of the initializer.
        """
        content = values.astype(values.dtype.newbyteorder("<")).tobytes()
        key = hashlib.sha256(content).digest()
        if key not in self._offsets:
            self._file.write(bytes(-self._file.tell() % ALIGNMENT))
            self._offsets[key] = self._file.tell()
            self._file.write(content)
        proto = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(values.dtype), dims=shape)
        proto.data_location = TensorProto.EXTERNAL
        place = {"location": WEIGHTS, "offset": self._offsets[key], "length": len(content)}
        for field, value in place.items():
            proto.external_data.add(key=field, value=str(value))
        return proto

    def know(self, content: bytes, offset: int) -> None:
        """Note that the file has these bytes at an offset already."""
        self._offsets.setdefault(hashlib.sha256(content).digest(), offset)
