"""Training with torch.compile."""

import shutil
from pathlib import Path

import arcface_layout
import pytest
import torch
from tiny_training import schedule, tensors, train, values

from btnet_train.sources import Faces
from btnet_train.topology import UNITS


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's compiler uses what PyTorch deprecates
def test_compiled_networks_learn_the_same(tmp_path: Path, faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch and the trunk that it is distilled from; of one unit a stage, since compiling is slow."""
    from torch._dynamo.utils import counters

    for units in (UNITS, arcface_layout.UNITS):
        monkeypatch.setitem(units, "res18", (1, 1, 1, 1))
    torch.save(arcface_layout.random_state("res18", 112, stem=4, dim=8, seed=6), tmp_path / "trunk.pt")
    changes = {"stages.branch.resolutions": [7], **schedule("branch", 1)}
    given = {"trunk": tmp_path / "trunk.pt"}
    train("own_trunk", changes, tmp_path / "plain", faces, inputs=given)
    for embedding in (1.0, 0.0):  # without it, no more of the trunk is asked than its maps
        before = counters["frames"]["ok"]
        asked = {**changes, "stages.branch.distillation.embedding": embedding}
        train("own_trunk", asked, tmp_path / f"compiled {embedding}", faces, inputs=given, compile=True)
        assert counters["frames"]["ok"] == before + 2  # both, and once each for all steps
    plain, compiled = (tmp_path / name / "7" for name in ("plain", "compiled 1.0"))
    for name in ("maps", "embedding"):
        assert values(compiled, name) == pytest.approx(values(plain, name), rel=1e-4)
    assert set(tensors(compiled / "state.safetensors")) == set(tensors(plain / "state.safetensors"))
