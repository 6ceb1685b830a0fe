"""Carries out a recipe: trains the networks of its stages one after the other, each in a folder of its own.

RUN/run.json                  the recipe, the faces, the teacher, versions and machine
RUN/R/state.safetensors       where the training of resolution R stands, from which it is resumed
RUN/R/network.safetensors     the trained network, as `btnet-train export` and `load_checkpoint` take it
RUN/R/heads.safetensors       classifier and linear map to the teacher, for branches and for fine-tuning
RUN/R/result.json             images seen, seconds, parameters, the last validation
RUN/R/losses.csv, losses.png, tensorboard/
"""

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from btnet_ext.bundle import describe_file
from btnet_ext.whole_files import locked, whole_file
from btnet_train.accounting import mac_count, parameter_count
from btnet_train.batches import steps_per_epoch
from btnet_train.branches import fix_trunk, start_from
from btnet_train.checkpoint import CheckpointError, load_checkpoint, read_tensors
from btnet_train.errors import lost_processes
from btnet_train.losses import Classifier
from btnet_train.networks import IResNet
from btnet_train.objective import Heads, Objective
from btnet_train.recipes import Recipe, RecipeError, Stage
from btnet_train.run_state import load_tensors, save_tensors
from btnet_train.sources import Faces
from btnet_train.topology import CANONICAL, coupling_stage
from btnet_train.trainer import STATE, Execution, Training
from btnet_train.trunk_outputs import TrunkOutputs, trunk_outputs

logger = logging.getLogger(__name__)

NETWORK, HEADS, RESULT = "network.safetensors", "heads.safetensors", "result.json"

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


@lost_processes()
def fit(fabric: Fabric, recipe: Recipe, run: Path, inputs: Inputs, execution: Execution, seed: int) -> dict[int, Path]:
    """Train what is not trained yet, and return the files of the networks by resolution.

    The trunk is among them, where there is one. Raises RecipeError for inputs that the recipe lacks,
    CheckpointError, TrainingError, Interrupted, DataError, OSError.
    """
    check_inputs(recipe, inputs, inputs.targets is not None)
    networks = {} if inputs.trunk is None else {CANONICAL: _file(inputs.trunk, NETWORK)}
    for name, stage in _to_train(recipe, inputs.trunk).items():
        for resolution in stage.resolutions:
            folder = run / str(resolution)
            if not (folder / RESULT).exists():
                logger.info("stage %s: training the network of %d px in %s", name, resolution, folder)
                trunk = networks.get(CANONICAL)
                job = _Job(fabric, recipe, stage, resolution, trunk, inputs, seed)
                job.train(folder, execution)
            networks[resolution] = folder / NETWORK
    return networks


def _to_train(recipe: Recipe, trunk: Path | None) -> dict[str, Stage]:
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
    stages = _to_train(recipe, inputs.trunk)
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
    for name, stage in _to_train(recipe, inputs.trunk).items():
        size = stage.schedule.batch_size
        steps_per_epoch(inputs.faces, size)
        if size % parts or size == parts:  # BatchNorm needs two images
            raise ValueError(
                f"a batch of stage {name} has {size} images, which cannot be cut into {parts} equal parts of 2 or more "
                "(--micro-batches; one a device if it is not given)"
            )


