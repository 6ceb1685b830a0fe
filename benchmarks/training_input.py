"""Does the input hold training up? Images/s of training steps on faces as they come, against one constant batch.

    python benchmarks/training_input.py --faces ZIP [--width 0.25] [--batch 64] [--precision bf16]

Rounds of steps on new batches (decoded, degraded to five resolutions and flipped by one worker process) and of steps
on one batch that stays in memory take turns. The first steps of a round are not timed: they take batches that the
worker made during the other round. Writes results/training_input.json and a table.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import torch

import common
from btnet_train.batches import Batch, Batches
from btnet_train.losses import Classifier
from btnet_train.networks import IResNet
from btnet_train.objective import Heads, Objective
from btnet_train.optimization import build_optimizer
from btnet_train.recipes import load
from btnet_train.sources import Faces
from comparing import refuse_others
from publish import publish

UNTIMED = 5  # a worker is at most two batches ahead, and one is being made
ARCH = "res50"
ROUNDS, QUICK_ROUNDS = 7, 3
STEPS, QUICK_STEPS = 12, 2


def seconds_per_step(
    objective: Objective, optimizer: torch.optim.Optimizer, batches: Iterator[Batch], steps: int, precision: str
) -> float:
    """Seconds of a step, fetching its batch included."""
    for step in range(UNTIMED + steps):
        if step == UNTIMED:
            start = time.perf_counter()
        batch = next(batches)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            losses = objective(batch.views, batch.labels, None)
        losses["loss"].backward()
        optimizer.step()
    return (time.perf_counter() - start) / steps


def main() -> None:
    """Measure, and write the JSON."""
    parser = common.arguments(__doc__)
    parser.add_argument("--faces", type=Path, required=True, help="zip or folder of folders of images")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--precision", choices=["f32", "bf16"], default="f32", help="bf16 is slow where the CPU has none"
    )
    options = parser.parse_args()
    rounds, timed = (QUICK_ROUNDS, QUICK_STEPS) if options.quick else (ROUNDS, STEPS)
    faces = Faces([options.faces])
    settings = {name: getattr(options, name) for name in ("width", "batch", "precision", "quick")}
    settings |= {"arch": ARCH, "faces": len(faces)}
    refuse_others(settings, options)
    stage = load("phi_mr").stages["trunk"]
    network = IResNet(ARCH, options.width)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.compile()
    heads = Heads(Classifier("cosface", len(faces.classes), network.dim, margin=0.2, scale=32.0))
    objective = Objective(stage, network, heads)
    optimizer = build_optimizer(objective.parameters(), stage.optimizer)
    steps = range((rounds + 1) * (UNTIMED + timed))
    new = iter(Batches(faces, stage.views, batch_size=options.batch, seed=0, steps=steps, workers=1))
    first = next(new)
    ways = {"new": new, "constant": repeat(first)}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    seconds_per_step(objective, optimizer, ways["constant"], 1, options.precision)
    for _ in range(rounds):
        for way, batches in ways.items():
            seconds[way].append(seconds_per_step(objective, optimizer, batches, timed, options.precision))
    rates = {way: common.summary([options.batch / value for value in times]) for way, times in seconds.items()}
    ratio = common.ratios(seconds["new"], seconds["constant"])
    publish("training_input", {"settings": settings, "images_per_second": rates, "time_ratio": ratio}, options)


if __name__ == "__main__":
    main()
