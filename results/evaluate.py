"""Measure the models that train.py trained, as they are shipped, and write res50.json.

    python results/evaluate.py RUNS MODEL ... [--data FOLDER]

Each MODEL is written as a bundle, weights in half precision, and embeds the faces of val_pairs through
btnet_ext.Engine, with flip. Models of one network get images degraded to r and up to 112 again; models with a network
for r get the image at r x r. "teacher" is the ONNX model in FOLDER. What res50.json says of other models stays.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from btnet_eval.gains import cross_resolution_gain, same_resolution_gain
from btnet_eval.verification import Pairs, cross_resolution, read_pairs
from btnet_ext import Engine, degrade, resize
from btnet_ext.whole_files import whole_file
from btnet_train.accounting import branch_parameter_count
from btnet_train.checkpoint import load_checkpoint
from btnet_train.export import write_bundle
from btnet_train.fit import NETWORK
from btnet_train.fit import RESULT as RESULT_OF_RUN
from btnet_train.networks import IResNet
from btnet_train.teacher import Teacher

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from common import machine
from train import STARTS, TEACHER_MEAN, TEACHER_STD

RESULT = Path(__file__).with_name("res50.json")
LICENSE = "LicenseRef-btnet-weights-research-use"
SIDES = (28, 14, 7)
COLUMNS = [(112, 112), (112, 28), (112, 14), (112, 7), (28, 28), (14, 14), (7, 7)]

TEACHER = "teacher"

# Which run each network of a model comes from. phi_mm's network for 112 px is phi_hr, btnet's trunk is phi_mr.
MODELS = {
    "phi_hr": {112: "phi_hr"},
    "phi_mr": {112: "phi_mr"},
    "phi_mm": {112: "phi_hr", 28: "phi_mm", 14: "phi_mm", 7: "phi_mm"},
    "btnet": {112: "phi_mr", 28: "btnet", 14: "btnet", 7: "btnet"},
    "res50": {112: "res50_trunk", 28: "res50", 14: "res50", 7: "res50"},
}

EARLIER = {run: starts["--previous"] for run, starts in STARTS.items() if "--previous" in starts}
"""Which run a run went on from."""

Images: TypeAlias = list[NDArray[np.uint8]]
Rows: TypeAlias = NDArray[np.float32]


class Faces:
    """The distinct faces of the pairs, and where both sides of each pair are among them."""

    def __init__(self, archive: Path, pairs: Pairs) -> None:
        names = sorted({*pairs.paths_a, *pairs.paths_b})
        with zipfile.ZipFile(archive) as members:
            self.images = [np.asarray(Image.open(io.BytesIO(members.read(name))).convert("RGB")) for name in names]
        places = {name: place for place, name in enumerate(names)}
        self.sides = [np.array([places[name] for name in paths]) for paths in (pairs.paths_a, pairs.paths_b)]
        self.pairs = pairs

    def accuracies(self, rows: Mapping[int, Rows]) -> dict[str, dict[str, float]]:
        """Mean and standard deviation in percent for every column, from the embeddings at each resolution."""
        sides = {r: (rows[r][self.sides[0]], rows[r][self.sides[1]]) for r in rows}
        result = {}
        for first, second in COLUMNS:
            measured = cross_resolution(sides[first], sides[second], self.pairs.same, self.pairs.folds)
            result[f"{first}&{second}"] = {"mean": 100 * measured.mean, "std": 100 * measured.std}
        return result


def embed_all(embed: Callable[[Images], Rows], images: Images, native: bool) -> dict[int, Rows]:
    """Embeddings of all images at 112 px and at the resolutions of the branches."""
    rows = {112: embed(images)}
    for side in SIDES:
        rows[side] = embed([resize(image, (side, side)) if native else degrade(image, side) for image in images])
    return rows


def load_networks(runs: Path, sources: Mapping[int, str]) -> dict[int, IResNet]:
    """The networks of a model by resolution."""
    return {r: load_checkpoint(runs / run / str(r) / NETWORK, r) for r, run in sources.items()}


def describe(runs: Path, sources: Mapping[int, str], networks: Mapping[int, IResNet]) -> dict[str, Any]:
    """What each network cost: parameters, GMACs, images and seconds of training, with those of the run before."""
    described = {}
    for side, run in sources.items():
        result = json.loads((runs / run / str(side) / RESULT_OF_RUN).read_text())
        result = {key: result[key] for key in ("parameters", "gmacs", "images", "seconds")}
        if run in EARLIER:
            before = json.loads((runs / EARLIER[run] / str(side) / RESULT_OF_RUN).read_text())
            result |= {key: result[key] + before[key] for key in ("images", "seconds")}
        if run in ("btnet", "res50"):
            result["parameters"] = branch_parameter_count(networks[side])
        described[str(side)] = result
    return described


def curve(path: Path, points: int = 200) -> dict[str, list[list[float]]]:
    """Values of a losses.csv by name, as [epoch, value], thinned out."""
    values: dict[str, list[list[float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            values.setdefault(row["name"], []).append([float(row["epoch"]), round(float(row["value"]), 4)])
    return {name: rows[:: max(1, len(rows) // points)] for name, rows in values.items()}


def gains(models: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Gains of btnet over phi_hr, by column; none while one of the models is missing."""
    if not {"phi_hr", "phi_mr", "phi_mm", "btnet"} <= models.keys():
        return {}
    of: dict[str, dict[str, float | None]] = {"cross": {}, "same": {}}
    for first, second in COLUMNS[1:]:
        name = f"{first}&{second}"
        value = {model: models[model]["accuracy"][name]["mean"] for model in models}
        if first == second:
            of["same"][name] = same_resolution_gain(value["btnet"], value["phi_hr"], value["phi_mm"])
        else:
            of["cross"][name] = cross_resolution_gain(value["btnet"], value["phi_hr"], value["phi_mr"])
    return of


