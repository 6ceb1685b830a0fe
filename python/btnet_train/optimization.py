"""The optimiser of a stage, and the rate at each of its steps."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from pytorch_optimizer import Muon
from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_gram_newton_schulz
from torch import Tensor, nn

from btnet_train.recipes import Optimizer, Schedule

_KERNEL_DIMENSIONS = 4


def build_optimizer(parameters: Iterable[nn.Parameter], options: Optimizer) -> torch.optim.Optimizer:
    """Return the optimiser for those of `parameters` that are trained."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if options.name == "muon":
        return _muon(trained, options)
    if options.name == "adamw":
        return torch.optim.AdamW(trained, options.lr, weight_decay=options.weight_decay)
    return torch.optim.SGD(trained, options.lr, momentum=options.momentum, weight_decay=options.weight_decay)


def _muon(trained: Sequence[nn.Parameter], options: Optimizer) -> torch.optim.Optimizer:
    # The embedding's matrix is left to AdamW: to orthogonalise its 512 rows of 6272 takes longer on a CPU than all
    # kernels together.
    kernels = [parameter for parameter in trained if parameter.ndim == _KERNEL_DIMENSIONS]
    others = [parameter for parameter in trained if parameter.ndim != _KERNEL_DIMENSIONS]
    same = {"lr": options.lr, "weight_decay": options.weight_decay}
    return _Muon(
        [
            {"params": kernels, "use_muon": True, "use_adjusted_lr": True, **same},
            {"params": others, "use_muon": False, "betas": (0.9, 0.999), "eps": 1e-8, **same},
        ]
    )


class _Muon(Muon):
    """The library's, which computes in bfloat16; on a CPU without it that takes several times as long as all else.

    There it is float32, and iterates on the small matrices of the rows' products (Gram Newton-Schulz): the same, with
    two products of whole kernels in place of ten.
    """

    @staticmethod
    def _orthogonalize(group: dict[str, Any], updates: list[Tensor]) -> list[Tensor]:
        if updates[0].device.type != "cpu":
            return list(Muon._orthogonalize(group, updates))
        matrices = [update.flatten(1) for update in updates]
        tall = [len(matrix) > matrix.shape[1] for matrix in matrices]  # the library puts m x n and n x m together
        wide = torch.stack([matrix.mT if turn else matrix for matrix, turn in zip(matrices, tall, strict=True)])
        results = zero_power_via_gram_newton_schulz(
            wide, num_steps=group["ns_steps"], weights=group["ns_coeffs"], dtype=torch.float32, reset_steps=()
        )
        return [result.mT if turn else result for result, turn in zip(results.unbind(), tall, strict=True)]


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
