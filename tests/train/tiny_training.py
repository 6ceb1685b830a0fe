"""Trainings of seconds: faces of a few colours, a small network, a run of a recipe in this process."""

import csv
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from face_files import encode, write_folder
from lightning_fabric import Fabric
from torch import Tensor

from btnet_train import recipes
from btnet_train.fit import fit
from btnet_train.inputs import Inputs
from btnet_train.networks import IResNet
from btnet_train.run_state import load_tensors, save_tensors
from btnet_train.sources import Faces
from btnet_train.trainer import Execution

SMALL = {"network.arch": "res18", "network.width": 0.125, "network.dim": 16}


def write_faces(folder: Path, identities: int = 5, images: int = 4, side: int = 24) -> Path:
    """Write a folder ID/NAME.png; an identity is a pattern of colours, an image of it has noise of its own."""
    files = {}
    for identity in range(identities):
        pattern = np.random.default_rng([1, identity]).integers(40, 216, (side // 8, side // 8, 3))
        for number in range(images):
            noise = np.random.default_rng([2, identity, number]).integers(-30, 31, (side, side, 3))
            image = np.kron(pattern, np.ones((8, 8, 1), int)) + noise
            files[f"{identity:03d}/{number}.png"] = encode(image.astype(np.uint8))
    return write_folder(folder, files)


def schedule(stage: str, epochs: float, batch_size: int = 4) -> dict[str, Any]:
    """Changes that make a stage short."""
    return {
        f"stages.{stage}.schedule.epochs": epochs,
        f"stages.{stage}.schedule.batch_size": batch_size,
        f"stages.{stage}.schedule.warmup_epochs": 0,
    }


def train(
    recipe: str,
    changes: Mapping[str, Any],
    run: Path,
    faces: Faces,
    *,
    seed: int = 0,
    inputs: Any = None,
    **how: Any,
) -> dict[int, Path]:
    """Carry out a recipe; inputs: further arguments of Inputs, how: those of Execution."""
    plan = recipes.load(recipe, changes)
    fabric = Fabric(accelerator="cpu", devices=1)
    return fit(fabric, plan, run, Inputs(faces, **(inputs or {})), Execution(**{"workers": 0, **how}), seed)


def write_network(path: Path, side: int = 112) -> IResNet:
    """Save a network as small as SMALL, of random weights."""
    network = IResNet("res18", 0.125, side, dim=16)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, network.state_dict(), {})
    return network


def rows(folder: Path) -> list[dict[str, str]]:
    """Rows of losses.csv but for the speed."""
    with (folder / "losses.csv").open(newline="") as file:
        return [
            {key: value for key, value in row.items() if key != "images_per_second"} for row in csv.DictReader(file)
        ]


def values(folder: Path, name: str) -> list[float]:
    return [float(row["value"]) for row in rows(folder) if row["name"] == name]


def check_equal_runs(one: Path, two: Path) -> None:
    """Both folders of networks have the same curve and, bit by bit, the same state, network and heads."""
    assert rows(one) == rows(two)
    for name in ("state", "network", "heads"):
        left, right = tensors(one / f"{name}.safetensors"), tensors(two / f"{name}.safetensors")
        assert set(left) == set(right)
        for key, tensor in left.items():
            assert torch.equal(tensor, right[key]), key


def tensors(path: Path) -> dict[str, Tensor]:
    return load_tensors(path)[0]


def start_command(arguments: Sequence[object]) -> "subprocess.Popen[str]":
    """Start btnet-train in a process group of its own, with one thread a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "btnet_train.cli", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
