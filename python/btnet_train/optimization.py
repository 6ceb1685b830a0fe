"""The optimiser of a stage, and the rate at each of its steps."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from btnet_train.recipes import Optimizer, Schedule


def build_optimizer(parameters: Iterable[nn.Parameter], options: Optimizer) -> torch.optim.Optimizer:
    """Return the optimiser for those of `parameters` that are trained."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if options.name == "adamw":
        return torch.optim.AdamW(trained, options.lr, weight_decay=options.weight_decay)
    return torch.optim.SGD(trained, options.lr, momentum=options.momentum, weight_decay=options.weight_decay)


def rate(step: int, steps: int, steps_per_epoch: int, schedule: Schedule) -> float:
    """Return what to multiply the learning rate with at `step`, counted from 0, of `steps`.

    During the warm-up it rises linearly to 1, reached at its last step; then it falls to 0 at the end.
    """
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / (steps - warmup)
    if schedule.decay == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return float((1 - progress) ** schedule.power)
