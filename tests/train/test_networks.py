"""IResNet against arcface_torch's names, the stride rule, and a forward pass written with functions alone."""

import subprocess
import sys

import pytest
import torch
from arcface_layout import random_state, reference_forward, shapes
from torch import nn

from btnet_train.networks import IResNet, batch_norm_names
from btnet_train.topology import coupling_stage, in_branch, is_batch_norm

ARCHS = ("res18", "res34", "res50", "res100")
RESOLUTIONS = (7, 14, 28, 56, 112)

# Side of the maps of each stage: r until the trunk's maps are as small, 7 at the end.
SIDES = {
    112: [56, 28, 14, 7],
    56: [56, 28, 14, 7],
    28: [28, 28, 14, 7],
    14: [14, 14, 14, 7],
    7: [7, 7, 7, 7],
}


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_names_and_shapes_are_those_of_arcface_torch(arch: str, resolution: int) -> None:
    with torch.device("meta"):
        state = IResNet(arch, resolution=resolution).state_dict()
    found = {name: tuple(x.shape) for name, x in state.items() if not name.endswith("num_batches_tracked")}
    assert list(found.items()) == list(shapes(arch, resolution).items())


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_forward_equals_functions(resolution: int) -> None:
    network = IResNet("res18", 1 / 16, resolution, dim=16).double().eval()
    state = {name: tensor.double() for name, tensor in random_state("res18", resolution).items()}
    network.load_state_dict(state, strict=False)
    images = torch.rand(2, 3, resolution, resolution, generator=torch.Generator().manual_seed(1)).double() - 0.5
    with torch.no_grad():
        embedding, couplings = network(images)
    expected, maps = reference_forward(state, images, "res18", resolution)
    torch.testing.assert_close(embedding, expected, rtol=1e-9, atol=1e-9)
    assert len(couplings) == 4
    for coupling, reference in zip(couplings, maps, strict=True):
        torch.testing.assert_close(coupling, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_sides_of_the_maps_of_each_stage(resolution: int) -> None:
    with torch.device("meta"):
        network = IResNet("res34", 0.5, resolution, dim=128).eval()
        embedding, couplings = network(torch.empty(5, 3, resolution, resolution))
    assert [tuple(x.shape) for x in couplings] == [
        (5, 32 * 2**stage, side, side) for stage, side in enumerate(SIDES[resolution])
    ]
    assert embedding.shape == (5, 128)


@pytest.mark.parametrize(("resolution", "stage"), [(56, 1), (28, 2), (14, 3), (7, 4)])
def test_coupling_stage_is_where_branch_and_trunk_maps_are_as_wide_as_the_input(resolution: int, stage: int) -> None:
    assert coupling_stage(resolution) == stage
    assert SIDES[resolution][stage - 1] == SIDES[112][stage - 1] == resolution


@pytest.mark.parametrize("resolution", [112, 0, 10, -7])
def test_only_branches_have_a_coupling_stage(resolution: int) -> None:
    with pytest.raises(ValueError, match=rf"must be one of 7, 14, 28, 56, got {resolution}"):
        coupling_stage(resolution)


def test_names_of_a_branch() -> None:
    network = IResNet("res18", 1 / 64, 28, dim=4)
    units = ("layer1.0", "layer1.1", "layer2.0")
    expected = {
        name
        for name in network.state_dict()
        if name.startswith(("conv1.", "bn1.", "prelu.", *(f"{unit}." for unit in units)))
    }
    assert {name for name in network.state_dict() if in_branch(name, 28)} == expected
    assert "layer2.0.downsample.1.running_var" in expected
    for name in (
        "layer2.1.bn1.weight",
        "layer3.0.conv1.weight",
        "layer4.0.bn1.bias",
        "bn2.weight",
        "fc.weight",
    ):
        assert not in_branch(name, 28)


def test_a_unit_index_of_two_digits_is_not_the_first_unit() -> None:
    assert in_branch("layer3.0.conv1.weight", 14)
    assert not in_branch("layer3.10.conv1.weight", 14)
    assert in_branch("layer3.10.conv1.weight", 7)


@pytest.mark.parametrize("resolution", [7, 14, 28, 56])
def test_batch_norm_names_are_the_batch_norms_after_the_branch(resolution: int) -> None:
    network = IResNet("res18", 1 / 64, resolution, dim=4)
    every = {
        f"{module}.{field}"
        for module, layer in network.named_modules()
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))
        for field in layer.state_dict()
    }
    assert {name for name in network.state_dict() if is_batch_norm(name)} == every
    assert set(batch_norm_names(network)) == {name for name in every if not in_branch(name, resolution)}


def test_features_weight_is_one_and_frozen() -> None:
    network = IResNet("res18", 1 / 64, 7, dim=4)
    assert torch.equal(network.features.weight, torch.ones(4))
    assert [name for name, p in network.named_parameters() if not p.requires_grad] == ["features.weight"]


def test_dropout_acts_in_training_only() -> None:
    network = IResNet("res18", 1 / 16, 7, dim=8, dropout=0.5)
    images = torch.rand(4, 3, 7, 7, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(3)
    assert not torch.equal(network(images)[0], network(images)[0])
    network.eval()
    assert torch.equal(network(images)[0], network(images)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "res200"}, "arch must be one of res18, res34, res50, res100, got 'res200'"),
        ({"width": 0.0}, "width must be a positive multiple of 1/64, got 0.0"),
        ({"width": float("nan")}, "width must be a positive multiple"),
        ({"width": 0.3}, "width must be a positive multiple"),
        ({"resolution": 32}, "resolution must be one of 7, 14, 28, 56, 112, got 32"),
        ({"dim": 0}, "dim must be at least 1, got 0"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IResNet(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(3, 7, 7), (1, 3, 14, 14), (1, 1, 7, 7), (1, 3, 7, 8)])
def test_images_of_the_wrong_shape(shape: tuple[int, ...]) -> None:
    network = IResNet("res18", 1 / 64, 7, dim=4).eval()
    with pytest.raises(ValueError, match=r"images must be \(N, 3, 7, 7\), got"):
        network(torch.zeros(shape))


def test_importing_the_package_and_its_command_imports_no_torch() -> None:
    code = "import sys, btnet_train, btnet_train.cli; print([m for m in ('torch', 'onnx') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
