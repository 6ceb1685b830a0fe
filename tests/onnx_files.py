"""Tiny face models in ONNX, and what ONNX Runtime says of images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Pixels = NDArray[np.uint8]
DIM = 16


def write_model(path: Path, shape: tuple[int | str, ...] = ("N", 3, 112, 112), scale: float = 1.0) -> Path:
    """A convolution of 56 px patches: a linear embedding of DIM numbers that sees channel, place and direction."""
    weight = np.random.default_rng(7).normal(size=(4, 3, 56, 56)) * scale / 56
    nodes = [
        helper.make_node("Conv", ["pixels", "weight"], ["patches"], kernel_shape=[56, 56], strides=[56, 56]),
        helper.make_node("Flatten", ["patches"], ["embedding"]),
    ]
    return save(path, nodes, {"pixels": shape}, {"embedding": (shape[0], DIM)}, {"weight": weight})


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int | str, ...]],
    outputs: Mapping[str, tuple[int | str, ...]],
    tensors: dict[str, NDArray[Any]] | None = None,
    element: int = TensorProto.FLOAT,
) -> Path:
    initializers = []
    for name, array in (tensors or {}).items():
        initializers.append(numpy_helper.from_array(array if array.dtype == np.int64 else array.astype("f4"), name))
    graph = helper.make_graph(
        nodes,
        "faces",
        [helper.make_tensor_value_info(name, element, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, element, shape) for name, shape in outputs.items()],
        initializers,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def expected_embeddings(path: Path, images: Pixels, mean: Any, std: Any, color: str = "rgb") -> NDArray[np.float32]:
    """ONNX Runtime's, an image at a time."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    channels = images if color == "rgb" else images[..., ::-1]
    x = ((channels - np.float64(mean)) / np.float64(std)).transpose(0, 3, 1, 2).astype(np.float32)
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in x])


def random_images(seed: int, n: int, side: int = 112) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, size=(n, side, side, 3), dtype=np.uint8)
