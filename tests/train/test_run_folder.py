"""The folder of a run of btnet-train: which run goes on in it, and damaged files there."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import schedule, write_faces, write_network
from train_command import HOW, SHORT, Call, fail

from btnet_train.cli import main
from btnet_train.run_state import save_tensors
from onnx_files import DIM


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, eight: Path) -> Path:
    """A run that was stopped after its first step."""
    run = tmp_path_factory.mktemp("begun") / "run"
    with pytest.MonkeyPatch.context() as patch:
        command = ["fit", "phi_hr", "--data", eight, "--out", run, *HOW, *SHORT, "--stop-after", 0]
        patch.setattr(sys, "argv", ["btnet-train", *map(str, command)])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 130
    return run


@pytest.mark.parametrize(
    ("arguments", "differing"),
    [
        (["phi_hr", "--data", "DATA", "--seed", 1], "seed"),
        (["phi_hr", "--data", "DATA", "--set=stages.trunk.schedule.batch_size=2"], "recipe"),
        (["phi_hr", "--data", "DATA", "--set=stages.trunk.optimizer.lr=0.3"], "recipe"),
        (["phi_mr", "--data", "DATA"], "recipe"),
        (["phi_hr", "--data", "OTHERS"], "faces"),
        (["phi_hr", "--data", "DATA", "--unlabeled", "OTHERS"], "faces"),
        (["phi_hr", "--data", "DATA", "--held-out", 1], "faces, held_out"),
    ],
)
def test_only_the_same_run_goes_on(
    call: Call, tmp_path: Path, begun: Path, eight: Path, arguments: list[object], differing: str
) -> None:
    others = write_faces(tmp_path / "others", identities=8, images=5)
    before = {path: path.read_bytes() for path in (begun / "run.json", begun / "112/state.safetensors")}
    given = [{"DATA": eight, "OTHERS": others}.get(str(each), each) for each in arguments]
    said = fail(call, 1, "fit", given[0], *SHORT, *given[1:], "--out", begun, *HOW)
    assert said == f"{begun} is a run with another {differing}: give another --out"
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_goes_on_in_another_precision_and_both_are_recorded(
    call: Call, tmp_path: Path, begun: Path, eight: Path
) -> None:
    run = shutil.copytree(begun, tmp_path / "run")
    assert call("fit", "phi_hr", "--data", eight, *SHORT, "--out", run, *HOW, "--precision", "bf16-mixed")[0] == 0
    environments = json.loads((run / "run.json").read_text())["environments"]
    assert [environment["precision"] for environment in environments] == ["32-true", "bf16-mixed"]


def test_a_finished_run_without_its_state_is_still_that_run(call: Call, tmp_path: Path, eight: Path) -> None:
    command = ["fit", "phi_hr", "--data", eight, *SHORT, "--out", tmp_path, *HOW]
    assert call(*command)[0] == 0
    (tmp_path / "112/state.safetensors").unlink()
    assert fail(call, 1, *command, "--seed", 1) == f"{tmp_path} is a run with another seed: give another --out"
    assert call(*command)[0] == 0


def test_a_run_may_be_moved_but_not_its_trunk_exchanged(call: Call, tmp_path: Path, eight: Path) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    for path in (one, two):
        write_network(path)
    branch = {**schedule("branch", 0.4), "stages.branch.resolutions": "[7]"}
    command = ["fit", "own_trunk", "--data", eight, *(f"--set={key}={value}" for key, value in branch.items()), *HOW]
    assert call(*command, "--trunk", one, "--out", tmp_path / "run", "--stop-after", 0)[0] == 130
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    said = fail(call, 1, *command, "--trunk", two, "--out", moved)
    assert said == f"{moved} is a run with another trunk: give another --out"
    assert call(*command, "--trunk", one.rename(tmp_path / "elsewhere.safetensors"), "--out", moved)[0] == 0


def test_a_classifier_may_be_moved_but_not_exchanged(call: Call, tmp_path: Path, eight: Path) -> None:
    trunk, one, two = (tmp_path / f"{name}.safetensors" for name in ("trunk", "one", "two"))
    write_network(trunk)
    for path in (one, two):
        save_tensors(path, {"weight": torch.randn(8, DIM)}, {})
    branch = {**schedule("branch", 0.4), "stages.branch.resolutions": "[7]"}
    changes = [f"--set={key}={value}" for key, value in branch.items()]
    run = tmp_path / "run"
    command = ["fit", "own_trunk_classifier", "--data", eight, "--trunk", trunk, "--out", run, *changes, *HOW]
    assert call(*command, "--classifier", one, "--stop-after", 0)[0] == 130
    said = fail(call, 1, *command, "--classifier", two)
    assert said == f"{run} is a run with another classifier: give another --out"
    assert call(*command, "--classifier", one.rename(tmp_path / "elsewhere.safetensors"))[0] == 0


def test_an_earlier_run_may_be_moved_but_none_of_its_networks_exchanged(
    call: Call, tmp_path: Path, eight: Path
) -> None:
    """Not that of a branch, either, of which nothing is trained yet."""
    earlier, run = tmp_path / "earlier", tmp_path / "run"
    networks = {side: earlier / f"{side}/network.safetensors" for side in (112, 7)}
    for side, path in networks.items():
        write_network(path, side)
    changes = [*SHORT, "--set=stages.branch.resolutions=[7]", "--set=stages.branch.schedule.batch_size=4"]
    command = ["fit", "finetune", "--data", eight, "--out", run, *changes, *HOW, "--stop-after", 0, "--previous"]
    assert call(*command, earlier)[0] == 130
    for side, path in networks.items():
        before = path.read_bytes()
        write_network(path, side)
        said = fail(call, 1, *command, earlier)
        assert said == f"{run} is a run with another previous: give another --out"
        path.write_bytes(before)
    assert call(*command, earlier.rename(tmp_path / "moved"))[0] == 130


@pytest.mark.parametrize(
    ("content", "wrong"),
    [("", "is damaged: "), ('{"seed": 0', "is damaged: "), ("[]", "was not written by"), ("{}", "was not written by")],
)
def test_a_damaged_description(call: Call, tmp_path: Path, begun: Path, eight: Path, content: str, wrong: str) -> None:
    run = shutil.copytree(begun, tmp_path / "run")
    (run / "run.json").write_text(content)
    said = fail(call, 1, "fit", "phi_hr", "--data", eight, *SHORT, "--out", run, *HOW)
    assert said.startswith(f"{run}/run.json {wrong}")
    assert (run / "112/state.safetensors").read_bytes() == (begun / "112/state.safetensors").read_bytes()


def test_a_damaged_result(call: Call, tmp_path: Path, eight: Path) -> None:
    run = tmp_path / "run"
    command = ["fit", "phi_hr", "--data", eight, *SHORT, "--out", run, *HOW]
    assert call(*command)[0] == 0
    (run / "112/result.json").write_text('{"step": 3')
    assert fail(call, 1, *command).startswith(f"{run}/112/result.json is damaged: ")
