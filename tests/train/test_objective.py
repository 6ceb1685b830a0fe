"""The losses of a stage against float64 NumPy on the same network's outputs, and what is trained by them."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from btnet_train import recipes
from btnet_train.branches import fix_trunk
from btnet_train.losses import Classifier
from btnet_train.networks import IResNet
from btnet_train.objective import Distilled, Heads, Objective, normalize
from btnet_train.random_weights import random_networks
from btnet_train.recipes import Classification, Distillation, Pair, Stage, TeacherLoss, View

Array: TypeAlias = NDArray[np.float64]

CLASSES, DIM, TEACHER = 5, 16, 12
LABELS = torch.tensor([3, 0, -1, 4, 0, -1])
COUNT = len(LABELS)
HIGH, LOW = View((112,)), View((7, 14))


@pytest.fixture(scope="module")
def pair() -> dict[int, IResNet]:
    return random_networks("res18", 0.125, dim=DIM, resolutions=(14, 112), seed=5)


@pytest.fixture
def trunk(pair: dict[int, IResNet]) -> IResNet:
    return copy.deepcopy(pair[112])


@pytest.fixture
def branch(pair: dict[int, IResNet]) -> IResNet:
    return copy.deepcopy(pair[14])


def images(side: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (COUNT, 3, side, side), generator=generator, dtype=torch.uint8)


def unit_targets() -> Tensor:
    rows = np.random.default_rng(8).normal(size=(COUNT, TEACHER))
    return torch.from_numpy(unit(rows)).float()


def outputs(network: IResNet, views: Sequence[Tensor]) -> tuple[list[Array], list[Array]]:
    """Embeddings of each view and the four maps, in training mode, by a copy of the network in double precision."""
    twin = copy.deepcopy(network).double().train()
    with torch.no_grad():
        embeddings, maps = twin((torch.cat(list(views)).double() - 127.5) / 127.5)
    return [part.numpy() for part in embeddings.chunk(len(views))], [each.numpy() for each in maps]


def unit(rows: Array) -> Array:
    normed: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normed


def margin_loss(rows: Array, weight: Array, loss: str, margin: float, scale: float) -> float:
    """ArcFace and CosFace of the rows with a label."""
    total = []
    for row, label in zip(unit(rows), LABELS.tolist(), strict=True):
        if label >= 0:
            cosines = unit(weight) @ row
            logits = scale * cosines
            own = cosines[label]
            # The cosines here are far from where ArcFace has its other branch.
            logits[label] = scale * (np.cos(np.arccos(own) + margin) if loss == "arcface" else own - margin)
            total.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label])
    return float(np.mean(total))


DISTANCES: dict[str, Callable[[Array], Array]] = {
    "cosine": lambda d: np.sum(d**2, axis=1) / 2,
    "logexp1": lambda d: np.log(1 + (np.exp(np.abs(d)) - 1).sum(1)) / d.shape[1],
    "logexp2": lambda d: np.log(1 + (np.exp(np.abs(d) ** 2) - 1).sum(1)) / (2 * d.shape[1]),
    "l1": lambda d: np.abs(d).mean(1),
    "l2": lambda d: (d**2).mean(1),
}


def distance(x: Array, y: Array, loss: str) -> float:
    return float(np.mean(DISTANCES[loss](unit(x) - unit(y))))


def heads(*, classify: bool = True, project: bool = False, loss: str = "arcface", margin: float = 0.5) -> Heads:
    torch.manual_seed(2)
    return Heads(
        Classifier(loss, CLASSES, DIM, margin=margin, scale=16.0) if classify else None,
        torch.nn.Linear(DIM, TEACHER, bias=False) if project else None,
    )


def check(losses: dict[str, Tensor], expected: dict[str, float]) -> None:
    assert set(losses) == {*expected, "loss"}
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=2e-4), name
    assert losses["loss"].item() == pytest.approx(sum(expected.values()), rel=2e-4)


def matrix(head: torch.nn.Module | None) -> Array:
    assert head is not None
    return head.get_parameter("weight").detach().double().numpy()


@pytest.mark.parametrize(("loss", "margin"), [("arcface", 0.5), ("cosface", 0.4)])
def test_classification_of_every_view(trunk: IResNet, loss: Any, margin: float) -> None:
    stage = Stage(views=(HIGH, LOW, LOW), classification=Classification(loss, margin, 16.0, weight=0.5))
    given = heads(loss=loss, margin=margin)
    views = [images(112, seed) for seed in range(3)]
    rows, _ = outputs(trunk, views)
    losses = Objective(stage, trunk, given).train()(views, LABELS, None)
    expected = sum(margin_loss(part, matrix(given.classifier), loss, margin, 16.0) for part in rows)
    check(losses, {"classification": 0.5 * expected})


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_a_label_counts_alike_in_whatever_part_of_a_batch_it_is(trunk: IResNet, parts: int) -> None:
    """Two of six images have a label, so that some parts have more of them than others, and some none."""
    stage = Stage(classification=Classification(weight=0.5))
    objective = Objective(stage, trunk, heads()).eval()  # BatchNorm would see the parts, too
    view, labels = torch.cat([images(112, 3)] * 6)[:6], torch.tensor([-1, 2, 1, -1, -1, -1])
    whole = objective([view], labels, None)["loss"]
    cut = zip(view.chunk(parts), labels.chunk(parts), strict=True)
    losses = [objective([seen], own, None, None, 2 / parts)["loss"] for seen, own in cut]
    torch.testing.assert_close(sum(losses) / parts, whole)


def test_batches_without_any_label(trunk: IResNet) -> None:
    stage = Stage(classification=Classification())
    objective = Objective(stage, trunk, heads()).train()
    losses = objective([images(112, 0)], torch.full((COUNT,), -1), None)
    check(losses, {"classification": 0.0})
    losses["loss"].backward()
    assert all(parameter.grad is not None for parameter in objective.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("loss", DISTANCES)
def test_pairs_are_the_first_view_with_every_other(trunk: IResNet, loss: Any) -> None:
    stage = Stage(views=(HIGH, LOW, LOW), pair=Pair(loss, weight=3.0))
    views = [images(112, seed) for seed in range(3)]
    (first, *others), _ = outputs(trunk, views)
    losses = Objective(stage, trunk, Heads()).train()(views, LABELS, None)
    check(losses, {"pair": 3 * sum(distance(first, other, loss) for other in others)})


@pytest.mark.parametrize("name", ["st_7", "st_m1", "st_m2", "logexp", "logexp_l1"])
def test_siamese_recipes(trunk: IResNet, name: str) -> None:
    stage = recipes.load(name, {"stages.trunk.classification.scale": 16.0}).stages["trunk"]
    assert stage.classification is not None
    assert stage.pair is not None
    loss, margin = stage.classification.loss, stage.classification.margin
    given = heads(loss=loss, margin=margin)
    views = [images(112, seed) for seed in range(len(stage.views))]
    rows, _ = outputs(trunk, views)
    classified = [margin_loss(part, matrix(given.classifier), loss, margin, 16.0) for part in rows]
    pulled = [distance(rows[0], other, stage.pair.loss) for other in rows[1:]]
    share, weight = {"st_7": (1, 25), "st_m1": (1, 25), "st_m2": (1, 3)}.get(name, (0.5, 1))
    assert len(views) == (5 if name == "st_m2" else 2)
    losses = Objective(stage, trunk, given).train()(views, LABELS, None)
    check(losses, {"classification": share * sum(classified), "pair": weight * sum(pulled)})


def test_teacher(trunk: IResNet) -> None:
    stage = Stage(views=(HIGH, LOW), teacher=TeacherLoss(cosine=4.0, similarity=0.5))
    given = heads(classify=False, project=True)
    views, targets = [images(112, seed) for seed in (0, 1)], unit_targets()
    rows, _ = outputs(trunk, views)
    goal = unit(targets.double().numpy())
    off = ~np.eye(COUNT, dtype=bool)
    terms = []
    for part in rows:
        cosine = distance(part @ matrix(given.projection).T, goal, "cosine")
        similarity = ((unit(part) @ unit(part).T - goal @ goal.T)[off] ** 2).mean()
        terms.append(4 * cosine + 0.5 * similarity)
    losses = Objective(stage, trunk, given).train()(views, LABELS, targets)
    check(losses, {"teacher": float(np.mean(terms))})


def test_teacher_of_the_same_dimension_teaches_the_embedding_itself(trunk: IResNet) -> None:
    goal = unit(np.random.default_rng(4).standard_normal((COUNT, trunk.dim)))
    view = images(112, 0)
    (rows,), _ = outputs(trunk, [view])
    objective = Objective(Stage(teacher=TeacherLoss(cosine=2.0)), trunk, Heads()).train()
    check(objective([view], LABELS, torch.from_numpy(goal).float()), {"teacher": 2 * distance(rows, goal, "cosine")})


def test_teacher_by_similarity_alone_has_no_projection(trunk: IResNet) -> None:
    stage = Stage(teacher=TeacherLoss(cosine=0.0, similarity=1.0))
    objective = Objective(stage, trunk, Heads()).train()
    losses = objective([images(112, 0)], LABELS, unit_targets())
    losses["loss"].backward()
    assert all(parameter.grad is not None for parameter in objective.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(("embedding", "name"), [(0.0, "mse"), (0.5, "mse"), (2.0, "cosine")])
def test_distillation(trunk: IResNet, branch: IResNet, embedding: float, name: Any) -> None:
    stage = Stage((14,), start="trunk", distillation=Distillation(0.25, embedding, name))
    view, of_trunk = images(14, 0), images(112, 1)
    (rows,), maps = outputs(branch, [view])
    twin = copy.deepcopy(trunk).double().eval()
    with torch.no_grad():
        target, target_maps = twin((of_trunk.double() - 127.5) / 127.5)
    expected = {"maps": 0.25 * ((maps[2] - target_maps[2].numpy()) ** 2).mean()}
    if embedding:
        goal = target.numpy()
        found = ((rows - goal) ** 2).mean() if name == "mse" else distance(rows, goal, "cosine")
        expected["embedding"] = embedding * found
    objective = Objective(stage, branch, Heads(), trunk).train()
    check(objective([view, of_trunk], LABELS, None), expected)
    check(objective([view], LABELS, None, Distilled(target_maps[2].float(), target.float())), expected)


def test_maps_alone_train_what_comes_before_them(trunk: IResNet, branch: IResNet) -> None:
    """All that is trained gets a gradient, and the branch's averages are its own, also those behind the maps."""
    fix_trunk(branch, trunk)
    before = copy.deepcopy(branch.state_dict())
    stage = Stage((14,), start="trunk", fixed_trunk=True, distillation=Distillation(0.5))
    objective = Objective(stage, branch, Heads(), trunk).train()
    objective([images(14, 0), images(112, 1)], LABELS, None)["loss"].backward()
    for name, parameter in branch.named_parameters():
        # Up to the first unit of layer 3, whose maps in the trunk are 14 px wide.
        own = name.startswith(("conv1", "bn1", "prelu", "layer1", "layer2", "layer3.0"))
        assert parameter.requires_grad == own, name
        assert (parameter.grad is not None) == own, name
    after = branch.state_dict()
    assert not torch.equal(after["layer4.1.bn2.running_mean"], before["layer4.1.bn2.running_mean"])
    assert not torch.equal(after["features.running_var"], before["features.running_var"])


