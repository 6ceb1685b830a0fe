"""Ship a trained model: a bundle that says what it was trained on and how well it does, with thresholds.

    python results/ship.py RUNS MODEL python/btnet_ext/models/res50.btnet [--data FOLDER]

MODEL is one that evaluate.py has measured. The thresholds, for `btnet compare`, are measured by btnet-eval on the
identities that were held out of the training: nothing is chosen on val112.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from btnet_ext.whole_files import whole_directory
from btnet_train.export import check_target
from btnet_train.run_folder import NETWORK, digest_of
from btnet_train.sources import Faces
from btnet_train.validation import choose_identities
from evaluate import MODELS, RESULT, load_networks, write_model
from train import HELD_OUT, LABELED, STARTS, UNLABELED, add_data
from train import MODELS as RUNS


def lineage(runs: Collection[str]) -> set[str]:
    """The runs, and all that they started from."""
    started = {run.partition("/")[0] for of in runs for run in STARTS.get(of, {}).values()}
    return {*runs, *lineage(started)} if started else {*runs}


def training(model: str, measured: Mapping[str, Any], faces: Faces) -> dict[str, Any]:
    """What model.json says under "training": how, on which faces, and what came of it."""
    recipes = lineage(MODELS[model].values())
    large, small, unlabeled = (f"{count:,}" for count in np.bincount(faces.source_numbers))
    return {
        "demonstration": True,
        "method": "BTNet (He et al., BMVC 2023); trained in this order by the recipes in results/recipes: "
        + ", ".join(run for run in RUNS if run in recipes),
        "data": f"CelebA ({large} faces at 112 px, {small} at 56 px), UTKFace ({unlabeled}, without identities), and a "
        "public MobileFaceNet as teacher",
        "accuracy on val_pairs, percent": {
            name: round(value["mean"], 2) for name, value in measured["accuracy"].items()
        },
        "networks": measured["networks"],
    }


def open_faces(data: Path) -> tuple[Faces, Faces]:
    """The faces that the networks learned from, and those of the identities that were held out."""
    faces = Faces([data / name for name in LABELED], [data / name for name in UNLABELED], shared_identities=True)
    chosen = choose_identities(faces, HELD_OUT)
    return faces.without(chosen), faces.only(chosen)


def write_people(folder: Path, faces: Faces) -> None:
    """Write labeled faces as folder/IDENTITY/NUMBER.png."""
    for index, label in enumerate(faces.labels):
        file = folder / faces.classes[label] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(faces.read(index)).save(file)


def main() -> None:
    """Write the bundle, measure the thresholds, and put it where it is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("bundle", type=Path)
    add_data(parser)
    arguments = parser.parse_args()
    model, target, data = arguments.model, arguments.bundle, arguments.data
    check_target(target, overwrite=True)  # before the work, not after it
    measured = json.loads(RESULT.read_text())["models"]
    if model not in measured:
        parser.error(f"{model} is not in {RESULT.name}: measure it with evaluate.py first")
    for side, run in MODELS[model].items():
        folder = arguments.runs / run / str(side)
        if measured[model]["networks"][str(side)].get("sha256") != digest_of(folder / NETWORK):
            parser.error(
                f"{model} in {RESULT.name} had another network for {side} px than {folder}: measure it with evaluate.py"
            )
    learned, held_out = open_faces(data)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        about = training(model, measured[model], learned)
        bundle = write_model(folder / target.name, load_networks(arguments.runs, MODELS[model]), about)
        write_people(folder / "people", held_out)
        line = ["btnet-eval", "thresholds", "people", "--model", bundle.name, "--write", "--out", "report"]
        if status := subprocess.run(line, cwd=folder, check=False).returncode:  # btnet-eval has said why
            sys.exit(status)
        with whole_directory(target) as new:
            shutil.copytree(bundle, new, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
