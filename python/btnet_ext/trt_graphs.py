"""Graphs of a bundle as TensorRT gets them: tensors inside, BatchNormalization folded, in single or half precision.

TensorRT's networks are strongly typed: a layer computes in the type that its tensors have, so half precision has to be
in the graph. As in mixed-precision training of these networks (insightface's arcface_torch), everything up to the last
feature map is then computed in f16, and the fully connected layer, which makes the embedding, in f32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import NodeProto, TensorProto, helper, numpy_helper

from btnet_ext.bundle import Bundle
from btnet_ext.errors import BackendUnavailable, BundleError
from btnet_ext.trt_plans import INPUT, OUTPUT

_Constants = dict[str, npt.NDArray[Any]]
_HALF_BODY = ("Conv", "BatchNormalization", "PRelu", "Add", "Flatten")  # what may come before the fully connected layer


def load_graph(
    bundle: Bundle, resolution: int, precision: str, *, head_as_convolution: bool = False
) -> onnx.ModelProto:
    """Return the graph of one branch, ready for TensorRT, without external data.

    precision: "f32"; "f16", whose `input` is float16; or "int8", the bundle's own graph with quantisation in it.
    The output, `embedding`, is float32 in all of them.
    head_as_convolution: write the fully connected layer as a convolution of 1 x 1; int8 graphs stay as they are.

    Raises:
        BackendUnavailable: the bundle has no int8 graphs.
        BundleError: the graph cannot be read, or is not of a form that can be computed in this precision.
    """
    path = _graph_path(bundle, resolution, precision)
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (OSError, ValueError, DecodeError, onnx.checker.ValidationError) as error:
        raise BundleError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    _check_interface(model.graph, (3, resolution, resolution), bundle.dim, path)
    if precision == "int8":
        return model
    try:
        return _rewrite(model, half=precision == "f16", head_as_convolution=head_as_convolution)
    except (KeyError, ValueError) as error:
        raise BundleError(f"{path} cannot be computed in {precision} by TensorRT: {error}") from error


def _graph_path(bundle: Bundle, resolution: int, precision: str) -> Path:
    graphs = bundle.metadata["graphs"]
    stored = "int8" if precision == "int8" else "f32"
    if stored not in graphs:
        raise BackendUnavailable("precision 'int8' is not available: the bundle has no int8 graphs; use 'f32' or 'f16'")
    name: str = graphs[stored][str(resolution)]
    return bundle.path / name


def _check_interface(graph: onnx.GraphProto, image: tuple[int, ...], dim: int, path: Path) -> None:
    constants = {tensor.name for tensor in graph.initializer}
    tensors = [[value for value in graph.input if value.name not in constants], list(graph.output)]
    for kind, values, name, shape in zip(("input", "output"), tensors, (INPUT, OUTPUT), (image, (dim,)), strict=True):
        if len(values) != 1 or _signature(values[0]) != (name, TensorProto.FLOAT, shape):
            raise BundleError(f"{path} must have one {kind}, {name!r}, float32 of shape (N, {str(shape)[1:-1]})")


def _signature(value: onnx.ValueInfoProto) -> tuple[str, int, tuple[int, ...]]:
    """Name, type, and shape behind the axis of the batch; a size that is not known is 0."""
    tensor = value.type.tensor_type
    return value.name, tensor.elem_type, tuple(axis.dim_value for axis in tensor.shape.dim[1:])


def _rewrite(model: onnx.ModelProto, half: bool, head_as_convolution: bool) -> onnx.ModelProto:
    graph = model.graph
    constants: _Constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = _fold_batch_norms(_fold_casts(graph.node, constants), constants)
    if half:
        nodes = _halve(nodes, constants)
    if head_as_convolution:
        nodes = _convolve_head(nodes, constants)
    element = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    shape: list[int | str | None] = ["N", *_signature(graph.input[0])[2]]
    used = {name for node in nodes for name in node.input}
    rewritten = helper.make_graph(
        nodes,
        graph.name,
        [helper.make_tensor_value_info(INPUT, element, shape)],
        graph.output,
        [numpy_helper.from_array(_as_stored(value), name) for name, value in constants.items() if name in used],
    )
    return helper.make_model(rewritten, opset_imports=model.opset_import, ir_version=model.ir_version)


def _as_stored(value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return value.astype(np.float32) if value.dtype == np.float64 else value


def _fold_casts(nodes: Sequence[NodeProto], constants: _Constants) -> list[NodeProto]:
    """Drop the casts behind weights that are stored in half precision; the result is in `constants`."""
    kept = []
    for node in nodes:
        if node.op_type == "Cast" and node.input[0] in constants:
            element = helper.tensor_dtype_to_np_dtype(_attributes(node)["to"])
            constants[node.output[0]] = constants[node.input[0]].astype(element)
        else:
            kept.append(node)
    return kept


def _fold_batch_norms(nodes: Sequence[NodeProto], constants: _Constants) -> list[NodeProto]:
    """Fold each BatchNormalization into the Conv or Gemm before it; `nodes` are changed. All is done in float64.

    One that follows something else stays, reduced to scale and shift. (It cannot be folded into a convolution behind
    it: the zeros around the map would have to be other numbers, a different one in each channel.)
    """
    readers = Counter(name for node in nodes for name in node.input)
    makers = {node.output[0]: node for node in nodes}
    kept = []
    for node in nodes:
        if node.op_type == "BatchNormalization":
            scale, shift = _scale_and_shift(node, constants)
            before = makers.get(node.input[0])
            if before is not None and readers[node.input[0]] == 1 and _is_foldable(before, constants):
                _fold_into(before, scale, shift, constants)
                before.output[0] = node.output[0]
                continue
            node = _batch_norm(node, scale, shift, constants)
        kept.append(node)
    return kept


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _scale_and_shift(node: NodeProto, constants: _Constants) -> tuple[npt.NDArray[np.float64], ...]:
    weight, bias, mean, variance = (constants[name].astype(np.float64) for name in node.input[1:])
    scale = weight / np.sqrt(variance + _attributes(node).get("epsilon", 1e-5))
    return scale, bias - mean * scale


def _is_foldable(node: NodeProto, constants: _Constants) -> bool:
    """Whether outputs of `node` are rows of a constant weight times something, plus a constant bias."""
    plain = node.op_type == "Conv" or (node.op_type == "Gemm" and _attributes(node) == {"transB": 1})
    return plain and all(name in constants for name in node.input[1:])


def _fold_into(
    node: NodeProto, scale: npt.NDArray[np.float64], shift: npt.NDArray[np.float64], constants: _Constants
) -> None:
    """Make `node`, a Conv or Gemm, compute scale * y + shift, where it computed y."""
    data, weight, *bias = node.input
    rows = constants[weight].astype(np.float64)
    folded = f"{weight}:folded", f"{weight}:shift"  # the weight itself may have other readers
    constants[folded[0]] = rows * scale.reshape(-1, *[1] * (rows.ndim - 1))
    constants[folded[1]] = shift + scale * constants[bias[0]] if bias else shift
    node.input[:] = [data, *folded]


def _batch_norm(
    node: NodeProto, scale: npt.NDArray[np.float64], shift: npt.NDArray[np.float64], constants: _Constants
) -> NodeProto:
    parameters = {"scale": scale, "shift": shift, "mean": np.zeros_like(scale), "variance": np.ones_like(scale)}
    names = [f"{node.output[0]}:{name}" for name in parameters]
    constants.update(zip(names, parameters.values(), strict=True))
    return helper.make_node(node.op_type, [node.input[0], *names], node.output, node.name, epsilon=0.0)


def _first_gemm(nodes: Sequence[NodeProto]) -> int:
    """Index of the fully connected layer, which makes the embedding."""
    first = next((index for index, node in enumerate(nodes) if node.op_type == "Gemm"), None)
    if first is None:
        raise ValueError("it has no Gemm node, which makes the embedding")
    return first


def _halve(nodes: Sequence[NodeProto], constants: _Constants) -> list[NodeProto]:
    """Compute everything before the fully connected layer in float16. ValueError where that cannot be done."""
    first = _first_gemm(nodes)
    body, head = nodes[:first], nodes[first:]
    for node in body:
        if node.op_type not in _HALF_BODY:
            raise ValueError(f"it has a node {node.op_type!r}, but before the Gemm there may only be {_HALF_BODY}")
        for name in node.input:
            if name in constants:
                constants[name] = _half(name, constants[name])
    single = f"{head[0].input[0]}:f32"
    cast = helper.make_node("Cast", [head[0].input[0]], [single], f"{head[0].name}.cast", to=TensorProto.FLOAT)
    head[0].input[0] = single
    return [*body, cast, *head]


def _half(name: str, values: npt.NDArray[Any]) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16)
    if not np.isfinite(rounded).all():
        largest, limit = np.abs(values).max(), np.finfo(np.float16).max
        raise ValueError(f"{name} has values up to {largest:g}, but half precision ends at {limit:g}")
    return rounded


def _convolve_head(nodes: Sequence[NodeProto], constants: _Constants) -> list[NodeProto]:
    """Write the fully connected layer as a convolution over a map of one pixel."""
    first = _first_gemm(nodes)
    gemm = nodes[first]
    if not _is_foldable(gemm, constants):
        raise ValueError(f"its Gemm node {gemm.name!r} is not a constant matrix, transposed, and a bias")
    data, weight, *bias = gemm.input
    axes, kernel, pixel, row = (f"{gemm.name}:{part}" for part in ("axes", "kernel", "pixel", "row"))
    constants[axes] = np.array([2, 3])
    constants[kernel] = constants[weight][:, :, None, None]
    head = [
        helper.make_node("Unsqueeze", [data, axes], [pixel], pixel),
        helper.make_node("Conv", [pixel, kernel, *bias], [row], row, kernel_shape=[1, 1]),
        helper.make_node("Flatten", [row], gemm.output, gemm.name, axis=1),
    ]
    return [*nodes[:first], *head, *nodes[first + 1 :]]
