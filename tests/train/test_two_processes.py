"""Trainings that two processes share: as one does them, also after a failure and Ctrl-C."""

import os
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arcface_layout import random_state
from lightning_fabric import Fabric
from tiny_training import SMALL, check_equal_runs, schedule, start_command, tensors, train, values, write_faces

from btnet_train.errors import TrainingError
from btnet_train.run_state import load_tensors
from btnet_train.sources import Faces

STEPS = 25
TIMEOUT = 900  # seconds; a loaded machine needs minutes to import PyTorch twice
# The classifier that has something of its own to share: the moving average t.
CHANGES = {
    **SMALL,
    "stages.trunk.optimizer.lr": 0.05,
    "stages.trunk.classification.loss": "curricularface",
    **schedule("trunk", 2.5),
}


@pytest.fixture(scope="module")
def unlabeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many faces as have an identity, so that now and then a process has a part without any."""
    return write_faces(tmp_path_factory.mktemp("unlabeled") / "more")


@pytest.fixture(scope="module")
def all_faces(data: Path, unlabeled: Path) -> Faces:
    return Faces([data], [unlabeled])


def fit(recipe: str, changes: Mapping[str, Any], run: Path, *arguments: object) -> list[object]:
    """Arguments of btnet-train for two processes; what is not said of them is as in `train`."""
    given = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    return ["fit", recipe, "--out", run, "--accelerator", "cpu", "--devices", 2, "--workers", 0, *given, *arguments]


def finish(arguments: list[object]) -> str:
    """Run btnet-train to its good end; returns what it printed."""
    out, err = (process := start_command(arguments)).communicate(timeout=TIMEOUT)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def two(data: Path, unlabeled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network that two processes trained without an interruption."""
    run = tmp_path_factory.mktemp("two") / "run"
    out = finish(fit("phi_hr", CHANGES, run, "--data", data, "--unlabeled", unlabeled))
    assert out == f"{run}/run.btnet: resolutions 112\n"
    return run / "112"


def test_two_processes_are_as_one(tmp_path: Path, two: Path, all_faces: Faces) -> None:
    """Losses and t are those of one process that cuts its batches in two."""
    train("phi_hr", CHANGES, tmp_path, all_faces, micro_batches=2)
    one = tmp_path / "112"
    # Sums are in another order: a relative 1e-7 a step, which training enlarges.
    assert len(values(one, "loss")) == 2
    assert values(two, "loss") == pytest.approx(values(one, "loss"), rel=1e-3)
    of_one, of_two = (tensors(folder / "heads.safetensors")["classifier.t"].item() for folder in (one, two))
    assert abs(of_one) > 1e-3
    assert of_two == pytest.approx(of_one, rel=1e-2)
    # But BatchNorm's averages are of what the first process saw, half of the images.
    counts = [tensors(folder / "network.safetensors")["bn1.num_batches_tracked"].item() for folder in (one, two)]
    assert counts == [2 * STEPS, STEPS]


def test_one_of_them_fails(tmp_path: Path, data: Path, unlabeled: Path, all_faces: Faces) -> None:
    shutil.copytree(data, tmp_path / "set")
    shutil.copytree(unlabeled, tmp_path / "more")
    # The last image of step 3 is one of the second process.
    last = int(np.random.default_rng([0, 0, 0]).permutation(len(all_faces))[3 * 4 - 1])
    name = all_faces.names[last]
    path = tmp_path / name.replace(":", "/")
    path.write_bytes(bytes(path.stat().st_size))
    given = ["--data", tmp_path / "set", "--unlabeled", tmp_path / "more", "--save-minutes", 0]
    process = start_command(fit("phi_hr", CHANGES, tmp_path / "run", *given))
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode not in (0, 130)
    assert f"btnet-train: {name} is no image in one of the formats" in err
    assert "Traceback" not in err
    assert load_tensors(tmp_path / "run/112/state.safetensors")[1]["step"] == 2


def test_interrupted_by_ctrl_c(tmp_path: Path, data: Path, unlabeled: Path, two: Path) -> None:
    """The signal reaches both, at any moment; they stop after the same step, and one of them says so."""
    state = tmp_path / "run/112/state.safetensors"
    arguments = fit("phi_hr", CHANGES, tmp_path / "run", "--data", data, "--unlabeled", unlabeled, "--save-minutes", 0)
    process = start_command(arguments)
    while process.poll() is None and not state.exists():
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130, err
    step = load_tensors(state)[1]["step"]
    assert 1 <= step < STEPS
    assert err.splitlines()[-1] == f"btnet-train: stopped after step {step} of 25; the same command goes on"
    assert err.count("stopped after step") == 1
    assert "Traceback" not in err
    assert out == ""
    finish(arguments)
    check_equal_runs(two, tmp_path / "run/112")


def test_distillation_of_maps_alone(tmp_path: Path, data: Path, faces: Faces) -> None:
    """DDP waits for a gradient of each parameter that is trained, and behind the maps there is none."""
    torch.save(random_state("res18", 112, stem=8, dim=16, seed=6), tmp_path / "trunk.pt")
    changes = {
        "stages.branch.resolutions": [14],
        "stages.branch.distillation.embedding": 0,
        **schedule("branch", 0.6),
    }
    finish(fit("own_trunk", changes, tmp_path / "two", "--data", data, "--trunk", tmp_path / "trunk.pt"))
    train("own_trunk", changes, tmp_path / "one", faces, inputs={"trunk": tmp_path / "trunk.pt"}, micro_batches=2)
    one, two = (tmp_path / name / "14" for name in ("one", "two"))
    assert values(one, "maps") == values(one, "loss")
    assert values(two, "maps") == pytest.approx(values(one, "maps"), rel=1e-4)


@pytest.mark.parametrize("words", ["Connection closed by peer [127.0.0.1]:5", "Read error: Connection reset by peer"])
def test_the_other_process_is_gone(tmp_path: Path, faces: Faces, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """It may be so at the last moment, when all is trained and one of them writes the results."""

    def fail(_: Fabric) -> None:
        raise RuntimeError(f"[gloo/transport/tcp/pair.cc:547] {words}")

    monkeypatch.setattr(Fabric, "barrier", fail)
    with pytest.raises(TrainingError, match=r"^another process of this training has ended, and so does this one$"):
        train("phi_hr", {**SMALL, **schedule("trunk", 0.2)}, tmp_path, faces)
