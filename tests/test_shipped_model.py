"""The model that comes with the package: what it is, and that it does what it says of itself."""

import csv
import io
import json
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from btnet_ext import Bundle, DemonstrationWeights, Engine, models, resize
from btnet_ext.compare import compare

ROOT = Path(__file__).parents[1]
FACES = ROOT / "examples" / "faces"
SIDES = (7, 14, 28, 112)


@pytest.fixture(scope="module")
def engine() -> Engine:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DemonstrationWeights)
        return Engine("res50")


def test_what_it_is() -> None:
    folder = models.path("res50")
    assert sum(file.stat().st_size for file in folder.iterdir()) < 20e6
    bundle = Bundle.open(folder)
    bundle.verify()
    assert (bundle.arch, bundle.width, bundle.dim, tuple(bundle.resolutions)) == ("res50", 0.25, 512, SIDES)
    assert bundle.license == "LicenseRef-btnet-weights-research-use"
    assert list(bundle.metadata["thresholds"]["far"]) == ["0.01", "0.001", "0.0001"]


def test_it_is_what_the_commands_take() -> None:
    """As the README has it; and whoever uses it is warned, once."""
    faces: list[str | Path] = [FACES / "hopper_200.jpg", FACES / "hopper_014.png"]
    command = [sys.executable, "-m", "btnet_ext.cli", "compare", *faces, "--far", "0.01"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("same")
    assert done.stderr.startswith("btnet: warning: the weights of 'res50' are for demonstration only")
    assert done.stderr.count("\n") == 1


def test_what_it_says_of_itself_is_what_was_measured() -> None:
    training = Bundle.open(models.path("res50")).metadata["training"]
    model = training["method"].rpartition(", ")[2]
    measured = json.loads((ROOT / "results" / "res50.json").read_text())["models"][model]
    means = {columns: round(value["mean"], 2) for columns, value in measured["accuracy"].items()}
    assert training["accuracy on val_pairs, percent"] == means
    assert training["networks"] == measured["networks"]


def test_it_tells_the_example_faces_apart(engine: Engine) -> None:
    """At 14 px and more: each crop is nearer to all of its own person than to any of the other."""
    files = sorted(path for path in FACES.glob("*.[jp][pn]g") if int(path.stem[-3:]) >= 14)
    rows = engine.embed([Image.open(path) for path in files], flip=True)
    person = np.array([path.stem.partition("_")[0] for path in files])
    same = person[:, None] == person[None]
    scores = rows @ rows.T
    assert same.sum() == 2 * 5**2
    assert scores[same].min() > scores[~same].max()


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ("hopper_200.jpg", "hopper_014.png", "same"),
        ("collins_112.jpg", "collins_028.png", "same"),
        ("hopper_112.jpg", "collins_112.jpg", "different"),
        ("hopper_028.png", "collins_128.jpg", "different"),
    ],
)
def test_verdicts(engine: Engine, first: str, second: str, verdict: str) -> None:
    faces = [np.asarray(Image.open(FACES / name)) for name in (first, second)]
    assert compare(engine, faces, far=1e-2).verdict == verdict


def best_threshold(scores: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """The least of the scores that accepts the most pairs rightly, taken as a threshold."""
    order = np.argsort(-scores)
    return float(scores[order][np.argmax(np.cumsum(np.where(same[order], 1, -1)))])


def ten_folds(scores: NDArray[np.float64], same: NDArray[np.bool_], folds: NDArray[np.int64]) -> float:
    """Percent of pairs told apart rightly, mean over the folds, each with the threshold of the others."""
    parts = []
    for fold in range(10):
        inside = folds == fold
        accepted = scores[inside] >= best_threshold(scores[~inside], same[~inside])
        parts.append(float((accepted == same[inside]).mean()))
    return 100 * float(np.mean(parts))


def test_accuracy(engine: Engine, data_folder: Path) -> None:
    """10-fold accuracy on val_pairs, worked out here; it may differ where scores differ in their last bits."""
    with (data_folder / "celeba/val_pairs.tsv").open(newline="") as file:
        pairs = list(csv.DictReader(file, delimiter="\t"))
    names = sorted({row[side] for row in pairs for side in ("path_a", "path_b")})
    with zipfile.ZipFile(data_folder / "celeba/val112.zip") as archive:
        images = [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names]
    rows = {
        side: engine.embed([resize(image, (side, side)) for image in images], flip=True).astype(np.float64)
        for side in SIDES
    }
    place = {name: number for number, name in enumerate(names)}
    a, b = (np.array([place[row[side]] for row in pairs]) for side in ("path_a", "path_b"))
    same, folds = (np.array([int(row[key]) for row in pairs]) for key in ("same", "fold"))
    said = engine.bundle.metadata["training"]["accuracy on val_pairs, percent"]
    assert len(said) == 7
    for columns, percent in said.items():
        x, y = (int(side) for side in columns.split("&"))
        directions = [(rows[x][a] * rows[y][b]).sum(axis=1), (rows[y][a] * rows[x][b]).sum(axis=1)]
        found = np.mean([ten_folds(scores, same == 1, folds) for scores in directions])
        assert found == pytest.approx(percent, abs=0.15), columns