@dataclass(frozen=True)
class _Job:
    """The training of one network of a run."""

    fabric: Fabric
    recipe: Recipe
    stage: Stage
    resolution: int
    trunk_file: Path | None
    inputs: Inputs
    seed: int

    def train(self, folder: Path, execution: Execution) -> None:
        torch.manual_seed(self.seed + self.resolution)
        trunk = None if self.trunk_file is None else load_checkpoint(self.trunk_file)
        network = self._network(trunk)
        heads = self._heads(network)
        objective = Objective(self.stage, network, heads, trunk)
        results: dict[str, float] = {}

        def validate(network: IResNet) -> Mapping[str, float]:
            results.update(self.inputs.validate(network, trunk) if self.inputs.validate else {})
            return results

        folder.mkdir(parents=True, exist_ok=True)
        outputs = self._outputs(trunk)
        training = Training(
            self.fabric,
            self.stage,
            objective,
            self.inputs.faces,
            folder,
            execution=execution,
            seed=self.seed,
            targets=self.inputs.targets if self.stage.teacher is not None else None,
            outputs=outputs,
            validate=validate if self.inputs.validate else None,
        )
        facts = training.run()
        if not results:  # the run before this one ended after its last step, but before its results were written
            network.eval()
            validate(network)
        if self.fabric.is_global_zero:
            self._write(folder, objective, {**facts, **results})
        self.fabric.barrier()

    def _outputs(self, trunk: IResNet | None) -> TrunkOutputs | None:
        """Return what the trunk gives for all faces, if that is to be kept; computed by one process, read by all."""
        folder = self.inputs.trunk_outputs
        if folder is None or trunk is None or self.trunk_file is None or self.stage.distillation is None:
            return None
        digest = _digest(self.trunk_file)
        # For all networks of the recipe together: the trunk is asked once.
        distilled = [stage for stage in _to_train(self.recipe, self.inputs.trunk).values() if stage.distillation]
        stages = [coupling_stage(resolution) for stage in distilled for resolution in stage.resolutions]
        with self.fabric.rank_zero_first(local=True):
            outputs = trunk_outputs(trunk, digest, self.inputs.faces, stages, folder, self.fabric.device)
        return outputs[coupling_stage(self.resolution)]

    def _network(self, trunk: IResNet | None) -> IResNet:
        """Return the network as it starts: of the recipe's architecture, or of that of what it starts from or joins."""
        source = trunk if self.stage.start == "trunk" else self._previous()
        options = self.recipe.network
        if (like := trunk or source) is not None:
            options = replace(options, arch=like.arch, width=like.width, dim=like.dim)
        network = IResNet(options.arch, options.width, self.resolution, options.dim, options.dropout)
        if source is not None:
            start_from(network, source)
        if self.stage.fixed_trunk and trunk is not None:
            fix_trunk(network, trunk, self.stage.coupling_stage)
        return network

    def _previous(self) -> IResNet | None:
        if self.stage.start != "previous" or self.inputs.previous is None:
            return None
        return load_checkpoint(self.inputs.previous / str(self.resolution) / NETWORK, self.resolution)

    def _heads(self, network: IResNet) -> Heads:
        """Return the heads that the stage needs, the trunk's where they are frozen."""
        stage, faces = self.stage, self.inputs.faces
        classifier, projection = None, None
        if stage.classification is not None:
            options = stage.classification
            classifier = Classifier(
                options.loss, len(faces.classes), network.dim, margin=options.margin, scale=options.scale
            )
            if options.frozen:
                self._load_head(classifier, "classifier", self.inputs.classifier)
            else:
                self._continue_head(classifier, "classifier")
        dim = network.dim if self.inputs.targets is None else self.inputs.targets.shape[1]
        if stage.teacher is not None and stage.teacher.cosine and dim != network.dim:
            projection = nn.Linear(network.dim, dim, bias=False)
            if stage.teacher.frozen:
                self._load_head(projection, "projection", None)
            else:
                self._continue_head(projection, "projection")
        return Heads(classifier, projection)

    def _load_head(self, head: nn.Module, name: str, given: Path | None) -> None:
        path = given or (None if self.trunk_file is None else self.trunk_file.with_name(HEADS))
        if path is None or (given is None and not path.exists()):
            raise RecipeError(
                f"the trunk comes without the {name} that the stage freezes: give --trunk RUN/112"
                + (" or --classifier" if name == "classifier" else "")
            )
        weight, classes = _read_head(path, name)
        expected = tuple(head.get_parameter("weight").shape)
        if tuple(weight.shape) != expected:
            raise CheckpointError(
                f"{path} has {tuple(weight.shape)} as weight of the {name}, expected {expected} for these faces"
            )
        if name == "classifier" and classes is not None:
            for had, has in zip(classes, self.inputs.faces.classes, strict=False):
                if had != has:
                    raise CheckpointError(
                        f"{path} was trained on other identities than the faces given: where these have {has}, it has "
                        f"{had} (folders and files must have the names that they had)"
                    )
        head.load_state_dict({"weight": weight}, strict=False)

    def _continue_head(self, head: nn.Module, name: str) -> None:
        """Give a head what it had learned in the previous run, if the stage goes on from one and it still fits."""
        if self.stage.start != "previous" or self.inputs.previous is None:
            return
        path = self.inputs.previous / str(self.resolution) / HEADS
        tensors, facts = load_tensors(path) if path.exists() else ({}, {"classes": None})
        weight = tensors.get(f"{name}.weight")
        fits = weight is not None and weight.shape == head.get_parameter("weight").shape
        if name == "classifier":
            fits = fits and facts["classes"] == list(self.inputs.faces.classes)
        if fits:
            prefix = f"{name}."
            state = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
            head.load_state_dict(state, strict=False)
        logger.info("the %s %s", name, f"goes on from {path}" if fits else "starts anew")

    def _write(self, folder: Path, objective: Objective, facts: Mapping[str, Any]) -> None:
        network = objective.network
        save_tensors(folder / NETWORK, network.state_dict(), {})
        heads = {n: t for n, t in objective.state_dict().items() if not n.startswith("network.")}
        save_tensors(folder / HEADS, heads, {"classes": list(self.inputs.faces.classes)})
        cost = {"parameters": parameter_count(network), "gmacs": mac_count(network) / 1e9}
        kept = {key: value for key, value in facts.items() if key not in ("sums", "count")}
        write_json(folder / RESULT, {"resolution": self.resolution, **kept, **cost})


