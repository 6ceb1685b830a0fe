"""results/int8.py: what is quantised, with which faces, and what is measured; without the work."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from face_files import write_folder
from PIL import Image

# At the end: this script must not take the place of another module of its name.
sys.path.append(str(Path(__file__).parents[2] / "results"))

from result_runs import write_pairs

import int8
from btnet_train.sources import Faces

QUANTIZATION = {"faces": 8}


@pytest.fixture
def held_out(faces: Faces) -> Faces:
    return faces.only(faces.classes[:2])


@pytest.fixture
def measure(tmp_path: Path, faces: Faces, held_out: Faces, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run the script on a bundle of 10 bytes, with a stand-in for btnet; an accuracy says what it is of."""
    write_pairs(tmp_path, [(0, "a.png", "b.png", 1), (1, "a.png", "c.png", 0)])
    model = write_folder(tmp_path / "small.btnet", {"model.json": bytes(4), "weights.bin": bytes(6)})
    bundle = SimpleNamespace(name="small", metadata={"quantization": QUANTIZATION})
    learned = faces.without(held_out.classes)
    monkeypatch.setattr(int8, "RESULT", tmp_path / "int8.json")
    monkeypatch.setattr(int8, "open_faces", lambda data: (learned, held_out))
    monkeypatch.setattr(int8, "Bundle", SimpleNamespace(open=lambda path: bundle))
    monkeypatch.setattr(int8, "open_model", lambda path, precision: f"{path} in {precision}")
    monkeypatch.setattr(int8, "accuracies", lambda model, data: {"7&7": f"{model} on {data}"})
    monkeypatch.setattr(sys, "argv", ["int8.py", "--model", str(model), "--data", str(tmp_path)])

    def run(btnet: Callable[..., Any]) -> None:
        monkeypatch.setattr(int8, "subprocess", SimpleNamespace(run=btnet))
        int8.main()

    return run


def test_both_precisions_of_the_quantised_bundle(measure: Callable[..., None], tmp_path: Path, held_out: Faces) -> None:
    """It is calibrated with the faces of the people who were held out."""
    targets: list[str] = []
    people: set[tuple[str, bytes]] = set()

    def btnet(line: list[str], check: bool) -> SimpleNamespace:
        assert line[:3] == ["btnet", "quantize", f"{tmp_path}/small.btnet"]
        options = dict(zip(line[3::2], line[4::2], strict=True))
        assert options.keys() == {"--calibrate", "--out"}
        faces = Path(options["--calibrate"])
        for file in faces.rglob("*.*"):
            people.add((str(file.parent.relative_to(faces)), np.asarray(Image.open(file)).tobytes()))
        targets.append(options["--out"])
        write_folder(Path(options["--out"]), {"model.json": bytes(7), "weights.bin": bytes(8), "more": bytes(9)})
        return SimpleNamespace(returncode=0)

    measure(btnet)
    result = json.loads((tmp_path / "int8.json").read_text())
    assert result.pop("machine")["cores"] >= 1
    assert result == {
        "model": "small",
        "pairs": 2,
        "accuracy": {name: {"7&7": f"{targets[0]} in {name} on {tmp_path}"} for name in ("f32", "int8")},
        "quantization": QUANTIZATION,
        "bytes": {"f32": 10, "with int8": 24},
    }
    assert len(people) == 8
    assert people == {
        (held_out.classes[label], held_out.read(index).tobytes()) for index, label in enumerate(held_out.labels)
    }


def test_nothing_is_measured_where_quantising_failed(measure: Callable[..., None], tmp_path: Path) -> None:
    """btnet has said why; its exit code is the script's, too."""
    with pytest.raises(SystemExit) as ended:
        measure(lambda line, check: SimpleNamespace(returncode=3))
    assert ended.value.code == 3
    assert not (tmp_path / "int8.json").exists()
