"""Post-training quantisation of one graph to 8 bits, by NNCF.

The result has QuantizeLinear and DequantizeLinear around what is computed in integers, symmetric, with a scale for each
output channel of a weight and one for a whole map, as OpenVINO and TensorRT read them. BatchNormalization stays
unfolded and a weight's scale depends on the weight alone, so that a weight that branches share has the same integers in
all of them.

Weights take half of the steps, -64 to 64: CPUs without VNNI add products in pairs, in 16 bits, which would overflow
otherwise, and a bundle gives everywhere what was measured where it was made.
"""

from __future__ import annotations

import io
import itertools
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from typing import Any, cast

import numpy as np
import onnx
import openvino as ov
from numpy.typing import NDArray

from btnet_ext._native import core as native
from btnet_ext.bundle import INPUT
from btnet_ext.errors import BackendUnavailable

Floats = NDArray[np.float32]


def quantize_graph(
    model: onnx.ModelProto, faces: Floats, reference: Floats, least_cosine: float, progress: Callable[[float], None]
) -> onnx.ModelProto:
    """Return the graph with everything in 8 bits that can be.

    Where the mean cosine between its embeddings and those of the graph given falls below `least_cosine`, layers are put
    back to float32, those that help most first, until it does not, or until none is left.

    model: with its tensors inside. faces: (n, 3, r, r), n at least 1, as the network gets them; both calibration and
    the cosines are of them. reference: what `embed` gives for them. progress: called with the part of the faces that
    are done.

    Raises BackendUnavailable without NNCF.
    """
    nncf = _nncf()
    calibrated = itertools.count(1)

    def calibrate(index: int) -> dict[str, Floats]:
        progress(min(next(calibrated) / len(faces), 1.0))  # corrections look at some faces once more
        return {INPUT: faces[index, None]}

    def agreement(candidate: onnx.ModelProto, indices: Iterable[int]) -> tuple[float, list[float]]:
        chosen = list(indices)
        cosines = row_cosines(embed(candidate, faces[chosen]), reference[chosen])
        return float(cosines.mean()), cosines.tolist()

    # NNCF writes its progress to stdout.
    with redirect_stdout(io.StringIO()):
        quantized = nncf.quantize_with_accuracy_control(
            model,
            nncf.Dataset(range(len(faces)), calibrate),
            nncf.Dataset(range(len(faces))),
            validation_fn=agreement,
            max_drop=1 - least_cosine,
            drop_type=nncf.DropType.ABSOLUTE,
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(faces),
            advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
        )
    return cast(onnx.ModelProto, quantized)


def embed(model: onnx.ModelProto, faces: Floats) -> Floats:
    """Return the raw embeddings (n, D) of faces (n, 3, r, r), as the network gets them, by OpenVINO on the CPU."""
    engine = ov.Core()
    with native.SignalStack():
        network = engine.read_model(io.BytesIO(model.SerializeToString()))
        compiled = engine.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    return np.concatenate([request.infer([face[None]])[0].copy() for face in faces])


def row_cosines(first: Floats, second: Floats) -> NDArray[np.float64]:
    """Return the cosines (n,) between the rows of two arrays (n, D); 0 where one has only zeros."""
    wide = first.astype(np.float64), second.astype(np.float64)
    norms = np.prod([np.linalg.norm(rows, axis=1) for rows in wide], axis=0)
    return cast(NDArray[np.float64], np.sum(wide[0] * wide[1], axis=1) / np.where(norms == 0, 1, norms))


def layers_in_float(model: onnx.ModelProto) -> list[str]:
    """Return the names of the convolutions and fully connected layers of a quantised graph that are not in 8 bits."""
    makers = {output: node for node in model.graph.node for output in node.output}

    def is_quantized(name: str) -> bool:
        node = makers.get(name)
        while node is not None and node.op_type == "Flatten":
            node = makers.get(node.input[0])
        return node is not None and node.op_type == "DequantizeLinear"

    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    return [node.name for node in layers if not all(map(is_quantized, node.input[:2]))]


def _nncf() -> Any:
    # Where openvino-telemetry is installed, NNCF reports its use to a server; it does not where this is set.
    os.environ.setdefault("NNCF_CI", "1")
    try:
        import nncf
    except ImportError as error:
        raise BackendUnavailable(f"quantisation needs NNCF ({error}): pip install 'btnet-ext[quantize]'") from error
    # Not by NNCF's own function, which also changes the handlers, of whom they may be.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf
