"""Runs as results/train.py leaves them, of small networks; and pairs to measure them on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiny_training import SMALL, schedule
from tiny_training import train as carry_out

from btnet_ext.bundle import describe_file
from btnet_train import recipes
from btnet_train.sources import Faces
from btnet_train.topology import CANONICAL


def write_runs(runs: Path, faces: Faces) -> Path:
    """Train phi_mr, and btnet with a branch that is finished and one that has only just begun; returns `runs`."""
    small = {**SMALL, "stages.branch": False, **schedule("trunk", 0.4)}
    describe(runs, "phi_mr", "phi_mr", small, carry_out("phi_mr", small, runs / "phi_mr", faces))
    branch = {"stages.branch.resolutions": [7], **schedule("branch", 0.4)}
    trunk = runs / "phi_mr/112"
    files = carry_out("own_trunk", branch, runs / "btnet", faces, inputs={"trunk": trunk})
    describe(runs, "btnet", "own_trunk", branch, files)
    (runs / "btnet/14").mkdir()
    (runs / "btnet/14/losses.csv").write_text("step,epoch,rate,images_per_second,name,value\r\n")
    return runs


def describe(runs: Path, model: str, recipe: str, changes: dict[str, Any], files: dict[int, Path]) -> None:
    trunk = describe_file(files[CANONICAL])["sha256"] if model == "btnet" else None
    recipe_data = recipes.load(recipe, changes).to_dict()
    (runs / model / "run.json").write_text(json.dumps({"recipe": recipe_data, "trunk": trunk, "environments": []}))


def write_pairs(data: Path, pairs: Sequence[tuple[int, str, str, int]]) -> None:
    """Write celeba/val_pairs.tsv: fold, both paths, and whether they are of one person."""
    rows = [("fold", "path_a", "path_b", "same"), *pairs]
    (data / "celeba").mkdir(parents=True, exist_ok=True)
    (data / "celeba/val_pairs.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
