"""Feature maps against ONNX Runtime with the same tensors as outputs; projections and pages against what they show."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from dataset_files import pillow_resize
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from btnet_eval.base import DataError
from btnet_eval.feature_maps import open_network, write_feature_maps
from btnet_eval.onnx_network import Preprocessing
from btnet_eval.session import Run
from btnet_ext import InvalidOption, ModelNotFound
from bundle_copies import BundleCopy

SEED = 31
IMAGENET = Preprocessing(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), color="bgr")
FACE = np.random.default_rng(SEED).integers(0, 256, (60, 50, 3), np.uint8)
COMMAND = ["btnet-eval", "features"]


def runtime_outputs(path: Path, tensors: Sequence[str], x: np.ndarray) -> list[np.ndarray]:
    """What ONNX Runtime has in these tensors."""
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = ""  # it refuses two nodes of one name
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    batch = x.transpose(2, 0, 1)[None].astype(np.float32)
    return [output[0] for output in session.run(list(tensors), {session.get_inputs()[0].name: batch})]


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nodes with names, one without, and two that have one name."""
    random = np.random.default_rng(SEED)
    weights = {
        "w1": random.normal(size=(4, 3, 16, 16)) / 16,
        "w2": random.normal(size=(5, 4, 3, 3)),
        "w3": random.normal(size=(6, 245)) / 16,
    }
    nodes = [
        helper.make_node("Conv", ["pixels", "w1"], ["patches"], "stem", strides=[16, 16]),
        helper.make_node("Relu", ["patches"], ["positive"]),
        helper.make_node("Conv", ["positive", "w2"], ["mixed"], "twin", pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["mixed"], ["squashed"], "twin"),
        helper.make_node("Flatten", ["squashed"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "w3"], ["embedding"], "fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "faces",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ("N", 3, 112, 112))],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ("N", 6))],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )
    path = tmp_path_factory.mktemp("onnx") / "other.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_an_onnx_model_against_onnx_runtime(onnx_file: Path) -> None:
    network = open_network(onnx_file, preprocessing=IMAGENET)
    assert [(layer.name, layer.shape) for layer in network.layers.values()] == [
        ("stem", (4, 7, 7)),
        ("positive", (4, 7, 7)),
        ("twin", (5, 7, 7)),
        ("twin_1", (5, 7, 7)),
    ]
    assert network.layers["stem"].kind == "Convolution"
    x = (pillow_resize(FACE, 112)[..., ::-1] - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    expected = runtime_outputs(onnx_file, ["squashed", "patches", "mixed"], x)
    found = network.maps(FACE, ["twin_1", "stem", "twin"])
    assert list(found) == ["twin_1", "stem", "twin"]
    for maps, output in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(maps, output, rtol=1e-4, atol=1e-4)
        assert maps.std() > 0.01


@pytest.mark.parametrize("side", [7, 28, 112])
def test_a_branch_against_onnx_runtime(small_bundle: Path, side: int) -> None:
    network = open_network(small_bundle, resolution=side)
    layers = ["layer2.0.add", "prelu", "layer4.1.bn3", "bn2"]
    x = (pillow_resize(FACE, side) - 127.5) / 127.5
    expected = runtime_outputs(small_bundle / f"branch_{side}.onnx", [f"{layer}.out" for layer in layers], x)
    found = network.maps(FACE, layers)
    for layer, output in zip(layers, expected, strict=True):
        assert found[layer].shape == output.shape == network.layers[layer].shape
        np.testing.assert_allclose(found[layer], output, rtol=1e-3, atol=1e-3 * np.abs(output).max())
    # They can be asked for again, and the network is still what it was.
    np.testing.assert_array_equal(network.maps(FACE, ["prelu"])["prelu"], found["prelu"])
    nodes = {node.name for node in onnx.load(small_bundle / f"branch_{side}.onnx", load_external_data=False).graph.node}
    assert set(network.layers) == nodes - {"flatten", "fc", "features"}
    assert list(network.layers)[:3] == ["conv1", "bn1", "prelu"]


def test_a_bundle_says_what_it_is_given(tmp_path: Path, small_bundle: Path) -> None:
    copy = BundleCopy(small_bundle, tmp_path / "copy.btnet")
    given = {"color": "bgr", "mean": [10, 20, 30], "std": [100, 50, 20], "filter": "bilinear"}
    copy.edit_model(lambda model: model.update(input=given))
    x = (pillow_resize(FACE, 14, Image.Resampling.BILINEAR)[..., ::-1] - np.array(given["mean"])) / given["std"]
    (expected,) = runtime_outputs(copy.path / "branch_14.onnx", ["conv1.out"], x)
    found = open_network(copy.path, resolution=14).maps(FACE, ["conv1"])["conv1"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_unknown_layers_and_options(tmp_path: Path, small_bundle: Path, onnx_file: Path) -> None:
    network = open_network(onnx_file)
    with pytest.raises(InvalidOption, match=r"other has no layer 'stern'; the nearest names are stem, "):
        network.maps(FACE, ["stern"])
    with pytest.raises(InvalidOption, match=r"small, branch 112 has no layer 'layer4\.1\.ad'; .* are layer4\.1\.add"):
        open_network(small_bundle).maps(FACE, ["layer4.1.ad"])
    with pytest.raises(InvalidOption, match=r"has no layer 'flatten'"):
        network.maps(FACE, ["flatten"])
    for layers in ([], ["stem", "stem"]):
        with pytest.raises(InvalidOption, match="layers must be one or more of other, each once"):
            network.maps(FACE, layers)
    with pytest.raises(InvalidOption, match="resolution must be 112 for an ONNX model, not 28"):
        open_network(onnx_file, resolution=28)
    with pytest.raises(InvalidOption, match=r"resolution must be one of 7, 14, 28, 112, the branches of small, not 20"):
        open_network(small_bundle, resolution=20)
    with pytest.raises(InvalidOption, match="preprocessing is for an ONNX model"):
        open_network(small_bundle, preprocessing=IMAGENET)
    with pytest.raises(ModelNotFound):
        open_network("unheard")
    (tmp_path / "damaged.onnx").write_bytes(b"no model")
    with pytest.raises(DataError, match=r"damaged\.onnx cannot be read by OpenVINO"):
        open_network(tmp_path / "damaged.onnx")


def test_page_of_feature_maps(tmp_path: Path, small_bundle: Path, onnx_file: Path) -> None:
    networks = [
        (open_network(small_bundle, resolution=28), ["prelu", "bn2"]),
        (open_network(onnx_file), ["stem", "twin"]),
    ]
    run = Run(out=tmp_path / "out", command=COMMAND)
    page = write_feature_maps(run, networks, FACE, "face.png", 20)
    assert page == tmp_path / "out" / "features.html"
    assert 'src="feature_maps.png"' in page.read_text()
    assert (tmp_path / "out" / "feature_maps.svg").stat().st_size > 1000
    result = json.loads((tmp_path / "out" / "features.json").read_text())
    assert list(result["models"]) == ["small, branch 28", "other"]
    small = pillow_resize(FACE, 20)
    rows = result["numbers"]["layers"]
    assert [(row["column"], row["layer"]) for row in rows] == [
        ("1", "prelu"),
        ("2", "bn2"),
        ("1", "stem"),
        ("2", "twin"),
    ]
    for row, network in zip(rows, (networks[0][0],) * 2 + (networks[1][0],) * 2, strict=True):
        mean = network.maps(small, [row["layer"]])[row["layer"]].mean(axis=0)
        assert (row["channels"], row["height"], row["width"]) == network.layers[row["layer"]].shape
        assert (row["lowest"], row["highest"]) == (float(mean.min()), float(mean.max()))
    # The same layers of two networks of one name: their names head the columns, numbers tell the networks apart.
    twice = [(networks[0][0], ["prelu"]), (open_network(small_bundle, resolution=28), ["prelu"])]
    write_feature_maps(run, twice, FACE, "face.png", None)
    result = json.loads((tmp_path / "out" / "features.json").read_text())
    rows = result["numbers"]["layers"]
    assert [(row["model"], row["column"]) for row in rows] == [
        ("1: small, branch 28", "prelu"),
        ("2: small, branch 28", "prelu"),
    ]
    mean = networks[0][0].maps(FACE, ["prelu"])["prelu"].mean(axis=0)
    assert rows[0]["highest"] == rows[1]["highest"] == float(mean.max())
    uneven = [(networks[0][0], ["prelu"]), (networks[1][0], ["stem", "twin"])]
    for wrong in (uneven, []):
        with pytest.raises(InvalidOption, match="layers must be as many for each network, one network at least"):
            write_feature_maps(run, wrong, FACE, "face.png", 20)
