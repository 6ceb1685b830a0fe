"""Carries out a recipe: trains the networks of its stages one after the other, each in a folder of its own."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from btnet_train.accounting import mac_count, parameter_count
from btnet_train.branches import fix_trunk, start_from
from btnet_train.checkpoint import CheckpointError, load_checkpoint, read_tensors
from btnet_train.errors import lost_processes
from btnet_train.inputs import Inputs, check_inputs, to_train
from btnet_train.losses import Classifier
from btnet_train.networks import IResNet
from btnet_train.objective import Heads, Objective
from btnet_train.recipes import Recipe, RecipeError, Stage
from btnet_train.run_folder import HEADS, NETWORK, RESULT, digest_of, file_in, write_json
from btnet_train.run_state import load_tensors, save_tensors
from btnet_train.topology import CANONICAL, coupling_stage
from btnet_train.trainer import Execution, Training
from btnet_train.trunk_outputs import TrunkOutputs, trunk_outputs

logger = logging.getLogger(__name__)


@lost_processes()
def fit(fabric: Fabric, recipe: Recipe, run: Path, inputs: Inputs, execution: Execution, seed: int) -> dict[int, Path]:
    """Train what is not trained yet, and return the files of the networks by resolution.

    The trunk is among them, where there is one. Raises RecipeError for inputs that the recipe lacks,
    CheckpointError, TrainingError, Interrupted, DataError, OSError.
    """
    check_inputs(recipe, inputs, inputs.targets is not None)
    networks = {} if inputs.trunk is None else {CANONICAL: file_in(inputs.trunk, NETWORK)}
    for name, stage in to_train(recipe, inputs.trunk).items():
        for resolution in stage.resolutions:
            folder = run / str(resolution)
            if not (folder / RESULT).exists():
                logger.info("stage %s: training the network of %d px in %s", name, resolution, folder)
                trunk = networks.get(CANONICAL)
                job = _Job(fabric, recipe, stage, resolution, trunk, inputs, seed)
                job.train(folder, execution)
            networks[resolution] = folder / NETWORK
    return networks


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
        digest = digest_of(self.trunk_file)
        # For all networks of the recipe together: the trunk is asked once.
        distilled = [stage for stage in to_train(self.recipe, self.inputs.trunk).values() if stage.distillation]
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
