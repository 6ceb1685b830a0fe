"""The commands btnet-train fit and recipes: what they say, what they refuse and what comes of them."""

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import numpy as np
import pytest
import torch
from face_files import png, write_folder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tiny_training import tensors, values, write_faces
from train_command import HOW, SHORT, TEACH, Call, fail

from btnet_ext import Bundle
from btnet_ext.whole_files import locked
from btnet_train import face_rows, recipes
from btnet_train.cli import EXTRA
from onnx_files import DIM, write_model


@pytest.mark.parametrize("width", [60, 100])
def test_help_is_a_manual(call: Call, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = call("--help")
    assert code == 0
    for command in ("fit", "recipes", "export"):
        assert re.search(rf"^  {command} +[A-Z][^.]*\.$", out, re.MULTILINE), f"{command} is cut off"
    uses = [
        "btnet-train fit own_trunk --trunk r50.pt --data faces/ --out run",  # what most users want comes first
        "btnet-train fit btnet --data train.rec --out run \\",
        "btnet-train fit distil --teacher model.onnx --unlabeled faces/ --out run",
        "btnet-train fit finetune --previous run --data other/ --out run2",
    ]
    lines = [line.strip() for line in out.splitlines()]
    assert [line for line in lines if line.startswith("btnet-train fit ")] == uses
    code, out, _ = call("fit", "--help")
    assert code == 0
    text = " ".join(out.split())
    for word in ("recipe", "--data", "--unlabeled", "--set KEY=VALUE", "--trunk", "--teacher", "--stop-after"):
        assert word in text
    assert "the same command goes on" in text


@pytest.mark.parametrize("arguments", [["fit", "--help"], ["recipes"], ["recipes", "btnet"]])
def test_what_needs_no_torch(arguments: list[str]) -> None:
    """Importing it takes seconds; here it is an error, as it is where it is not installed."""
    code = (
        f"import sys; sys.modules['torch'] = None; sys.argv = ['btnet-train', *{arguments}]; "
        "from btnet_train.cli import main; main()"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout


def test_a_missing_extra(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, eight: Path) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    said = fail(call, 1, "fit", "phi_hr", "--data", eight, *SHORT, "--out", tmp_path / "run")
    assert said == "lightning_fabric is not installed: pip install 'btnet-ext[train]'"


def test_each_package_of_the_extra_is_known_by_its_module() -> None:
    wanted = map(Requirement, requires("btnet-ext") or [])
    of_extra = {
        canonicalize_name(each.name) for each in wanted if each.marker and each.marker.evaluate({"extra": "train"})
    }
    installed = packages_distributions()
    known = {canonicalize_name(package) for module in EXTRA for package in installed.get(module, [])}
    assert of_extra
    assert of_extra <= known


def test_recipes(call: Call) -> None:
    code, out, _ = call("recipes")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == recipes.names()
    assert all(recipes.load(line.split()[0]).description in line for line in out.splitlines())
    code, out, _ = call("recipes", "btnet_published")
    assert code == 0
    assert recipes.parse(json.loads(out), "shown") == recipes.load("btnet_published")
    assert fail(call, 1, "recipes", "nope").startswith("there is no recipe 'nope': give a .toml file or one of ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit"], "Missing argument"),
        (["fit", "phi_hr"], "Missing option '--out'"),
        (["fit", "phi_hr", "--out", "o", "--nonsense"], "No such option: --nonsense"),
        (["fit", "phi_hr", "--out", "o", "--set", "network.width"], "--set must be KEY=VALUE, such as network.width="),
        (
            ["fit", "phi_hr", "--out", "o", "--set", "=3"],
            "--set must be KEY=VALUE, such as network.width=0.25, got '=3'",
        ),
        (["fit", "phi_hr", "--out", "o", "--seed", "-1"], "--seed"),
        (["fit", "phi_hr", "--out", "o", "--seed", 2**40], "--seed"),
        (["fit", "phi_hr", "--out", "o", "--devices", 0], "--devices"),
        (["fit", "phi_hr", "--out", "o", "--workers", -1], "--workers"),
        (["fit", "phi_hr", "--out", "o", "--micro-batches", 0], "--micro-batches"),
        (["fit", "phi_hr", "--out", "o", "--targets", "t"], "are for a --teacher: give it, too"),
        (["fit", "phi_hr", "--out", "o", "--teacher-color", "bgr"], "are for a --teacher: give it, too"),
        (["fit", "phi_hr", "--out", "o", "--held-out", -1], "--held-out"),
        (["fit", "phi_hr", "--out", "o", "--precision", "f64"], "--precision"),
        (["fit", "phi_hr", "--out", "o", "--teacher-color", "grey"], "--teacher-color"),
    ],
)
def test_usage(call: Call, arguments: list[object], message: str) -> None:
    assert message in fail(call, 2, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], r"there is no recipe 'nope': .*"),
        (["nope.toml"], r"there is no recipe 'nope\.toml': .*"),
        (["phi_hr", "--set", "network.widht=1"], r"recipe phi_hr: network\.widht: is no key of a recipe, got 1"),
        (["phi_hr", "--set", "network.width=wide"], r"recipe phi_hr: network\.width: .*number, got 'wide'"),
        (["phi_hr", "--set", "network=1"], r"recipe phi_hr: network: .*, got 1"),
        (["phi_hr"], r"there are no faces: .*"),
        (["phi_hr", "--data", "none"], r".*/none does not exist"),
        (
            ["phi_hr", "--data", "DATA"],
            r"batch_size must be from 1 to the number of images, 32, got 128: "
            r"it is the recipe's stages\.NAME\.schedule\.batch_size",
        ),
        (
            ["phi_hr", "--data", "DATA", *SHORT, "--micro-batches", 3],
            r"a batch of stage trunk has 4 images, which cannot be cut into 3 equal parts of 2 or more \(--micro-.*",
        ),
        (
            ["phi_hr", "--data", "DATA", *SHORT, "--micro-batches", 4],
            r"a batch of stage trunk has 4 images, which cannot be cut into 4 equal parts of 2 or more \(--micro-.*",
        ),
        (
            ["phi_hr", "--data", "DATA", *SHORT, "--micro-batches", 1, "--devices", 2],
            r"--micro-batches must be a multiple of --devices, 2, got 1",
        ),
        (["phi_hr", "--unlabeled", "DATA"], r"stage trunk classifies, but the faces have no identities: give --data"),
        (
            ["phi_hr", "--data", "DATA", "--held-out", 7],
            r"7 of 8 identities cannot be held out \(--held-out\): 2 must .*",
        ),
        (
            ["phi_hr", "--data", "DATA", *SHORT, *TEACH, "--teacher", "TEACHER", "--held-out", 1],
            r"the identities held out \(--held-out\) make 0 pairs of each kind, expected 10 or more",
        ),
        (["phi_hr", "--data", "DATA", "--teacher", "t.onnx"], r"--teacher is given, but no stage has a teacher's loss"),
        (["own_trunk", "--data", "DATA"], r"stage branch needs a trunk, .*"),
        (
            ["own_trunk", "--data", "DATA", "--trunk", "none.pt", "--set=stages.branch.schedule.batch_size=4"],
            r".*none\.pt.*",
        ),
        (
            ["phi_hr", "--data", "DATA", "--trunk-outputs", "x"],
            r"--trunk-outputs is given, but no stage distils a trunk",
        ),
        (
            ["own_trunk", "--data", "DATA", "--trunk", "t.pt", "--classifier", "c.pt"],
            r"--classifier is given, but no stage has a frozen classifier",
        ),
        (["phi_hr", "--data", "DATA", "--previous", "x"], r"--previous is given, but no stage starts from .*"),
        (["phi_hr", "--data", "DATA", "--trunk", "t.pt"], r"--trunk is given, and the recipe trains nothing else"),
        (["finetune", "--data", "DATA"], r"stage trunk starts from an earlier run: give --previous, its folder"),
        (
            ["phi_hr", "--data", "DATA", *SHORT, "--set=network.width=0.3"],
            r"width must be a positive multiple of 1/64.*",
        ),
        (
            ["phi_hr", "--data", "DATA", *TEACH],
            r"stage trunk has a teacher's loss: give --teacher, an ONNX file",
        ),
        (
            ["phi_hr", "--data", "DATA", *SHORT, *TEACH, "--teacher", "none.onnx"],
            r".*none\.onnx.*",
        ),
        (
            ["phi_hr", "--data", "DATA", *SHORT, *TEACH, "--teacher", "TEACHER", "--teacher-std", "0,1,1"],
            r"std must be three positive, finite numbers, not .*",
        ),
        (["phi_hr", "--data", "DATA", *SHORT, "--accelerator", "abacus"], r".*abacus.*"),
    ],
)
def test_errors(call: Call, tmp_path: Path, eight: Path, arguments: list[object], message: str) -> None:
    """Each is a sentence; and nothing of it stands in the way of the command that is meant."""
    files = {"DATA": eight, "TEACHER": tmp_path / "teacher.onnx"}
    write_model(tmp_path / "teacher.onnx")
    given = [files.get(str(each), each) for each in arguments]
    how = HOW if "--accelerator" not in arguments else HOW[2:]
    said = fail(call, 1, "fit", *given, *how, "--out", tmp_path / "run")
    assert re.fullmatch(message, said), said
    assert not list(tmp_path.glob("run/teacher_*")), "it was found only after all faces had been embedded"
    code, out, _ = call("fit", "phi_hr", "--data", eight, "--out", tmp_path / "run", *HOW, *SHORT, "--stop-after", 0)
    assert code == 130
    assert out == ""


