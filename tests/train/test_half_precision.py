"""Bundles whose large weights are stored in half precision, and what adding branches leaves as it was."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import openvino
import pytest
import torch
from onnx import TensorProto
from torch import nn

from btnet_eval.onnx_network import compile_network
from btnet_ext import Bundle, Engine
from btnet_train.export import write_bundle
from btnet_train.networks import IResNet
from btnet_train.random_weights import random_networks

RESOLUTIONS = (7, 14, 28, 56, 112)
Networks = dict[int, IResNet]
Values = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def half_bundle(networks: Networks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "half.btnet"
    return write_bundle(out, networks, name="half", license="CC0-1.0", storage="f16")


@pytest.fixture(scope="module")
def rounded(networks: Networks) -> Networks:
    """The networks of the fixture `networks`, made anew, with weights rounded as they are stored."""
    copies = {}
    for resolution, network in networks.items():
        copy = IResNet("res18", 0.25, resolution, dim=64).eval()
        copy.load_state_dict(network.state_dict())
        for layer in copy.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.weight.data = layer.weight.data.half().float()
        copies[resolution] = copy
    return copies


def graph_of(bundle: Path, resolution: int) -> onnx.GraphProto:
    return onnx.load(bundle / f"branch_{resolution}.onnx", load_external_data=False).graph


def external(tensor: onnx.TensorProto) -> tuple[int, int]:
    place = {entry.key: entry.value for entry in tensor.external_data}
    assert place["location"] == "weights.bin"
    return int(place["offset"]), int(place["length"])


def run_torch(network: IResNet, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    with torch.no_grad():
        inputs = torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32).sub(127.5).div(127.5)
        rows: npt.NDArray[np.float64] = network(inputs)[0].double().numpy()
    return rows


def distance(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """1 - cosine, of each row."""
    cosines: npt.NDArray[np.float64] = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return 1 - cosines


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_types_and_bytes(networks: Networks, half_bundle: Path, resolution: int) -> None:
    """Weights of convolutions and fc are the state's values rounded to float16, everything else is untouched."""
    weights = (half_bundle / "weights.bin").read_bytes()
    state = networks[resolution].state_dict()
    large = {name for name, tensor in state.items() if tensor.ndim in (2, 4)}
    found = {tensor.name: tensor for tensor in graph_of(half_bundle, resolution).initializer}
    assert set(found) == {name for name in state if not name.endswith("num_batches_tracked")}
    for name, tensor in found.items():
        offset, length = external(tensor)
        stored, kind = ("<f2", TensorProto.FLOAT16) if name in large else ("<f4", TensorProto.FLOAT)
        assert tensor.data_type == kind, name
        assert offset % 4096 == 0
        assert weights[offset : offset + length] == state[name].numpy().astype(stored).tobytes(), name


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_graphs_are_valid(half_bundle: Path, bundle: Path, resolution: int) -> None:
    """They are those of f32 with a Cast for each weight in half precision, and their input and output stay float32."""
    onnx.checker.check_model(half_bundle / f"branch_{resolution}.onnx", full_check=True)
    half, single = graph_of(half_bundle, resolution), graph_of(bundle, resolution)
    casts = [node for node in half.node if node.op_type == "Cast"]
    weights = {tensor.name for tensor in half.initializer if tensor.data_type == TensorProto.FLOAT16}
    assert {node.input[0] for node in casts} == weights
    assert len(casts) == len(weights)
    kinds = [node.op_type for node in half.node if node.op_type != "Cast"]
    assert kinds == [node.op_type for node in single.node]
    assert (half.input, half.output) == (single.input, single.output)


