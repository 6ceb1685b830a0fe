"""Graphs of a bundle as TensorRT gets them: tensors inside, BatchNormalization folded, in single or half precision.

TensorRT's networks are strongly typed: a layer computes in the type that its tensors have, so half precision has to be
in the graph. As in mixed-precision training of these networks (insightface's arcface_torch), everything up to the last
feature map is then computed in f16, and the fully connected layer, which makes the embedding, in f32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper

from btnet_ext.bundle import INPUT, Bundle
from btnet_ext.errors import BundleError
from btnet_ext.onnx_graphs import Constants, attributes, constants_of, fold_casts, read_graph, rebuilt, signature

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
    model = read_graph(bundle, resolution, "int8" if precision == "int8" else "f32")
    if precision == "int8":
        return model
    try:
        return _rewrite(model, half=precision == "f16", head_as_convolution=head_as_convolution)
    except (KeyError, ValueError) as error:
        name = bundle.metadata["graphs"]["f32"][str(resolution)]
        raise BundleError(f"{bundle.path / name} cannot be computed in {precision} by TensorRT: {error}") from error


def _rewrite(model: onnx.ModelProto, half: bool, head_as_convolution: bool) -> onnx.ModelProto:
    constants = constants_of(model)
    nodes = _fold_batch_norms(fold_casts(model.graph.node, constants), constants)
    if half:
        nodes = _halve(nodes, constants)
    if head_as_convolution:
        nodes = _convolve_head(nodes, constants)
    element = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    shape: list[int | str | None] = ["N", *signature(model.graph.input[0])[2]]
    stored = {name: _as_stored(value) for name, value in constants.items()}
    return rebuilt(model, nodes, stored, helper.make_tensor_value_info(INPUT, element, shape))


def _as_stored(value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return value.astype(np.float32) if value.dtype == np.float64 else value


def _fold_batch_norms(nodes: Sequence[NodeProto], constants: Constants) -> list[NodeProto]:
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


def _scale_and_shift(node: NodeProto, constants: Constants) -> tuple[npt.NDArray[np.float64], ...]:
    weight, bias, mean, variance = (constants[name].astype(np.float64) for name in node.input[1:])
    scale = weight / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
    return scale, bias - mean * scale


def _is_foldable(node: NodeProto, constants: Constants) -> bool:
    """Whether outputs of `node` are rows of a constant weight times something, plus a constant bias."""
    plain = node.op_type == "Conv" or (node.op_type == "Gemm" and attributes(node) == {"transB": 1})
    return plain and all(name in constants for name in node.input[1:])


def _fold_into(
    node: NodeProto, scale: npt.NDArray[np.float64], shift: npt.NDArray[np.float64], constants: Constants
) -> None:
    """Make `node`, a Conv or Gemm, compute scale * y + shift, where it computed y."""
    data, weight, *bias = node.input
    rows = constants[weight].astype(np.float64)
    folded = f"{weight}:folded", f"{weight}:shift"  # the weight itself may have other readers
    constants[folded[0]] = rows * scale.reshape(-1, *[1] * (rows.ndim - 1))
    constants[folded[1]] = shift + scale * constants[bias[0]] if bias else shift
    node.input[:] = [data, *folded]


def _batch_norm(
    node: NodeProto, scale: npt.NDArray[np.float64], shift: npt.NDArray[np.float64], constants: Constants
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


def _halve(nodes: Sequence[NodeProto], constants: Constants) -> list[NodeProto]:
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


def _convolve_head(nodes: Sequence[NodeProto], constants: Constants) -> list[NodeProto]:
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
