"""The paper's parameter counts; multiply-accumulates worked out by hand and counted while running."""

import pytest
import torch
from torch import nn

from btnet_train.accounting import branch_parameter_count, mac_count, parameter_count
from btnet_train.networks import IResNet


def meta(arch: str, resolution: int, width: float = 1.0, dim: int = 512) -> IResNet:
    with torch.device("meta"):
        return IResNet(arch, width, resolution, dim).eval()


def test_trunk_parameters_of_the_paper() -> None:
    assert round(parameter_count(meta("res50", 112)) / 1e6, 2) == 43.59


# He et al., BMVC 2023: million parameters that a branch adds, and in per cent of the trunk.
@pytest.mark.parametrize(
    ("resolution", "million", "digits", "percent"),
    [(28, 0.49, 2, 1.1), (14, 2.29, 2, 5.3), (7, 21.3, 1, 48.9)],
)
def test_branch_parameters_of_the_paper(resolution: int, million: float, digits: int, percent: float) -> None:
    count = branch_parameter_count(meta("res50", resolution))
    assert round(count / 1e6, digits) == million
    assert round(100 * count / parameter_count(meta("res50", 112)), 1) == percent


def test_the_trunk_adds_no_branch() -> None:
    with pytest.raises(ValueError, match="resolution of a branch"):
        branch_parameter_count(meta("res50", 112))


# Worked out by hand, convolutions and FC.
@pytest.mark.parametrize(("resolution", "giga"), [(112, 6.309), (28, 5.236), (14, 4.276), (7, 1.517)])
def test_macs_worked_out_by_hand(resolution: int, giga: float) -> None:
    assert round(mac_count(meta("res50", resolution)) / 1e9, 3) == giga


@pytest.mark.parametrize("resolution", [7, 14, 28, 56, 112])
@pytest.mark.parametrize(("arch", "width", "dim"), [("res18", 0.25, 128), ("res50", 1.0, 512), ("res100", 0.5, 256)])
def test_macs_counted_while_running(arch: str, width: float, dim: int, resolution: int) -> None:
    network = meta(arch, resolution, width, dim)
    counted = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal counted
        inner = inputs[0].shape[1] * (module.kernel_size[0] ** 2 if isinstance(module, nn.Conv2d) else 1)
        counted += output.numel() * inner

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    network(torch.empty(1, 3, resolution, resolution, device="meta"))
    assert mac_count(network) == counted