def write_model(path: Path, networks: Mapping[int, IResNet], training: Mapping[str, Any]) -> Path:
    """Write a bundle with weights in half precision."""
    return write_bundle(
        path,
        networks,
        name=path.name.removesuffix(".btnet"),
        license=LICENSE,
        training=training,
        storage="f16",
        overwrite=True,
    )


def main() -> None:
    """Evaluate, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("models", nargs="+", choices=[*MODELS, TEACHER], metavar="MODEL")
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("BTNET_DATA"), required="BTNET_DATA" not in os.environ
    )
    arguments = parser.parse_args()
    runs, data = arguments.runs, Path(arguments.data)
    for model in arguments.models:
        for side, run in MODELS.get(model, {}).items():
            if not (runs / run / str(side) / RESULT_OF_RUN).exists():
                parser.error(f"{model} is not trained yet: {runs / run / str(side)} has no {RESULT_OF_RUN}")
    faces = Faces(data / "celeba/val112.zip", read_pairs(data / "celeba/val_pairs.tsv"))
    models: dict[str, dict[str, Any]] = json.loads(RESULT.read_text())["models"] if RESULT.exists() else {}
    for model in arguments.models:
        measured = measure_teacher(faces, data) if model == TEACHER else measure(model, faces, runs)
        models[model] = {"machine": machine(), **measured}
    models = {model: models[model] for model in (*MODELS, TEACHER) if model in models}
    with whole_file(RESULT) as append:
        result = {"pairs": len(faces.pairs), "models": models, "gains": gains(models)}
        append((json.dumps(result, indent=1) + "\n").encode())


def measure(model: str, faces: Faces, runs: Path) -> dict[str, Any]:
    """What a model reaches and what it cost."""
    sources = MODELS[model]
    networks = load_networks(runs, sources)
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(write_model(Path(folder) / f"{model}.btnet", networks, {"method": model}))
        accuracy = measure_engine(engine, faces, native=len(sources) > 1)
    return {
        "accuracy": accuracy,
        "networks": describe(runs, sources, networks),
        "curves": {f"{run}/{r}": curve(runs / run / str(r) / "losses.csv") for r, run in sources.items()},
    }


def measure_engine(engine: Engine, faces: Faces, native: bool) -> dict[str, dict[str, float]]:
    """What an engine reaches, with flip. native: it gets small images as they are, not enlarged again to 112 px."""
    return faces.accuracies(embed_all(lambda images: engine.embed(images, flip=True), faces.images, native))


def measure_teacher(faces: Faces, data: Path) -> dict[str, Any]:
    """What the teacher reaches."""
    mean, std = (tuple(map(float, text.split(","))) for text in (TEACHER_MEAN, TEACHER_STD))
    teacher = Teacher(data / "teacher/mobilefacenet.onnx", mean=mean, std=std)
    rows = embed_all(lambda images: embed_flipped(teacher, np.stack(images)), faces.images, native=False)
    return {"accuracy": faces.accuracies(rows)}


def embed_flipped(teacher: Teacher, images: NDArray[np.uint8]) -> Rows:
    """Sum of the teacher's embeddings of images and mirror images."""
    total: Rows = teacher.embed(images) + teacher.embed(np.ascontiguousarray(images[:, :, ::-1]))
    return total


if __name__ == "__main__":
    main()