def test_a_cuda_device_that_is_not_there(call: Call, tmp_path: Path, eight: Path) -> None:
    how = ["--accelerator", "cuda", "--devices", 16, "--set=stages.trunk.schedule.batch_size=32"]
    said = fail(call, 1, "fit", "phi_hr", "--data", eight, "--out", tmp_path / "run", *how)
    assert said.startswith("--accelerator cuda --devices 16 cannot be used: ")


def test_two_trainings_in_one_folder(call: Call, tmp_path: Path, eight: Path) -> None:
    command = ["fit", "phi_hr", "--data", eight, *HOW, *SHORT, "--out", tmp_path / "run"]
    with locked(tmp_path / "run/.lock", lambda: pytest.fail("there is nobody to wait for")):
        said = fail(call, 1, *command)
    assert said == f"{tmp_path}/run is being trained by another process: wait for it, or give another --out"
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert call(*command)[0] == 0


def test_data_that_cannot_be_used(call: Call, tmp_path: Path) -> None:
    lonely = write_folder(tmp_path / "set", {"a/1.png": png(1), "a/2.png": png(2), "b/1.png": png(3)})
    assert "set/b" in fail(call, 1, "fit", "phi_hr", "--data", lonely, "--out", tmp_path / "run")
    (tmp_path / "cut.zip").write_bytes(b"PK")
    assert "cut.zip" in fail(call, 1, "fit", "phi_hr", "--data", tmp_path / "cut.zip", "--out", tmp_path / "run")


