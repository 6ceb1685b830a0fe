"""Keep in the repository what a training needs to go on on another machine, or bring it back.

    python results/keep.py RUNS MODEL ...
    python results/keep.py RUNS --restore

What the models of train.py reached so far goes from RUNS to results/kept, in half precision: a finished network with
its heads, or the state of one that is being trained without the moments of its optimiser, which are made anew within
some dozens of steps. So a training that goes on from here is not bit for bit the one that was never moved. --restore
copies all of it to RUNS and changes no network that is there already.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from torch import Tensor

from btnet_train.fit import HEADS, NETWORK, RESULT
from btnet_train.run_state import load_tensors, save_tensors
from btnet_train.trainer import STATE
from train import MODELS

KEPT = Path(__file__).with_name("kept")
LOSSES = "losses.csv"


def halved(path: Path, target: Path) -> None:
    """Copy a file of tensors, in half precision and without moments."""
    tensors, facts = load_tensors(path)
    small: dict[str, Tensor] = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if not name.startswith("optimizer.")
    }
    wrong = [name for name, tensor in small.items() if not torch.isfinite(tensor).all()]
    if wrong:
        raise ValueError(f"{path}: {wrong[0]} has values that half precision cannot hold")
    if "group_steps" in facts:  # of the moments
        facts["group_steps"] = [None if steps is None else 0 for steps in facts["group_steps"]]
    save_tensors(target, small, facts)


def keep(model: Path) -> None:
    """Copy the run of a model to KEPT."""
    for network in sorted(model.glob("*/losses.csv")):
        source, target = network.parent, KEPT / model.name / network.parent.name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        finished = (source / RESULT).exists()
        for name in (NETWORK, HEADS) if finished else (STATE,):
            halved(source / name, target / name)
        for name in (RESULT, LOSSES) if finished else (LOSSES,):
            shutil.copyfile(source / name, target / name)
    shutil.copyfile(model / "run.json", KEPT / model.name / "run.json")


def restore(runs: Path) -> None:
    """Copy what RUNS lacks back to it."""
    for description in sorted(KEPT.glob("*/run.json")):
        model = runs / description.parent.name
        model.mkdir(parents=True, exist_ok=True)
        for source in sorted(path for path in description.parent.iterdir() if path.is_dir()):
            if not (model / source.name).exists():
                shutil.copytree(source, model / source.name)
        if not (model / description.name).exists():
            shutil.copyfile(description, model / description.name)


def main() -> None:
    """Keep, or restore."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"one of {', '.join(MODELS)}")
    parser.add_argument("--restore", action="store_true")
    arguments = parser.parse_args()
    if bool(arguments.models) == arguments.restore:
        parser.error("name the models to keep, or give --restore")
    for model in arguments.models:
        if not (arguments.runs / model / "run.json").exists():
            parser.error(f"{model} is not trained yet: {arguments.runs / model} has no run.json")
    if arguments.restore:
        restore(arguments.runs)
    for model in arguments.models:
        keep(arguments.runs / model)


if __name__ == "__main__":
    main()
