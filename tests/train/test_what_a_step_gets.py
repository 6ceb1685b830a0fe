"""What arrives at a step of a training: rate, seed, flips, dropout, targets; and what counts as its time."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import SMALL, schedule, tensors, train
from train_command import HOW, SHORT, Call

from btnet_train import trainer
from btnet_train.batches import Batches
from btnet_train.networks import IResNet
from btnet_train.objective import Objective
from btnet_train.optimization import build_optimizer, rate
from btnet_train.sources import Faces

RATE = 0.05
CHANGES = {**SMALL, "stages.trunk.optimizer.lr": RATE, **schedule("trunk", 2)}  # 10 steps, 2 passes


def ones(network: IResNet, trunk: IResNet | None) -> Mapping[str, float]:
    """Stands for a validation."""
    return {"one": 1.0}


def test_the_optimizer_gets_the_rate_of_the_schedule(
    tmp_path: Path, faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []

    def recording(*arguments: Any) -> torch.optim.Optimizer:
        optimizer = build_optimizer(*arguments)
        optimizer.register_step_pre_hook(lambda each, *_: rates.append(each.param_groups[0]["lr"]))
        return optimizer

    monkeypatch.setattr(trainer, "build_optimizer", recording)
    train("phi_hr", CHANGES, tmp_path, faces)
    assert rates == pytest.approx([RATE * (1 - step / 10) ** 2 for step in range(10)])


def test_a_validation_changes_nothing(tmp_path: Path, faces: Faces) -> None:
    """After it the network is in training mode again: BatchNorm, and dropout, which is on."""
    changes = {**CHANGES, "network.dropout": 0.3}
    for name, given in (("with", {"validate": ones}), ("without", {})):
        train("phi_hr", changes, tmp_path / name, faces, inputs=given)
    one, two = (tensors(tmp_path / name / "112/network.safetensors") for name in ("with", "without"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_each_face_gets_its_own_target(tmp_path: Path, faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target of face i is unit vector i; a pass of 5 steps shows each of the 20 faces once, with its label."""
    seen: list[tuple[int, int]] = []
    forward = Objective.forward

    def recording(self: Objective, views: Any, labels: Any, targets: Any, *rest: Any) -> Any:
        seen.extend(zip(labels.tolist(), targets.argmax(1).tolist(), strict=True))
        return forward(self, views, labels, targets, *rest)

    monkeypatch.setattr(Objective, "forward", recording)
    changes = {**CHANGES, **schedule("trunk", 1), "stages.trunk.teacher.cosine": 1.0}
    train("phi_hr", changes, tmp_path, faces, inputs={"targets": np.eye(len(faces), dtype=np.float32)})
    assert sorted(face for _, face in seen) == list(range(len(faces)))
    assert [label for label, _ in seen] == [faces.labels[face] for _, face in seen]


def test_seed_flips_and_dropout_are_those_asked_for(
    tmp_path: Path, faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []
    dropouts: list[float] = []
    make = Objective.__init__

    def batches(*arguments: Any, **how: Any) -> Batches:
        given.append(how)
        return Batches(*arguments, **how)

    def objective(self: Objective, stage: Any, network: IResNet, *rest: Any) -> None:
        dropouts.append(network.dropout.p)
        make(self, stage, network, *rest)

    monkeypatch.setattr(trainer, "Batches", batches)
    monkeypatch.setattr(Objective, "__init__", objective)
    for flip in (False, True):
        changes = {**CHANGES, **schedule("trunk", 0.4), "network.dropout": 0.3, "stages.trunk.flip": flip}
        train("phi_hr", changes, tmp_path / str(flip), faces, seed=7)
    assert [(how["flip"], how["seed"], how["steps"]) for how in given] == [(False, 7, range(2)), (True, 7, range(2))]
    assert dropouts == [0.3, 0.3]


def test_validation_does_not_count_as_training(tmp_path: Path, faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which each validation takes an hour."""
    hours = 0

    def validate(network: IResNet, trunk: IResNet | None) -> Mapping[str, float]:
        nonlocal hours
        hours += 1
        return {}

    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 3600 * hours))
    train("phi_hr", CHANGES, tmp_path, faces, inputs={"validate": validate})
    assert hours >= 2
    assert 0 < json.loads((tmp_path / "112/result.json").read_text())["seconds"] < 1800


def test_stop_after_is_in_minutes(call: Call, tmp_path: Path, eight: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[trainer.Execution] = []
    real = trainer.Execution

    def execution(**how: Any) -> trainer.Execution:
        made.append(real(**how))
        return made[-1]

    monkeypatch.setattr(trainer, "Execution", execution)
    begun = time.monotonic()
    call("fit", "phi_hr", "--data", eight, *SHORT, *HOW, "--out", tmp_path / "run", "--stop-after", 60)
    assert 3600 <= made[0].stop_at - begun <= 3600 + time.monotonic() - begun


def test_save_minutes_are_minutes(call: Call, tmp_path: Path, eight: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which each of 10 steps takes 25 seconds, and with a checkpoint after more than a minute."""
    steps = 0
    saved: list[int] = []

    def counting(*arguments: Any) -> float:
        nonlocal steps
        steps += 1
        return rate(*arguments)

    monkeypatch.setattr(trainer, "rate", counting)
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: 25.0 * steps))
    monkeypatch.setattr(trainer, "save_run", lambda *arguments: saved.append(arguments[-1]["step"]))
    command = ["fit", "phi_hr", "--data", eight, *SHORT, "--set=stages.trunk.schedule.epochs=1.25", *HOW]
    assert call(*command, "--out", tmp_path / "run", "--save-minutes", 1)[0] == 0
    assert saved == [3, 6, 9, 10]
