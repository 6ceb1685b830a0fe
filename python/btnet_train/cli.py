"""The command btnet-train. PyTorch and ONNX are imported only when a subcommand needs them."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from btnet_ext.commands import Command
from btnet_train.cli_fit import fit, recipes
from btnet_train.errors import Interrupted, TrainingError

if TYPE_CHECKING:
    from btnet_train.networks import IResNet

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

EXTRA = {"lightning_fabric", "matplotlib", "onnx", "pydantic", "pytorch_metric_learning", "pytorch_optimizer"}
EXTRA |= {"safetensors", "tensorboard", "tomli", "torch", "tqdm"}
"""Modules that come with the extra "train"."""


class Storage(str, Enum):
    """How `export` stores the large weights."""

    f32 = "f32"
    f16 = "f16"


@app.callback()
def _group() -> None:
    """Train BTNet models, and make bundles of them for the engine.

    ADD BRANCHES TO A TRUNK THAT YOU HAVE, without touching its 112 px embeddings; identities are not needed:

    \b
      btnet-train fit own_trunk --trunk r50.pt --data faces/ --out run

    TRAIN A TRUNK AND ITS BRANCHES as in the paper, on eight GPUs:

    \b
      btnet-train fit btnet --data train.rec --out run \\
        --devices 8 --precision bf16-mixed

    LEARN FROM ANOTHER MODEL, any in ONNX:

    \b
      btnet-train fit distil --teacher model.onnx --unlabeled faces/ --out run

    FINE-TUNE on other people:

    \b
      btnet-train fit finetune --previous run --data other/ --out run2

    'btnet-train fit --help' says what recipes, faces and files are; 'btnet-train export' makes a bundle of checkpoints
    that other programs wrote.
    """  # noqa: D301 - the character \b tells Click not to rewrap


app.command(short_help="Train a recipe, or go on with it.")(fit)
app.command(short_help="List or show the recipes.")(recipes)


@app.command(short_help="Write a bundle from checkpoints.")
def export(
    out: Annotated[Path, typer.Argument(help="Directory to write, NAME.btnet.")],
    trunk: Annotated[Path | None, typer.Option(help="Checkpoint of the trunk: .pt, .pth, .safetensors.")] = None,
    branch: Annotated[
        list[str] | None, typer.Option(metavar="R=FILE", help="Checkpoint of the branch for resolution R.")
    ] = None,
    random: Annotated[bool, typer.Option("--random", help="Seeded random weights, no checkpoints.")] = False,
    arch: Annotated[str | None, typer.Option(help="With --random: res18, res34, res50 (default) or res100.")] = None,
    width: Annotated[
        float | None, typer.Option(help="With --random: multiplies the channels 64 to 512 (default 1).")
    ] = None,
    dim: Annotated[int | None, typer.Option(help="With --random: length of the embedding (default 512).")] = None,
    resolutions: Annotated[
        str | None, typer.Option(help="With --random: 112 and those of branches (default 7,14,28,112).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="With --random: which weights (default 0).")] = None,
    name: Annotated[str | None, typer.Option(help="Name in model.json (default: OUT without .btnet).")] = None,
    license: Annotated[  # noqa: A002 - the word of model.json
        str, typer.Option(help="Licence of the weights, as an SPDX identifier.")
    ] = "unknown",
    storage: Annotated[
        Storage, typer.Option(help="f16 stores the large weights in half precision; all is computed in f32.")
    ] = Storage.f32,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is a bundle.")] = False,
) -> None:
    """Write a bundle from the checkpoints of a trunk and its branches, or one with random weights."""
    options = {"arch": arch, "width": width, "dim": dim, "resolutions": resolutions, "seed": seed}
    given: dict[str, Any] = {option: value for option, value in options.items() if value is not None}
    _check_usage(random, trunk, branch, given)
    files = {112: trunk, **_parse_branches(branch or [])} if trunk else {}
    from btnet_train.export import check_target, write_bundle

    check_target(out, overwrite)
    training: dict[str, Any]
    if random:
        networks = _random_networks(**given)
        training = {"method": "none: random weights", "seed": given.get("seed", 0)}
    else:
        networks = _load_networks(files)
        training = {"checkpoints": {str(resolution): file.name for resolution, file in files.items()}}
    name = name or out.name.removesuffix(".btnet")
    write_bundle(
        out, networks, name=name, license=license, training=training, storage=storage.value, overwrite=overwrite
    )
    typer.echo(f"{out}: {networks[112].arch}, resolutions {', '.join(map(str, sorted(networks)))}")


def _check_usage(random: bool, trunk: Path | None, branch: list[str] | None, given: dict[str, Any]) -> None:
    if random and (trunk or branch):
        raise typer.BadParameter("--random takes neither --trunk nor --branch")
    if not random and not trunk:
        raise typer.BadParameter("give --trunk FILE, with --branch R=FILE for each branch, or --random")
    if not random and given:
        raise typer.BadParameter(f"--{next(iter(given))} goes with --random; checkpoints say it themselves")


def _random_networks(resolutions: str = "7,14,28,112", **options: Any) -> "dict[int, IResNet]":
    from btnet_train.random_weights import random_networks

    try:
        sides = [int(side) for side in resolutions.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--resolutions must be numbers with commas, got {resolutions!r}") from None
    return random_networks(resolutions=sides, **options)


def _parse_branches(branches: list[str]) -> dict[int, Path]:
    """Checkpoints by resolution, from "28=FILE"."""
    files: dict[int, Path] = {}
    for branch in branches:
        side, _, file = branch.partition("=")
        if not side.isdecimal() or not file:
            raise typer.BadParameter(f"--branch must be R=FILE, such as 28=model.pt, got {branch!r}")
        if int(side) == 112 or int(side) in files:
            raise typer.BadParameter(f"resolution {int(side)} is given twice; 112 is the trunk's")
        files[int(side)] = Path(file)
    return files


def _load_networks(files: dict[int, Path]) -> "dict[int, IResNet]":
    from btnet_train.checkpoint import load_checkpoint

    return {resolution: load_checkpoint(file, resolution) for resolution, file in files.items()}


def main() -> None:
    """Run the command."""
    errors = ValueError, OSError, TrainingError
    Command(app, "btnet-train", errors, extra=("train", EXTRA), stopped=(Interrupted,)).run()


if __name__ == "__main__":
    main()
