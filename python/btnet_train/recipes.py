"""Recipes: typed descriptions of how networks are trained, read from TOML.

A recipe is a list of stages, in order. Each stage trains one network for each of its resolutions. A recipe may
name another one as its `base` and change some of its keys; a table set to false is switched off. The recipes
of the papers lie in the folder recipe_files; `btnet-train recipes` lists them.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field, StrictBool, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from btnet_train.margins import check_margin
from btnet_train.topology import CANONICAL, RESOLUTIONS, UNITS, coupling_stage

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).with_name("recipe_files")
"""The named recipes, NAME.toml."""

_STRICT = ConfigDict(extra="forbid")

# Strict: "0.1" and true are no numbers, and "no" is no truth value.
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
NotNegative: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Fraction: TypeAlias = Annotated[float, Field(ge=0, lt=1, strict=True)]
Whole: TypeAlias = Annotated[int, Field(ge=1, strict=True)]
Side: TypeAlias = Annotated[int, Field(ge=1, le=CANONICAL, strict=True)]


class RecipeError(ValueError):
    """A recipe that does not exist, or whose text is wrong; one sentence names the key."""


@dataclass(frozen=True, config=_STRICT)
class View:
    """How a network sees each image of a batch: at a resolution drawn for it.

    resolutions: sides in pixels. weights: how often each is drawn, the same number of them, with sum 1; none:
    equally often. native: the image is resized to r x r, its only resolution; otherwise it is degraded to r and
    up to 112 again.
    """

    resolutions: tuple[Side, ...]
    weights: tuple[Positive, ...] = ()
    native: StrictBool = False

    def __post_init__(self) -> None:
        if not self.resolutions:
            raise ValueError("resolutions must name at least one")
        if self.native and len(self.resolutions) > 1:
            raise ValueError("a native view has one resolution")
        if not self.weights:
            object.__setattr__(self, "weights", (1 / len(self.resolutions),) * len(self.resolutions))
        if len(self.weights) != len(self.resolutions) or abs(sum(self.weights) - 1) > 1e-6:
            raise ValueError("weights must be as many as resolutions, with sum 1")


@dataclass(frozen=True, config=_STRICT)
class Network:
    """The IResNet to train: its architecture, the width of its layers, the length of its embedding."""

    arch: str = "res50"
    width: Positive = 1.0
    dim: Whole = 512
    dropout: Fraction = 0.0

    def __post_init__(self) -> None:
        if self.arch not in UNITS:
            raise ValueError(f"arch must be one of {', '.join(UNITS)}")


@dataclass(frozen=True, config=_STRICT)
class Classification:
    """A margin loss over the identities, for every view, times `weight`.

    frozen: with the weights of the trunk's classifier, which are not trained: backward-compatible training
    (Shen et al., CVPR 2020), where the paper speaks of the influence loss. Images without an identity take no part.
    """

    loss: Literal["arcface", "cosface", "curricularface", "normface", "sphereface"] = "arcface"
    margin: NotNegative = 0.5
    scale: Positive = 64.0
    weight: Positive = 1.0
    frozen: StrictBool = False

    def __post_init__(self) -> None:
        check_margin(self.loss, self.margin)


@dataclass(frozen=True, config=_STRICT)
class Pair:
    """A loss between the embeddings of the first and of every other view of an image, times `weight` each."""

    loss: Literal["cosine", "logexp1", "logexp2", "l1", "l2"] = "cosine"
    weight: Positive = 1.0


@dataclass(frozen=True, config=_STRICT)
class Distillation:
    """Losses against the frozen trunk, which sees the same image at 112 px.

    maps: times the mean squared difference of the maps at the coupling layer (branch distillation, the paper's
    lambda). embedding: times the loss `embedding_loss` between the embeddings.
    """

    maps: NotNegative = 0.5
    embedding: NotNegative = 0.0
    embedding_loss: Literal["mse", "cosine"] = "mse"

    def __post_init__(self) -> None:
        if not (self.maps or self.embedding):
            raise ValueError("maps or embedding must be above 0")


@dataclass(frozen=True, config=_STRICT)
class TeacherLoss:
    """Losses against the embedding that another model gives for the image at 112 px.

    cosine: times the cosine distance, after a linear map that is used in training only. similarity: times the mean
    squared difference of the cosines of all pairs in the batch, which needs no map. frozen: with the trunk's linear
    map, which is not trained.
    """

    cosine: NotNegative = 1.0
    similarity: NotNegative = 0.0
    frozen: StrictBool = False

    def __post_init__(self) -> None:
        if not (self.cosine or self.similarity):
            raise ValueError("cosine or similarity must be above 0")


@dataclass(frozen=True, config=_STRICT)
class Optimizer:
    """SGD with momentum, AdamW, or Muon; gradients of the network are clipped to the norm `clip`.

    Muon (Jordan et al., 2024) orthogonalises the updates of the convolutions' kernels, a row for each output channel,
    and scales them to the size of AdamW's (Liu et al., arXiv:2502.16982, Eq. 4); all else is left to AdamW with the
    same lr and weight_decay. `momentum` is that of SGD.
    """

    name: Literal["sgd", "adamw", "muon"] = "sgd"
    lr: Positive = 0.1
    momentum: Fraction = 0.9
    weight_decay: NotNegative = 5e-4
    clip: Positive = 5.0


@dataclass(frozen=True, config=_STRICT)
class Schedule:
    """How long: `epochs` passes over the faces in batches of `batch_size` over all devices.

    The rate rises linearly during the first `warmup_epochs` and then falls to 0, as (1 - t)^power or as half a
    cosine.
    """

    epochs: Positive = 25.0
    batch_size: Whole = 128
    warmup_epochs: NotNegative = 0.0
    decay: Literal["polynomial", "cosine"] = "polynomial"
    power: Positive = 2.0

    def __post_init__(self) -> None:
        if self.warmup_epochs >= self.epochs:
            raise ValueError("warmup_epochs must be fewer than epochs")


@dataclass(frozen=True, config=_STRICT)
class Stage:
    """The training of one network for each of `resolutions`, or of the trunk (112).

    views: what the network sees. Empty: the image at the network's own resolution.
    start: "scratch"; "trunk": the trunk's weights, implanted; "previous": those of an earlier run for the same
    resolution (and the new trunk's after the coupling layer, for a branch that is trained with a fixed trunk).
    fixed_trunk: nothing after the coupling layer is trained but its BatchNorm.
    coupling_stage: 1 to 4, where the branch joins the trunk if not at the stage of its own size.
    """

    resolutions: tuple[Whole, ...] = (CANONICAL,)
    views: tuple[View, ...] = ()
    start: Literal["scratch", "trunk", "previous"] = "scratch"
    fixed_trunk: StrictBool = False
    coupling_stage: Annotated[int, Field(ge=1, le=4, strict=True)] | None = None
    flip: StrictBool = True
    classification: Classification | None = None
    pair: Pair | None = None
    distillation: Distillation | None = None
    teacher: TeacherLoss | None = None
    optimizer: Optimizer = Field(default_factory=Optimizer)
    schedule: Schedule = Field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if not self.resolutions:
            raise ValueError("resolutions must name at least one")
        for resolution in self.resolutions:
            if resolution not in RESOLUTIONS:
                raise ValueError(f"no stage can couple to resolution {resolution}: they are {RESOLUTIONS}")
            if any(resolution != (view.resolutions[0] if view.native else CANONICAL) for view in self.views):
                raise ValueError(f"views must give images of {resolution} px, the size that the network takes")
        if CANONICAL in self.resolutions and (self.fixed_trunk or self.distillation or self.start == "trunk"):
            raise ValueError("the trunk, resolution 112, cannot start from itself, be fixed or be distilled")
        if self.fixed_trunk and self.start == "scratch":
            raise ValueError("fixed_trunk needs start = 'trunk' or 'previous'")
        if self.pair and len(self.views) < 2:
            raise ValueError(f"pair needs two views or more, not {len(self.views)}")
        if self.coupling_stage and not self.fixed_trunk:
            raise ValueError("coupling_stage is for a fixed trunk: nothing else depends on where the branch joins it")
        natural = {coupling_stage(r) for r in self.resolutions if r != CANONICAL}
        if self.distillation and self.coupling_stage and natural != {self.coupling_stage}:
            raise ValueError("distillation is defined only where the branch joins the stage of its own size")
        if not (self.classification or self.pair or self.distillation or self.teacher):
            raise ValueError("there is no loss: give classification, pair, distillation or teacher")

    def views_of(self, resolution: int) -> tuple[View, ...]:
        """Return what the network of a resolution sees; its own size where the stage does not say."""
        return self.views or (View((resolution,), native=resolution != CANONICAL),)


@dataclass(frozen=True, config=_STRICT)
class Recipe:
    """How all networks of a model are trained."""

    description: str
    stages: dict[str, Stage]
    network: Network = Field(default_factory=Network)

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("stages must have at least one")
        seen = [resolution for stage in self.stages.values() for resolution in stage.resolutions]
        if len(set(seen)) != len(seen):
            raise ValueError("two stages train the same resolution")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which `parse` makes the same recipe."""
        return asdict(self)


def names() -> list[str]:
    """Return the names of the recipes that come with the package, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Load a recipe by its name, or from the path of a TOML file.

    changes: values by dotted key, such as {"stages.trunk.schedule.epochs": 3}. Raises RecipeError.
    """
    merged = _read(name, ())
    for key, value in (changes or {}).items():
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        merged = _merge(merged, nested)
    return parse(merged, name)


def parse(data: Mapping[str, Any], name: str) -> Recipe:
    """Make a recipe of plain data; RecipeError names the first wrong key."""
    try:
        return TypeAdapter(Recipe).validate_python(_without_false(data))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        what = "is no key of a recipe" if first["type"] == "unexpected_keyword_argument" else first["msg"]
        what = what.removeprefix("Value error, ")
        raise RecipeError(f"recipe {name}: {key or 'the whole'}: {what}{_given(first['input'])}") from error


def parse_value(text: str) -> Any:
    """Read a value as TOML does; what is no TOML is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _read(name: str, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Return the content of a recipe with that of its base under it. Paths are relative to the file they stand in."""
    folder = seen[-1].parent if seen else Path()
    path = (folder / name if name.endswith(".toml") else FOLDER / f"{name}.toml").resolve()
    if path in seen:
        raise RecipeError(f"recipe {name} is its own base")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"there is no recipe {name!r}: give a .toml file or one of {', '.join(names())}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {name} is no TOML: {error}") from error
    base = data.pop("base", None)
    return data if base is None else _merge(_read(str(base), (*seen, path)), data)


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _without_false(data: Mapping[str, Any]) -> dict[str, Any]:
    """Drop stages, and losses of stages, that are switched off."""
    stages = data.get("stages")
    if not isinstance(stages, Mapping):
        return dict(data)
    losses = ("classification", "pair", "distillation", "teacher")
    kept = {
        name: {key: value for key, value in stage.items() if not (key in losses and value is False)}
        if isinstance(stage, Mapping)
        else stage
        for name, stage in stages.items()
        if stage is not False
    }
    return {**data, "stages": kept}


def _given(value: Any) -> str:
    text = repr(value)
    if len(text) <= 60:
        return f", got {text}"
    return "" if isinstance(value, Mapping) else f", got {text[:57]}..."
