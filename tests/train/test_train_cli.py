"""The command btnet-train: what it writes, and that every error is one line on stderr."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from arcface_layout import random_state, reference_forward

from btnet_train.cli import main
from command_line import without_module


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["btnet-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code or 0  # type: ignore[return-value]


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("btnet-train: ")
    assert err.count("\n") == 1
    return err.removeprefix("btnet-train: ").rstrip()


def test_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        arguments = ["--random", "--arch", "res18", "--width", 0.125, "--dim", 32, "--resolutions", "7,112"]
        arguments += ["--seed", 5, "--name", "tiny", "--license", "CC0-1.0"]
        assert run(monkeypatch, "export", *arguments, tmp_path / f"{name}.btnet") == 0
    assert (tmp_path / "a.btnet/model.json").read_bytes() == (tmp_path / "b.btnet/model.json").read_bytes()
    metadata = json.loads((tmp_path / "a.btnet/model.json").read_text())
    expected = {"name": "tiny", "arch": "res18", "width": 0.125, "dim": 32, "resolutions": [7, 112]}
    assert {key: metadata[key] for key in expected} == expected
    assert metadata["license"] == "CC0-1.0"
    assert metadata["training"]["seed"] == 5
    out, err = capsys.readouterr()
    assert out == "".join(f"{tmp_path}/{name}.btnet: res18, resolutions 7, 112\n" for name in ("a", "b"))
    assert err == ""


def test_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ["--random", "--arch", "res18", "--width", 0.25, "--resolutions", "112"]
    sizes = []
    for storage in ([], ["--storage", "f32"], ["--storage", "f16"]):
        assert run(monkeypatch, "export", *small, *storage, "--overwrite", tmp_path / "a.btnet") == 0
        sizes.append((tmp_path / "a.btnet/weights.bin").stat().st_size)
    assert sizes[0] == sizes[1]
    assert sizes[2] < 0.6 * sizes[0]


def test_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = random_state("res18", 112)
    branch = {**random_state("res18", 14, seed=1), "fc.weight": trunk["fc.weight"]}
    torch.save(trunk, tmp_path / "backbone.pth")
    torch.save(branch, tmp_path / "model.pt")
    arguments = ["--trunk", tmp_path / "backbone.pth", "--branch", f"14={tmp_path}/model.pt"]
    assert run(monkeypatch, "export", *arguments, tmp_path / "real.btnet") == 0
    metadata = json.loads((tmp_path / "real.btnet/model.json").read_text())
    assert metadata["name"] == "real"
    assert metadata["resolutions"] == [14, 112]
    assert metadata["training"] == {"checkpoints": {"112": "backbone.pth", "14": "model.pt"}}
    for resolution, state in ((112, trunk), (14, branch)):
        images = torch.rand(2, 3, resolution, resolution, generator=torch.Generator().manual_seed(9))
        session = onnxruntime.InferenceSession(tmp_path / f"real.btnet/branch_{resolution}.onnx")
        found = session.run(None, {"input": images.numpy()})[0]
        expected = reference_forward(state, images, "res18", resolution)[0].numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing command"),
        (["export"], "Missing argument"),
        (["export", "--nonsense"], "No such option: --nonsense"),
        (["export", "o"], "give --trunk FILE, with --branch R=FILE for each branch, or --random"),
        (["export", "--random", "--trunk", "t.pt", "o"], "--random takes neither --trunk nor --branch"),
        (["export", "--random", "--branch", "7=t.pt", "o"], "--random takes neither --trunk nor --branch"),
        (["export", "--trunk", "t.pt", "--seed", "0", "o"], "--seed goes with --random"),
        (["export", "--trunk", "t.pt", "--branch", "t.pt", "o"], "--branch must be R=FILE"),
        (["export", "--trunk", "t.pt", "--branch", "7=", "o"], "--branch must be R=FILE"),
        (
            ["export", "--trunk", "t.pt", "--branch", "7=a", "--branch", "7=b", "o"],
            "resolution 7 is given twice",
        ),
        (["export", "--trunk", "t.pt", "--branch", "112=a", "o"], "resolution 112 is given twice"),
        (["export", "--random", "--resolutions", "7;112", "o"], "--resolutions must be numbers with commas"),
        (["export", "--random", "--width", "wide", "o"], "--width"),
        (["export", "--random", "--storage", "f8", "o"], "'f8' is not one of 'f32', 'f16'"),
    ],
)
def test_usage(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert message in only_line(capsys)


def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(random_state("res18", 112), tmp_path / "trunk.pt")
    (tmp_path / "damaged.pt").write_bytes(b"no checkpoint")
    (tmp_path / "o").mkdir()
    small = ["--random", "--arch", "res18", "--width", 0.125, "--resolutions"]
    cases = [
        ([*small, "7,14"], "a", "resolutions must have 112"),
        ([*small, "20,112"], "a", "resolution must be one of 7, 14, 28, 56, 112, got 20"),
        ([*small, "112"], "o", f"{tmp_path}/o exists"),
        ([*small, "112", "--overwrite"], "o", f"{tmp_path}/o exists and is no bundle"),
        (["--trunk", tmp_path / "none.pt"], "a", f"{tmp_path}/none.pt"),
        (["--trunk", tmp_path / "none.pt"], "o", f"{tmp_path}/o exists"),  # before any work
        (["--trunk", tmp_path / "damaged.pt"], "a", f"{tmp_path}/damaged.pt is damaged"),
        (
            ["--trunk", tmp_path / "trunk.pt", "--branch", f"7={tmp_path}/trunk.pt"],
            "a",
            "unexpected layer1.0.d",
        ),
    ]
    for arguments, out, message in cases:
        assert run(monkeypatch, "export", *arguments, tmp_path / out) == 1
        assert message in only_line(capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"trunk.pt", "damaged.pt", "o"}


@pytest.mark.parametrize("module", ["torch", "onnx"])
@pytest.mark.parametrize(("arguments", "status"), [(["export", "--random", "o.btnet"], 1), (["--help"], 0)])
def test_missing_extra(
    module: str, arguments: list[str], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = without_module(module, "btnet_train", "btnet-train", *arguments)
    assert result.returncode == status
    if status:
        assert result.stderr == f"btnet-train: {module} is not installed: pip install 'btnet-ext[train]'\n"
    else:
        assert "export" in result.stdout
