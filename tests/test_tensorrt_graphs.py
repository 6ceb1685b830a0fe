"""Graphs for TensorRT compute what the bundle's do: on ONNX Runtime, in f32 and with half precision inside."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from btnet_ext import BackendUnavailable, Bundle, BundleError
from btnet_ext.trt_graphs import load_graph
from bundle_copies import BundleCopy
from pillow_reference import pillow_resize
from reference import Pixels, cosines, faces
from stand_in_tensorrt import one_thread

SEED = 40
RESOLUTIONS = (7, 14, 28, 112)
REAL_FACES = 24

Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def bundle(small_bundle: Path) -> Bundle:
    return Bundle.open(small_bundle)


@pytest.fixture(scope="module")
def real_faces(data_folder: Path) -> list[Pixels]:
    with zipfile.ZipFile(data_folder / "celeba" / "native_crops.zip") as archive:
        names = sorted(name for name in archive.namelist() if not name.endswith("/"))
        chosen = np.random.default_rng(SEED).choice(len(names), REAL_FACES, replace=False)
        return [np.asarray(Image.open(io.BytesIO(archive.read(names[i]))).convert("RGB")) for i in chosen]


def batch(images: list[Pixels], side: int) -> Floats:
    pixels = np.stack([pillow_resize(image, side, side, "bicubic") for image in images])
    return ((pixels.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5).astype(np.float32)


def made_faces(side: int, count: int = 4) -> Floats:
    return batch(faces([(side, side)] * count, SEED), side)


def run(model: Path | onnx.ModelProto, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, one_thread())
    [output] = session.run(["embedding"], {"input": values})
    return np.asarray(output)


def graph_of(bundle: Bundle, resolution: int) -> Path:
    return bundle.path / f"branch_{resolution}.onnx"


def count(model: onnx.ModelProto) -> dict[str, int]:
    kinds = [node.op_type for node in model.graph.node]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_single_precision(bundle: Bundle, resolution: int) -> None:
    model = load_graph(bundle, resolution, "f32")
    onnx.checker.check_model(model, full_check=True)
    values = made_faces(resolution)
    expected = run(graph_of(bundle, resolution), values)
    np.testing.assert_allclose(run(model, values), expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_what_is_folded(bundle: Bundle) -> None:
    """By hand, res18 at 112: the stem, 8 units of two convolutions, and a third one in the first unit of each stage.

    Of the BatchNorms, those before the first convolution of a unit (8) and before the fully connected layer (1) stay.
    """
    convolutions = 1 + 8 * 2 + 4
    expected = {"Add": 8, "BatchNormalization": 9, "Conv": convolutions, "Flatten": 1, "Gemm": 1, "PRelu": 9}
    assert count(load_graph(bundle, 112, "f32")) == expected


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_half_precision(bundle: Bundle, resolution: int) -> None:
    model = load_graph(bundle, resolution, "f16")
    onnx.checker.check_model(model, full_check=True)
    values = made_faces(resolution)
    expected, actual = run(graph_of(bundle, resolution), values), run(model, values.astype(np.float16))
    assert actual.dtype == np.float32
    similarity = cosines(actual, expected)
    assert similarity.min() >= 0.9999
    assert similarity.max() < 1 - 1e-10, "nothing was computed in half precision"


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_half_precision_on_real_faces(bundle: Bundle, real_faces: list[Pixels], resolution: int) -> None:
    values = batch(real_faces, resolution)
    model = load_graph(bundle, resolution, "f16")
    similarity = cosines(run(model, values.astype(np.float16)), run(graph_of(bundle, resolution), values))
    assert similarity.min() >= 0.9999


def test_types_in_half_precision(bundle: Bundle) -> None:
    graph = load_graph(bundle, 14, "f16").graph
    assert [value.type.tensor_type.elem_type for value in graph.input] == [TensorProto.FLOAT16]
    assert [value.type.tensor_type.elem_type for value in graph.output] == [TensorProto.FLOAT]
    [gemm] = [node for node in graph.node if node.op_type == "Gemm"]
    single = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    half = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    assert single == set(gemm.input[1:])
    assert len(half) == len(graph.initializer) - 2


@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_head_as_convolution(bundle: Bundle, precision: str) -> None:
    plain = load_graph(bundle, 7, precision)
    model = load_graph(bundle, 7, precision, head_as_convolution=True)
    onnx.checker.check_model(model, full_check=True)
    assert "Gemm" not in count(model)
    values = made_faces(7).astype(np.float16 if precision == "f16" else np.float32)
    expected = run(plain, values)
    np.testing.assert_allclose(run(model, values), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.fixture
def copy(small_bundle: Path, tmp_path: Path) -> BundleCopy:
    return BundleCopy(small_bundle, tmp_path / "copy.btnet")


def inline(copy: BundleCopy, nodes: list[onnx.NodeProto], weights: dict[str, npt.NDArray[Any]]) -> None:
    """Replace the branch for 7 by a network of a few nodes, from `input` to `embedding`."""
    graph = onnx.load(copy.path / "branch_7.onnx", load_external_data=False)
    del graph.graph.node[:], graph.graph.initializer[:]
    graph.graph.node.extend(nodes)
    graph.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    copy.write_file("branch_7.onnx", graph.SerializeToString())


def test_a_weight_with_two_readers_and_a_sum_with_two(copy: BundleCopy) -> None:
    """What another node reads, too, must not be folded away: a weight, and what comes before a BatchNormalization."""
    generator = np.random.default_rng(SEED)

    def draw(*shape: int) -> Floats:
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)

    norm = {f"{name}{i}": draw(3) for i in (1, 2) for name in ("scale", "bias", "mean", "variance")}
    weights = {"w": draw(3, 3, 1, 1), "b": draw(3), "fc": draw(512, 147), "fcb": draw(512), **norm}
    nodes = [
        helper.make_node("Conv", ["input", "w", "b"], ["x"], "conv1"),
        helper.make_node("BatchNormalization", ["x", *(n + "1" for n in ("scale", "bias", "mean", "variance"))], ["y"]),
        helper.make_node("Conv", ["input", "w"], ["z"], "conv2"),
        helper.make_node("BatchNormalization", ["z", *(n + "2" for n in ("scale", "bias", "mean", "variance"))], ["t"]),
        helper.make_node("Add", ["x", "y"], ["u"]),
        helper.make_node("Add", ["u", "t"], ["v"]),
        helper.make_node("Flatten", ["v"], ["f"]),
        helper.make_node("Gemm", ["f", "fc", "fcb"], ["embedding"], "fc", transB=1),
    ]
    inline(copy, nodes, weights)
    bundle = Bundle.open(copy.path)
    model = load_graph(bundle, 7, "f32")
    assert count(model)["BatchNormalization"] == 1, "the second one can be folded, the first one not"
    values = made_faces(7)
    np.testing.assert_allclose(run(model, values), run(graph_of(bundle, 7), values), rtol=1e-5)


def test_weights_stored_in_half_precision(copy: BundleCopy) -> None:
    """Their casts are dropped, and the values are the rounded ones."""
    generator = np.random.default_rng(SEED)
    weights = {
        "w": generator.normal(size=(3, 3, 1, 1)).astype(np.float16),
        "fc": generator.normal(size=(512, 147)).astype(np.float16),
    }
    nodes = [
        helper.make_node("Cast", ["w"], ["w.cast"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["input", "w.cast"], ["x"], "conv1"),
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Cast", ["fc"], ["fc.cast"], to=TensorProto.FLOAT),
        helper.make_node("Gemm", ["f", "fc.cast"], ["embedding"], "fc", transB=1),
    ]
    inline(copy, nodes, weights)
    bundle = Bundle.open(copy.path)
    model = load_graph(bundle, 7, "f32")
    assert count(model) == {"Conv": 1, "Flatten": 1, "Gemm": 1}
    values = made_faces(7)
    np.testing.assert_allclose(run(model, values), run(graph_of(bundle, 7), values), rtol=1e-5, atol=1e-5)
    assert count(load_graph(bundle, 7, "f16")) == {"Cast": 1, "Conv": 1, "Flatten": 1, "Gemm": 1}


def refuse(path: Path, precision: str, *parts: str) -> None:
    with pytest.raises(BundleError) as caught:
        load_graph(Bundle.open(path), 7, precision)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("branch_7.onnx", *parts):
        assert part in message


def test_weight_too_large_for_half_precision(copy: BundleCopy) -> None:
    weights = {"w": np.full((3, 3, 1, 1), 7e4, np.float32), "fc": np.ones((512, 147), np.float32)}
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["x"], "conv1"),
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "fc"], ["embedding"], "fc", transB=1),
    ]
    inline(copy, nodes, weights)
    refuse(copy.path, "f16", "w has values up to 70000, but half precision ends at 65504")
    assert load_graph(Bundle.open(copy.path), 7, "f32").graph.node


def first(model: onnx.ModelProto, kind: str) -> onnx.NodeProto:
    found: onnx.NodeProto = next(node for node in model.graph.node if node.op_type == kind)
    return found


def multiply_in_place_of_adding(model: onnx.ModelProto) -> None:
    first(model, "Add").op_type = "Mul"


def matrix_product_without_gemm(model: onnx.ModelProto) -> None:
    node = first(model, "Gemm")
    node.op_type = "MatMul"
    del node.input[2:], node.attribute[:]


WRONG: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "another operator": (multiply_in_place_of_adding, "'Mul'"),
    "an operator that does not exist": (lambda model: setattr(model.graph.node[2], "op_type", "Magic"), "Magic"),
    "no fully connected layer": (matrix_product_without_gemm, "Gemm"),
    "another name": (lambda model: setattr(model.graph.input[0], "name", "images"), "'input'"),
    "another side": (lambda model: setattr(model.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 8), "7"),
    "another length": (
        lambda model: setattr(model.graph.output[0].type.tensor_type.shape.dim[1], "dim_value", 8),
        "512",
    ),
    "a parameter that is missing": (lambda model: model.graph.initializer.pop(1), ""),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_graphs(copy: BundleCopy, what: str) -> None:
    change, part = WRONG[what]
    copy.edit_graph(change)
    refuse(copy.path, "f16", part)


def test_int8(copy: BundleCopy) -> None:
    """Where the bundle has no such graphs, the precision is not there; where it has, they are taken as they are."""
    with pytest.raises(BackendUnavailable, match="no int8 graphs"):
        load_graph(Bundle.open(copy.path), 7, "int8")
    names = {str(resolution): f"branch_{resolution}.onnx" for resolution in RESOLUTIONS}
    copy.edit_model(lambda model: model["graphs"].update(int8=names))
    bundle = Bundle.open(copy.path)
    model = load_graph(bundle, 7, "int8")
    assert count(model) == count(onnx.load(graph_of(bundle, 7)))
    assert all(not tensor.external_data for tensor in model.graph.initializer)
