"""The subcommands of btnet-train that train: fit, and recipes."""

import json
import logging
import math
import platform
import sys
import time
from dataclasses import replace
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from btnet_ext.commands import HALF, Color, three_numbers
from btnet_train.errors import Interrupted, lost_processes

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from btnet_eval.onnx_network import FaceNetwork
    from btnet_train.recipes import Recipe
    from btnet_train.sources import Faces


class Precision(str, Enum):
    """In what networks are computed during training; weights are always float32."""

    f32 = "32-true"
    bf16 = "bf16-mixed"


_LIBRARIES = (
    "torch",
    "lightning-fabric",
    "pytorch-metric-learning",
    "pytorch-optimizer",
    "btnet-ext",
    "numpy",
    "pillow",
    "openvino",
)


def recipes(name: Annotated[str | None, typer.Argument(help="Show this one in full, as JSON.")] = None) -> None:
    """List the recipes that come with btnet-train, or show one with everything that it inherits."""
    from btnet_train import recipes

    if name is not None:
        typer.echo(json.dumps(recipes.load(name).to_dict(), indent=2))
        return
    for known in recipes.names():
        typer.echo(f"{known:22}{recipes.load(known).description}")


def fit(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe (btnet-train recipes), or a .toml file.")],
    out: Annotated[Path, typer.Option(help="Folder of the run. One that exists is gone on with.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="Faces with identities: a folder ID/IMAGE, a zip or a .rec."),
    ] = None,
    unlabeled: Annotated[
        list[Path] | None, typer.Option(metavar="PATH", help="Faces without identities: a folder, a zip or a .rec.")
    ] = None,
    shared_identities: Annotated[
        bool, typer.Option("--shared-identities", help="Equal names in two --data are one person.")
    ] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe.")
    ] = None,
    trunk: Annotated[Path | None, typer.Option(help="Given trunk: a checkpoint, or the folder RUN/112.")] = None,
    classifier: Annotated[Path | None, typer.Option(help="The given trunk's classifier, (classes, dim).")] = None,
    previous: Annotated[Path | None, typer.Option(help="Folder of the run that fine-tuning starts from.")] = None,
    teacher: Annotated[Path | None, typer.Option(help="ONNX face model to distil; input (N, 3, 112, 112).")] = None,
    teacher_mean: Annotated[str, typer.Option(help="Of its input, in units of 0 to 255.")] = HALF,
    teacher_std: Annotated[str, typer.Option(help="Of its input, in units of 0 to 255.")] = HALF,
    teacher_color: Annotated[Color, typer.Option(help="Order of its channels.")] = Color.rgb,
    targets: Annotated[Path | None, typer.Option(help="Folder for the teacher's embeddings (default: OUT).")] = None,
    trunk_outputs: Annotated[
        Path | None,
        typer.Option(
            help="Folder in which to keep the frozen trunk's maps and embeddings of all faces, in place of computing "
            "them in each pass. Takes 0.7 MB a face for branches for 28, 14 and 7 px at width 1.",
        ),
    ] = None,
    held_out: Annotated[int, typer.Option(min=0, help="Identities kept from training to measure accuracy on.")] = 0,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Of weights, order of images, flips and resolutions.")
    ] = 0,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="How many of them, a process each.")] = 1,
    precision: Annotated[
        Precision, typer.Option(help="bf16-mixed is faster where the device has it; a run may go on in the other.")
    ] = Precision.f32,
    micro_batches: Annotated[
        int | None, typer.Option(min=1, help="Equal parts of a batch that follow one another (default: one a device).")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes a device that decode images.")] = 2,
    compile: Annotated[bool, typer.Option("--compile", help="Use torch.compile.")] = False,  # noqa: A002
    save_minutes: Annotated[float, typer.Option(min=0, help="Between checkpoints.")] = 5.0,
    stop_after: Annotated[
        float,
        typer.Option(
            min=0,
            help="Minutes after which the run saves its state and stops, at the next step: what teacher and trunk give "
            "for the faces is computed before.",
        ),
    ] = math.inf,
    name: Annotated[str | None, typer.Option(help="Name of the bundle (default: that of OUT).")] = None,
    license: Annotated[str, typer.Option(help="Licence of the weights in the bundle.")] = "unknown",  # noqa: A002
) -> None:
    """Train the networks of a recipe on faces aligned to the ArcFace template, and write a bundle.

    'btnet-train --help' has a command for each use: branches for a trunk that you have, training as in the paper,
    distillation, fine-tuning.

    RECIPES are TOML files; 'btnet-train recipes' lists those that come along, 'btnet-train recipes NAME' shows one. One
    of your own may begin with base = "btnet" and change some keys; --set stages.trunk.schedule.epochs=5 changes one.

    FACES are square crops of any size. --data and --unlabeled may be given more than once. All are resampled as the
    engine does it.

    INTERRUPTIONS, by Ctrl-C, --stop-after or a power cut, do no harm: the same command goes on, and ends with the same
    weights. --save-minutes says how much a power cut may cost.

    FILES: RUN/run.json says with what the run was made. Each network has a folder RUN/R with its state, losses.csv,
    losses.png, TensorBoard logs and, at the end, network.safetensors. RUN/NAME.btnet is for the engine.

    More is in docs/training.md.
    """
    started = time.monotonic()
    logging.basicConfig(level=logging.INFO, format="btnet-train: %(message)s", stream=sys.stderr)
    from btnet_train import recipes
    from btnet_train.fit import fit as carry_out
    from btnet_train.inputs import Inputs, check_inputs, check_parts, identity
    from btnet_train.run_folder import alone, start_run, write_model
    from btnet_train.trainer import Execution

    if teacher is None and (targets, teacher_mean, teacher_std, teacher_color) != (None, HALF, HALF, Color.rgb):
        raise typer.BadParameter("--targets and --teacher-mean, -std and -color are for a --teacher: give it, too")
    plan = recipes.load(recipe, dict(map(_parse_change, changes or [])))
    faces, kept = _open_faces(data or [], unlabeled or [], shared_identities, held_out)
    inputs = Inputs(faces, trunk, classifier, previous, trunk_outputs=trunk_outputs)
    check_inputs(plan, inputs, teacher is not None)
    check_parts(plan, inputs, micro_batches, devices)
    fabric = _start_fabric(accelerator, devices, precision)
    model = None
    if teacher is not None:
        from btnet_eval.onnx_network import FaceNetwork, Preprocessing

        mean, std = three_numbers("--teacher-mean", teacher_mean), three_numbers("--teacher-std", teacher_std)
        model = FaceNetwork(teacher, Preprocessing(mean, std, teacher_color.value))
    description = {
        "recipe": plan.to_dict(),
        "faces": faces.digest,
        "teacher": model and model.digest,
        **identity(plan, trunk, classifier, previous),
        "seed": seed,
        "held_out": held_out,
    }
    execution = Execution(
        micro_batches=micro_batches,
        workers=workers,
        save_minutes=save_minutes,
        stop_at=started + 60 * stop_after,
        compile=compile,
    )
    try:
        with alone(fabric, out):
            start_run(fabric, out, description, _environment(fabric, precision))
            inputs = replace(inputs, validate=_validation(fabric, kept, plan))
            inputs = replace(inputs, targets=_targets(fabric, model, faces, targets or out))
            networks = carry_out(fabric, plan, out, inputs, execution, seed)
    except Interrupted:
        if fabric.is_global_zero:
            raise
        return  # in silence and without a failure, for which Lightning would kill the first process as it ends
    if fabric.is_global_zero and 112 in networks:
        bundle = write_model(out, networks, name or out.resolve().name, license, description)
        typer.echo(f"{bundle}: resolutions {', '.join(map(str, sorted(networks)))}")


