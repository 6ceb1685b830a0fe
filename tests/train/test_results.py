"""The scripts that train and measure the shipped model: recipes, what is kept, what a network cost."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

# At the end: these scripts must not take the place of another module of their names.
sys.path += [str(Path(__file__).parents[2] / folder) for folder in ("results", "benchmarks")]

from result_runs import write_pairs, write_runs
from tiny_training import SMALL, schedule, tensors, write_faces
from tiny_training import train as carry_out

import evaluate
import keep
import reports
import train
from btnet_ext.bundle import describe_file
from btnet_train import recipes
from btnet_train.errors import Interrupted
from btnet_train.inputs import Inputs, check_inputs
from btnet_train.networks import IResNet
from btnet_train.progress import read_values
from btnet_train.recipes import Stage
from btnet_train.run_state import save_tensors
from btnet_train.sources import Faces
from onnx_files import write_model

PAIRS = [(person, person + other) for person in range(4) for other in (0, 1)]
"""Of people: four of one person, and four of two."""


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Faces:
    return Faces([write_faces(tmp_path_factory.mktemp("faces") / "set")])


def stages(model: str) -> list[Stage]:
    return list(recipes.load(str(train.RECIPES / f"{model}.toml")).stages.values())


@pytest.mark.parametrize("model", train.MODELS)
def test_each_model_is_given_what_its_recipe_needs(model: str, tmp_path: Path, faces: Faces) -> None:
    starts = {option: tmp_path / run for option, run in train.STARTS.get(model, {}).items()}
    recipe = recipes.load(str(train.RECIPES / f"{model}.toml"))
    if "--previous" in starts:
        for stage in recipe.stages.values():
            for side in stage.resolutions:
                file = starts["--previous"] / str(side) / "network.safetensors"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
    inputs = Inputs(faces, starts.get("--trunk"), previous=starts.get("--previous"))
    check_inputs(recipe, inputs, teacher=True)
    started = {run.partition("/")[0] for run in train.STARTS.get(model, {}).values()}
    assert started <= set(train.MODELS[: train.MODELS.index(model)]), "it starts from what is trained after it"


def test_compared_networks_see_the_same_number_of_images() -> None:
    of = {model: stages(model)[0].schedule for model in ("phi_hr", "phi_mr", "phi_mm", "btnet")}
    assert len({(schedule.epochs, schedule.batch_size) for schedule in of.values()}) == 1
    assert all(stage.teacher is not None for model in of for stage in stages(model))


def test_every_network_of_a_measured_model_is_trained() -> None:
    trained = {(model, side) for model in train.MODELS for stage in stages(model) for side in stage.resolutions}
    wanted = {(run, side) for sources in evaluate.MODELS.values() for side, run in sources.items()}
    assert wanted <= trained
    assert trained - wanted == set()


@pytest.fixture
def runs(tmp_path: Path, faces: Faces, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As `write_runs`; what is kept of them goes beside."""
    monkeypatch.setattr(keep, "KEPT", tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    return write_runs(tmp_path / "runs", faces)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["keep.py", *map(str, arguments)])
    try:
        keep.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_what_is_kept_comes_back_rounded(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, runs, "phi_mr", "btnet") == 0
    there = tmp_path / "elsewhere"
    assert run(monkeypatch, there, "--restore") == 0
    assert not (there / "btnet/14").exists()
    for network in ("phi_mr/112", "btnet/7"):
        assert (there / network / "result.json").read_bytes() == (runs / network / "result.json").read_bytes()
        # A branch's heads are the trunk's, and nothing starts from them.
        names = ("network", "heads") if network == "phi_mr/112" else ("network",)
        assert sorted(path.stem for path in (there / network).glob("*.safetensors")) == sorted(names)
        for name in names:
            before, after = (tensors(folder / network / f"{name}.safetensors") for folder in (runs, there))
            assert before.keys() == after.keys()
            for key, tensor in before.items():
                expected = tensor.half() if tensor.is_floating_point() else tensor
                assert torch.equal(after[key], expected), key
    description = json.loads((there / "btnet/run.json").read_text())
    assert description["trunk"] == describe_file(there / "phi_mr/112/network.safetensors")["sha256"]
    assert description["trunk"] != json.loads((runs / "btnet/run.json").read_text())["trunk"]


