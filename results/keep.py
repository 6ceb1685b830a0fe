"""Keep in the repository what a training needs to go on on another machine, or bring it back.

    python results/keep.py RUNS MODEL ...
    python results/keep.py RUNS --restore

What the models of train.py reached so far goes from RUNS to results/kept, in half precision: a finished network, with
its heads if another run starts from them, or the state of one that is being trained without the moments of its
optimiser, which are made anew within some dozens of steps. So a training that goes on from here is not bit for bit the
one that was never moved. --restore copies all of it to RUNS and changes no network there of which anything is saved;
runs that started from a kept network are told what it became when it was rounded.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from torch import Tensor

from btnet_train.inputs import identity
from btnet_train.progress import LOSSES
from btnet_train.recipes import parse
from btnet_train.run_folder import HEADS, NETWORK, RESULT
from btnet_train.run_state import load_tensors, save_tensors
from btnet_train.trainer import STATE
from train import MODELS, STARTS

KEPT = Path(__file__).with_name("kept")
RUN = "run.json"

STARTED_FROM = {run.partition("/")[0] for starts in STARTS.values() for run in starts.values()}
"""The runs that others start from."""


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
    """Copy the run of a model to KEPT; what was kept of it before stays until all is there."""
    target = KEPT / model.name
    part = KEPT / f".{model.name}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for source in sorted(path.parent for path in model.glob(f"*/{LOSSES}")):
        finished = (source / RESULT).exists()
        tensors, texts = ([NETWORK], (RESULT, LOSSES)) if finished else ([STATE], (LOSSES,))
        if finished and model.name in STARTED_FROM:
            tensors.append(HEADS)
        if not all((source / name).exists() for name in tensors):
            continue  # it has only just begun
        (part / source.name).mkdir()
        for name in tensors:
            halved(source / name, part / source.name / name)
        for name in texts:
            shutil.copyfile(source / name, part / source.name / name)
    shutil.copyfile(model / RUN, part / RUN)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)


def restore(runs: Path) -> None:
    """Copy what RUNS lacks back to it."""
    for description in sorted(KEPT.glob(f"*/{RUN}")):
        model = runs / description.parent.name
        model.mkdir(parents=True, exist_ok=True)
        for source in sorted(path for path in description.parent.iterdir() if path.is_dir()):
            target = model / source.name
            if not (target / STATE).exists() and not (target / RESULT).exists():
                shutil.copytree(source, target, dirs_exist_ok=True)
        if not (model / RUN).exists():
            shutil.copyfile(description, model / RUN)
    for description in KEPT.glob(f"*/{RUN}"):
        tell_start(runs, description.parent.name)


def tell_start(runs: Path, model: str) -> None:
    """Write into the run.json of a model what the networks that it started from are now."""
    path = runs / model / RUN
    description = json.loads(path.read_text())
    starts = {option: runs / run for option, run in STARTS.get(model, {}).items()}
    recipe = parse(description["recipe"], str(path))
    description |= identity(recipe, starts.get("--trunk"), None, starts.get("--previous"))
    path.write_text(json.dumps(description, indent=2) + "\n")


def not_kept(models: list[str]) -> set[str]:
    """Which runs those of the models started from, and are neither among the models nor in KEPT."""
    starts = {run.partition("/")[0] for model in models for run in STARTS.get(model, {}).values()}
    return {model for model in starts.difference(models) if not (KEPT / model).is_dir()}


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
        if not (arguments.runs / model / RUN).exists():
            parser.error(f"{model} is not trained yet: {arguments.runs / model} has no {RUN}")
    if missing := not_kept(arguments.models):
        parser.error(f"{', '.join(arguments.models)} started from {', '.join(missing)}: keep that, too")
    if arguments.restore:
        restore(arguments.runs)
    for model in arguments.models:
        keep(arguments.runs / model)


if __name__ == "__main__":
    main()