def _parse_change(text: str) -> tuple[str, Any]:
    """Key and value of a --set."""
    from btnet_train import recipes

    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"--set must be KEY=VALUE, such as network.width=0.25, got {text!r}")
    return key, recipes.parse_value(value)


def _open_faces(data: list[Path], unlabeled: list[Path], shared: bool, held_out: int) -> "tuple[Faces, Faces | None]":
    """Faces to train on, and those of the identities that are held out."""
    from btnet_train.sources import Faces
    from btnet_train.validation import choose_identities

    faces = Faces(data, unlabeled, shared_identities=shared)
    if not held_out:
        return faces, None
    chosen = choose_identities(faces, held_out)
    return faces.without(chosen), faces.only(chosen)


def _start_fabric(accelerator: str, devices: int, precision: Precision) -> "Fabric":
    """Start a process for each device. Raises ValueError for devices that are not there."""
    from lightning_fabric import Fabric
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, precision=precision.value)
    except (RuntimeError, MisconfigurationException) as error:
        raise ValueError(f"--accelerator {accelerator} --devices {devices} cannot be used: {error}") from error
    fabric.launch()
    if not fabric.is_global_zero:
        logging.getLogger().setLevel(logging.WARNING)  # what all have to say is said once
    return fabric


@lost_processes()
def _targets(fabric: "Fabric", teacher: "FaceNetwork | None", faces: "Faces", folder: Path) -> Any:
    """The teacher's embeddings of all faces; computed by one process, read by all."""
    if teacher is None:
        return None
    from btnet_train.teacher import teacher_targets

    with fabric.rank_zero_first(local=True):
        return teacher_targets(teacher, faces, folder)


def _validation(fabric: "Fabric", faces: "Faces | None", plan: "Recipe") -> Any:
    """The measurement on held-out faces, or None."""
    if faces is None:
        return None
    from btnet_train.networks import IResNet
    from btnet_train.validation import HeldOut

    measured = HeldOut(faces, fabric)
    trained = {side for stage in plan.stages.values() for side in stage.resolutions if side != 112}
    sides = sorted(trained or {7, 14, 28}, reverse=True)

    def validate(network: IResNet, trunk: IResNet | None) -> Any:
        return measured.measure(network, trunk, sides)

    return validate


def _environment(fabric: "Fabric", precision: Precision) -> dict[str, Any]:
    """What a run may go on with although it was begun otherwise, on another machine: for run.json."""
    return {
        "command": sys.argv[1:],
        "versions": {name: version(name) for name in _LIBRARIES} | {"python": platform.python_version()},
        "machine": platform.platform(),
        "device": str(fabric.device),
        "precision": precision.value,
        "processes": fabric.world_size,
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
