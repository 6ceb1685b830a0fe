"""Draw docs/training_curves.png and .svg from res50.json: how far from the teacher each network was, and how good.

    python results/curves.py

Left, 1 - cosine to the teacher's embedding on the images of training, averaged over 2 % of all; right, accuracy in
percent on the held-out identities of train112, both images at the network's own resolution. Marked every pass.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from btnet_eval.plots import save, styled
from btnet_train.recipes import load
from evaluate import RESULT

PICTURE = Path(__file__).parents[1] / "docs/training_curves"
TEACHER_WEIGHT = 4.0
"""Of the teacher's loss in all recipes here; `main` checks it."""

SMOOTHED = 0.02
DASHES = {
    "phi_hr": (0, (1.2, 1.4)),
    "phi_mr": (0, (6, 1.4, 1.2, 1.4)),
    "phi_mm": (0, (5, 1.6)),
    "btnet": "-",
    "res50_trunk": (0, (9, 1.5, 3, 1.5)),
    "res50": (0, (3, 1, 1, 1, 1, 1)),
}
SHADES = {"112": "black", "28": "0.3", "14": "0.5", "7": "0.65"}
MARKERS = {"112": "o", "28": "s", "14": "^", "7": "D"}


def smoothed(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Running mean; the ends are means of what is there."""
    window = np.ones(max(1, round(len(values) * SMOOTHED)))
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")


def main() -> None:
    """Draw."""
    for recipe in (RESULT.parent / "recipes").glob("*.toml"):
        weights = {stage.teacher and stage.teacher.cosine for stage in load(str(recipe)).stages.values()}
        if weights != {TEACHER_WEIGHT}:
            raise ValueError(f"{recipe} weighs the teacher's loss with {weights}, expected {TEACHER_WEIGHT}")
    trained = json.loads(RESULT.read_text())["curves"]
    if not trained:
        sys.exit(f"{RESULT} has no trained model yet: there is nothing to draw")
    with styled():
        save(draw(trained), PICTURE)


def draw(trained: Mapping[str, Any]) -> Figure:
    """Both panels, with a line for each network: of the curves of RUN/RESOLUTION."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    distance, accuracy = figure.subplots(1, 2)
    for network, measured in trained.items():
        run, _, resolution = network.partition("/")
        style: dict[str, Any] = {"color": SHADES[resolution], "linestyle": DASHES[run]}
        losses, held_out = measured["teacher"], measured[f"held out {resolution}&{resolution}"]
        away = smoothed(np.array(losses["values"])) / TEACHER_WEIGHT
        distance.plot(losses["passes"], away, label=f"{run}, {resolution} px", **style)
        accuracy.plot(held_out["passes"], held_out["values"], marker=MARKERS[resolution], markersize=3, **style)
    distance.set(xlabel="passes", ylabel="1 - cosine to the teacher")
    accuracy.set(xlabel="passes", ylabel="accuracy on held-out people, %")
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


if __name__ == "__main__":
    main()
