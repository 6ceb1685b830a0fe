"""Measure the models that train.py trained, as they are shipped, and write res50.json.

    python results/evaluate.py RUNS MODEL ... [--data FOLDER]

Each MODEL is written as a bundle, weights in half precision, and embeds the faces of val_pairs through
btnet_ext.Engine, with flip, as btnet-eval has it: models of one network get images degraded to r and up to 112 again;
models with a network for r get the image at r x r. "teacher" is the ONNX model in FOLDER. What res50.json says of other
models stays.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from btnet_eval.cache import EmbeddingCache
from btnet_eval.datasets.images import open_images
from btnet_eval.embedder import Embedder
from btnet_eval.gains import cross_resolution_gain, same_resolution_gain
from btnet_eval.models import Model, open_model
from btnet_eval.onnx_network import Preprocessing
from btnet_eval.verification import cross_resolution, read_pairs
from btnet_eval.verify import embed_pairs
from btnet_ext.whole_files import whole_file
from btnet_train.accounting import branch_parameter_count
from btnet_train.checkpoint import load_checkpoint
from btnet_train.export import write_bundle
from btnet_train.networks import IResNet
from btnet_train.progress import LOSSES, read_values
from btnet_train.run_folder import NETWORK, digest_of
from btnet_train.run_folder import RESULT as RESULT_OF_RUN

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from common import machine
from train import STARTS, TEACHER_MEAN, TEACHER_STD, add_data

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


def networks_of(model: str) -> list[str]:
    """RUN/RESOLUTION of the networks of a model."""
    return [f"{run}/{r}" for r, run in MODELS.get(model, {}).items()]


def accuracies(model: Model, data: Path) -> dict[str, dict[str, float]]:
    """10-fold accuracy of a model on val_pairs, mean and standard deviation in percent, for every column."""
    pairs = read_pairs(data / "celeba/val_pairs.tsv")
    result = {}
    with open_images(data / "celeba/val112.zip") as images, tempfile.TemporaryDirectory() as folder:
        found = embed_pairs(Embedder(model, EmbeddingCache(folder)), pairs, images, (112, *SIDES))
        for first, second in COLUMNS:
            sides = {r: (found.first[r], found.second[r]) for r in (first, second)}
            measured = cross_resolution(sides[first], sides[second], pairs.same, pairs.folds)
            result[f"{first}&{second}"] = {"mean": 100 * measured.mean, "std": 100 * measured.std}
    return result


def load_networks(runs: Path, sources: Mapping[int, str]) -> dict[int, IResNet]:
    """The networks of a model by resolution."""
    return {r: load_checkpoint(runs / run / str(r) / NETWORK, r) for r, run in sources.items()}


def describe(runs: Path, sources: Mapping[int, str], networks: Mapping[int, IResNet]) -> dict[str, Any]:
    """What each network is and cost: digest, parameters, GMACs, images and seconds, with those of the run before."""
    described = {}
    for side, run in sources.items():
        result = json.loads((runs / run / str(side) / RESULT_OF_RUN).read_text())
        result = {key: result[key] for key in ("parameters", "gmacs", "images", "seconds")}
        if run in EARLIER:
            before = json.loads((runs / EARLIER[run] / str(side) / RESULT_OF_RUN).read_text())
            result |= {key: result[key] + before[key] for key in ("images", "seconds")}
        if run in ("btnet", "res50"):
            result["parameters"] = branch_parameter_count(networks[side])
        described[str(side)] = {"sha256": digest_of(runs / run / str(side) / NETWORK), **result}
    return described


def curves(path: Path, points: int = 200) -> dict[str, dict[str, list[float]]]:
    """What a losses.csv has by name, thinned out: passes over the images, and the value after each."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in read_values(path):
        found.setdefault(row["name"], []).append((float(row["epoch"]), round(float(row["value"]), 4)))
    thinned = {name: rows[:: max(1, len(rows) // points)] for name, rows in found.items()}
    return {
        name: {"passes": [at for at, _ in rows], "values": [of for _, of in rows]} for name, rows in thinned.items()
    }


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


def write(result: Mapping[str, Any]) -> None:
    """Write the JSON, with a line for each list of numbers."""
    text = json.dumps(result, indent=1)
    text = re.sub(r"\[[-+.,\deE\s]+\]", lambda numbers: json.dumps(json.loads(numbers[0])), text)
    with whole_file(RESULT) as append:
        append((text + "\n").encode())


def main() -> None:
    """Evaluate, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("models", nargs="+", choices=[*MODELS, TEACHER], metavar="MODEL")
    add_data(parser)
    arguments = parser.parse_args()
    runs, data = arguments.runs, arguments.data
    for model in arguments.models:
        for side, run in MODELS.get(model, {}).items():
            if not (runs / run / str(side) / RESULT_OF_RUN).exists():
                parser.error(f"{model} is not trained yet: {runs / run / str(side)} has no {RESULT_OF_RUN}")
    result: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {"models": {}, "curves": {}}
    models, drawn = result["models"], result["curves"]
    for model in arguments.models:
        measured = measure_teacher(data) if model == TEACHER else measure(model, runs, data)
        models[model] = {"machine": machine(), **measured}
        drawn |= {network: curves(runs / network / LOSSES) for network in networks_of(model)}
    models = {model: models[model] for model in (*MODELS, TEACHER) if model in models}
    drawn = {
        network: drawn[network]
        for network in dict.fromkeys(chain.from_iterable(map(networks_of, MODELS)))
        if network in drawn
    }
    pairs = len(read_pairs(data / "celeba/val_pairs.tsv"))
    write({"pairs": pairs, "models": models, "gains": gains(models), "curves": drawn})


def measure(model: str, runs: Path, data: Path) -> dict[str, Any]:
    """What a model reaches and what it cost."""
    sources = MODELS[model]
    networks = load_networks(runs, sources)
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_model(Path(folder) / f"{model}.btnet", networks, {"method": model})
        accuracy = accuracies(open_model(bundle), data)
    return {"accuracy": accuracy, "networks": describe(runs, sources, networks)}


def measure_teacher(data: Path) -> dict[str, Any]:
    """What the teacher reaches."""
    mean, std = (tuple(map(float, text.split(","))) for text in (TEACHER_MEAN, TEACHER_STD))
    given = Preprocessing(mean, std)  # type: ignore[arg-type]  # of three, as it checks
    return {"accuracy": accuracies(open_model(data / "teacher/mobilefacenet.onnx", preprocessing=given), data)}


if __name__ == "__main__":
    main()
