"""Losses that pull two embeddings, or two maps, of the same images together.

All take floating-point tensors with a row for each image, compute in float32 whatever autocast says, and
return a scalar. They raise ValueError for tensors that do not belong together, and for empty ones.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional


def cosine_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean of 1 - cos(x, y) over the pairs of rows of x and y, both (n, D).

    It is computed as half the squared distance of the normalised rows: exactly 0 for equal ones.
    """
    return _difference(x, y).square().sum(dim=1).mean() / 2


def log_exp(x: Tensor, y: Tensor, p: int) -> Tensor:
    """Return the mean LogExp distance of the normalised rows of x and y, both (n, D); p is 1 or 2.

    log(1 + sum_i(exp(|x_i - y_i|^p) - 1)) / (p D) for each pair (Ling et al., AAAI workshop 2023). Where rows
    are equal it is exactly 0 and so is its gradient.
    """
    if p not in (1, 2):
        raise ValueError(f"p must be 1 or 2, got {p!r}")
    difference = _difference(x, y)
    powers = difference.abs() if p == 1 else difference.square()
    return powers.expm1().sum(dim=1).log1p().mean() / (p * difference.shape[1])


def l1(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean absolute difference of the elements of the normalised rows of x and y, both (n, D)."""
    return _difference(x, y).abs().mean()


def l2(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean squared difference of the elements of the normalised rows of x and y, both (n, D)."""
    return _difference(x, y).square().mean()


PAIR_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {"cosine": cosine_distance, "logexp1": partial(log_exp, p=1), "logexp2": partial(log_exp, p=2), "l1": l1, "l2": l2}
)
"""Losses of two embeddings of the same images, by their name in recipes."""


def similarity_matrix(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean squared difference between the matrices of cosines within x (n, D) and within y (n, E).

    The mean is over the n (n - 1) pairs of different rows; n is at least 2. The dimensions may differ, so a
    network can learn from a teacher without a projection (after Tung and Mori, ICCV 2019, but with cosines).
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"x and y must have the shapes (n, D) and (n, E), got {tuple(x.shape)} and {tuple(y.shape)}")
    if len(x) < 2:
        raise ValueError(f"x and y must have at least 2 rows, got {len(x)}")
    with torch.autocast(x.device.type, enabled=False):  # it would take products of matrices in half precision
        x, y = functional.normalize(x.float()), functional.normalize(y.float())
        difference = (x @ x.t() - y @ y.t()).square()
    return difference.sum() / (len(x) * (len(x) - 1))  # the diagonals are 1 in both


def map_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean squared difference of the elements of x and y, which have the same shape.

    Branch distillation of the BTNet paper: the branch's and the trunk's maps at the coupling layer.
    """
    if x.shape != y.shape or not x.numel():
        raise ValueError(f"x and y must have the same shape, not empty, got {tuple(x.shape)} and {tuple(y.shape)}")
    return functional.mse_loss(x.float(), y.float())


def _difference(x: Tensor, y: Tensor) -> Tensor:
    """Return the difference of the normalised rows, float32."""
    if x.ndim != 2 or x.shape != y.shape or not x.numel():
        raise ValueError(
            f"x and y must have the same shape (n, D), not empty, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    return functional.normalize(x.float()) - functional.normalize(y.float())
