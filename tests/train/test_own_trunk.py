"""Branches for a trunk that someone else trained, which must stay as it is; and fine-tuning."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from arcface_layout import random_state, reference_forward
from face_files import pixels
from tiny_training import SMALL, schedule, tensors, train, values, write_faces
from torch import Tensor

from btnet_ext import Engine
from btnet_train.checkpoint import CheckpointError
from btnet_train.cli import main
from btnet_train.recipes import RecipeError
from btnet_train.sources import Faces
from btnet_train.topology import in_branch, is_batch_norm

DIM = 16
BRANCHES = {"stages.branch.resolutions": [28, 7], **schedule("branch", 0.4)}


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return random_state("res18", 112, stem=8, dim=DIM, seed=6)


@pytest.fixture(scope="module")
def source(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as arcface_torch writes it."""
    path = tmp_path_factory.mktemp("source") / "model.pt"
    torch.save(state, path)
    return path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["btnet-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def stored(bundle: Path) -> dict[str, bytes]:
    """The tensors that the bundle's graph for 112 px points to, by name."""
    model = onnx.load(bundle / "branch_112.onnx", load_external_data=False)
    content = (bundle / "weights.bin").read_bytes()
    found = {}
    for tensor in model.graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries:
            offset, length = int(entries["offset"]), int(entries["length"])
            found[tensor.name] = content[offset : offset + length]
            assert len(found[tensor.name]) == length
        else:
            found[tensor.name] = tensor.raw_data
    return found


def test_the_trunk_stays_as_it_is(
    tmp_path: Path, data: Path, source: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = [part for key, value in BRANCHES.items() for part in ("--set", f"{key}={value}")]
    given = ["--trunk", source, "--unlabeled", data, "--accelerator", "cpu", "--workers", 0]
    before = source.read_bytes()
    assert call(monkeypatch, "fit", "own_trunk", "--out", tmp_path / "run", *given, *changes, "--name", "mine") == 0
    assert call(monkeypatch, "export", "--trunk", source, tmp_path / "alone.btnet") == 0
    made, alone = tmp_path / "run/mine.btnet", tmp_path / "alone.btnet"
    assert source.read_bytes() == before
    assert (made / "branch_112.onnx").read_bytes() == (alone / "branch_112.onnx").read_bytes()
    assert stored(made) == stored(alone)
    assert len(stored(made)) > 50
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock", "28", "7", "mine.btnet", "run.json"}

    engine = Engine(made)
    assert list(engine.resolutions) == [7, 28, 112]
    images = [pixels(seed, 112) for seed in range(8)]
    found = engine.embed(images).astype(np.float64)
    inputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).double()
    wide = {name: tensor.double() for name, tensor in state.items()}
    expected = reference_forward(wide, (inputs - 127.5) / 127.5, "res18", 112)[0].numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    cosines = (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1)
    assert cosines.min() >= 0.999999
    assert np.abs(expected @ expected.T - np.eye(8)).max() < 0.9999  # faces that differ do so in their embeddings

    for resolution in (28, 7):
        folder = tmp_path / "run" / str(resolution)
        assert len(values(folder, "maps")) == len(values(folder, "embedding")) == 1
        check_branch(tensors(folder / "network.safetensors"), state, resolution)
        assert tensors(folder / "heads.safetensors") == {}


def check_branch(branch: dict[str, Tensor], trunk: dict[str, Tensor], resolution: int) -> None:
    """All behind the coupling layer is the trunk's, bit by bit, but BatchNorm; the branch itself has moved."""
    for name, tensor in branch.items():
        if name.endswith("num_batches_tracked"):
            continue
        if name == "features.weight":
            assert torch.equal(tensor, torch.ones(DIM))
        else:
            fixed = not in_branch(name, resolution) and not is_batch_norm(name)
            assert torch.equal(tensor, trunk[name]) == fixed, name


def weights(seed: int = 0) -> Tensor:
    return torch.randn(5, DIM, generator=torch.Generator().manual_seed(seed))


def write_classifier(folder: Path, kind: str) -> Path:
    path = folder / f"head{'.safetensors' if kind == 'safetensors' else '.pt'}"
    if kind == "safetensors":
        safetensors.torch.save_file({"weight": weights()}, path)
    elif kind == "softmax_fc":
        backbone = random_state("res18", 112, stem=8, dim=DIM)
        torch.save({"epoch": 3, "state_dict_backbone": backbone, "state_dict_softmax_fc": {"weight": weights()}}, path)
    elif kind == "distributed":
        torch.save({"module.weight": weights().half()}, path)
    else:
        torch.save({"weight": weights()}, path)
    return path


@pytest.mark.parametrize("kind", ["plain", "safetensors", "softmax_fc", "distributed"])
def test_with_the_classifier_of_the_trunk(tmp_path: Path, faces: Faces, source: Path, kind: str) -> None:
    given = {"trunk": source, "classifier": write_classifier(tmp_path, kind)}
    train("own_trunk_classifier", {**BRANCHES, "stages.branch.resolutions": [7]}, tmp_path, faces, inputs=given)
    (found,) = tensors(tmp_path / "7/heads.safetensors").values()
    assert torch.equal(found, weights().half().float() if kind == "distributed" else weights())
    assert len(values(tmp_path / "7", "classification")) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"weight": weights()[:4]},
            r"head\.pt has \(4, 16\) as weight of the classifier, expected \(5, 16\) for these faces",
        ),
        (
            {"weight": weights().T},
            r"head\.pt has \(16, 5\) as weight of the classifier, expected \(5, 16\) for these faces",
        ),
        ({"a": weights(), "b": weights()}, r"head\.pt holds 2 matrices, expected one, the weight of the classifier"),
        ({"bias": torch.zeros(5)}, r"head\.pt holds 0 matrices, expected one, the weight of the classifier"),
        ({}, r"head\.pt holds no weights by name, but dict"),
        ({"epoch": 3}, r"head\.pt holds int under 'epoch', expected tensors by name"),
    ],
)
def test_files_that_are_no_classifier(tmp_path: Path, faces: Faces, source: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "head.pt")
    given = {"trunk": source, "classifier": tmp_path / "head.pt"}
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(tmp_path))}/{message}$"):
        train("own_trunk_classifier", BRANCHES, tmp_path / "run", faces, inputs=given)


