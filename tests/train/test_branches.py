"""How branches start and what of them is trained: after some steps, what is fixed is bitwise the trunk's."""

import copy
import re

import pytest
import torch
from torch import Tensor

from btnet_train.branches import fix_trunk, start_from
from btnet_train.networks import IResNet
from btnet_train.optimization import build_optimizer
from btnet_train.random_weights import random_networks
from btnet_train.recipes import Optimizer

ARCH, WIDTH, DIM = "res18", 0.125, 16
NATURAL = {56: 1, 28: 2, 14: 3, 7: 4}


@pytest.fixture(scope="module")
def trunk() -> IResNet:
    return random_networks(ARCH, WIDTH, dim=DIM, resolutions=(112,), seed=2)[112]


def other_network(resolution: int) -> IResNet:
    torch.manual_seed(17)
    return IResNet(ARCH, WIDTH, resolution, DIM)


def train(network: IResNet, steps: int = 3) -> None:
    """Take a few steps away from a random target, with weight decay, which moves what is given to the optimiser."""
    optimizer = build_optimizer(network.parameters(), Optimizer(lr=0.05, weight_decay=0.1))
    generator = torch.Generator().manual_seed(3)
    for _ in range(steps):
        images = torch.rand(4, 3, network.resolution, network.resolution, generator=generator)
        embeddings, _ = network.train()(images)
        optimizer.zero_grad()
        (embeddings - torch.randn(embeddings.shape, generator=generator)).square().mean().backward()
        optimizer.step()
    network.eval()


def place(name: str) -> tuple[int, int]:
    """Stage and unit that a tensor lies in: the stem is before all, BN, FC and features after all."""
    match = re.match(r"layer([1-4])\.(\d+)\.", name)
    if match:
        return int(match[1]), int(match[2])
    return (0, 0) if name.split(".")[0] in ("conv1", "bn1", "prelu") else (5, 0)


def is_norm(name: str) -> bool:
    return re.search(r"(^|\.)(bn\d|downsample\.1|features)\.", name) is not None


def check(before: dict[str, Tensor], after: dict[str, Tensor], given: dict[str, Tensor], stage: int) -> None:
    """After training all behind the first unit of `stage` is the trunk's but BatchNorm, and all else has moved."""
    fixed = 0
    for name, tensor in after.items():
        if name.endswith("num_batches_tracked"):
            continue
        if name == "features.weight":
            assert torch.equal(tensor, torch.ones(DIM))
        elif place(name) > (stage, 0) and not is_norm(name):
            fixed += 1
            assert torch.equal(tensor, given[name]), name
        else:
            assert not torch.equal(tensor, before[name]), name
    kinds = {name.split(".", 2)[-1] for name in after if place(name) > (stage, 0) and not is_norm(name)}
    assert {"conv1.weight", "conv2.weight", "prelu.weight"} <= kinds
    assert fixed >= 3 + 2  # a unit's convolutions and PReLU, weight and bias of FC


@pytest.mark.parametrize("resolution", NATURAL)
def test_a_branch_of_a_fixed_trunk(trunk: IResNet, resolution: int) -> None:
    given = copy.deepcopy(trunk.state_dict())
    network = other_network(resolution)
    start_from(network, trunk)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, given[name]), name
    fix_trunk(network, trunk)
    before = copy.deepcopy(network.state_dict())
    train(network)
    check(before, network.state_dict(), given, NATURAL[resolution])
    # Nothing is shared in memory, so that the trunk is what it was.
    assert all(torch.equal(given[name], tensor) for name, tensor in trunk.state_dict().items())


@pytest.mark.parametrize("resolution", [28, 7])
@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_joining_elsewhere(trunk: IResNet, resolution: int, stage: int) -> None:
    network = other_network(resolution)
    start_from(network, trunk)
    fix_trunk(network, trunk, stage)
    before = copy.deepcopy(network.state_dict())
    train(network)
    check(before, network.state_dict(), trunk.state_dict(), stage)


@pytest.mark.parametrize("resolution", [28, 7])
def test_a_branch_of_an_earlier_run_on_a_new_trunk(trunk: IResNet, resolution: int) -> None:
    """The branch and its BatchNorms are those of before; all else is the new trunk's."""
    earlier = other_network(resolution)
    train(earlier, 1)
    network = other_network(resolution)
    start_from(network, earlier)
    assert all(torch.equal(tensor, earlier.state_dict()[name]) for name, tensor in network.state_dict().items())
    fix_trunk(network, trunk)
    given, old = trunk.state_dict(), earlier.state_dict()
    for name, tensor in network.state_dict().items():
        behind = place(name) > (NATURAL[resolution], 0) and not is_norm(name)
        assert torch.equal(tensor, given[name] if behind else old[name]), name
        assert not behind or not torch.equal(given[name], old[name]), name


def test_without_a_fixed_trunk_all_is_trained(trunk: IResNet) -> None:
    network = other_network(14)
    start_from(network, trunk)
    before = copy.deepcopy(network.state_dict())
    train(network)
    same = [name for name, tensor in network.state_dict().items() if torch.equal(tensor, before[name])]
    assert same == ["features.weight"]


@pytest.mark.parametrize("change", [{"arch": "res34"}, {"width": 0.25}, {"dim": 8}])
def test_a_trunk_of_another_architecture(trunk: IResNet, change: dict[str, object]) -> None:
    wanted = {"arch": ARCH, "width": WIDTH, "dim": DIM, "resolution": 14} | change
    network = IResNet(**wanted)  # type: ignore[arg-type]
    message = (
        r"^source is res18 of width 0\.125 and dim 16, "
        rf"expected {wanted['arch']} of width {wanted['width']} and dim {wanted['dim']}$"
    )
    with pytest.raises(ValueError, match=message):
        start_from(network, trunk)
