"""The learning rate against numbers worked out by hand, and what an optimiser is given."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_optimizer import Muon
from torch import nn

from btnet_train.branches import fix_trunk
from btnet_train.networks import IResNet
from btnet_train.optimization import build_optimizer, rate
from btnet_train.recipes import Optimizer, Schedule


@pytest.mark.parametrize(
    ("step", "expected"),
    # 10 epochs of 4 steps, 2 of them warm-up: 8 steps up in eighths, then (1 - t)^2 with t in 32nds.
    [
        (0, 0.125),
        (1, 0.25),
        (6, 0.875),
        (7, 1.0),
        (8, 1.0),
        (9, (31 / 32) ** 2),
        (16, 0.5625),
        (24, 0.25),
        (39, 2**-10),
    ],
)
def test_polynomial_with_warmup(step: int, expected: float) -> None:
    assert rate(step, 40, 4, Schedule(10, 8, warmup_epochs=2)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "expected"),
    # (1 + cos(pi t)) / 2 with t in sixths, the cosines being 1, root(3) / 2, 1 / 2, 0, ...
    [(0, 1.0), (1, (2 + 3**0.5) / 4), (2, 0.75), (3, 0.5), (4, 0.25), (5, (2 - 3**0.5) / 4)],
)
def test_cosine_without_warmup(step: int, expected: float) -> None:
    assert rate(step, 6, 6, Schedule(1, 8, decay="cosine")) == pytest.approx(expected, rel=1e-12)


def test_powers() -> None:
    assert rate(5, 10, 10, Schedule(1, 8, power=1)) == 0.5
    assert rate(5, 10, 10, Schedule(1, 8, power=3)) == 0.125


@settings(derandomize=True, deadline=None)
@given(
    per_epoch=st.integers(1, 50),
    epochs=st.integers(1, 200).map(lambda tenths: tenths / 10),
    share=st.floats(0, 0.99),
    decay=st.sampled_from(["polynomial", "cosine"]),
)
def test_any_schedule_rises_and_then_falls(per_epoch: int, epochs: float, share: float, decay: Any) -> None:
    schedule = Schedule(epochs, 8, warmup_epochs=share * epochs, decay=decay)
    steps = max(1, round(epochs * per_epoch))
    rates = [rate(step, steps, per_epoch, schedule) for step in range(steps)]
    assert all(0 < value <= 1 for value in rates)
    assert max(rates) == 1
    top = len(rates) - rates[::-1].index(1)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top - 1 :] == sorted(rates[top - 1 :], reverse=True)


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_only_what_is_trained(name: Any) -> None:
    trunk, network = IResNet("res18", 0.125, dim=16), IResNet("res18", 0.125, 14, dim=16)
    fix_trunk(network, trunk)
    module = nn.ModuleList([network, nn.Linear(3, 3).requires_grad_(False)])
    options = Optimizer(name, lr=0.3, momentum=0.8, weight_decay=0.01)
    optimizer = build_optimizer(module.parameters(), options)
    groups = optimizer.param_groups
    group = {key: value for one in groups for key, value in one.items()}
    parameters = [parameter for one in groups for parameter in one["params"]]
    names = {id(parameter): key for key, parameter in network.named_parameters()}
    found = {names[id(parameter)] for parameter in parameters}
    assert len(found) == len(parameters)
    assert {"conv1.weight", "prelu.weight", "layer3.0.prelu.weight", "layer3.1.bn1.weight", "features.bias"} <= found
    for fixed in ("features.weight", "layer3.1.prelu.weight", "layer4.0.downsample.0.weight", "fc.weight", "fc.bias"):
        assert fixed in names.values()
        assert fixed not in found
    for one in groups:
        assert (one["lr"], one["weight_decay"]) == (0.3, 0.01)
    if name == "sgd":
        assert type(optimizer) is torch.optim.SGD
        assert (group["momentum"], group["nesterov"], group["dampening"]) == (0.8, False, 0)
    else:
        assert isinstance(optimizer, torch.optim.AdamW if name == "adamw" else Muon)
        assert group["betas"] == (0.9, 0.999)


def test_muon_moves_kernels_along_orthogonal_matrices_and_all_else_like_adamw() -> None:
    """The polar factor by NumPy's SVD; after one step of AdamW every element has moved by lr, apart from the decay."""
    torch.manual_seed(11)
    wide, tall = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(4, 64, 1, bias=False)
    fixed, linear = nn.Conv2d(2, 2, 1).requires_grad_(False), nn.Linear(8, 5)
    module = nn.ModuleList([wide, tall, fixed, linear])
    optimizer = build_optimizer(module.parameters(), Optimizer("muon", lr=0.05, weight_decay=0.2))
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter) if parameter.requires_grad else None
    gradients = {name: p.grad.double().clone() for name, p in module.named_parameters() if p.grad is not None}
    optimizer.step()
    moved = {name: p.detach().double() - 0.99 * before[name].double() for name, p in module.named_parameters()}

    for name, size in (("0.weight", 27), ("1.weight", 64)):
        gradient = gradients[name].flatten(1).numpy()
        left, _, right = np.linalg.svd(gradient, full_matrices=False)
        update = moved[name].flatten(1).numpy() / (-0.05 * 0.2 * size**0.5)
        turned = left.T @ update @ right.T
        # The five iterations leave the singular values between about 0.7 and 1.2.
        assert np.all((np.diag(turned) > 0.65) & (np.diag(turned) < 1.25))
        assert np.abs(turned - np.diag(np.diag(turned))).max() < 1e-4
        assert np.abs(left @ turned @ right - update).max() < 1e-4
    for name in ("3.weight", "3.bias"):
        assert torch.allclose(moved[name], -0.05 * gradients[name].sign(), rtol=0, atol=1e-6)
    assert torch.equal(fixed.weight, before["2.weight"])
