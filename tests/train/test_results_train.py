"""results/train.py: the command lines that train the models, and how it ends."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# At the end: this script must not take the place of another module of its name.
sys.path.append(str(Path(__file__).parents[2] / "results"))

import train


def stand_in(folder: Path, script: str) -> dict[str, str]:
    """Write a btnet-train that is a shell script, and return an environment in which it is found."""
    command = folder / "btnet-train"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def run(folder: Path, environment: dict[str, str], *arguments: object) -> int:
    """Run the script with the data in folder/data; returns its exit code."""
    command = [sys.executable, train.__file__, folder / "runs", "--data", folder / "data", *arguments]
    return subprocess.run([str(part) for part in command], env=environment, check=False).returncode


def test_what_the_models_are_trained_with(tmp_path: Path) -> None:
    """The same faces, teacher, seed and people held out for all of them; and what each starts from."""
    environment = stand_in(tmp_path, f'echo "$OMP_NUM_THREADS $@" >> {tmp_path}/calls')
    assert run(tmp_path, environment, "--threads", 3, "--precision", "bf16-mixed", "--stop-after", 90) == 0
    calls = [shlex.split(line) for line in (tmp_path / "calls").read_text().splitlines()]
    assert [Path(call[2]).stem for call in calls] == list(train.MODELS)
    data = tmp_path / "data"
    for call, model in zip(calls, train.MODELS, strict=True):
        assert call[:2] == ["3", "fit"]
        words = " ".join(call[3:])
        assert words.startswith(f"--out {tmp_path}/runs/{model} --data {data}/celeba/train112.zip --data ")
        for part in (
            f"--data {data}/celeba/train56.zip --unlabeled {data}/utkface/unlabeled112.zip --shared-identities ",
            "--held-out 90 ",
            f"--teacher {data}/teacher/mobilefacenet.onnx ",
            "--teacher-mean 123.675,116.28,103.53 --teacher-std 58.395,57.12,57.375 ",
            "--seed 0 ",
            "--precision bf16-mixed ",
        ):
            assert part in words, (model, part)
        assert 89 < float(call[call.index("--stop-after") + 1]) <= 90
        starts = {option: call[call.index(option) + 1] for option in ("--trunk", "--previous") if option in call}
        runs = tmp_path / "runs"
        assert starts == {option: f"{runs}/{of}" for option, of in train.STARTS.get(model, {}).items()}


@pytest.mark.parametrize("status", [1, 130])
def test_a_training_that_ends_early_is_the_last(tmp_path: Path, status: int) -> None:
    environment = stand_in(tmp_path, f'echo "$2" >> {tmp_path}/calls; exit {status}')
    assert run(tmp_path, environment) == status
    assert (tmp_path / "calls").read_text() == f"{train.RECIPES}/phi_mr.toml\n"
    assert run(tmp_path, environment, "--only", "phi_mm") == status
    assert (tmp_path / "calls").read_text().splitlines()[1:] == [f"{train.RECIPES}/phi_mm.toml"]


def test_ctrl_c_waits_until_the_training_has_saved_its_state(tmp_path: Path) -> None:
    """A btnet-train that needs a second for it; a terminal sends the signal to both."""
    environment = stand_in(
        tmp_path, "trap 'sleep 1; echo saved; exit 130' INT\necho begun\nwhile :; do sleep 0.1; done"
    )
    command = [sys.executable, train.__file__, str(tmp_path), "--data", str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, text=True, start_new_session=True) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "begun\n"
        os.killpg(script.pid, signal.SIGINT)
        assert script.communicate(timeout=60)[0] == "saved\n"
    assert script.returncode == 130


def test_no_time_left_is_not_an_error_of_the_command_line(tmp_path: Path) -> None:
    assert run(tmp_path, stand_in(tmp_path, "exit 7"), "--stop-after", 0) == 130