def test_a_whole_run(call: Call, tmp_path: Path, eight: Path) -> None:
    run = tmp_path / "run"
    held_out = ["--held-out", 4, "--name", "tiny", "--license", "CC0-1.0"]
    code, out, _ = call("fit", "phi_hr", "--data", eight, "--out", run, *HOW, *SHORT, *held_out)
    assert code == 0
    assert out == f"{run}/tiny.btnet: resolutions 112\n"
    bundle = Bundle.open(run / "tiny.btnet")
    assert (bundle.license, list(bundle.resolutions), bundle.dim, bundle.width) == ("CC0-1.0", [112], 16, 0.125)
    metadata = json.loads((run / "tiny.btnet/model.json").read_text())
    assert metadata["training"]["recipe"]["network"]["width"] == 0.125
    assert metadata["training"]["results"]["112"]["images"] == 8  # 16 faces of 4 people are left: 1.6 steps of 4
    described = json.loads((run / "run.json").read_text())
    assert (described["seed"], described["held_out"], described["trunk"]) == (0, 4, None)
    assert described["faces"] == metadata["training"]["faces"]
    assert described["recipe"] == json.loads(json.dumps(recipes.load("phi_hr", changes()).to_dict()))
    (environment,) = described["environments"]
    assert environment["command"][:2] == ["fit", "phi_hr"]
    assert {"torch", "numpy", "openvino", "python"} <= set(environment["versions"])
    measured = {row: values(run / "112", row) for row in ("held out 112&112", "held out 112&7", "held out 7&7")}
    assert all(len(each) == 1 and 50 <= each[0] <= 100 for each in measured.values())


