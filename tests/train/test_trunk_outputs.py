"""What a frozen trunk gives for all faces, kept: the same as asking it, for faces and mirror images."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_training import SMALL, rows, schedule, tensors, train, values, write_faces

import btnet_ext
from btnet_train.networks import IResNet
from btnet_train.objective import normalize
from btnet_train.sources import Faces
from btnet_train.topology import coupling_stage
from btnet_train.trunk_outputs import TrunkOutputs, trunk_outputs

SEED = 31


@pytest.fixture(scope="module")
def trunk() -> IResNet:
    torch.manual_seed(SEED)
    network = IResNet("res18", 0.125, dim=16)
    for module in network.modules():  # averages of a trained network are not those that it begins with
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm1d)):
            assert module.running_mean is not None
            assert module.running_var is not None
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval()


def kept(trunk: IResNet, faces: Faces, resolution: int, folder: Path, digest: str = "a") -> TrunkOutputs:
    stage = coupling_stage(resolution)
    return trunk_outputs(trunk, digest, faces, [stage], folder, torch.device("cpu"))[stage]


@pytest.mark.parametrize("resolution", [56, 28, 14, 7])
def test_outputs_are_those_of_the_trunk(trunk: IResNet, faces: Faces, tmp_path: Path, resolution: int) -> None:
    indices, flips = torch.tensor([3, 0, 3, 7]), torch.tensor([False, True, True, False])
    found = kept(trunk, faces, resolution, tmp_path).of(indices, flips)
    images = np.stack([btnet_ext.resize(faces.read(index), (112, 112)) for index in indices.tolist()])
    view = torch.from_numpy(np.where(flips.numpy()[:, None, None, None], images[:, :, ::-1], images))
    with torch.no_grad():
        embeddings, maps = trunk(normalize(view.permute(0, 3, 1, 2)))
    expected = maps[coupling_stage(resolution) - 1]
    assert found.maps.shape[2:] == (resolution, resolution)
    # Half precision has 11 bits.
    torch.testing.assert_close(found.maps, expected, rtol=2**-11, atol=1e-4)
    torch.testing.assert_close(found.embeddings, embeddings, rtol=1e-4, atol=1e-4)


def test_those_of_several_stages_together_are_those_of_each(trunk: IResNet, faces: Faces, tmp_path: Path) -> None:
    together = trunk_outputs(trunk, "a", faces, [4, 2, 3], tmp_path / "together", torch.device("cpu"))
    assert len(list((tmp_path / "together").iterdir())) == 1
    chosen = torch.tensor([5, 1]), torch.tensor([True, False])
    for resolution in (28, 14, 7):
        found = together[coupling_stage(resolution)].of(*chosen)
        alone = kept(trunk, faces, resolution, tmp_path / "alone").of(*chosen)
        torch.testing.assert_close(found, alone, rtol=0, atol=0)


def test_they_are_computed_once_for_a_trunk_the_faces_and_a_stage(trunk: IResNet, faces: Faces, tmp_path: Path) -> None:
    kept(trunk, faces, 14, tmp_path)
    (file,) = tmp_path.iterdir()
    before = file.stat()
    kept(trunk, faces, 14, tmp_path)
    assert file.stat() == before
    kept(trunk, faces, 7, tmp_path)
    kept(trunk, faces, 14, tmp_path, digest="b")
    kept(trunk, Faces([write_faces(tmp_path / "others", identities=2)]), 14, tmp_path)
    assert len(list(tmp_path.glob("trunk_*.npy"))) == 4


def test_a_damaged_file_is_computed_again(
    trunk: IResNet, faces: Faces, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept(trunk, faces, 7, tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with caplog.at_level(logging.WARNING):
        kept(trunk, faces, 7, tmp_path)
    assert f"{file} is computed again: it is damaged" in caplog.text
    assert file.read_bytes() == whole


def test_maps_that_half_precision_cannot_hold(faces: Faces, tmp_path: Path) -> None:
    trunk = IResNet("res18", 0.125, dim=16)
    torch.nn.init.constant_(trunk.stages[0][0].bn3.bias, 1e5)
    with pytest.raises(ValueError, match="maps at stage 1 have values that half precision cannot hold"):
        kept(trunk, faces, 56, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_stages_of_a_recipe_share_what_is_kept(trunk: IResNet, faces: Faces, tmp_path: Path) -> None:
    contiguous = {name: tensor.contiguous() for name, tensor in trunk.state_dict().items()}
    save_file(contiguous, tmp_path / "trunk.safetensors")
    second = {"resolutions": [14], "start": "trunk", "fixed_trunk": True, "distillation": {"maps": 1.0}}
    changes = {
        "stages.branch.resolutions": [7],
        **schedule("branch", 1),
        "stages.second": second,
        **schedule("second", 1),
    }
    given = {"trunk": tmp_path / "trunk.safetensors", "trunk_outputs": tmp_path / "outputs"}
    train("own_trunk", changes, tmp_path / "run", faces, inputs=given)
    assert len(list((tmp_path / "outputs").iterdir())) == 1


@pytest.mark.parametrize("recipe", ["own_trunk", "btnet_published"])
def test_a_branch_learns_the_same(tmp_path: Path, faces: Faces, recipe: str) -> None:
    """Up to what half precision rounds off the maps; the trunk is not asked, and its images are not made."""
    small = {**SMALL, "stages.branch": False, **schedule("trunk", 0.4)}
    train("phi_mr", small, tmp_path / "trunk", faces)
    changes = {"stages.branch.resolutions": [7], **schedule("branch", 3)}
    if recipe == "btnet_published":
        changes |= SMALL
    given = {"trunk": tmp_path / "trunk/112"}
    train(recipe, changes, tmp_path / "asked", faces, inputs=given)
    train(recipe, changes, tmp_path / "kept", faces, inputs={**given, "trunk_outputs": tmp_path / "outputs"})
    assert len(list((tmp_path / "outputs").iterdir())) == 1
    asked, found = (rows(tmp_path / run / "7") for run in ("asked", "kept"))
    assert [row["name"] for row in asked] == [row["name"] for row in found]
    for name in ("maps", "embedding", "loss"):
        np.testing.assert_allclose(
            values(tmp_path / "kept/7", name), values(tmp_path / "asked/7", name), rtol=1e-3, err_msg=name
        )
    one, two = (tensors(tmp_path / run / "7/network.safetensors") for run in ("asked", "kept"))
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=1e-2, atol=1e-3, msg=key)
