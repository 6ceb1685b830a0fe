"""Graphs of a bundle as the onnx package has them, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import NodeProto, TensorProto, helper, numpy_helper

from btnet_ext.bundle import INPUT, OUTPUT, Bundle
from btnet_ext.errors import BackendUnavailable, BundleError

Constants = dict[str, npt.NDArray[Any]]
"""Tensors by name."""


def read_graph(bundle: Bundle, resolution: int, precision: str) -> onnx.ModelProto:
    """Return the graph of a branch as it is stored for "f32" or "int8", with its tensors inside.

    Raises BackendUnavailable where the bundle has none for this precision, and BundleError for one that cannot be read
    or has another input or output.
    """
    graphs = bundle.metadata["graphs"]
    if precision not in graphs:
        raise BackendUnavailable(
            f"precision {precision!r} is not available: the bundle has no {precision} graphs; use 'f32' or 'f16'"
        )
    path = bundle.path / graphs[precision][str(resolution)]
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (OSError, ValueError, DecodeError, onnx.checker.ValidationError) as error:
        raise BundleError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    _check_interface(model.graph, (3, resolution, resolution), bundle.dim, path)
    return model


def signature(value: onnx.ValueInfoProto) -> tuple[str, int, tuple[int, ...]]:
    """Return name, type, and shape behind the axis of the batch; a size that is not known is 0."""
    tensor = value.type.tensor_type
    return value.name, tensor.elem_type, tuple(axis.dim_value for axis in tensor.shape.dim[1:])


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return the attributes of a node by name."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def fold_casts(nodes: Sequence[NodeProto], constants: Constants) -> list[NodeProto]:
    """Drop the casts behind weights that are stored in half precision; the result is in `constants`."""
    kept = []
    for node in nodes:
        if node.op_type == "Cast" and node.input[0] in constants:
            element = helper.tensor_dtype_to_np_dtype(attributes(node)["to"])
            constants[node.output[0]] = constants[node.input[0]].astype(element)
        else:
            kept.append(node)
    return kept


def without_casts(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph whose weights, where they are stored in half precision, are float32."""
    constants = constants_of(model)
    return rebuilt(model, fold_casts(model.graph.node, constants), constants, model.graph.input[0])


def constants_of(model: onnx.ModelProto) -> Constants:
    """Return the tensors of a graph."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def rebuilt(
    model: onnx.ModelProto, nodes: Sequence[NodeProto], constants: Constants, image: onnx.ValueInfoProto
) -> onnx.ModelProto:
    """Return a graph with other nodes and another input, and those of `constants` that they read."""
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        model.graph.name,
        [image],
        model.graph.output,
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _check_interface(graph: onnx.GraphProto, image: tuple[int, ...], dim: int, path: Path) -> None:
    constants = {tensor.name for tensor in graph.initializer}
    tensors = [[value for value in graph.input if value.name not in constants], list(graph.output)]
    for kind, values, name, shape in zip(("input", "output"), tensors, (INPUT, OUTPUT), (image, (dim,)), strict=True):
        if len(values) != 1 or signature(values[0]) != (name, TensorProto.FLOAT, shape):
            raise BundleError(f"{path} must have one {kind}, {name!r}, float32 of shape (N, {str(shape)[1:-1]})")
