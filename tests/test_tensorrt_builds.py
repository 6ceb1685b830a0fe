"""Engines really built, by TensorRT-RTX, which needs no GPU for it; and run, where there is one."""

import importlib.util
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from btnet_ext import Bundle, BundleError
from btnet_ext.tensorrt import plan_cache, plan_key
from btnet_ext.trt_build import build_plan
from btnet_ext.trt_library import AMPERE_AND_LATER, TURING, find_tensorrt
from btnet_ext.trt_plans import Batches
from bundle_copies import BundleCopy
from command_line import Call

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed: pip install '.[tensorrt]'"
)

BATCHES = Batches(1, 4, 8)


def build(path: Path, resolution: int, precision: str, target: str, **options: Any) -> bytes:
    library = find_tensorrt()
    bundle = Bundle.open(path)
    key = plan_key(library, bundle, resolution, target=target, precision=precision, batches=BATCHES)
    return build_plan(library, bundle, key, **options)


@pytest.mark.parametrize("resolution", [7, 14, 28, 112])
@pytest.mark.parametrize(
    ("precision", "target"), [("f32", AMPERE_AND_LATER), ("f16", AMPERE_AND_LATER), ("f16", TURING)]
)
def test_every_branch(small_bundle: Path, resolution: int, precision: str, target: str) -> None:
    plan = build(small_bundle, resolution, precision, target)
    # The fully connected layer alone, f32: 512 rows of 128 channels of 7 x 7.
    assert len(plan) > 4 * 512 * 128 * 7 * 7


def test_turing_in_single_precision(small_bundle: Path) -> None:
    """TensorRT-RTX refuses matrix products in f32 there; as a convolution it takes the fully connected layer."""
    assert build(small_bundle, 7, "f32", TURING)


@pytest.fixture
def copy(small_bundle: Path, tmp_path: Path) -> BundleCopy:
    return BundleCopy(small_bundle, tmp_path / "copy.btnet")


def quantize_input(model: ModelProto) -> None:
    """Put Q/DQ before the first convolution, in the form that TensorRT takes: int8, with zero at zero."""
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(1 / 127, np.float32), "step"),
            numpy_helper.from_array(np.array(0, np.int8), "zero"),
        ]
    )
    first = model.graph.node[0]
    assert first.op_type == "Conv"
    quantize = helper.make_node("QuantizeLinear", [first.input[0], "step", "zero"], ["quantized"], "quantize")
    restore = helper.make_node("DequantizeLinear", ["quantized", "step", "zero"], ["restored"], "restore")
    first.input[0] = "restored"
    model.graph.node.insert(0, quantize)
    model.graph.node.insert(1, restore)


def test_graphs_with_quantisation_in_them(copy: BundleCopy) -> None:
    name = "branch_7_int8.onnx"
    copy.write_file(name, (copy.path / "branch_7.onnx").read_bytes())
    copy.edit_graph(quantize_input, name)
    copy.edit_model(lambda model: model["graphs"].update(int8=model["graphs"]["f32"] | {"7": name}))
    assert build(copy.path, 7, "int8", AMPERE_AND_LATER)


def stride_of_the_shortcut(model: ModelProto) -> None:
    """Both ways through a unit then have maps of different sizes, which only shape inference finds."""
    node = next(node for node in model.graph.node if node.name.endswith("downsample.0"))
    attribute = next(attribute for attribute in node.attribute if attribute.name == "strides")
    attribute.ints[:] = [attribute.ints[0] * 2] * 2


def test_wrong_graph(copy: BundleCopy) -> None:
    copy.edit_graph(stride_of_the_shortcut)
    with pytest.raises(BundleError) as caught:
        build(copy.path, 7, "f16", AMPERE_AND_LATER)
    message = str(caught.value)
    assert "\n" not in message
    assert "resolution 7: " in message
    assert "layer2.0.add" in message


@pytest.fixture
def cli_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BTNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_command(small_bundle: Path, cli_cache: Path, call: Call) -> None:
    command = ("build", small_bundle, "--precision", "f16", "--batch", "1:4:8", "--resolution", 7)
    status, out, errors = call(*command)
    assert (status, errors) == (0, [])
    library, bundle = find_tensorrt(), Bundle.open(small_bundle)
    key = plan_key(library, bundle, 7, target=AMPERE_AND_LATER, precision="f16", batches=BATCHES)
    assert out == f"7: {plan_cache().path(key)}\n"
    written = plan_cache().path(key).stat().st_mtime_ns
    assert plan_cache().find(key)
    assert call(*command) == (0, out, [])
    assert plan_cache().path(key).stat().st_mtime_ns == written, "it was there"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--precision", "f64"), "precision must be one of f32, f16, int8"),
        (("--precision", "int8"), "no int8 graphs"),
        (("--batch", "8"), "batch must be MIN:OPT:MAX"),
        (("--resolution", 8), "resolution must be one of"),
        (("--target", "sm90"), "target must be auto, cuda, cuda:N, ampere+ or sm75, not 'sm90'"),
    ],
)
def test_wrong_commands(
    small_bundle: Path, cli_cache: Path, call: Call, options: tuple[object, ...], part: str
) -> None:
    status, out, errors = call("build", small_bundle, *options)
    assert (status, out) == (1, "")
    assert len(errors) == 1
    assert part in errors[0]
    assert not cli_cache.exists()


def test_command_without_tensorrt(small_bundle: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    status, out, errors = call("build", small_bundle)
    assert (status, out, len(errors)) == (1, "", 1)
    assert errors[0].startswith("there is no TensorRT to use")


def test_interrupt(small_bundle: Path) -> None:
    """Ctrl-C ends a build as it ends anything else, and not by way of TensorRT."""
    pressed = False

    def press(_: float) -> None:
        nonlocal pressed
        if not pressed:
            os.kill(os.getpid(), signal.SIGINT)
        pressed = True

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build(small_bundle, 7, "f16", AMPERE_AND_LATER, progress=press)
    assert pressed
    assert signal.getsignal(signal.SIGINT) is before
