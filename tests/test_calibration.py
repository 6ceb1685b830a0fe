"""Graphs in 8 bits: which layers stay in float32, and that NNCF is told to report nothing."""

import os
import sys
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from btnet_ext.bundle import INPUT, OUTPUT
from btnet_ext.calibration import layers_in_float, quantize_graph, row_cosines

SEED = 61


def unbalanced_model() -> onnx.ModelProto:
    """Two 1x1 convolutions: between them, one channel that is read with a small weight is 50 times the others."""
    rng = np.random.default_rng(SEED)
    first, second = rng.normal(size=(8, 3)), rng.normal(size=(16, 8))
    first[0] *= 50
    second[:, 0] /= 50
    nodes = [
        helper.make_node("Conv", [INPUT, "w1"], ["maps"], "first"),
        helper.make_node("Conv", ["maps", "w2"], ["more"], "second"),
        helper.make_node("Flatten", ["more"], ["row"]),
        helper.make_node("Gemm", ["row", "w3"], [OUTPUT], "fc", transB=1),
    ]
    weights = {"w1": first[..., None, None], "w2": second[..., None, None], "w3": rng.normal(size=(12, 16 * 49))}
    graph = helper.make_graph(
        nodes,
        "unbalanced",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", 3, 7, 7])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", 12])],
        [numpy_helper.from_array(weight.astype(np.float32), name) for name, weight in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_layers_that_hurt_stay_in_float() -> None:
    model = unbalanced_model()
    inputs = np.random.default_rng([SEED, 1]).uniform(-1, 1, (10, 3, 7, 7)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    in_float = session.run([OUTPUT], {INPUT: inputs})[0]
    cosines = {}
    kept = {}
    for limit in (0.01, 0.999):
        calibrated: list[float] = []
        result = quantize_graph(model, inputs, in_float, limit, calibrated.append)
        assert len(calibrated) >= len(inputs)
        assert (calibrated[0], calibrated[-1]) == (1 / len(inputs), 1)
        kept[limit] = layers_in_float(result)
        session = onnxruntime.InferenceSession(result.SerializeToString(), providers=["CPUExecutionProvider"])
        cosines[limit] = row_cosines(session.run([OUTPUT], {INPUT: inputs})[0], in_float).mean()
    assert kept[0.01] == []
    assert "second" in kept[0.999]
    assert "fc" not in kept[0.999]
    assert cosines[0.01] < 0.99
    assert cosines[0.999] >= 0.999


def test_nncf_reports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NNCF_CI", raising=False)
    monkeypatch.setitem(sys.modules, "nncf", ModuleType("nncf"))  # no attribute: nothing is quantised
    with pytest.raises(AttributeError):
        quantize_graph(onnx.ModelProto(), np.zeros((1, 3, 7, 7), np.float32), np.ones((1, 2), np.float32), 0.9, print)
    assert os.environ["NNCF_CI"], "NNCF would have reported its use"
