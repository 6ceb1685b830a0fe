"""The named recipes against what the papers say, written down here once more; and what a wrong recipe is told."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from btnet_train import recipes
from btnet_train.recipes import Recipe, RecipeError, Stage

FIVE = (112, 56, 28, 14, 7)
EQUALLY = (0.2, 0.2, 0.2, 0.2, 0.2)
HR = ((112,), (1.0,))
SGD = {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4, "clip": 5.0}
LONG = {"epochs": 25, "batch_size": 128, "warmup_epochs": 2, "decay": "polynomial", "power": 2}
SHORT = {"epochs": 10, "batch_size": 128, "warmup_epochs": 0, "decay": "polynomial", "power": 2}
ARCFACE = {"loss": "arcface", "margin": 0.5, "scale": 64, "weight": 1, "frozen": False}
MAPS = {"maps": 0.5, "embedding": 0}


def trunk(*views: Any, pair: Any = None, **classification: Any) -> dict[str, Any]:
    """What a network for 112 px is trained with: all but views and losses is the same in all papers' recipes."""
    return {
        "resolutions": (112,),
        "views": list(views),
        "start": "scratch",
        "fixed_trunk": False,
        "coupling_stage": None,
        "flip": True,
        "classification": {**ARCFACE, **classification},
        "pair": pair,
        "distillation": None,
        "teacher": None,
        "optimizer": {**SGD, "lr": 0.2},
        "schedule": LONG,
    }


def branch(start: str, fixed: bool, distillation: Any, coupling_stage: int | None = None, **loss: Any) -> Any:
    return {
        "resolutions": (28, 14, 7),
        "views": [],
        "start": start,
        "fixed_trunk": fixed,
        "coupling_stage": coupling_stage,
        "flip": True,
        "classification": {**ARCFACE, "frozen": True, **loss},
        "pair": None,
        "distillation": distillation,
        "teacher": None,
        "optimizer": {**SGD, "lr": 0.02},
        "schedule": SHORT,
    }


def siamese(weight: float, *others: Any) -> dict[str, dict[str, Any]]:
    return {"trunk": trunk(HR, *others, pair={"loss": "cosine", "weight": weight})}


def ling(loss: str) -> dict[str, dict[str, Any]]:
    low = ((7, 14, 20), (0.25, 0.25, 0.5))
    cosface = {"loss": "cosface", "margin": 0.4, "scale": 48, "weight": 0.5}
    return {"trunk": trunk(HR, low, pair={"loss": loss, "weight": 1}, **cosface)}


