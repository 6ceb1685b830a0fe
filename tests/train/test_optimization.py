"""The learning rate against numbers worked out by hand, and what an optimiser is given."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
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


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_only_what_is_trained(name: Any) -> None:
    trunk, network = IResNet("res18", 0.125, dim=16), IResNet("res18", 0.125, 14, dim=16)
    fix_trunk(network, trunk)
    module = nn.ModuleList([network, nn.Linear(3, 3).requires_grad_(False)])
    options = Optimizer(name, lr=0.3, momentum=0.8, weight_decay=0.01)
    optimizer = build_optimizer(module.parameters(), options)
    (group,) = optimizer.param_groups
    names = {id(parameter): key for key, parameter in network.named_parameters()}
    found = {names[id(parameter)] for parameter in group["params"]}
    assert len(found) == len(group["params"])
    assert {"conv1.weight", "prelu.weight", "layer3.0.prelu.weight", "layer3.1.bn1.weight", "features.bias"} <= found
    for fixed in ("features.weight", "layer3.1.prelu.weight", "layer4.0.downsample.0.weight", "fc.weight", "fc.bias"):
        assert fixed in names.values()
        assert fixed not in found
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.01)
    if name == "sgd":
        assert type(optimizer) is torch.optim.SGD
        assert (group["momentum"], group["nesterov"], group["dampening"]) == (0.8, False, 0)
    else:
        assert type(optimizer) is torch.optim.AdamW
        assert group["betas"] == (0.9, 0.999)