def test_every_distinct_tensor_is_stored_once(half_bundle: Path, bundle: Path) -> None:
    weights = (half_bundle / "weights.bin").read_bytes()
    places = {external(tensor) for r in RESOLUTIONS for tensor in graph_of(half_bundle, r).initializer}
    assert len({weights[offset : offset + length] for offset, length in places}) == len(places)
    # As many tensors as in f32: none that branches share is stored for each of them.
    assert len(places) == len({external(tensor) for r in RESOLUTIONS for tensor in graph_of(bundle, r).initializer})
    assert len(weights) < 0.7 * (bundle / "weights.bin").stat().st_size


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_runtimes_equal_pytorch_with_rounded_weights(
    networks: Networks, rounded: Networks, half_bundle: Path, resolution: int
) -> None:
    images = np.random.default_rng(7).integers(0, 256, (3, resolution, resolution, 3), dtype=np.uint8)
    inputs = ((images.astype(np.float32) - 127.5) / 127.5).transpose(0, 3, 1, 2).copy()
    expected = run_torch(rounded[resolution], images)
    assert distance(expected, run_torch(networks[resolution], images)).max() > 1e-8, "rounding changes nothing to see"
    path = half_bundle / f"branch_{resolution}.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    model = compile_network(openvino.Core(), path, {"INFERENCE_PRECISION_HINT": "f32"})
    engine = Engine(half_bundle, resolutions=[resolution], threads=1)
    for found in (
        session.run(["embedding"], {"input": inputs})[0],
        model(inputs)["embedding"],
        engine.embed(list(images), normalize=False),
    ):
        assert found.dtype == np.float32
        assert distance(found.astype(np.float64), expected).max() < 1e-9
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_reader_takes_it(half_bundle: Path) -> None:
    bundle = Bundle.open(half_bundle)
    bundle.verify()
    assert bundle.precisions == ("f32",)


@pytest.mark.parametrize("name", ["layer2.0.conv1", "fc"])
def test_values_that_half_precision_cannot_hold(tmp_path: Path, name: str) -> None:
    """65,504 is the largest; from 65,520 on, rounding to the nearest gives infinity."""
    network = random_networks("res18", 1 / 64, dim=4, resolutions=(112,), seed=0)[112]
    weight = network.get_parameter(f"{name}.weight")
    weight.data.view(-1)[1] = -65519.0
    write_bundle(tmp_path / "largest.btnet", {112: network}, name="x", license="x", storage="f16")
    weight.data.view(-1)[1] = -65520.0
    with pytest.raises(ValueError, match=rf"networks\[112\]: {name}\.weight has values up to 65520, but .* 65504"):
        write_bundle(tmp_path / "larger.btnet", {112: network}, name="x", license="x", storage="f16")
    assert [path.name for path in tmp_path.iterdir()] == ["largest.btnet"]
    write_bundle(tmp_path / "larger.btnet", {112: network}, name="x", license="x")


def test_large_values_elsewhere_stay_as_they_are(tmp_path: Path) -> None:
    network = random_networks("res18", 1 / 64, dim=4, resolutions=(112,), seed=0)[112]
    assert network.bn1.running_var is not None
    network.bn1.running_var.fill_(1e6)
    network.fc.bias.data.fill_(1e6)
    write_bundle(tmp_path / "a.btnet", {112: network}, name="x", license="x", storage="f16")


def test_unknown_storage(networks: Networks, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="storage must be one of f32, f16, got 'f8'"):
        write_bundle(tmp_path / "a.btnet", networks, name="x", license="x", storage="f8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("storage", ["f32", "f16"])
def test_adding_branches_leaves_the_trunk_as_it_was(networks: Networks, tmp_path: Path, storage: str) -> None:
    """The 112 px graph has the same bytes, and so have all its tensors, at the same offsets: a gallery stays valid."""
    with_branches = {resolution: networks[resolution] for resolution in (7, 28, 112)}
    before = write_bundle(tmp_path / "a.btnet", {112: networks[112]}, name="a", license="x", storage=storage)
    after = write_bundle(tmp_path / "b.btnet", with_branches, name="b", license="y", storage=storage)
    assert (after / "branch_112.onnx").read_bytes() == (before / "branch_112.onnx").read_bytes()
    trunk, all_weights = (before / "weights.bin").read_bytes(), (after / "weights.bin").read_bytes()
    assert len(all_weights) > len(trunk)
    assert all_weights[: len(trunk)] == trunk
    files = [json.loads((bundle / "model.json").read_text())["files"]["branch_112.onnx"] for bundle in (before, after)]
    assert files[0] == files[1]
