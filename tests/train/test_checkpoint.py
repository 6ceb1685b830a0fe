"""Checkpoints of arcface_torch and BTNet, built here from names and shapes alone, and what is refused."""

import pickle
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from arcface_layout import random_state, reference_forward
from torch import Tensor

from btnet_train.checkpoint import CheckpointError, load_checkpoint


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def check_loaded(path: Path, state: dict[str, Tensor], arch: str, resolution: int) -> None:
    network = load_checkpoint(path, resolution)
    assert (network.arch, network.width, network.dim, network.resolution) == (arch, 1 / 16, 16, resolution)
    assert not network.training
    images = torch.rand(2, 3, resolution, resolution, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        embedding, _ = network(images)
    expected, _ = reference_forward(state, images, arch, resolution)
    torch.testing.assert_close(embedding, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arch", ["res18", "res34", "res50", "res100"])
def test_arcface_torch(tmp_path: Path, arch: str) -> None:
    state = random_state(arch, 112)
    check_loaded(save(tmp_path / "backbone.pth", state), state, arch, 112)


@pytest.mark.parametrize("resolution", [7, 14, 28, 56])
def test_published_branch_is_a_full_network_of_its_resolution(tmp_path: Path, resolution: int) -> None:
    state = random_state("res18", resolution)
    check_loaded(save(tmp_path / "model.pt", state), state, "res18", resolution)


def test_safetensors(tmp_path: Path) -> None:
    state = random_state("res18", 28)
    safetensors.torch.save_file(state, tmp_path / "branch.safetensors")
    check_loaded(tmp_path / "branch.safetensors", state, "res18", 28)


def test_prefix_of_data_parallel(tmp_path: Path) -> None:
    state = random_state("res18", 28)
    path = save(tmp_path / "model.pt", {f"module.{name}": tensor for name, tensor in state.items()})
    check_loaded(path, state, "res18", 28)


@pytest.mark.parametrize("key", ["state_dict_backbone", "state_dict", "model"])
def test_nested(tmp_path: Path, key: str) -> None:
    state = random_state("res18", 28)
    path = save(tmp_path / "checkpoint_gpu_0.pt", {"epoch": 3, key: state, "state_optimizer": {"state": {}}})
    check_loaded(path, state, "res18", 28)


def test_counts_of_batches_and_the_old_format_of_torch(tmp_path: Path) -> None:
    state = random_state("res18", 7)
    counts = {f"{name[:-13]}.num_batches_tracked": torch.tensor(7) for name in state if name.endswith(".running_mean")}
    path = tmp_path / "model.pt"
    torch.save({**state, **counts}, path, _use_new_zipfile_serialization=False)
    check_loaded(path, state, "res18", 7)


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in random_state("res18", 7).items()}
    path = save(tmp_path / "model.pt", state)
    check_loaded(path, {name: tensor.float() for name, tensor in state.items()}, "res18", 7)


def test_what_differs_is_named(tmp_path: Path) -> None:
    state = random_state("res18", 28)
    del state["layer3.0.bn2.bias"]
    state["layer5.weight"] = torch.ones(1)
    state["layer4.0.prelu.weight"] = torch.ones(1)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(save(tmp_path / "model.pt", state), 28)
    assert str(caught.value) == (
        f"{tmp_path}/model.pt is not res18 for resolution 28: missing layer3.0.bn2.bias; "
        "unexpected layer5.weight; wrong shape layer4.0.prelu.weight (1,) for (32,)"
    )


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    state = {**random_state("res18", 28), **{f"head.{i}": torch.ones(1) for i in range(20)}}
    with pytest.raises(CheckpointError, match=r"unexpected head\.0, .*head\.7 and 12 more$"):
        load_checkpoint(save(tmp_path / "model.pt", state), 28)


def test_a_trunk_in_place_of_a_branch(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", random_state("res18", 112))
    with pytest.raises(CheckpointError, match=r"not res18 for resolution 14: unexpected layer1\.0\.downsample\.0"):
        load_checkpoint(path, 14)


def test_unknown_depth(tmp_path: Path) -> None:
    state = random_state("res34", 28)
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("layer3.5.")}
    with pytest.raises(CheckpointError, match=r"has \(3, 4, 5, 3\) units in its stages, which is none of res18"):
        load_checkpoint(save(tmp_path / "model.pt", kept), 28)


@pytest.mark.parametrize(
    "content",
    [{}, [1, 2], torch.ones(3), {"conv1.weight": 3}, {0: torch.ones(1)}, {"fc.weight": torch.ones(2, 2)}],
)
def test_no_network(tmp_path: Path, content: Any) -> None:
    with pytest.raises(CheckpointError, match=r"model\.pt (holds|is no IResNet)"):
        load_checkpoint(save(tmp_path / "model.pt", content))


def test_another_network_says_what_it_has(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", {"stem.weight": torch.ones(8, 3, 3, 3), "fc.weight": torch.ones(2, 2)})
    expected = r"model\.pt is no IResNet, .*: it has stem\.weight \(8, 3, 3, 3\), fc\.weight \(2, 2\)$"
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(path)


class _Touch:
    """Creates a file when unpickled the unsafe way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return subprocess.check_call, ([sys.executable, "-c", f"open({str(self.path)!r}, 'w')"],)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    state = {**random_state("res18", 28), "extra": _Touch(mark)}
    path = save(tmp_path / "model.pt", state)
    with pytest.raises(CheckpointError, match="could run code"):
        load_checkpoint(path, 28)
    assert not mark.exists()
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(_Touch(mark)))
    with pytest.raises(CheckpointError, match="could run code"):
        load_checkpoint(tmp_path / "plain.pt", 28)
    assert not mark.exists()


def test_a_program_in_torchscript_is_refused_without_a_warning(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", random_state("res18", 28))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model/constants.pkl", b"")  # what makes an archive one of TorchScript
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(CheckpointError, match="could run code"):
            load_checkpoint(path, 28)
    assert caught == []


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 100, 5000])
def test_truncated(tmp_path: Path, suffix: str, kept: int) -> None:
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    state = random_state("res18", 7)
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, whole)
    else:
        save(whole, state)
    path.write_bytes(whole.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path, 7)


def test_other_names_of_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.onnx must end in \.pt, \.pth or \.safetensors"):
        load_checkpoint(tmp_path / "model.onnx")
    for suffix in (".pt", ".safetensors"):
        with pytest.raises(FileNotFoundError, match="model"):
            load_checkpoint(tmp_path / f"model{suffix}")


def test_unknown_resolution(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="resolution must be one of 7, 14, 28, 56, 112, got 20"):
        load_checkpoint(save(tmp_path / "model.pt", random_state("res18", 28)), 20)
