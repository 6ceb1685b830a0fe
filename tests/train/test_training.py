"""Runs that are cut off and go on, end in an error, or are shared by two processes."""

import json
import math
import os
import re
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from tiny_training import SMALL, check_equal_runs, rows, schedule, start_command, tensors, train, values, write_faces

from btnet_eval.base import DataError
from btnet_train import recipes
from btnet_train.errors import Interrupted, TrainingError
from btnet_train.losses import Classifier
from btnet_train.networks import IResNet
from btnet_train.objective import Heads, Objective
from btnet_train.progress import Progress, read_values
from btnet_train.run_state import load_tensors
from btnet_train.sources import Faces
from btnet_train.trainer import Execution, Training
from limited_files import limited_files

STEPS_A_PASS = 5
CHANGES = {**SMALL, "stages.trunk.optimizer.lr": 0.05, **schedule("trunk", 5)}


def fingerprint(network: IResNet, trunk: IResNet | None) -> Mapping[str, float]:
    """Stands for a validation: a number that depends on every weight and average."""
    assert not network.training
    with torch.no_grad():
        return {"fingerprint": network(torch.ones(1, 3, 112, 112))[0].double().sum().item()}


@pytest.fixture(scope="module")
def whole(faces: Faces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network whose training was not interrupted."""
    run = tmp_path_factory.mktemp("whole")
    assert train("phi_hr", CHANGES, run, faces, inputs={"validate": fingerprint}) == {
        112: run / "112/network.safetensors"
    }
    return run / "112"


def test_what_a_run_leaves(whole: Path, faces: Faces) -> None:
    names = {path.name for path in whole.iterdir()}
    assert names == {"state.safetensors", "network.safetensors", "heads.safetensors", "result.json", "losses.csv"} | {
        "losses.png",
        "tensorboard",
    }
    result = json.loads((whole / "result.json").read_text())
    assert (result["resolution"], result["step"], result["steps"], result["images"]) == (112, 25, 25, 100)
    assert 0 < result["seconds"] < 600
    assert result["parameters"] == sum(p.numel() for p in IResNet("res18", 0.125, dim=16).parameters())
    prints = [row for row in rows(whole) if row["name"] == "fingerprint"]
    assert [int(row["step"]) for row in prints] == [5, 10, 15, 20, 25]
    assert [float(row["epoch"]) for row in prints] == [1, 2, 3, 4, 5]
    assert float(prints[-1]["value"]) == result["fingerprint"]
    assert [int(row["step"]) for row in rows(whole) if row["name"] == "loss"] == [20, 25]
    heads, facts = load_tensors(whole / "heads.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in heads.items()} == {"classifier.weight": (5, 16)}
    assert facts["classes"] == list(faces.classes)


def test_the_rate_falls_from_epoch_to_epoch(whole: Path) -> None:
    rates = [float(row["rate"]) for row in rows(whole) if row["name"] == "fingerprint"]
    # The row after step k + 1 has the rate of step k: 0.05 (1 - k / 25)^2.
    assert rates == pytest.approx([0.05 * (1 - step / 25) ** 2 for step in (4, 9, 14, 19, 24)], rel=1e-3)


def test_separable_faces_are_learned(tmp_path: Path, faces: Faces) -> None:
    easy = {"stages.trunk.optimizer.lr": 0.02, "stages.trunk.classification": {"scale": 16, "margin": 0.2}}
    train("phi_hr", {**CHANGES, **schedule("trunk", 8), **easy}, tmp_path, faces)
    first, second = values(tmp_path / "112", "loss")
    assert second < 0.5 * first


@pytest.mark.parametrize(("name", "width"), [("sgd", 0.125), ("adamw", 0.25)])
def test_stopped_after_every_step(tmp_path: Path, faces: Faces, name: str, width: float) -> None:
    changes = {**CHANGES, **schedule("trunk", 1), "stages.trunk.optimizer.name": name, "network.width": width}
    changes |= {"network.dropout": 0.3, "stages.trunk.optimizer.lr": 0.01}
    given = {"validate": fingerprint}
    train("phi_mr", changes, tmp_path / "whole", faces, inputs=given)
    stops: list[str] = []
    while len(stops) < 30:
        try:
            train("phi_mr", changes, tmp_path / "parts", faces, inputs=given, stop_at=0.0)
            break
        except Interrupted as error:
            stops.append(str(error))
    expected = [f"stopped after step {step} of 5; the same command goes on" for step in range(1, 5)]
    assert stops == expected
    check_equal_runs(tmp_path / "whole/112", tmp_path / "parts/112")
    before = (tmp_path / "parts/112/network.safetensors").stat().st_mtime_ns
    train("phi_mr", changes, tmp_path / "parts", faces, inputs=given)  # there is nothing left to do
    assert (tmp_path / "parts/112/network.safetensors").stat().st_mtime_ns == before


def test_only_the_gradients_of_the_network_are_clipped(tmp_path: Path, faces: Faces) -> None:
    """After one step without momentum the classifier is the same whatever they are clipped to, the network is not."""
    step = {**CHANGES, **schedule("trunk", 0.2), "stages.trunk.optimizer.momentum": 0.0}
    for clip in (1e-9, 1.0, 1e9):
        train("phi_hr", {**step, "stages.trunk.optimizer.clip": clip}, tmp_path / f"{clip}", faces)
    clipped, usual, free = (tmp_path / f"{clip}/112" for clip in (1e-9, 1.0, 1e9))
    heads = [tensors(folder / "heads.safetensors")["classifier.weight"] for folder in (clipped, usual, free)]
    assert torch.equal(heads[0], heads[1])
    assert torch.equal(heads[0], heads[2])
    networks = [tensors(folder / "network.safetensors")["conv1.weight"] for folder in (clipped, usual, free)]
    assert (networks[0] - networks[1]).abs().max() > 0
    assert (networks[0] - networks[2]).abs().max() > 2 * (networks[0] - networks[1]).abs().max()


def test_speed_is_that_of_the_training_alone(tmp_path: Path) -> None:
    """Steps of 4 images; what validation and saving take is in no seconds."""
    with Progress(tmp_path, "112 px", 10, 100, 4, 30.0) as progress:
        progress.write(20, 1.0, 0.1, 32.0, {"loss": 1.0})
        progress.write(30, 1.5, 0.1, 40.0, {"loss": 0.5, "maps": 0.2})
    assert [row["images_per_second"] for row in read_values(tmp_path / "losses.csv")] == ["20.0", "5.0", "5.0"]


def test_cut_off_after_the_last_checkpoint(tmp_path: Path, faces: Faces, whole: Path) -> None:
    """What was written to losses.csv after the state was saved is not there twice."""
    with pytest.raises(Interrupted):
        train("phi_hr", CHANGES, tmp_path, faces, inputs={"validate": fingerprint}, stop_at=0.0)

    def fail(network: IResNet, trunk: IResNet | None) -> Mapping[str, float]:
        if len(values(tmp_path / "112", "fingerprint")) == 3:
            raise MemoryError("a power cut")
        return fingerprint(network, trunk)

    with pytest.raises(MemoryError):
        train("phi_hr", CHANGES, tmp_path, faces, inputs={"validate": fail}, save_minutes=math.inf)
    assert load_tensors(tmp_path / "112/state.safetensors")[1]["step"] == 1
    with (tmp_path / "112/losses.csv").open("a") as file:
        file.write("21,4.2,1e-3")  # the last row may be half a row
    train("phi_hr", CHANGES, tmp_path, faces, inputs={"validate": fingerprint})
    check_equal_runs(whole, tmp_path / "112")


def test_cut_off_before_the_results_were_written(tmp_path: Path, faces: Faces, whole: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "112")
    (folder / "result.json").unlink()
    (folder / ".state.safetensors.0123").write_bytes(b"killed while it wrote")
    train("phi_hr", CHANGES, tmp_path, faces, inputs={"validate": fingerprint})
    assert (folder / "result.json").read_bytes() == (whole / "result.json").read_bytes()
    assert not list(folder.glob(".*"))


def command(data: Path, run: Path, *more: object) -> list[object]:
    changes = [part for key, value in CHANGES.items() for part in ("--set", f"{key}={value}")]
    return ["fit", "phi_hr", "--data", data, "--out", run, "--accelerator", "cpu", *changes, *more]


def test_interrupted_by_ctrl_c(tmp_path: Path, data: Path, faces: Faces) -> None:
    """The signal reaches the workers, too, as it does from a terminal."""
    state = tmp_path / "run/112/state.safetensors"
    process = start_command(command(data, tmp_path / "run", "--save-minutes", 0, "--workers", 2))
    while process.poll() is None and not state.exists():
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    step = load_tensors(state)[1]["step"]
    assert err.splitlines()[-1] == f"btnet-train: stopped after step {step} of 25; the same command goes on"
    assert "Traceback" not in err
    assert out == ""
    assert 1 <= step < 25
    train("phi_hr", CHANGES, tmp_path / "run", faces)
    train("phi_hr", CHANGES, tmp_path / "whole", faces)
    check_equal_runs(tmp_path / "whole/112", tmp_path / "run/112")


def test_interrupted_in_the_last_validation(tmp_path: Path, faces: Faces, whole: Path) -> None:
    """It is not the last of the run: other networks would follow."""

    def interrupt(network: IResNet, trunk: IResNet | None) -> Mapping[str, float]:
        if len(values(tmp_path / "112", "fingerprint")) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return fingerprint(network, trunk)

    with pytest.raises(Interrupted, match=r"^stopped after the last of 25 steps; the same command goes on$"):
        train("phi_hr", CHANGES, tmp_path, faces, inputs={"validate": interrupt})
    assert not (tmp_path / "112/result.json").exists()
    train("phi_hr", CHANGES, tmp_path, faces, inputs={"validate": fingerprint})
    check_equal_runs(whole, tmp_path / "112")


def test_another_seed_is_another_run(tmp_path: Path, faces: Faces) -> None:
    with pytest.raises(Interrupted):
        train("phi_hr", CHANGES, tmp_path, faces, stop_at=0.0)
    before = (tmp_path / "112/state.safetensors").read_bytes()
    state = re.escape(str(tmp_path / "112/state.safetensors"))
    for changes, options, message in (
        ({}, {"seed": 1}, f"{state} is of a run with seed 0, but this one has 1"),
        ({}, {"micro_batches": 2}, f"{state} is of a run with micro_batches 1, but this one has 2"),
        (schedule("trunk", 6), {}, f"{state} is of a run with steps 25, but this one has 30"),
        (schedule("trunk", 5, 5), {}, f"{state} is of a run with steps 25, but this one has 20"),
    ):
        with pytest.raises(TrainingError, match=f"^{message}$"):
            train("phi_hr", {**CHANGES, **changes}, tmp_path, faces, **options)
    assert (tmp_path / "112/state.safetensors").read_bytes() == before


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_decoded(tmp_path: Path, workers: int) -> None:
    data = write_faces(tmp_path / "set")
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train("phi_hr", CHANGES, run, Faces([data]), stop_at=0.0)
    before = (run / "112/state.safetensors").read_bytes()
    (data / "002/1.png").write_bytes((data / "002/1.png").read_bytes()[:100])
    with pytest.raises(DataError, match=r"^set:002/1\.png cannot be decoded: [^\n]*$"):
        train("phi_hr", CHANGES, run, Faces([data]), workers=workers, save_minutes=math.inf)
    assert (run / "112/state.safetensors").read_bytes() == before


def test_a_full_disk(tmp_path: Path, faces: Faces) -> None:
    with pytest.raises(Interrupted):
        train("phi_hr", CHANGES, tmp_path, faces, stop_at=0.0)
    state = tmp_path / "112/state.safetensors"
    before = state.read_bytes()
    message = rf"{re.escape(str(state))} cannot be saved .*; what was there before is intact$"
    with limited_files(len(before) // 2), pytest.raises(OSError, match=message):
        train("phi_hr", CHANGES, tmp_path, faces, save_minutes=-1.0)
    assert state.read_bytes() == before
    assert {path.name for path in state.parent.iterdir()} == {state.name, "losses.csv", "tensorboard"}


def test_a_disk_that_is_full_for_the_losses(tmp_path: Path, faces: Faces) -> None:
    with pytest.raises(Interrupted):
        train("phi_hr", CHANGES, tmp_path, faces, stop_at=0.0)
    losses = tmp_path / "112/losses.csv"
    with losses.open("a") as file:  # so that it is the largest of the files
        file.write("1,0.2,0.1,5,name,0.5\r\n" * 1000)
    message = rf"{re.escape(str(losses))} cannot be saved \(File too large\)"
    with limited_files(losses.stat().st_size + 10), pytest.raises(OSError, match=message):
        train("phi_hr", CHANGES, tmp_path, faces, inputs={"validate": fingerprint})


def test_a_loss_that_turns_nan(tmp_path: Path, faces: Faces) -> None:
    changes = {**CHANGES, "stages.trunk.optimizer.lr": 1e30}
    state = tmp_path / "112/state.safetensors"
    wrong = r"step 2 of 25 gave classification (nan|inf), loss (nan|inf)"
    expected = rf"{wrong}: lower optimizer\.lr or lengthen schedule\.warmup_epochs"
    with pytest.raises(TrainingError, match=f"^{expected}; no state has been saved yet$"):
        train("phi_hr", changes, tmp_path, faces)
    assert not state.exists()
    with pytest.raises(TrainingError, match=f"^{expected}; the last good state is {re.escape(str(state))}$"):
        train("phi_hr", changes, tmp_path, faces, save_minutes=-1.0)
    saved, facts = load_tensors(state)
    assert facts["step"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in saved.values())


class Spoiled(IResNet):
    """Its gradients are no numbers from the third step on, while its losses still are."""

    def forward(self, images: torch.Tensor) -> Any:
        embeddings, maps = super().forward(images)
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == 3:
            embeddings.register_hook(lambda gradient: gradient * math.nan)  # type: ignore[no-untyped-call]
        return embeddings, maps


def training(network: IResNet, folder: Path, faces: Faces) -> Training:
    stage = recipes.load("phi_hr", CHANGES).stages["trunk"]
    objective = Objective(stage, network, Heads(Classifier("arcface", 5, 16, margin=0.5, scale=64.0)))
    fabric = Fabric(accelerator="cpu", devices=1)
    return Training(fabric, stage, objective, faces, folder, execution=Execution(workers=0, save_minutes=-1.0), seed=0)


def test_a_gradient_that_turns_nan(tmp_path: Path, faces: Faces) -> None:
    network = Spoiled("res18", 0.125, dim=16)
    with pytest.raises(TrainingError, match=r"^step 3 of 25 gave gradient nan: .*; the last good state is .*"):
        training(network, tmp_path, faces).run()
    saved, facts = load_tensors(tmp_path / "state.safetensors")
    assert facts["step"] == 2
    assert torch.equal(saved["module.network.fc.weight"], network.fc.weight)  # the step was not taken


def test_state_of_another_network(tmp_path: Path, faces: Faces) -> None:
    with pytest.raises(Interrupted):
        train("phi_hr", CHANGES, tmp_path, faces, stop_at=0.0)
    with pytest.raises(ValueError, match=r"state\.safetensors is of another run: (missing|unexpected|wrong shape) "):
        train("phi_hr", {**CHANGES, "network.width": 0.25}, tmp_path, faces)


def test_dropout_and_seed_make_the_weights(tmp_path: Path, faces: Faces) -> None:
    """A seed gives the same network each time, and another seed another one."""
    changes = {**CHANGES, **schedule("trunk", 0.2)}
    found: list[torch.Tensor] = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(found))  # what was drawn before does not count
        train("phi_hr", changes, tmp_path / name, faces, seed=seed)
        found.append(tensors(tmp_path / name / "112/network.safetensors")["conv1.weight"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