def test_mixed_precision_computes_in_bf16_and_keeps_float32(call: Call, tmp_path: Path, eight: Path) -> None:
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        run = tmp_path / precision
        command = ["fit", "phi_hr", "--data", eight, "--out", run, *HOW, *SHORT, "--held-out", 4]
        assert call(*command, "--precision", precision)[0] == 0
        dtypes = {tensor.dtype for tensor in tensors(run / "112/network.safetensors").values()}
        assert dtypes <= {torch.float32, torch.int64}
        losses[precision] = values(run / "112", "loss")
    assert losses["bf16-mixed"] != losses["32-true"]
    np.testing.assert_allclose(losses["bf16-mixed"], losses["32-true"], rtol=0.05)


def test_identities_are_shared_only_if_asked_for(call: Call, tmp_path: Path) -> None:
    """Two folders with the same eight names, four images each."""
    given = [part for name in "ab" for part in ("--data", write_faces(tmp_path / name, identities=8))]
    for option, count in (([], 16), (["--shared-identities"], 8)):
        run = tmp_path / f"run of {count}"
        assert call("fit", "phi_hr", *given, "--out", run, *HOW, *SHORT, *option)[0] == 0
        assert len(tensors(run / "112/heads.safetensors")["classifier.weight"]) == count


def changes() -> dict[str, object]:
    pairs = (each.removeprefix("--set=").split("=") for each in SHORT)
    return {key: recipes.parse_value(value) for key, value in pairs}


def test_targets_are_kept_in_the_folder_of_the_run(
    call: Call, tmp_path: Path, eight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(face_rows.logger, "info", pytest.fail)  # where it would wait for itself for ever
    teacher = ["--teacher", write_model(tmp_path / "teacher.onnx"), *TEACH]
    assert call("fit", "phi_hr", "--data", eight, *teacher, *SHORT, *HOW, "--out", tmp_path / "run")[0] == 0
    assert len(list((tmp_path / "run").glob("teacher_*.npy"))) == 1
    assert values(tmp_path / "run/112", "teacher")


def test_another_teacher_is_another_run(call: Call, tmp_path: Path, eight: Path) -> None:
    """Its preparation counts, too: it makes other targets."""
    model = write_model(tmp_path / "teacher.onnx")
    command = ["fit", "phi_hr", "--data", eight, "--teacher", model, *TEACH, *SHORT, *HOW]
    command += ["--set=network.dim=24", "--out", tmp_path / "run", "--targets", tmp_path / "targets"]
    assert call(*command, "--stop-after", 0)[0] == 130
    said = fail(call, 2, *command, "--teacher-mean", "1,2")
    assert said == "Invalid value: --teacher-mean must be three numbers with commas, got '1,2'"
    assert "another teacher" in fail(call, 1, *command, "--teacher-mean", "0,0,0")
    assert "another teacher" in fail(call, 1, *command, "--teacher-color", "bgr")
    assert len(list((tmp_path / "targets").iterdir())) == 1
    assert call(*command)[0] == 0
    heads = tensors(tmp_path / "run/112/heads.safetensors")
    assert heads["projection.weight"].shape == (DIM, 24)
    assert len(values(tmp_path / "run/112", "teacher")) == 1
