"""What a run is given beside its recipe, and whether it goes with the recipe: checked before anything is computed."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btnet_train.batches import steps_per_epoch
from btnet_train.networks import IResNet
from btnet_train.recipes import Recipe, RecipeError, Stage
from btnet_train.run_folder import NETWORK, digest_of, file_in
from btnet_train.sources import Faces
from btnet_train.topology import CANONICAL

Validate = Callable[[IResNet, IResNet | None], Mapping[str, float]]


@dataclass(frozen=True)
class Inputs:
    """What a run is given beside its recipe.

    trunk: a checkpoint, or the folder RUN/112 of another run with its heads; the stage of resolution 112 is then
    left out. classifier: a file with the trunk's classifier, its rows in the order of `faces.classes`. previous: the
    folder of the run that "previous" means. targets: the teacher's embeddings of `faces`. trunk_outputs: a folder in
    which to keep what the trunk gives for all faces, for distillation; None: it is asked in each step. validate: called
    with a network and its trunk, if there is one.
    """

    faces: Faces
    trunk: Path | None = None
    classifier: Path | None = None
    previous: Path | None = None
    targets: NDArray[np.float32] | None = None
    trunk_outputs: Path | None = None
    validate: Validate | None = None


def to_train(recipe: Recipe, trunk: Path | None) -> dict[str, Stage]:
    """Return the stages without the network for 112 px where a trunk is given, and without those that had no other."""
    if trunk is None:
        return dict(recipe.stages)
    left = {
        name: replace(stage, resolutions=tuple(side for side in stage.resolutions if side != CANONICAL))
        for name, stage in recipe.stages.items()
        if stage.resolutions != (CANONICAL,)
    }
    if not left:
        raise RecipeError("--trunk is given, and the recipe trains nothing else")
    return left


def check_inputs(recipe: Recipe, inputs: Inputs, teacher: bool) -> None:
    """Raise RecipeError for inputs that the recipe lacks, or does not use. teacher: whether there will be targets."""
    stages = to_train(recipe, inputs.trunk)
    has_trunk = inputs.trunk is not None
    for name, stage in stages.items():
        needs_trunk = stage.start == "trunk" or stage.fixed_trunk or stage.distillation is not None
        if needs_trunk and not has_trunk:
            raise RecipeError(
                f"stage {name} needs a trunk, trained before it or given: --trunk FILE or --trunk RUN/112"
            )
        has_trunk |= CANONICAL in stage.resolutions
        if stage.start == "previous" and inputs.previous is None:
            raise RecipeError(f"stage {name} starts from an earlier run: give --previous, its folder")
        if stage.start == "previous" and inputs.previous is not None:
            for resolution in stage.resolutions:
                file = inputs.previous / str(resolution) / NETWORK
                if not file.is_file():
                    raise RecipeError(f"stage {name} starts from an earlier run, but there is no {file}")
        if stage.teacher is not None and not teacher:
            raise RecipeError(f"stage {name} has a teacher's loss: give --teacher, an ONNX file")
        if stage.classification is not None and not inputs.faces.classes:
            raise RecipeError(f"stage {name} classifies, but the faces have no identities: give --data")
    _check_use(stages.values(), inputs, teacher)


def _check_use(stages: Collection[Stage], inputs: Inputs, teacher: bool) -> None:
    """Raise RecipeError for inputs that nothing would use."""
    if inputs.trunk_outputs is not None and all(stage.distillation is None for stage in stages):
        raise RecipeError("--trunk-outputs is given, but no stage distils a trunk")
    if teacher and all(stage.teacher is None for stage in stages):
        raise RecipeError("--teacher is given, but no stage has a teacher's loss")
    if inputs.classifier is not None and not any(s.classification and s.classification.frozen for s in stages):
        raise RecipeError("--classifier is given, but no stage has a frozen classifier")
    if inputs.previous is not None and all(stage.start != "previous" for stage in stages):
        raise RecipeError("--previous is given, but no stage starts from an earlier run")


def check_parts(recipe: Recipe, inputs: Inputs, micro_batches: int | None, devices: int) -> None:
    """Raise ValueError for batches that the faces do not fill, or that cannot be shared out as in `Execution`."""
    parts = micro_batches or devices
    if parts % devices:
        raise ValueError(f"--micro-batches must be a multiple of --devices, {devices}, got {parts}")
    for name, stage in to_train(recipe, inputs.trunk).items():
        size = stage.schedule.batch_size
        steps_per_epoch(inputs.faces, size)
        if size % parts or size == parts:  # BatchNorm needs two images
            raise ValueError(
                f"a batch of stage {name} has {size} images, which cannot be cut into {parts} equal parts of 2 or more "
                "(--micro-batches; one a device if it is not given)"
            )


def identity(recipe: Recipe, trunk: Path | None, classifier: Path | None, previous: Path | None) -> dict[str, Any]:
    """Return what run.json says of the files that a run starts from, as in `Inputs`: the SHA-256 of their content.

    Where they lie does not matter: a run may be moved. Raises OSError.
    """
    stages = to_train(recipe, trunk).values()
    continued = {side for stage in stages if stage.start == "previous" for side in stage.resolutions}
    return {
        "trunk": trunk and digest_of(file_in(trunk, NETWORK)),
        "classifier": classifier and digest_of(classifier),
        "previous": previous and {str(side): digest_of(previous / str(side) / NETWORK) for side in sorted(continued)},
    }