def _read_head(path: Path, name: str) -> tuple[Tensor, list[str] | None]:
    """Return the weight of a head, and the identities that it was trained on if the file is that of a run.

    Any other file must hold one matrix, (classes, dim), such as the "weight" that arcface_torch saves.
    """
    tensors = read_tensors(path, ("state_dict_softmax_fc",))
    if path.suffix == ".safetensors" and f"{name}.weight" in tensors:
        tensors, facts = load_tensors(path)
        return tensors[f"{name}.weight"], facts["classes"]
    matrices = [tensor for tensor in tensors.values() if tensor.ndim == 2]
    if len(matrices) != 1:
        raise CheckpointError(f"{path} holds {len(matrices)} matrices, expected one, the weight of the {name}")
    return matrices[0], None


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all. Raises OSError."""
    with whole_file(path) as append:
        append((json.dumps(data, indent=2) + "\n").encode())


def _file(path: Path, name: str) -> Path:
    """Return a file, or that of this name in a folder."""
    return path / name if path.is_dir() else path


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecipeError(f"{path} is damaged: {error}") from error


def _read_description(path: Path) -> dict[str, Any]:
    description = _read_json(path)
    if not isinstance(description, dict) or not isinstance(description.get("environments"), list):
        raise RecipeError(f"{path} was not written by btnet-train: it does not say in which environments")
    return description


def identity(recipe: Recipe, trunk: Path | None, classifier: Path | None, previous: Path | None) -> dict[str, Any]:
    """Return what run.json says of the files that a run starts from, as in `Inputs`: the SHA-256 of their content.

    Where they lie does not matter: a run may be moved. Raises OSError.
    """
    stages = _to_train(recipe, trunk).values()
    continued = {side for stage in stages if stage.start == "previous" for side in stage.resolutions}
    return {
        "trunk": trunk and _digest(_file(trunk, NETWORK)),
        "classifier": classifier and _digest(classifier),
        "previous": previous and {str(side): _digest(previous / str(side) / NETWORK) for side in sorted(continued)},
    }


def _digest(path: Path) -> str:
    return str(describe_file(path)["sha256"])


@contextmanager
def alone(fabric: Fabric, run: Path) -> Iterator[None]:
    """Make the folder of a run, and have it to these processes alone. Raises RecipeError where others train there."""

    def refuse() -> None:
        raise RecipeError(f"{run} is being trained by another process: wait for it, or give another --out")

    if not fabric.is_global_zero:
        yield
        return
    with locked(run / ".lock", refuse):  # not the folder itself, where targets and a trunk's outputs may be kept
        yield


@lost_processes()
def start_run(fabric: Fabric, run: Path, description: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
    """Write RUN/run.json, or check that the run that is there is the same one, if anything of it is trained yet.

    Raises RecipeError, OSError.
    """
    path = run / "run.json"
    plain = json.loads(json.dumps(description))
    environments = [environment]
    if path.exists() and any(any(run.glob(f"*/{name}")) for name in (STATE, RESULT)):
        before = _read_description(path)
        differing = [key for key in plain if before.get(key) != plain[key]]
        if differing:
            raise RecipeError(f"{run} is a run with another {', '.join(differing)}: give another --out")
        environments = [*before["environments"], environment]
    fabric.barrier()  # every process has read it, and refuses it alike
    if fabric.is_global_zero:
        write_json(path, {**plain, "environments": environments})
    fabric.barrier()


def write_model(
    run: Path,
    networks: Mapping[int, Path],
    name: str,
    license: str,  # noqa: A002 - the word of model.json
    description: Mapping[str, Any],
) -> Path:
    """Write the networks of a run as RUN/NAME.btnet, and return its path."""
    from btnet_train.export import write_bundle

    loaded = {resolution: load_checkpoint(path, resolution) for resolution, path in networks.items()}
    results = {
        str(resolution): _read_json(path.with_name(RESULT))
        for resolution, path in networks.items()
        if path.name == NETWORK and path.with_name(RESULT).exists()  # not what lies beside a trunk from elsewhere
    }
    training = {"recipe": description["recipe"], "faces": description["faces"], "results": results}
    return write_bundle(run / f"{name}.btnet", loaded, name=name, license=license, training=training, overwrite=True)