PHI_MR = trunk((FIVE, EQUALLY))
OWN = branch("trunk", True, {"maps": 0.5, "embedding": 1, "embedding_loss": "cosine"})
EXPECTED: dict[str, dict[str, dict[str, Any]]] = {
    "phi_hr": {"trunk": trunk(HR)},
    "phi_mm": {"trunk": {**trunk(), "resolutions": (28, 14, 7)}},
    "phi_mr": {"trunk": PHI_MR},
    "phi_mr_v2": {"trunk": trunk((FIVE, (0.3, 0.25, 0.2, 0.15, 0.1)))},
    "phi_mr_v3": {"trunk": trunk((tuple(range(4, 113)), (1 / 109,) * 109))},
    "btnet": {"trunk": PHI_MR, "branch": branch("trunk", True, MAPS)},
    "btnet_published": {
        "trunk": PHI_MR,
        "branch": branch("trunk", True, {"maps": 0.5, "embedding": 0.5, "embedding_loss": "mse"}),
    },
    "btnet_scratch": {"trunk": PHI_MR, "branch": branch("scratch", False, None, frozen=False)},
    "btnet_pretrained": {"trunk": PHI_MR, "branch": branch("trunk", False, None, frozen=False)},
    "btnet_bct": {"trunk": PHI_MR, "branch": branch("trunk", False, None)},
    "btnet_fixed_trunk": {"trunk": PHI_MR, "branch": branch("trunk", True, None)},
    **{f"btnet_coupling_{k}": {"trunk": PHI_MR, "branch": branch("trunk", True, None, k)} for k in (1, 2, 3, 4)},
    "btnet_cosface": {"trunk": PHI_MR, "branch": branch("trunk", True, MAPS, loss="cosface", margin=0.4)},
    "btnet_curricularface": {"trunk": PHI_MR, "branch": branch("trunk", True, MAPS, loss="curricularface")},
    **{f"bt_{r}": {"trunk": trunk(((112, r), (0.5, 0.5)))} for r in (7, 14, 28, 56)},
    "bt_m": {"trunk": trunk((FIVE, (0.6, 0.1, 0.1, 0.1, 0.1)))},
    **{f"st_{r}": siamese(25, ((r,), (1.0,))) for r in (7, 14, 28, 56)},
    "st_m1": siamese(25, ((7, 14, 28, 56), (0.25,) * 4)),
    "st_m2": siamese(3, *(((r,), (1.0,)) for r in (7, 14, 28, 56))),
    "logexp": ling("logexp2"),
    "logexp_p1": ling("logexp1"),
    "logexp_l1": ling("l1"),
    "logexp_l2": ling("l2"),
    "own_trunk": {"branch": {**OWN, "classification": None}},
    "own_trunk_classifier": {"branch": OWN},
    "distil": {
        "trunk": {
            **PHI_MR,
            "classification": None,
            "teacher": {"cosine": 4, "similarity": 0, "frozen": False},
            "optimizer": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.02, "clip": 5},
            "schedule": {**LONG, "decay": "cosine"},
        },
        "branch": {
            **branch("trunk", True, {"maps": 0.5, "embedding": 4, "embedding_loss": "cosine"}),
            "classification": None,
            "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.02, "clip": 5},
            "schedule": {**SHORT, "decay": "cosine"},
        },
    },
    "finetune": {
        "trunk": {
            **PHI_MR,
            "start": "previous",
            "optimizer": {**SGD, "lr": 0.02},
            "schedule": {**LONG, "epochs": 10, "warmup_epochs": 1},
        },
        "branch": branch("previous", True, MAPS),
    },
}


def test_every_recipe_is_known() -> None:
    assert set(recipes.names()) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_recipe_says_what_its_paper_says(name: str) -> None:
    recipe = recipes.load(name)
    assert (recipe.network.arch, recipe.network.width, recipe.network.dim) == ("res50", 1.0, 512)
    assert recipe.description
    assert list(recipe.stages) == list(EXPECTED[name])  # the trunk before its branches
    for stage_name, expected in EXPECTED[name].items():
        check_stage(recipe.stages[stage_name], expected)


def check_stage(stage: Stage, expected: dict[str, Any]) -> None:
    for key, value in expected.items():
        found = getattr(stage, key)
        if key == "views":
            assert [view.resolutions for view in found] == [resolutions for resolutions, _ in value]
            for view, (_, weights) in zip(found, value, strict=True):
                assert view.weights == pytest.approx(weights)
                assert not view.native
        elif isinstance(value, dict):
            assert {name: getattr(found, name) for name in value} == value, key
        else:
            assert found == value, key


@pytest.mark.parametrize("resolution", [7, 14, 28])
@pytest.mark.parametrize("name", ["phi_mm", "btnet", "own_trunk"])
def test_a_network_of_its_own_resolution_sees_native_images(name: str, resolution: int) -> None:
    stage = list(recipes.load(name).stages.values())[-1]
    (view,) = stage.views_of(resolution)
    assert (view.resolutions, view.native) == ((resolution,), True)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_recipe_survives_being_written(name: str) -> None:
    recipe = recipes.load(name)
    assert recipes.parse(recipe.to_dict(), name) == recipe
    assert recipes.parse(json.loads(json.dumps(recipe.to_dict())), name) == recipe