def test_restoring_changes_no_network_that_is_there(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, runs, "phi_mr")
    before = {path: path.read_bytes() for path in runs.glob("*/*/*.safetensors")}
    assert run(monkeypatch, runs, "--restore") == 0
    assert {path: path.read_bytes() for path in before} == before


def test_restoring_leaves_a_training_that_has_gone_further(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, runs, "phi_mr")
    further = tmp_path / "elsewhere/phi_mr/112"
    further.mkdir(parents=True)
    (further / "state.safetensors").write_bytes(b"a later state")
    assert run(monkeypatch, tmp_path / "elsewhere", "--restore") == 0
    assert [path.name for path in further.iterdir()] == ["state.safetensors"]
    assert (further / "state.safetensors").read_bytes() == b"a later state"


@pytest.mark.parametrize("name", ["sgd", "muon"])
def test_a_training_goes_on_elsewhere_without_its_moments(
    runs: Path, tmp_path: Path, faces: Faces, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    changes = {**SMALL, **schedule("trunk", 0.6), "stages.trunk.optimizer.name": name}
    with pytest.raises(Interrupted, match="stopped after step 1 of 3"):
        carry_out("phi_hr", changes, runs / "phi_hr", faces, stop_at=0.0)
    shutil.copyfile(runs / "phi_mr/run.json", runs / "phi_hr/run.json")
    assert run(monkeypatch, runs, "phi_hr") == 0
    there = tmp_path / "elsewhere"
    assert run(monkeypatch, there, "--restore") == 0
    before, after = (tensors(folder / "phi_hr/112/state.safetensors") for folder in (runs, there))
    assert any(key.startswith("optimizer.") for key in before)
    assert after.keys() == {key for key in before if not key.startswith("optimizer.")}
    carry_out("phi_hr", changes, there / "phi_hr", faces)
    result = json.loads((there / "phi_hr/112/result.json").read_text())
    assert (result["step"], result["steps"]) == (3, 3)


def test_weights_that_half_precision_cannot_hold_are_not_kept(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = runs / "phi_mr/112/network.safetensors"
    network = tensors(path)
    network["fc.weight"][0, 0] = 1e6
    save_tensors(path, network, {})
    with pytest.raises(ValueError, match=r"network\.safetensors: fc\.weight has values that half precision "):
        run(monkeypatch, runs, "phi_mr")
    assert not (keep.KEPT / "phi_mr").exists()


def test_a_run_that_has_only_just_begun_hides_nothing_that_is_kept(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, runs, "phi_mr", "btnet")
    begun = tmp_path / "elsewhere/btnet/7"
    begun.mkdir(parents=True)
    (begun / "losses.csv").write_text("step,epoch,rate,images_per_second,name,value\r\n")
    assert run(monkeypatch, tmp_path / "elsewhere", "--restore") == 0
    assert (begun / "result.json").exists()
    assert (begun / "losses.csv").read_bytes() == (runs / "btnet/7/losses.csv").read_bytes()


def test_what_was_kept_stays_until_the_new_is_there(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, runs, "phi_mr", "btnet")
    before = {path: path.read_bytes() for path in keep.KEPT.rglob("*") if path.is_file()}
    (runs / "btnet/7/network.safetensors").write_bytes(b"damaged")
    with pytest.raises(Exception, match=r"network\.safetensors is damaged"):
        run(monkeypatch, runs, "btnet")
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_that_has_only_just_begun(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(runs / "btnet/7")
    assert run(monkeypatch, runs, "phi_mr", "btnet") == 0
    assert [path.name for path in (keep.KEPT / "btnet").iterdir()] == ["run.json"]


@pytest.mark.parametrize("arguments", [["nothing"], ["btnet"], [], ["phi_mr", "--restore"]])
def test_what_cannot_be_kept(runs: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """An unknown model, one without the run that it started from, nothing, and both at once."""
    assert run(monkeypatch, runs, *arguments) == 2
    assert list(keep.KEPT.iterdir()) == []


def test_a_network_that_went_on_cost_what_came_before_it_too(runs: Path) -> None:
    for run in ("phi_hr", "res50_trunk"):
        shutil.copytree(runs / "phi_mr", runs / run)
    before = json.loads((runs / "phi_mr/112/result.json").read_text())
    found = evaluate.describe(runs, {112: "res50_trunk"}, {112: IResNet("res18", 0.125, dim=16)})
    assert found["112"]["images"] == 2 * before["images"]
    assert found["112"]["seconds"] == pytest.approx(2 * before["seconds"])
    assert found["112"]["parameters"] == before["parameters"]


def test_a_model_that_is_not_trained_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", str(tmp_path), "btnet", "--data", str(tmp_path)])
    with pytest.raises(SystemExit):
        evaluate.main()
    assert f"btnet is not trained yet: {tmp_path}/phi_mr/112 has no result.json" in capsys.readouterr().err


@pytest.fixture
def val(tmp_path: Path) -> Path:
    """A folder with a teacher, and eight pairs of the faces of five people."""
    data = tmp_path / "data"
    (data / "teacher").mkdir(parents=True)
    write_model(data / "teacher/mobilefacenet.onnx")
    write_faces(data / "celeba/val112")
    shutil.make_archive(str(data / "celeba/val112"), "zip", data / "celeba/val112")
    of_people = [(p % 2, f"{p:03d}/0.png", f"{other:03d}/1.png", int(p == other)) for p, other in PAIRS]
    write_pairs(data, of_people)
    return data


def test_what_is_measured_stands_beside_what_was(
    runs: Path, val: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight pairs in two folds: accuracies are multiples of 12.5, or of half of that between two resolutions."""
    result = tmp_path / "res50.json"
    monkeypatch.setattr(evaluate, "RESULT", result)
    monkeypatch.setitem(evaluate.MODELS, "btnet", {112: "phi_mr", 7: "btnet"})
    before = {"phi_mr/112": "old", "phi_hr/112": "as before"}
    result.write_text(json.dumps({"models": {"phi_hr": {"accuracy": "as before"}}, "curves": before}))
    monkeypatch.setattr(sys, "argv", ["evaluate.py", str(runs), "btnet", "teacher", "--data", str(val)])
    evaluate.main()
    found = json.loads(result.read_text())
    assert (list(found["models"]), found["pairs"]) == (["phi_hr", "btnet", "teacher"], 8)
    assert found["models"]["phi_hr"] == {"accuracy": "as before"}
    for model in ("btnet", "teacher"):
        measured = found["models"][model]
        assert measured["machine"]["cores"] >= 1
        for columns, accuracy in measured["accuracy"].items():
            step = 12.5 if len(set(columns.split("&"))) == 1 else 6.25
            assert 0 <= accuracy["mean"] <= 100
            assert accuracy["mean"] % step == 0, columns
    assert found["models"]["btnet"]["networks"]["7"]["images"] > 0
    curves = found["curves"]
    assert (list(curves), curves["phi_hr/112"]) == (["phi_hr/112", "phi_mr/112", "btnet/7"], "as before")
    for network in ("phi_mr/112", "btnet/7"):
        rows = [row for row in read_values(runs / network / "losses.csv") if row["name"] == "loss"]
        assert curves[network]["loss"]["passes"] == [float(row["epoch"]) for row in rows]
        assert curves[network]["loss"]["values"] == pytest.approx([float(row["value"]) for row in rows], abs=1e-4)
        assert f'"passes": {json.dumps(curves[network]["loss"]["passes"])},\n' in result.read_text()


def test_reports_say_what_was_measured_and_not_where_it_lay(
    val: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = tmp_path / "reports"
    kept.mkdir()
    (kept / "old.png").touch()
    monkeypatch.setattr(reports, "REPORTS", kept)
    monkeypatch.setattr(sys, "argv", ["reports.py", "teacher", "--data", str(val)])
    reports.main()
    assert {path.suffix for path in kept.iterdir()} == {".json", ".md", ".png"}
    assert not (kept / "old.png").exists()
    found = {name: json.loads((kept / f"{name}.json").read_text()) for name in ("verification", "identification")}
    assert all(list(report["models"]) == ["teacher"] for report in found.values())
    assert found["verification"]["sections"][0]["rows"] == [[4, 4, 2, 9]]  # of five people, the last one only once
    # Of five people, one is not in the gallery; of the others, three images are in it, and one is searched for.
    assert found["identification"]["sections"][0]["rows"] == [[4, 12, 4, 4]]
    assert not any(str(tmp_path) in path.read_text() for path in kept.iterdir() if path.suffix != ".png")


def test_a_report_that_cannot_be_made_leaves_those_that_are_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.png").touch()
    monkeypatch.setattr(reports, "REPORTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["reports.py", "nowhere.btnet", "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        reports.main()
    assert ended.value.code not in (0, None)
    assert "Traceback" not in capfd.readouterr().err
    assert (tmp_path / "old.png").exists()
