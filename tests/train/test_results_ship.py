"""results/ship.py: what is shipped, and what it says of itself."""

import json
import shutil
import sys
from hashlib import sha256
from pathlib import Path

import pytest

# At the end: these scripts must not take the place of another module of their names.
sys.path += [str(Path(__file__).parents[2] / folder) for folder in ("results", "benchmarks")]

from result_runs import write_runs
from tiny_training import tensors, write_faces

import evaluate
import ship
import train
from btnet_ext import Bundle
from btnet_train.run_state import save_tensors
from btnet_train.sources import Faces


@pytest.fixture
def runs(tmp_path: Path, faces: Faces) -> Path:
    return write_runs(tmp_path / "runs", faces)


@pytest.mark.parametrize(
    ("model", "runs"),
    [
        ("phi_mm", ["phi_hr", "phi_mm"]),
        ("btnet", ["phi_mr", "btnet"]),
        ("res50", ["phi_hr", "res50_trunk", "res50"]),
    ],
)
def test_what_a_model_comes_from(model: str, runs: list[str]) -> None:
    assert ship.lineage(evaluate.MODELS[model].values()) == set(runs)


@pytest.fixture
def shipping(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The arguments that ship a btnet of two networks, which has been measured, with faces as train.py has them."""
    data = tmp_path / "data"
    for name, identities in ((train.LABELED[0], 12), (train.LABELED[1], 3), (train.UNLABELED[0], 2)):
        folder = write_faces(data / name.removesuffix(".zip"), identities)
        shutil.make_archive(str(folder), "zip", folder)
    monkeypatch.setattr(ship, "HELD_OUT", 7)
    monkeypatch.setitem(evaluate.MODELS, "btnet", {112: "phi_mr", 7: "btnet"})
    monkeypatch.setattr(ship, "RESULT", tmp_path / "res50.json")
    sources = evaluate.MODELS["btnet"]
    networks = evaluate.describe(runs, sources, evaluate.load_networks(runs, sources))
    measured = {"accuracy": {"112&7": {"mean": 61.234, "std": 1.0}}, "networks": networks}
    (tmp_path / "res50.json").write_text(json.dumps({"models": {"btnet": measured}}))
    return [runs, "btnet", tmp_path / "res50.btnet", "--data", data]


def ship_with(monkeypatch: pytest.MonkeyPatch, arguments: list[object]) -> None:
    monkeypatch.setattr(sys, "argv", ["ship.py", *map(str, arguments)])
    ship.main()


def test_what_is_shipped(shipping: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two times, the second in place of the first; 9 identities are in train112 alone, 7 of which are held out."""
    people: list[tuple[str, ...]] = []
    write_people = ship.write_people

    def recording(folder: Path, faces: Faces) -> None:
        people.append(faces.classes)
        write_people(folder, faces)

    monkeypatch.setattr(ship, "write_people", recording)
    for _ in range(2):
        ship_with(monkeypatch, shipping)
    bundle = Bundle.open(tmp_path / "res50.btnet")
    bundle.verify()
    assert (bundle.name, bundle.license) == ("res50", "LicenseRef-btnet-weights-research-use")
    about = bundle.metadata["training"]
    assert about["demonstration"] is True
    assert about["method"].endswith("results/recipes: phi_mr, btnet")
    assert "CelebA (20 faces at 112 px, 12 at 56 px), UTKFace (8, " in about["data"]
    assert about["accuracy on val_pairs, percent"] == {"112&7": 61.23}
    branch = tmp_path / "runs/btnet/7/network.safetensors"
    assert about["networks"]["7"]["sha256"] == sha256(branch.read_bytes()).hexdigest()
    assert people[0] == people[1]
    assert len(people[0]) == 7
    assert set(people[0]) < {f"{identity:03d}" for identity in range(3, 12)}
    # In each half two images of each of the 7: 14 * 14 - 7 * 2 * 2 = 168 impostor pairs, enough for a FAR of 0.01.
    assert list(bundle.metadata["thresholds"]["far"]) == ["0.01"]
    assert bundle.metadata["thresholds"]["flip"] is True


def test_what_is_shipped_stays_until_the_new_is_there(
    shipping: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One identity held out makes no impostors: btnet-eval says so, and it is the last word."""
    ship_with(monkeypatch, shipping)
    before = {path: path.read_bytes() for path in (tmp_path / "res50.btnet").iterdir()}
    capfd.readouterr()
    monkeypatch.setattr(ship, "HELD_OUT", 1)
    with pytest.raises(SystemExit) as ended:
        ship_with(monkeypatch, shipping)
    assert ended.value.code not in (0, None)
    assert "Traceback" not in capfd.readouterr().err
    assert {path: path.read_bytes() for path in before} == before


def test_only_what_is_measured_is_shipped(
    shipping: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "res50.json").write_text(json.dumps({"models": {}}))
    with pytest.raises(SystemExit):
        ship_with(monkeypatch, shipping)
    assert "btnet is not in res50.json: measure it with evaluate.py first" in capsys.readouterr().err


def test_what_is_shipped_is_what_was_measured(
    shipping: list[object],
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The branch was trained on since."""
    path = runs / "btnet/7/network.safetensors"
    network = tensors(path)
    network["fc.weight"] += 1
    save_tensors(path, network, {})
    with pytest.raises(SystemExit):
        ship_with(monkeypatch, shipping)
    said = f"btnet in res50.json had another network for 7 px than {runs}/btnet/7: measure it with evaluate.py"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "res50.btnet").exists()
