"""Face models in ONNX for OpenVINO: what a model must be, and pixels in place of normalised input."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openvino as ov
from openvino.frontend import FrontEndManager, GeneralFailure
from openvino.preprocess import PrePostProcessor

from btnet_ext._native import core as native

CANONICAL = 112
"""Side in pixels of the images that models without branches are made for."""

_LONGEST_REASON = 200  # characters of OpenVINO's, which can fill a screen


class UnsuitableNetworkError(ValueError):
    """A network that is no face model for 112 px. Its message says what it must be, and goes on after its path."""


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


def last_line(error: Exception) -> str:
    """Return the end of an error of OpenVINO, where it says what is wrong; before come places in its code."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1][:_LONGEST_REASON] if lines else repr(error)


def _describe(ports: Sequence[Any]) -> str:
    return ", ".join(f"{port.any_name} {port.partial_shape}" for port in ports) or "none"