def test_changes() -> None:
    changes = {
        "network.width": 0.25,
        "network.arch": "res18",
        "stages.trunk.teacher.cosine": 4,
        "stages.trunk.optimizer": {"name": "adamw", "lr": 2e-3},
        "stages.branch.classification": False,
        "stages.branch.resolutions": [14],
    }
    recipe = recipes.load("btnet", changes)
    first, second = recipe.stages["trunk"], recipe.stages["branch"]
    assert (recipe.network.width, recipe.network.arch, recipe.network.dim) == (0.25, "res18", 512)
    assert first.teacher is not None
    assert (first.teacher.cosine, first.teacher.similarity) == (4, 0)
    # What is not named in a table stays.
    assert (first.optimizer.name, first.optimizer.lr, first.optimizer.clip) == ("adamw", 2e-3, 5)
    assert second.classification is None
    assert second.resolutions == (14,)
    assert recipes.load("btnet", {"stages.branch": False}).stages == recipes.load("phi_mr").stages
    again = recipes.load("btnet_scratch", {"stages.branch.distillation.maps": 2})  # switched off there, and on here
    assert again.stages["branch"].distillation == recipes.Distillation(2)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("2e-3", 2e-3),
        ("true", True),
        ("[28, 14]", [28, 14]),
        ("{ maps = 1 }", {"maps": 1}),
        ('"7"', "7"),
        ("adamw", "adamw"),
        ("", ""),
        ("[1,", "[1,"),
    ],
)
def test_values_are_toml_or_else_text(text: str, value: Any) -> None:
    found = recipes.parse_value(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network.widht": 1}, r"network\.widht: is no key of a recipe, got 1"),
        ({"stages.trunk.shedule.epochs": 1}, r"stages\.trunk\.shedule: is no key of a recipe, got {'epochs': 1}"),
        ({"network.width": "wide"}, r"network\.width: .*number.*, got 'wide'"),
        ({"network.width": "0.25"}, r"network\.width: .*number.*, got '0\.25'"),
        ({"network.width": True}, r"network\.width: .*number.*, got True"),
        ({"network.dim": 0}, r"network\.dim: .*greater than or equal to 1, got 0"),
        ({"network.arch": "res9"}, r"network: arch must be one of res18, res34, res50, res100, got .*'res9'.*"),
        ({"stages.trunk.flip": "no"}, r"stages\.trunk\.flip: .*boolean, got 'no'"),
        ({"stages.trunk.flip": 1}, r"stages\.trunk\.flip: .*boolean, got 1"),
        ({"stages.trunk.optimizer.lr": -0.1}, r"stages\.trunk\.optimizer\.lr: .*greater than 0, got -0\.1"),
        ({"stages.trunk.optimizer.lr": float("nan")}, r"stages\.trunk\.optimizer\.lr: .*finite.*, got nan"),
        ({"stages.trunk.optimizer": False}, r"stages\.trunk\.optimizer: .*, got False"),
        ({"stages.trunk.schedule.batch_size": 1.5}, r"stages\.trunk\.schedule\.batch_size: .*integer, got 1\.5"),
        ({"stages.trunk.schedule.warmup_epochs": 25}, r"stages\.trunk\.schedule: warmup_epochs must be fewer .*"),
        ({"stages.trunk.classification.loss": "softmax"}, r"stages\.trunk\.classification\.loss: .*, got 'softmax'"),
        (
            {"stages.trunk.classification.loss": "normface"},
            r"stages\.trunk\.classification: margin must be 0 for normface, got 0\.5.*",
        ),
        ({"stages.trunk.classification": False}, r"stages\.trunk: there is no loss: give classification, .*"),
        ({"stages.trunk.pair": {}}, r"stages\.trunk: pair needs two views or more, not 1"),
        ({"stages.trunk.teacher": {"cosine": 0}}, r"stages\.trunk\.teacher: cosine or similarity must be .*"),
        ({"stages.trunk.fixed_trunk": True}, r"stages\.trunk: the trunk, resolution 112, cannot .*"),
        ({"stages.trunk.start": "trunk"}, r"stages\.trunk: the trunk, resolution 112, cannot .*"),
        ({"stages.trunk.views": [{"resolutions": []}]}, r"stages\.trunk\.views\.0: resolutions must name .*"),
        (
            {"stages.trunk.views": [{"resolutions": [112, 7], "weights": [0.5]}]},
            r"stages\.trunk\.views\.0: weights must be as many as resolutions, with sum 1, got .*",
        ),
        (
            {"stages.trunk.views": [{"resolutions": [112, 7], "weights": [0.5, 0.6]}]},
            r"stages\.trunk\.views\.0: weights must be as many as resolutions, with sum 1, got .*",
        ),
        ({"stages.trunk.views": [{"resolutions": [113]}]}, r"stages\.trunk\.views\.0\.resolutions\.0: .*112, got 113"),
        (
            {"stages.trunk.views": [{"resolutions": [28], "native": True}]},
            r"stages\.trunk: views must give images of 112 px, .*",
        ),
        ({"stages.branch.views": [{"resolutions": [7]}]}, r"stages\.branch: views must give images of 28 px, .*"),
        ({"stages.branch.resolutions": [28, 20]}, r"stages\.branch: no stage can couple to resolution 20.*"),
        ({"stages.branch.resolutions": []}, r"stages\.branch: resolutions must name at least one"),
        ({"stages.branch.resolutions": [112]}, r"stages\.branch: the trunk, resolution 112, cannot .*"),
        ({"stages.branch.resolutions": [14, 14]}, r"the whole: two stages train the same resolution"),
        ({"stages.branch.start": "scratch"}, r"stages\.branch: fixed_trunk needs start = .*"),
        ({"stages.branch.coupling_stage": 5}, r"stages\.branch\.coupling_stage: .*equal to 4, got 5"),
        (
            {"stages.branch.coupling_stage": 3, "stages.branch.fixed_trunk": False},
            r"stages\.branch: coupling_stage is for a fixed trunk: .*",
        ),
        ({"stages.branch.coupling_stage": 3}, r"stages\.branch: distillation is defined only .*"),
        ({"stages.branch.distillation.maps": 0}, r"stages\.branch\.distillation: maps or embedding must be above 0.*"),
        ({"stages": {"trunk": False, "branch": False}}, r"the whole: stages must have at least one"),
        ({"stages": 3}, r"stages: .*dictionary, got 3"),
        ({"stages.trunk": 3}, r"stages\.trunk: .*, got 3"),
        ({"description": 5}, r"description: .*string, got 5"),
    ],
    ids=str,
)
def test_what_a_wrong_recipe_is_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipes.load("btnet", changes)
    assert re.fullmatch(f"recipe btnet: {message}", str(caught.value)), caught.value
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_file_with_bases(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    first = write(tmp_path / "first.toml", 'base = "far/second.toml"\n[stages.branch]\ndistillation = false\n')
    write(tmp_path / "far/second.toml", 'base = "third.toml"\n[network]\nwidth = 0.5\ndim = 64\n')
    write(tmp_path / "far/third.toml", 'base = "btnet"\ndescription = "mine"\n[network]\nwidth = 0.25\n')
    recipe = recipes.load(first)
    assert (recipe.description, recipe.network.width, recipe.network.dim) == ("mine", 0.5, 64)
    assert recipe.stages["branch"].distillation is None
    assert recipe.stages["trunk"] == recipes.load("phi_mr").stages["trunk"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base = "a.toml"', r"recipe a\.toml is its own base"),
        ('base = "b.toml"', r"recipe b\.toml is its own base|recipe a\.toml is its own base"),
        ('base = "nope"', r"there is no recipe 'nope': give a \.toml file or one of .*btnet.*"),
        ("base =", r"recipe .*a\.toml is no TOML: .*"),
        ('description = "x"', r"recipe .*a\.toml: stages: .*"),
        ('description = "x"\n[stages]\n', r"recipe .*a\.toml: the whole: stages must have at least one, got .*"),
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "b.toml", 'base = "a.toml"')
    with pytest.raises(RecipeError) as caught:
        recipes.load(write(tmp_path / "a.toml", text))
    assert re.fullmatch(message, str(caught.value)), caught.value


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b'description = "\xff"')
    with pytest.raises(RecipeError, match=r"a\.toml is no TOML"):
        recipes.load(str(tmp_path / "a.toml"))


def test_names_that_are_not_there() -> None:
    for name in ("nope", "", "nope.toml"):
        with pytest.raises(RecipeError, match=f"^there is no recipe '{name}': give a .toml file or one of bt_14, "):
            recipes.load(name)


def test_a_recipe_without_defaults_is_complete() -> None:
    """What a stage does not say is what the papers have in common."""
    recipe = recipes.parse({"description": "", "stages": {"a": {"classification": {}}}}, "bare")
    assert isinstance(recipe, Recipe)
    check_stage(recipe.stages["a"], {"resolutions": (112,), "classification": ARCFACE, "optimizer": SGD})
    (view,) = recipe.stages["a"].views_of(112)
    assert (view.resolutions, view.weights, view.native) == ((112,), (1.0,), False)


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_can_go_on_from_an_earlier_run(name: str) -> None:
    for stage in recipes.load(name).stages:
        changed = recipes.load(name, {f"stages.{stage}.start": "previous"})
        assert changed.stages[stage].start == "previous"
