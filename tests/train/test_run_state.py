"""The state of a run: written whole or not at all, put back bit by bit, and refused if it is another one's."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from btnet_train.checkpoint import CheckpointError, load_checkpoint
from btnet_train.networks import IResNet
from btnet_train.optimization import build_optimizer
from btnet_train.recipes import Optimizer
from btnet_train.run_state import load_run, load_tensors, save_run, save_tensors
from limited_files import limited_files

FACTS = {"step": 3, "seconds": 0.1 + 0.2, "sums": {"loss": 1 / 3}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.safetensors"


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    wide = torch.rand(4, 16, 5, 5, generator=generator).contiguous(memory_format=torch.channels_last)
    return {"wide": wide, "scalar": torch.tensor(2.5), "count": torch.tensor(7), "part": wide[:, 3:5], "none": wide[:0]}


def test_round_trip(path: Path) -> None:
    save_tensors(path, tensors(), FACTS)
    found, facts = load_tensors(path)
    assert facts == FACTS
    assert set(found) == set(tensors())
    for name, tensor in tensors().items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_it_is_a_plain_safetensors_file(path: Path) -> None:
    save_tensors(path, tensors(), FACTS)
    found = safetensors.torch.load_file(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors().items())


@pytest.mark.parametrize("size", [0, 10, 2_000_000])
def test_a_full_disk(path: Path, size: int) -> None:
    save_tensors(path, tensors(), FACTS)
    before = path.read_bytes()
    with (
        limited_files(size),
        pytest.raises(OSError, match=r"cannot be saved \(.*\); what was there before is") as caught,
    ):
        save_tensors(path, {"large": torch.zeros(1_000_000)}, FACTS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_first_save_that_fails_leaves_nothing(path: Path) -> None:
    with limited_files(100), pytest.raises(OSError, match=re.escape(f"{path} cannot be saved")) as caught:
        save_tensors(path, tensors(), FACTS)
    assert "intact" not in str(caught.value)  # there is no one before
    assert list(path.parent.iterdir()) == []


def test_an_interruption_while_saving(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tensors(path, tensors(), FACTS)
    before = path.read_bytes()

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_tensors(path, {"a": torch.zeros(3)}, {})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"none/state\.safetensors cannot be saved \(No such file"):
        save_tensors(tmp_path / "none/state.safetensors", tensors(), {})


def damage(content: bytes, kind: str) -> bytes:
    header = 8 + int.from_bytes(content[:8], "little")
    return {
        "empty": b"",
        "short": content[:5],
        "half a header": content[: header // 2],
        "half the tensors": content[: (header + len(content)) // 2],
        "one byte less": content[:-1],
        "one byte more": content + b"\0",
        "text": b"no tensors at all, but a sentence",
        "facts": content.replace(b'{\\"step\\"', b'[\\"step\\"', 1),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["empty", "short", "half a header", "half the tensors", "one byte less", "one byte more", "text", "facts"],
)
def test_damaged_files(path: Path, kind: str) -> None:
    save_tensors(path, tensors(), FACTS)
    content = path.read_bytes()
    broken = damage(content, kind)
    assert broken != content
    path.write_bytes(broken)
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(path))} is damaged: ") as caught:
        load_tensors(path)
    assert "\n" not in str(caught.value)


def test_files_of_another_kind(path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"was not written by btnet-train: it lacks the facts of a run$"):
        load_tensors(path)
    torch.save(tensors(), path)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_tensors(path)
    with pytest.raises(FileNotFoundError):
        load_tensors(path.with_name("none"))


def module(width: float = 0.125, resolution: int = 14) -> nn.ModuleDict:
    torch.manual_seed(4)
    network = IResNet("res18", width, resolution, 16).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return nn.ModuleDict({"network": network, "head": nn.Linear(16, 3)})


def optimizer_of(trained: nn.Module, name: Any) -> torch.optim.Optimizer:
    return build_optimizer(trained.parameters(), Optimizer(name, lr=0.01, weight_decay=0.1))


def train(trained: nn.ModuleDict, optimizer: torch.optim.Optimizer, steps: range) -> None:
    trained.train()
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        embeddings, _ = trained["network"](torch.rand(4, 3, 14, 14, generator=generator))
        optimizer.zero_grad()
        trained["head"](embeddings).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
@pytest.mark.parametrize("width", [0.125, 0.25])
def test_a_run_goes_on_exactly(path: Path, name: str, width: float) -> None:
    whole = module(width)
    train(whole, optimizer_of(whole, name), range(6))

    first = module(width)
    optimizer = optimizer_of(first, name)
    train(first, optimizer, range(3))
    save_run(path, first, optimizer, FACTS)

    second = module(width)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(1)  # nothing but the file says what it was
    optimizer = optimizer_of(second, name)
    assert load_run(path, second, optimizer) == FACTS
    train(second, optimizer, range(3, 6))
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[key]), key


def other_head(trained: nn.ModuleDict) -> None:
    trained["head"] = nn.Linear(16, 4)


def more_heads(trained: nn.ModuleDict) -> None:
    trained["projection"] = nn.Linear(16, 4, bias=False)


def no_heads(trained: nn.ModuleDict) -> None:
    del trained["head"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_head, r"head\.bias"),
        (more_heads, r"projection\.weight"),
        (no_heads, r"head\.bias"),
    ],
)
def test_a_state_of_other_heads(path: Path, change: Callable[[nn.ModuleDict], None], named: str) -> None:
    saved = module()
    save_run(path, saved, optimizer_of(saved, "sgd"), FACTS)
    other = module()
    change(other)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))} is of another run: .*{named}") as caught:
        load_run(path, other, optimizer_of(other, "sgd"))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


@pytest.mark.parametrize(("width", "resolution"), [(0.25, 14), (0.125, 112)])
def test_a_state_of_another_network(path: Path, width: float, resolution: int) -> None:
    saved = module()
    save_run(path, saved, optimizer_of(saved, "sgd"), FACTS)
    other = module(width, resolution)
    with pytest.raises(CheckpointError, match=r"is of another run: .*network"):
        load_run(path, other, optimizer_of(other, "sgd"))


def test_a_network_alone_is_no_state(path: Path) -> None:
    network = module()["network"]
    save_tensors(path, network.state_dict(), {})
    other = module()
    with pytest.raises(CheckpointError, match="is of another run"):
        load_run(path, other, optimizer_of(other, "sgd"))


def test_a_saved_network_is_a_checkpoint(path: Path) -> None:
    """network.safetensors of a run is what `btnet-train export` reads."""
    network = module()["network"]
    save_tensors(path, network.state_dict(), {})
    again = load_checkpoint(path, 14)
    assert (again.arch, again.width, again.dim) == ("res18", 0.125, 16)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"] == {"facts": "{}"}
