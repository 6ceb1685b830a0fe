"""Where a run stands, in one safetensors file that is written atomically: tensors by name, and facts as JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from btnet_ext.whole_files import whole_file
from btnet_train.checkpoint import CheckpointError, differences

_FACTS = "facts"
_OPTIMIZER = "optimizer."
_MODULE = "module."
_GROUP_STEPS = "group_steps"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a safetensors file whole or not at all; what was there before stays until then. Raises OSError."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    encoded = safetensors.torch.save(content, {_FACTS: json.dumps(facts)})
    with whole_file(path) as append:
        append(encoded)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote. Raises CheckpointError for any other file, and OSError."""
    try:
        with path.open("rb"), safetensors.safe_open(path, "pt") as file:
            facts = (file.metadata() or {}).get(_FACTS)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if facts is None:
            raise CheckpointError(f"{path} was not written by btnet-train: it lacks the facts of a run")
        return tensors, json.loads(facts)
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def save_run(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, facts: Mapping[str, Any]) -> None:
    """Write the state of a module and its optimiser, and facts such as the step. Raises OSError."""
    tensors = {_MODULE + name: tensor for name, tensor in module.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}{index}.{key}": value for key, value in values.items() if isinstance(value, Tensor)}
    # Some optimisers count the steps of a group, others those of a parameter.
    steps = [group.get("step") for group in optimizer.param_groups]
    save_tensors(path, tensors, {**facts, _GROUP_STEPS: steps})


def load_run(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put the state of `save_run` back into a module and optimiser of the same kind, and return the facts.

    Raises CheckpointError for a file of other networks or heads, naming what differs, and OSError.
    """
    tensors, facts = load_tensors(path)
    state = {name.removeprefix(_MODULE): tensor for name, tensor in tensors.items() if name.startswith(_MODULE)}
    problems = differences(state, module.state_dict())
    if problems:
        raise CheckpointError(f"{path} is of another run: {'; '.join(problems)}")
    module.load_state_dict(state)
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(_OPTIMIZER):
            index, key = name.removeprefix(_OPTIMIZER).split(".")
            moments.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    for group, step in zip(optimizer.param_groups, facts.pop(_GROUP_STEPS), strict=True):
        if step is not None:
            group["step"] = step
    return facts
