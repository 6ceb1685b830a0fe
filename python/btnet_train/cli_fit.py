"""The subcommands of btnet-train that train: fit, and recipes."""

import json
import logging
import math
import platform
import sys
import time
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from btnet_train.recipes import Recipe
    from btnet_train.sources import Faces


class Precision(str, Enum):
    """In what networks are computed during training; weights are always float32."""

    f32 = "32-true"
    bf16 = "bf16-mixed"


class Color(str, Enum):
    """Order of a teacher's channels."""

    rgb = "rgb"
    bgr = "bgr"


_LIBRARIES = ("torch", "lightning-fabric", "pytorch-metric-learning", "btnet-ext", "numpy", "pillow", "openvino")


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
        list[Path] | None, typer.Option(help="Faces with identities: a folder ID/IMAGE, a zip of one, or a .rec.")
    ] = None,
    unlabeled: Annotated[
        list[Path] | None, typer.Option(help="Faces without identities: a folder, a zip or a .rec.")
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
    teacher_mean: Annotated[str, typer.Option(help="Of its input, in units of 0 to 255.")] = "127.5,127.5,127.5",
    teacher_std: Annotated[str, typer.Option(help="Of its input, in units of 0 to 255.")] = "127.5,127.5,127.5",
    teacher_color: Annotated[Color, typer.Option(help="Order of its channels.")] = Color.rgb,
    targets: Annotated[Path | None, typer.Option(help="Folder for the teacher's embeddings (default: OUT).")] = None,
    held_out: Annotated[int, typer.Option(help="Identities kept from training to measure accuracy on.")] = 0,
    seed: Annotated[int, typer.Option(help="Of weights, order of images, flips and resolutions.")] = 0,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="How many of them, a process each.")] = 1,
    precision: Annotated[Precision, typer.Option(help="bf16-mixed is faster where the device has it.")] = Precision.f32,
    micro_batches: Annotated[
        int | None, typer.Option(help="Equal parts of a batch that follow one another (default: one a device).")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes a device that decode images.")] = 2,
    compile: Annotated[bool, typer.Option("--compile", help="Use torch.compile.")] = False,  # noqa: A002
    save_minutes: Annotated[float, typer.Option(help="Between checkpoints.")] = 5.0,
    stop_after: Annotated[float, typer.Option(help="Minutes until the run saves its state and stops.")] = math.inf,
    name: Annotated[str | None, typer.Option(help="Name of the bundle (default: that of OUT).")] = None,
    license: Annotated[str, typer.Option(help="Licence of the weights in the bundle.")] = "unknown",  # noqa: A002
) -> None:
    """Train the networks of a recipe on faces aligned to the ArcFace template, and write a bundle.

    Add branches to a trunk that you have, without touching its 112 px embeddings:

      btnet-train fit own_trunk --trunk r50.pt --data faces/ --out run

    Train a trunk and its branches as in the paper, on eight GPUs:

      btnet-train fit btnet --data train.rec --out run --devices 8 --precision bf16-mixed

    A run that was interrupted, by Ctrl-C, by --stop-after or by a power cut, is resumed by the same command, and
    ends with the same weights. RUN/run.json says with what it was made; each network has a folder RUN/R with its
    state, losses.csv, losses.png, TensorBoard logs and, at the end, network.safetensors.
    """
    started = time.monotonic()
    logging.basicConfig(level=logging.INFO, format="btnet-train: %(message)s", stream=sys.stderr)
    from lightning_fabric import Fabric

    from btnet_train import recipes
    from btnet_train.fit import Inputs, start_run, write_model
    from btnet_train.fit import fit as carry_out
    from btnet_train.trainer import Execution

    plan = recipes.load(recipe, dict(map(_parse_change, changes or [])))
    faces, kept = _open_faces(data or [], unlabeled or [], shared_identities, held_out)
    fabric = Fabric(accelerator=accelerator, devices=devices, precision=precision.value)
    fabric.launch()
    description = {
        "recipe": plan.to_dict(),
        "faces": faces.digest,
        "teacher": teacher and teacher.name,
        "trunk": trunk and str(trunk),
        "seed": seed,
        "held_out": held_out,
    }
    start_run(fabric, out, description, _environment(fabric))
    teaching = {"mean": _numbers(teacher_mean), "std": _numbers(teacher_std), "color": teacher_color.value}
    inputs = Inputs(
        faces,
        trunk,
        classifier,
        previous,
        targets=_targets(fabric, teacher, teaching, faces, targets or out),
        validate=_validation(fabric, kept, plan),
    )
    execution = Execution(
        micro_batches=micro_batches,
        workers=workers,
        save_minutes=save_minutes,
        stop_at=started + 60 * stop_after,
        compile=compile,
    )
    networks = carry_out(fabric, plan, out, inputs, execution, seed)
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


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"mean and std of a teacher must be numbers with commas, got {text!r}") from None


def _open_faces(data: list[Path], unlabeled: list[Path], shared: bool, held_out: int) -> "tuple[Faces, Faces | None]":
    """Faces to train on, and those of the identities that are held out, from the first --data alone."""
    from btnet_train.sources import Faces
    from btnet_train.validation import choose_identities

    faces = Faces(data, unlabeled, shared_identities=shared)
    if not held_out:
        return faces, None
    labeled = faces.labels >= 0
    elsewhere = set(faces.labels[labeled & (faces.source_numbers > 0)].tolist())
    candidates = [name for number, name in enumerate(faces.classes) if number not in elsewhere]
    chosen = choose_identities(candidates, held_out)
    return faces.without(chosen), faces.only(chosen)


def _targets(fabric: "Fabric", teacher: Path | None, options: dict[str, Any], faces: "Faces", folder: Path) -> Any:
    """The teacher's embeddings of all faces; computed by one process, read by all."""
    if teacher is None:
        return None
    from btnet_train.teacher import Teacher, teacher_targets

    model = Teacher(teacher, **options)
    with fabric.rank_zero_first(local=True):
        return teacher_targets(model, faces, folder)


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


def _environment(fabric: "Fabric") -> dict[str, Any]:
    """Versions, machine and command line, for run.json."""
    return {
        "command": sys.argv[1:],
        "versions": {name: version(name) for name in _LIBRARIES} | {"python": platform.python_version()},
        "machine": platform.platform(),
        "device": str(fabric.device),
        "processes": fabric.world_size,
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