def test_the_trunk_of_distillation_stays_as_it_is(trunk: IResNet, branch: IResNet) -> None:
    before = copy.deepcopy(trunk.state_dict())
    stage = Stage((14,), start="trunk", distillation=Distillation(0.5, 0.5))
    objective = Objective(stage, branch, Heads(), trunk.train()).train()
    for mode in (True, False, True):
        losses = objective.train(mode)([images(14, 0), images(112, 1)], LABELS, None)
        assert not any(module.training for module in trunk.modules())
    losses["loss"].backward()
    assert all(torch.equal(before[key], value) for key, value in trunk.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in trunk.parameters())
    own = {id(parameter) for parameter in trunk.parameters()}
    assert own.isdisjoint(id(parameter) for parameter in objective.parameters())
    assert set(objective.state_dict()) == {f"network.{key}" for key in branch.state_dict()}


def test_distillation_without_a_trunk(branch: IResNet) -> None:
    with pytest.raises(ValueError, match=r"^distillation needs a trunk$"):
        Objective(Stage((14,), start="trunk", distillation=Distillation()), branch, Heads())


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_heads(trunk: IResNet, frozen: bool) -> None:
    stage = Stage(classification=Classification(frozen=frozen), teacher=TeacherLoss(frozen=frozen))
    given = heads(project=True)
    objective = Objective(stage, trunk, given).train()
    objective([images(112, 0)], LABELS, unit_targets())["loss"].backward()
    for name in ("classifier.weight", "projection.weight"):
        assert (objective.get_parameter(name).grad is None) == frozen
        assert objective.get_parameter(name).requires_grad != frozen
        assert name in objective.state_dict()
    gradient = objective.network.conv1.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0  # it reaches the network through both


