"""Bundles: graphs against PyTorch in two runtimes, the layout of files, same bytes twice, all or nothing."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from torch import nn

import btnet_train.export
from btnet_eval.onnx_network import compile_network
from btnet_train.export import write_bundle
from btnet_train.networks import IResNet
from btnet_train.onnx_graph import build_model

RESOLUTIONS = (7, 14, 28, 56, 112)
Networks = dict[int, IResNet]


def external(tensor: onnx.TensorProto) -> tuple[str, int, int]:
    place = {entry.key: entry.value for entry in tensor.external_data}
    assert set(place) == {"location", "offset", "length"}
    return place["location"], int(place["offset"]), int(place["length"])


def graph_of(bundle: Path, resolution: int) -> onnx.GraphProto:
    return onnx.load(bundle / f"branch_{resolution}.onnx", load_external_data=False).graph


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_runtimes_equal_pytorch(networks: Networks, bundle: Path, resolution: int, batch: int) -> None:
    images = torch.rand(batch, 3, resolution, resolution, generator=torch.Generator().manual_seed(7)) * 2 - 1
    with torch.no_grad():
        expected = networks[resolution](images)[0].numpy()
    path = bundle / f"branch_{resolution}.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    model = compile_network(openvino.Core(), path, {"INFERENCE_PRECISION_HINT": "f32"})
    for found in (
        session.run(["embedding"], {"input": images.numpy()})[0],
        model(images.numpy())["embedding"],
    ):
        assert found.shape == (batch, 64)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_graphs_are_valid_and_unfolded(networks: Networks, bundle: Path, resolution: int) -> None:
    path = bundle / f"branch_{resolution}.onnx"
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path, load_external_data=False)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    kinds = [node.op_type for node in model.graph.node]
    assert set(kinds) == {"Conv", "BatchNormalization", "PRelu", "Add", "Flatten", "Gemm"}
    for kind, layers in {
        "BatchNormalization": (nn.BatchNorm1d, nn.BatchNorm2d),
        "Conv": (nn.Conv2d,),
        "PRelu": (nn.PReLU,),
    }.items():
        assert kinds.count(kind) == sum(isinstance(m, layers) for m in networks[resolution].modules())
    (source,), (target,) = model.graph.input, model.graph.output
    for value, name, shape in (
        (source, "input", ["N", 3, resolution, resolution]),
        (target, "embedding", ["N", 64]),
    ):
        assert value.name == name
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] == shape


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_initializers_have_the_names_and_bytes_of_the_state_dict(
    networks: Networks, bundle: Path, resolution: int
) -> None:
    weights = (bundle / "weights.bin").read_bytes()
    state = networks[resolution].state_dict()
    expected = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    found = {tensor.name: external(tensor) for tensor in graph_of(bundle, resolution).initializer}
    assert set(found) == set(expected)
    for name, (location, offset, length) in found.items():
        assert location == "weights.bin"
        assert offset % 4096 == 0, name
        assert weights[offset : offset + length] == expected[name].numpy().tobytes(), name


def test_every_distinct_tensor_is_stored_once(networks: Networks, bundle: Path) -> None:
    places = {external(t)[1:] for r in RESOLUTIONS for t in graph_of(bundle, r).initializer}
    distinct = {
        tensor.numpy().tobytes()
        for network in networks.values()
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    weights = (bundle / "weights.bin").read_bytes()
    assert {weights[offset : offset + length] for offset, length in places} == distinct
    assert len(places) == len(distinct)
    # No gap but the padding to 4 KiB, and none after the last tensor.
    ends = sorted((offset, offset + length) for offset, length in places)
    for (_, end), (following, _) in zip(ends, [*ends[1:], (ends[-1][1], 0)], strict=True):
        assert 0 <= following - end < 4096
    assert len(weights) == ends[-1][1]


def test_size_of_the_weights_by_hand(tmp_path: Path) -> None:
    """A network of zeros and ones has one distinct tensor a size, and the sizes can be listed by hand."""
    network = IResNet("res18", 1 / 64, dim=4)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            tensor.fill_(1.0 if name.endswith(("running_var", "bn1.weight", "features.weight")) else 0.0)
    write_bundle(tmp_path / "zeros.btnet", {112: network}, name="zeros", license="CC0-1.0")
    channels = (1, 2, 4, 8)
    ones = {*channels, 4}
    zeros = {*channels, 4}  # vectors: biases, means, slopes, and the bias of fc
    zeros |= {3 * 9, 8 * 49 * 4}  # conv1 and fc
    inputs = (1, 1, 2, 4)
    zeros |= {size for i, c in zip(inputs, channels, strict=True) for size in (i * c * 9, c * c * 9, i * c)}
    sizes = sorted([*(4 * n for n in ones), *(4 * n for n in zeros)])
    written = (tmp_path / "zeros.btnet" / "weights.bin").stat().st_size
    offsets = {external(t)[1:] for t in graph_of(tmp_path / "zeros.btnet", 112).initializer}
    assert sorted(length for _, length in offsets) == sizes
    last = max(offsets)[1]
    assert written == sum(-(-size // 4096) * 4096 for size in sizes) - (-(-last // 4096) * 4096 - last)


def test_trunk_tensors_are_shared_by_the_graphs(bundle: Path) -> None:
    offsets = {r: {t.name: external(t)[1] for t in graph_of(bundle, r).initializer} for r in RESOLUTIONS}
    assert len({offsets[r]["fc.weight"] for r in RESOLUTIONS}) == 1
    assert len({offsets[r]["layer4.1.conv1.weight"] for r in RESOLUTIONS}) == 1
    assert len({offsets[r]["layer3.1.conv2.weight"] for r in (112, 56, 28, 14)}) == 1
    assert offsets[7]["layer3.1.conv2.weight"] != offsets[14]["layer3.1.conv2.weight"]
    assert len({offsets[r]["layer4.1.bn2.running_mean"] for r in RESOLUTIONS}) == 5


def test_model_json(networks: Networks, bundle: Path) -> None:
    text = (bundle / "model.json").read_text()
    graphs = {str(r): f"branch_{r}.onnx" for r in RESOLUTIONS}
    files: dict[str, Any] = {}
    for name in (*graphs.values(), "weights.bin"):
        content = (bundle / name).read_bytes()
        files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    expected = {
        "format": 1,
        "name": "small",
        "arch": "res18",
        "width": 0.25,
        "dim": 64,
        "canonical": 112,
        "resolutions": list(RESOLUTIONS),
        "input": {"color": "rgb", "mean": [127.5] * 3, "std": [127.5] * 3, "filter": "bicubic"},
        "selection": {"indicator": "max", "rounding": "ceil"},
        "graphs": {"f32": graphs},
        "files": files,
        "license": "CC0-1.0",
        "thresholds": {},
        "training": {"method": "none"},
    }
    assert text == json.dumps(expected, indent=2) + "\n"
    assert {path.name for path in bundle.iterdir()} == {*files, "model.json"}


def test_same_bytes_twice(networks: Networks, bundle: Path, tmp_path: Path) -> None:
    reordered = dict(sorted(networks.items()))
    again = write_bundle(
        tmp_path / "other.btnet", reordered, name="small", license="CC0-1.0", training={"method": "none"}
    )
    assert contents(again) == contents(bundle)


def test_training_mode_does_not_matter_and_is_kept(networks: Networks, bundle: Path, tmp_path: Path) -> None:
    network = networks[7].train()
    try:
        again = write_bundle(tmp_path / "a.btnet", networks, name="small", license="x")
        assert network.training
    finally:
        network.eval()
    assert (again / "weights.bin").read_bytes() == (bundle / "weights.bin").read_bytes()


def write(out: Path, networks: Networks, **options: Any) -> Path:
    return write_bundle(out, networks, name="small", license="CC0-1.0", **options)


def test_a_failure_half_way_leaves_nothing(networks: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_at_14(network: IResNet, weights: Any, **options: Any) -> onnx.ModelProto:
        if network.resolution == 14:
            raise OSError("No space left on device")
        return build_model(network, weights, **options)

    monkeypatch.setattr(btnet_train.export, "build_model", fail_at_14)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "a.btnet", networks)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    old = contents(write(tmp_path / "a.btnet", {112: networks[112]}))
    monkeypatch.setattr(btnet_train.export, "build_model", fail_at_14)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "a.btnet", networks, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.btnet"]
    assert contents(tmp_path / "a.btnet") == old


def test_a_failing_rename_brings_the_old_bundle_back(
    networks: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = contents(write(tmp_path / "a.btnet", {112: networks[112]}))
    rename = Path.rename

    def fail_for_the_new(path: Path, target: Path) -> Path:
        if path.name.endswith(".new"):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.btnet", networks, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.btnet"]
    assert contents(tmp_path / "a.btnet") == old


def test_an_existing_target_is_replaced_only_on_request(networks: Networks, tmp_path: Path) -> None:
    out = write(tmp_path / "a.btnet", {112: networks[112]})
    old = contents(out)
    with pytest.raises(FileExistsError, match=r"a\.btnet exists"):
        write(out, networks)
    assert contents(out) == old
    write(out, networks, overwrite=True)
    assert "branch_7.onnx" in contents(out)
    assert [path.name for path in tmp_path.iterdir()] == ["a.btnet"]


def test_what_is_no_bundle_is_never_replaced(networks: Networks, bundle: Path, tmp_path: Path) -> None:
    folder, file, link = tmp_path / "folder", tmp_path / "file", tmp_path / "link"
    folder.mkdir()
    (folder / "precious").touch()
    file.touch()
    link.symlink_to(bundle)
    for path in (folder, file, link):
        with pytest.raises(FileExistsError, match="is no bundle"):
            write(path, networks, overwrite=True)
    assert (folder / "precious").exists()
    assert link.is_symlink()


def test_no_parent_folder(networks: Networks, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing is no directory"):
        write(tmp_path / "missing" / "a.btnet", networks)


def test_networks_that_do_not_belong_together(networks: Networks, tmp_path: Path) -> None:
    wrong: list[tuple[Networks, str]] = [
        ({}, "networks must have the trunk, resolution 112"),
        ({7: networks[7]}, "networks must have the trunk, resolution 112"),
        ({112: networks[112], 14: networks[7]}, r"networks\[14\] was built for resolution 7"),
        (
            {112: networks[112], 7: IResNet("res18", 0.25, 7, dim=32)},
            r"networks\[7\] is res18 .* dim 32, but",
        ),
        (
            {112: networks[112], 7: IResNet("res34", 0.25, 7, dim=64)},
            r"networks\[7\] is res34 .*, but the trunk",
        ),
    ]
    for case, message in wrong:
        with pytest.raises(ValueError, match=message):
            write(tmp_path / "a.btnet", case)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    network = IResNet("res18", 1 / 64, dim=4)
    assert network.bn2.running_var is not None
    network.bn2.running_var[3] = float("nan")
    with pytest.raises(ValueError, match=r"networks\[112\]: bn2\.running_var has values that are not finite"):
        write(tmp_path / "a.btnet", {112: network})


@pytest.mark.parametrize("option", ["indicator", "rounding"])
def test_unknown_selection(networks: Networks, tmp_path: Path, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be one of .*, got 'none'"):
        write(tmp_path / "a.btnet", networks, **{option: "none"})