def test_a_classifier_under_the_name_that_ours_have(tmp_path: Path, faces: Faces, source: Path) -> None:
    weight = torch.randn((len(faces.classes), DIM), generator=torch.Generator().manual_seed(8))
    torch.save({"classifier.weight": weight}, tmp_path / "head.pt")
    given = {"trunk": source, "classifier": tmp_path / "head.pt"}
    train("own_trunk_classifier", {**BRANCHES, "stages.branch.resolutions": [7]}, tmp_path / "run", faces, inputs=given)
    assert torch.equal(tensors(tmp_path / "run/7/heads.safetensors")["classifier.weight"], weight)


def test_only_what_is_trained_needs_its_inputs(tmp_path: Path, source: Path) -> None:
    """Here it is a branch for a given trunk; a trunk of the recipe's own would have had identities and a teacher."""
    unlabeled = Faces([], [write_faces(tmp_path / "set")])
    changes = {
        **BRANCHES,
        "stages.branch.classification": False,
        "stages.branch.resolutions": [7],
        "stages.trunk.teacher.cosine": 1.0,
    }
    train("btnet", changes, tmp_path / "run", unlabeled, inputs={"trunk": source})
    given = {"trunk": source, "targets": np.zeros((len(unlabeled), 8), np.float32)}
    with pytest.raises(RecipeError, match=r"^--teacher is given, but no stage has a teacher's loss$"):
        train("btnet", changes, tmp_path / "other", unlabeled, inputs=given)


def test_a_classifier_that_is_not_there(tmp_path: Path, faces: Faces, source: Path) -> None:
    message = "^the trunk comes without the classifier that the stage freezes: give --trunk RUN/112 or --classifier$"
    with pytest.raises(RecipeError, match=message):
        train("own_trunk_classifier", BRANCHES, tmp_path, faces, inputs={"trunk": source})
    given = {"trunk": source, "classifier": tmp_path / "none.pt"}
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        train("own_trunk_classifier", BRANCHES, tmp_path, faces, inputs=given)


def test_trunks_that_do_not_fit(tmp_path: Path, faces: Faces) -> None:
    torch.save(random_state("res18", 14, stem=8, dim=DIM), tmp_path / "branch.pt")
    with pytest.raises(CheckpointError, match=r"branch\.pt is not res18 for resolution 112: missing layer1\.0\.down"):
        train("own_trunk", BRANCHES, tmp_path / "run", faces, inputs={"trunk": tmp_path / "branch.pt"})
    with pytest.raises(RecipeError, match=r"^stage branch needs a trunk"):
        train("own_trunk", BRANCHES, tmp_path / "run", faces)
    late = {"stages": {"trunk": False}, "stages.last": {"classification": {}}}
    with pytest.raises(RecipeError, match=r"^stage branch needs a trunk, trained before it or given"):
        train("btnet", {**BRANCHES, **late}, tmp_path / "run", faces)
    assert not (tmp_path / "run/28/state.safetensors").exists()


