"""Random networks: the same everywhere, shared as BTNet shares, and well behaved on real faces."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from btnet_eval.onnx_network import compile_network
from btnet_train.export import write_bundle
from btnet_train.networks import IResNet, batch_norm_names
from btnet_train.random_weights import random_networks
from btnet_train.topology import in_branch


def digest(networks: Mapping[int, IResNet]) -> str:
    sha = hashlib.sha256()
    for resolution in sorted(networks):
        for name, tensor in networks[resolution].state_dict().items():
            if not name.endswith("num_batches_tracked"):
                sha.update(name.encode() + tensor.numpy().tobytes())
    return sha.hexdigest()


def test_same_bytes_whatever_the_threads_and_the_other_branches(networks: dict[int, IResNet]) -> None:
    torch.set_num_threads(2)
    try:
        again = random_networks("res18", 0.25, dim=64, resolutions=(112, 14), seed=3)
    finally:
        torch.set_num_threads(1)
    assert digest(again) == digest({112: networks[112], 14: networks[14]})


def test_same_bytes_on_every_machine() -> None:
    found = digest(random_networks("res18", 0.125, dim=32, resolutions=(14, 112), seed=0))
    assert found == "be8bca86f6125ccb0458eade872d571769c5bc160bd437647f0655109f3c9d3c"


def test_the_seed_matters(networks: dict[int, IResNet]) -> None:
    other = random_networks("res18", 0.25, dim=64, resolutions=(112,), seed=4)
    name = "layer4.0.conv1.weight"
    assert not torch.equal(other[112].get_parameter(name), networks[112].get_parameter(name))


@pytest.mark.parametrize("resolution", [7, 14, 28, 56])
def test_branches_share_what_is_neither_branch_nor_batch_norm(networks: dict[int, IResNet], resolution: int) -> None:
    network = networks[resolution]
    branch, trunk = network.state_dict(), networks[112].state_dict()
    own = {*(name for name in branch if in_branch(name, resolution)), *batch_norm_names(network)}
    constant = {"features.weight", *(name for name in own if name.endswith("num_batches_tracked"))}
    assert {name for name in branch if name in trunk and torch.equal(branch[name], trunk[name])} == (
        set(branch) - own | constant
    )


def test_statistics_are_not_trivial(networks: dict[int, IResNet]) -> None:
    for network in networks.values():
        for name, tensor in network.state_dict().items():
            if not name.endswith("num_batches_tracked") and name != "features.weight":
                assert torch.isfinite(tensor).all(), name
                assert len(torch.unique(tensor)) > 0.9 * min(tensor.numel(), 1000), name
            if name.endswith("running_var"):
                assert tensor.min() > 0, name


@pytest.mark.parametrize("resolutions", [(7, 14), ()])
def test_the_trunk_is_needed(resolutions: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="resolutions must have 112"):
        random_networks("res18", 0.25, resolutions=resolutions)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"seed must be from 0 to 2\^32 - 1, got {seed}"):
        random_networks("res18", 0.25, seed=seed)


def normalized(faces: list[Image.Image], resolution: int) -> NDArray[np.float32]:
    resized = [face.resize((resolution, resolution), Image.Resampling.BICUBIC) for face in faces]
    pixels = np.stack([np.asarray(face, np.float32) for face in resized]).transpose(0, 3, 1, 2)
    return np.ascontiguousarray((pixels - 127.5) / 127.5)


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    x, y = a.astype(np.float64), b.astype(np.float64)
    found: NDArray[np.float64] = (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
    return found


def test_real_faces_differ_and_bf16_is_close(crops: list[Image.Image], tmp_path: Path) -> None:
    """A deep network: residual gains that are too high show here first."""
    networks = random_networks("res50", 0.125, resolutions=(7, 14, 28, 112), seed=0)
    bundle = write_bundle(tmp_path / "deep.btnet", networks, name="deep", license="CC0-1.0")
    core = openvino.Core()
    for resolution, network in networks.items():
        images = normalized(crops, resolution)
        with torch.no_grad():
            expected = network(torch.from_numpy(images))[0].numpy()
        between = cosines(expected[:, None], expected[None])[np.triu_indices(len(crops), 1)]
        assert between.mean() < 0.6, resolution
        assert between.max() < 0.95, resolution
        for precision, least in (("f32", 0.999999), ("bf16", 0.999)):
            model = compile_network(core, bundle / f"branch_{resolution}.onnx", {"INFERENCE_PRECISION_HINT": precision})
            assert cosines(model(images)[0], expected).min() >= least, (resolution, precision)
