"""The subcommands of btnet that are about bundles."""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from btnet_ext.cli_shared import COMMAND, find_all, quieten_pillow, readable
from btnet_ext.commands import progress_bar
from btnet_ext.errors import BackendUnavailable, BtnetError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from btnet_ext.bundle import Bundle

_FEW = 100
"""Faces to calibrate with, below which the command warns: the comparison at its end is with the same ones."""


def info(
    model: Annotated[str, typer.Argument(metavar="BUNDLE", help="Name of a model, or path of a bundle.")],
    verify: Annotated[bool, typer.Option("--verify", help="Check the SHA-256 of every file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a bundle holds and what its model was trained on."""
    from btnet_ext.bundle import Bundle
    from btnet_ext.models import locate

    bundle = Bundle.open(locate(model))
    if verify:
        bundle.verify()
    description = _describe(bundle) | ({"verified": True} if verify else {})
    if as_json:
        typer.echo(json.dumps(description, indent=2))
        return
    description["thresholds"] = _in_short(description["thresholds"])
    for name, value in description.items():
        typer.echo(f"{name:<12}{_as_text(value)}")


def _describe(bundle: Bundle) -> dict[str, Any]:
    metadata = bundle.metadata
    files = bundle.path / "model.json", *(bundle.path / name for name in metadata["files"])
    return {
        "name": bundle.name,
        "path": str(bundle.path),
        "arch": bundle.arch,
        "width": bundle.width,
        "dim": bundle.dim,
        "resolutions": list(bundle.resolutions),
        "precisions": list(bundle.precisions),
        "input": metadata["input"],
        "selection": metadata["selection"],
        "license": bundle.license,
        "digest": bundle.digest,
        "bytes": sum(file.stat().st_size for file in files),
        "thresholds": metadata.get("thresholds", {}),
        "training": metadata.get("training", {}),
    }


def _in_short(thresholds: dict[str, Any]) -> str:
    """What there are thresholds for; of several hundred numbers, --json shows each."""
    by_far = thresholds.get("far", {})
    sizes = {size for pairs in by_far.values() for pair in pairs for size in map(int, pair.split("&"))}
    if not sizes:
        return "none"
    return f"for {', '.join(map(str, sorted(sizes)))} px, at false-accept rates of {', '.join(by_far)}"


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_as_text, value))
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_as_text(below)}" for name, below in value.items()) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def quantize(
    model: Annotated[str, typer.Argument(metavar="BUNDLE", help="Name of a model, or path of a bundle.")],
    calibrate: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder or archive (.zip) of aligned faces like those to come.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the new bundle goes. [default: in the place of the old]")
    ] = None,
    faces: Annotated[int, typer.Option(min=1, help="How many faces to use at most, spread over the folder.")] = 300,
    least_cosine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="R=C",
            help="Least mean cosine to the embeddings in float32 at a resolution; may be repeated. "
            "[default: 0.99, below 28 px 0.98]",
        ),
    ] = None,
) -> None:
    """Add 8-bit graphs to a bundle, for the precision int8, and measure how far they are from those in float32.

    Layers are kept in float32 until the mean cosine is high enough; where it never is, nothing is written.
    """
    limits = dict(map(_parse_limit, least_cosine or []))
    quieten_pillow()
    from btnet_ext.bundle import Bundle
    from btnet_ext.models import check_own, locate
    from btnet_ext.sources import decode_all

    try:
        from btnet_ext.quantize import quantize as quantize_bundle
    except ModuleNotFoundError as error:
        raise BackendUnavailable(f"bundles cannot be quantised ({error}): pip install 'btnet-ext[quantize]'") from error
    bundle = Bundle.open(locate(model))
    if out is None:
        check_own(bundle.path, "give --out")
    with ExitStack() as stack, progress_bar() as progress:
        sources = find_all([calibrate], stack)
        count = min(faces, len(sources))
        sources = [sources[index * len(sources) // count] for index in range(count)]
        reading = progress.add_task("reading", total=len(sources))
        pixels = [image for _, image in readable(decode_all(sources), progress, reading)]
        if not pixels:
            raise BtnetError(f"none of {len(sources)} images in {calibrate} can be read")
        if len(pixels) < _FEW:
            COMMAND.complain(f"warning: calibrated with {len(pixels)} faces, where {_FEW} or more make better graphs")
        tasks = {side: progress.add_task(f"calibrating {side}", total=1.0) for side in reversed(bundle.resolutions)}
        found = quantize_bundle(
            bundle,
            pixels,
            out,
            least_cosine=limits,
            progress=lambda side, done: _show_part(progress, tasks[side], done),
        )
    for side, agreement in found.items():
        kept = f"; in float32: {', '.join(agreement.kept)}" if agreement.kept else ""
        typer.echo(f"{side}: cosine {agreement.mean:.4f}, at least {agreement.lowest:.4f}{kept}")
    typer.echo(f"{out or bundle.path}: calibrated with {len(pixels)} faces")


def _parse_limit(text: str) -> tuple[int, float]:
    resolution, _, cosine = text.partition("=")
    try:
        return int(resolution), float(cosine)
    except ValueError:
        raise typer.BadParameter(f"--least-cosine must be like 112=0.99, got {text!r}") from None


def build(
    model: Annotated[str, typer.Argument(metavar="BUNDLE", help="Name of a model, or path of a bundle.")],
    precision: Annotated[str, typer.Option(help="f32, f16 or int8.")] = "f16",
    batch: Annotated[
        str, typer.Option(metavar="MIN:OPT:MAX", help="Sizes of batches: least, the one to be fast for, most.")
    ] = "1:32:256",
    resolution: Annotated[
        list[int] | None, typer.Option(metavar="R", help="Branch to build; may be repeated. [default: all]")
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="cuda or cuda:N for a GPU of this machine; without one, ampere+ for all RTX cards from Ampere on, or "
            "sm75 for Turing; auto for cuda where that can be, else ampere+."
        ),
    ] = "auto",
) -> None:
    """Build TensorRT engines into the cache, ahead of their first use. For RTX cards, this needs no GPU."""
    from btnet_ext.bundle import Bundle
    from btnet_ext.cuda import builder_for
    from btnet_ext.models import locate
    from btnet_ext.tensorrt import plan_key, prepare_plan
    from btnet_ext.trt_plans import Batches

    bundle = Bundle.open(locate(model))
    batches = Batches.parse(batch)
    with builder_for(target) as (library, built_for), progress_bar() as progress:
        for side in resolution or bundle.resolutions:
            key = plan_key(library, bundle, side, target=built_for, precision=precision, batches=batches)
            show = partial(_show_part, progress, progress.add_task(f"building {side} for {built_for}", total=1.0))
            typer.echo(f"{side}: {prepare_plan(library, bundle, key, show)}")


def _show_part(progress: Progress, task: TaskID, done: float) -> None:
    progress.update(task, completed=done)


def models() -> None:
    """List the models that can be named, and where they are looked for."""
    from btnet_ext import models as known

    for name in known.list():
        typer.echo(f"{name}  {known.path(name)}")
    typer.echo("looked for in")
    for folder in known.folders():
        typer.echo(f"  {folder}{'' if folder.is_dir() else '  (not there)'}")
