"""Face models in ONNX, run by OpenVINO: what a model must be, what it is given of an image, and its embeddings."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino.frontend import FrontEndManager, GeneralFailure
from openvino.preprocess import PrePostProcessor

from btnet_eval.base import DataError, Image, Rows
from btnet_ext import InvalidOption
from btnet_ext._native import core as native

CANONICAL = 112
"""Side in pixels of the images that models without branches are made for."""

_LONGEST_REASON = 200  # characters of OpenVINO's, which can fill a screen


class UnsuitableNetworkError(ValueError):
    """A network that is no face model for 112 px. Its message says what it must be, and goes on after its path."""


@dataclass(frozen=True)
class Preprocessing:
    """What an ONNX model is given of an image: (pixel - mean) / std, with pixels from 0 to 255.

    mean, std: for each channel, in the order of `color`: "rgb" or "bgr". Most models of insightface have a mean of
    127.5 and a std of 127.5 or 128. Raises `InvalidOption`, which names the option.
    """

    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[float, float, float] = (127.5, 127.5, 127.5)
    color: str = "rgb"

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or not all(map(math.isfinite, self.mean)):
            raise InvalidOption(f"mean must be three finite numbers, not {self.mean!r}")
        if len(self.std) != 3 or not all(0 < value < math.inf for value in self.std):
            raise InvalidOption(f"std must be three positive, finite numbers, not {self.std!r}")
        if self.color not in ("rgb", "bgr"):
            raise InvalidOption(f"color must be rgb or bgr, not {self.color!r}")


def is_onnx(model: str | os.PathLike[str]) -> bool:
    """Tell whether a model is an ONNX file by its name, and no bundle."""
    return os.fspath(model).lower().endswith(".onnx")


def read_network(core: Any, path: Path) -> Any:
    """Return the network of an ONNX file for a batch of one image. Raises UnsuitableNetworkError.

    It has one input (1, 3, 112, 112) of floating-point numbers and one output (1, dim), dim being fixed.
    """
    try:
        # As ONNX first: read_model tries all formats on a damaged file, and TensorFlow's reader writes to stderr.
        FrontEndManager().load_by_framework("onnx").load(str(path))
        network = core.read_model(path)
    except (RuntimeError, GeneralFailure) as error:
        raise UnsuitableNetworkError(f"cannot be read by OpenVINO: {last_line(error)}") from error
    shape = ov.PartialShape([1, 3, CANONICAL, CANONICAL])
    inputs = network.inputs
    if len(inputs) != 1 or not inputs[0].partial_shape.compatible(shape):
        raise UnsuitableNetworkError(f"must have one input (1 or N, 3, 112, 112), got {_describe(inputs)}")
    if not inputs[0].element_type.is_real():
        found = inputs[0].element_type.get_type_name()
        raise UnsuitableNetworkError(f"must take floating-point numbers, got {found}")
    try:
        network.reshape(shape)
    except RuntimeError as error:
        raise UnsuitableNetworkError(f"cannot take one image of 112 px: {last_line(error)}") from error
    outputs = network.outputs
    if len(outputs) != 1 or not outputs[0].partial_shape.compatible(ov.PartialShape([1, -1])):
        raise UnsuitableNetworkError(f"must have one output (N, dim), got {_describe(outputs)}")
    if outputs[0].partial_shape.is_dynamic:
        raise UnsuitableNetworkError(f"must have embeddings of a fixed length, got {_describe(outputs)}")
    return network


def with_normalization(network: Any, mean: Sequence[float], std: Sequence[float], color: str) -> Any:
    """Return the network with uint8 RGB input (1, 112, 112, 3) and float32 output.

    mean, std: for each channel, in the order of `color`, "rgb" or "bgr", in units of 0..255.
    """
    steps = PrePostProcessor(network)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    if color == "bgr":
        steps.input().preprocess().reverse_channels()
    steps.input().preprocess().convert_element_type(ov.Type.f32).mean(list(mean)).scale(list(std))
    steps.output().tensor().set_element_type(ov.Type.f32)
    return steps.build()


def compile_network(core: Any, network: Any, config: Mapping[str, str]) -> Any:
    """Return the network compiled for the CPU. Raises UnsuitableNetworkError where OpenVINO cannot."""
    try:
        with native.SignalStack():
            return core.compile_model(network, "CPU", dict(config))
    except RuntimeError as error:
        raise UnsuitableNetworkError(f"cannot be run by OpenVINO: {last_line(error)}") from error


class FaceNetwork:
    """A face model in ONNX, ready to run on the CPU in float32; for one thread at a time.

    It has one input (1 or N, 3, 112, 112) and one output (N, dim). dim: length of an embedding. digest: SHA-256 of the
    file, of all its constants, which may lie in files of their own, and of the preprocessing.

    Raises DataError, which names the file, for one that is damaged or no such model, and OSError.
    """

    dim: int
    digest: str

    def __init__(self, path: Path, preprocessing: Preprocessing) -> None:
        content = path.read_bytes()
        core = ov.Core()
        try:
            network = read_network(core, path)
            self.dim = network.output().shape[1]
            self.digest = _digest(content, network, preprocessing)
            prepared = with_normalization(network, preprocessing.mean, preprocessing.std, preprocessing.color)
            # One image in a request and several requests at a time: no embedding depends on the images beside it, and
            # small networks are fastest so.
            config = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
            self._queue = ov.AsyncInferQueue(compile_network(core, prepared, config))
        except UnsuitableNetworkError as error:
            raise DataError(f"{path} {error}") from error

    def embed(self, images: Iterable[Image]) -> Rows:
        """Return the embeddings (n, dim) of n images of 112 px, as the network has them."""
        found: dict[int, Rows] = {}

        def keep(request: Any, row: int) -> None:
            found[row] = request.get_output_tensor().data[0].copy()

        self._queue.set_callback(keep)
        try:
            for row, image in enumerate(images):
                self._queue.start_async({0: np.ascontiguousarray(image[None])}, row)
        finally:
            self._queue.wait_all()  # also where an image cannot be had: those before it are under way
        return np.array([found[row] for row in range(len(found))], np.float32).reshape(-1, self.dim)


def _digest(content: bytes, network: Any, preprocessing: Preprocessing) -> str:
    digest = hashlib.sha256(content)
    for operation in network.get_ordered_ops():
        if operation.get_type_name() == "Constant":
            digest.update(np.ascontiguousarray(operation.data).tobytes())
    given = {"mean": [*map(float, preprocessing.mean)], "std": [*map(float, preprocessing.std)]}
    digest.update(json.dumps({**given, "color": preprocessing.color}).encode())
    return digest.hexdigest()


def last_line(error: Exception) -> str:
    """Return the end of an error of OpenVINO, where it says what is wrong; before come places in its code."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1][:_LONGEST_REASON] if lines else repr(error)


def _describe(ports: Sequence[Any]) -> str:
    return ", ".join(f"{port.any_name} {port.partial_shape}" for port in ports) or "none"