@pytest.fixture(scope="module")
def earlier(faces: Faces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of btnet with a trunk and the branches for 28 and 7 px."""
    run = tmp_path_factory.mktemp("earlier")
    train("btnet", {**SMALL, **BRANCHES, **schedule("trunk", 0.6)}, run, faces)
    return run


def test_a_run_of_trunk_and_branches(earlier: Path) -> None:
    trunk = tensors(earlier / "112/network.safetensors")
    heads = [
        tensors(earlier / str(resolution) / "heads.safetensors")["classifier.weight"] for resolution in (112, 28, 7)
    ]
    assert all(torch.equal(heads[0], other) for other in heads[1:])
    for resolution in (28, 7):
        check_branch(tensors(earlier / str(resolution) / "network.safetensors"), trunk, resolution)


def test_the_trunk_of_a_run_brings_its_classifier(tmp_path: Path, earlier: Path, faces: Faces) -> None:
    changes = {**BRANCHES, "stages.branch.resolutions": [14]}
    train("own_trunk_classifier", changes, tmp_path, faces, inputs={"trunk": earlier / "112"})
    found, given = (
        tensors(run / "heads.safetensors")["classifier.weight"] for run in (tmp_path / "14", earlier / "112")
    )
    assert torch.equal(found, given)
    others = Faces([write_faces(tmp_path / "others")])
    with pytest.raises(
        CheckpointError,
        match=r"heads\.safetensors was trained on other .*: where these have others/000, it has set/000 \(folders and ",
    ):
        train("own_trunk_classifier", changes, tmp_path / "run", others, inputs={"trunk": earlier / "112"})


def test_finetune_on_new_identities(tmp_path: Path, earlier: Path) -> None:
    """The trunk goes on from the earlier one, as large as that is, then each branch from its own, joined to it."""
    others = Faces([write_faces(tmp_path / "others", identities=7)])
    # So small a rate changes nothing, so that what the branch started from can be seen.
    still = {"stages.branch.optimizer.lr": 1e-30}
    changes = {**BRANCHES, **schedule("trunk", 0.4), **still}
    train("finetune", changes, tmp_path, others, inputs={"previous": earlier})
    old, new = (tensors(run / "112/network.safetensors") for run in (earlier, tmp_path))
    assert not torch.equal(old["fc.weight"], new["fc.weight"])
    assert (old["fc.weight"] - new["fc.weight"]).abs().max() < 0.1
    heads = [tensors(tmp_path / str(r) / "heads.safetensors")["classifier.weight"] for r in (112, 28, 7)]
    assert heads[0].shape == (7, DIM)
    assert all(torch.equal(heads[0], other) for other in heads[1:])
    for resolution in (28, 7):
        before, found = (tensors(run / str(resolution) / "network.safetensors") for run in (earlier, tmp_path))
        for name, tensor in found.items():
            if name.endswith((".running_mean", ".running_var", ".num_batches_tracked")):
                continue
            own = in_branch(name, resolution) or is_batch_norm(name)
            assert torch.equal(tensor, before[name] if own else new[name]), name


def test_heads_go_on_with_a_previous_run_where_they_fit(tmp_path: Path, faces: Faces) -> None:
    targets = np.random.default_rng(7).standard_normal((len(faces), 8)).astype(np.float32)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    changes = {**SMALL, **schedule("trunk", 0.4), "stages.trunk.teacher.cosine": 1.0}
    train("phi_hr", changes, tmp_path / "one", faces, inputs={"targets": targets})
    # So small a rate changes nothing, so that what the run started from can be seen.
    changes |= {"stages.trunk.start": "previous", "stages.trunk.optimizer.lr": 1e-30}
    before = {"previous": tmp_path / "one"}
    train("phi_hr", changes, tmp_path / "two", faces, inputs={**before, "targets": targets})
    one, two = (tensors(tmp_path / run / "112/heads.safetensors") for run in ("one", "two"))
    assert one.keys() == {"classifier.weight", "projection.weight"}
    assert all(torch.equal(one[name], two[name]) for name in one)

    train("phi_hr", changes, tmp_path / "other", faces, inputs={**before, "targets": targets[:, :5].copy()})
    other = tensors(tmp_path / "other/112/heads.safetensors")
    assert torch.equal(other["classifier.weight"], one["classifier.weight"])
    assert other["projection.weight"].shape == (5, DIM)

    own = np.repeat(targets, DIM // 8, axis=1) / np.sqrt(DIM // 8)
    train("phi_hr", changes, tmp_path / "own", faces, inputs={**before, "targets": own})
    assert tensors(tmp_path / "own/112/heads.safetensors").keys() == {"classifier.weight"}

    people = Faces([write_faces(tmp_path / "people", identities=len(faces.classes))])
    train("phi_hr", changes, tmp_path / "people", people, inputs={**before, "targets": targets})
    other = tensors(tmp_path / "people/112/heads.safetensors")
    assert torch.equal(other["projection.weight"], one["projection.weight"])
    assert (other["classifier.weight"] - one["classifier.weight"]).abs().min() > 0


def test_finetune_names_what_is_missing_before_it_starts(tmp_path: Path, earlier: Path, faces: Faces) -> None:
    changes = {**SMALL, **BRANCHES, **schedule("trunk", 0.4), "stages.branch.resolutions": [28, 14]}
    with pytest.raises(RecipeError, match=r"^stage trunk starts from an earlier run: give --previous, its folder$"):
        train("finetune", changes, tmp_path, faces)
    with pytest.raises(RecipeError, match=r"^stage branch starts from .*, but there is no .*/14/network\.safetensors$"):
        train("finetune", changes, tmp_path, faces, inputs={"previous": earlier})
    assert list(tmp_path.iterdir()) == []