def test_a_frozen_classifier_under_curricularface_keeps_its_average(trunk: IResNet) -> None:
    stage = Stage(classification=Classification("curricularface", frozen=True))
    given = heads(loss="curricularface")
    assert given.classifier is not None
    weight = given.classifier.weight.detach().clone()
    objective = Objective(stage, trunk, given).train()
    objective([images(112, 0)], LABELS, None)["loss"].backward()
    assert torch.equal(given.classifier.weight, weight)
    assert given.classifier.t != 0


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_coupling_map_is_that_of_forward(pair: dict[int, IResNet], stage: int) -> None:
    for resolution, network in pair.items():
        with torch.no_grad():
            x = normalize(images(resolution, 0))
            assert torch.equal(network.coupling_map(x, stage), network(x)[1][stage - 1])


def test_normalize() -> None:
    x = torch.tensor([0, 127, 128, 255], dtype=torch.uint8)
    expected = (np.array([0, 127, 128, 255]) - 127.5) / 127.5
    assert normalize(x).tolist() == expected.astype(np.float32).tolist()


def test_losses_are_float32_under_autocast(trunk: IResNet) -> None:
    stage = Stage(views=(HIGH, LOW), classification=Classification(), pair=Pair(), teacher=TeacherLoss())
    objective = Objective(stage, trunk, heads(project=True)).train()
    views = [images(112, seed) for seed in (0, 1)]
    exact = {name: loss.item() for name, loss in objective(views, LABELS, unit_targets()).items()}
    with torch.autocast("cpu", torch.bfloat16):
        rough = objective(views, LABELS, unit_targets())
    assert all(loss.dtype == torch.float32 for loss in rough.values())
    assert {name: loss.item() for name, loss in rough.items()} == pytest.approx(exact, rel=0.1)
