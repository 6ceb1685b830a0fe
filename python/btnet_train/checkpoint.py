"""Loads checkpoints of insightface's arcface_torch and of the published BTNet code.

Both save `backbone.module.state_dict()` with torch.save; arcface_torch's checkpoints for resuming have it
under "state_dict_backbone". A published branch is a full IResNet of its resolution, trunk part included.
Files of torch.save are read with `weights_only=True`: nothing in them is executed.
"""

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from btnet_train.networks import IResNet
from btnet_train.topology import BASE_CHANNELS, CANONICAL, UNITS

_NESTED_UNDER = ("state_dict_backbone", "state_dict", "model")
_UNIT_NAME = re.compile(r"layer([1-4])\.(\d+)\.")
_LISTED = 8  # names of one kind in an error; a file of another project has hundreds


class CheckpointError(ValueError):
    """A file that holds no IResNet, or not the one asked for; one sentence says what is wrong."""


def load_checkpoint(path: str | os.PathLike[str], resolution: int = CANONICAL) -> IResNet:
    """Load a `.pt`, `.pth` or `.safetensors` file as the network of `resolution`, in evaluation mode.

    Architecture, width and dim follow from the names and shapes in the file. Names may carry the prefix
    "module." of DataParallel, and the weights may lie under one of the keys that training scripts use.
    Half-precision weights become float32. Raises CheckpointError, OSError for a file that cannot be read,
    and ValueError for a resolution that does not exist.
    """
    path = Path(path)
    state = read_tensors(path, _NESTED_UNDER)
    network = IResNet(resolution=resolution, **_infer_architecture(path, state))
    problems = differences(state, network.state_dict())
    if problems:
        raise CheckpointError(f"{path} is not {network.arch} for resolution {resolution}: {'; '.join(problems)}")
    network.load_state_dict(state, strict=False)
    return network.eval()


def read_tensors(path: Path, nested_under: Sequence[str] = ()) -> dict[str, Tensor]:
    """Return the tensors of a file by name, without wrappers, prefix and BatchNorm's counts of batches.

    nested_under: keys under which they may lie. The counts serve a kind of momentum that no one uses here, and files
    of old PyTorch lack them. Raises CheckpointError and OSError.
    """
    content: Any
    if path.suffix == ".safetensors":
        try:
            content = safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            raise CheckpointError(f"{path} is no safetensors file, or is damaged: {error}") from error
    elif path.suffix in (".pt", ".pth"):
        content = _read_pickle(path)
    else:
        raise CheckpointError(f"{path} must end in .pt, .pth or .safetensors")
    for key in nested_under:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} holds no weights by name, but {type(content).__name__}")
    prefix = "module." if all(str(name).startswith("module.") for name in content) else ""
    state = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path} holds {type(tensor).__name__} under {name!r}, expected tensors by name")
        if not name.endswith(".num_batches_tracked"):
            state[name.removeprefix(prefix)] = tensor
    return state


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file, warnings.catch_warnings():
        # torch warns of an archive of TorchScript, which is a program, before it refuses it.
        warnings.filterwarnings("error", message=".*TorchScript archive")
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged and hostile files raise nearly anything
            raise CheckpointError(
                f"{path} is damaged, or holds more than tensors, which could run code when loaded"
            ) from error


def _infer_architecture(path: Path, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments arch, width and dim of IResNet."""
    stem, fc = state.get("conv1.weight"), state.get("fc.weight")
    if stem is None or fc is None or stem.ndim != 4 or fc.ndim != 2 or not stem.numel() or not fc.numel():
        raise CheckpointError(
            f"{path} is no IResNet, which has conv1.weight and fc.weight, of 4 and 2 dimensions: it has "
            + _enumerate([f"{name} {tuple(tensor.shape)}" for name, tensor in state.items()])
        )
    units = [0, 0, 0, 0]
    for match in filter(None, map(_UNIT_NAME.match, state)):
        stage, index = int(match[1]), int(match[2])
        units[stage - 1] = max(units[stage - 1], index + 1)
    for arch, expected in UNITS.items():
        if tuple(units) == expected:
            return {"arch": arch, "width": len(stem) / BASE_CHANNELS, "dim": len(fc)}
    known = ", ".join(f"{arch} {units}" for arch, units in UNITS.items())
    raise CheckpointError(f"{path} has {tuple(units)} units in its stages, which is none of {known}")


def differences(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Say what keeps `state` from being loaded as `expected`, one phrase for each kind of difference."""
    names = [name for name in expected if not name.endswith(".num_batches_tracked")]
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(expected[name].shape)}"
        for name in names
        if name in state and state[name].shape != expected[name].shape
    ]
    kinds = {
        "missing": [name for name in names if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "wrong shape": shapes,
    }
    return [f"{kind} {_enumerate(items)}" for kind, items in kinds.items() if items]


def _enumerate(items: list[str]) -> str:
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more
