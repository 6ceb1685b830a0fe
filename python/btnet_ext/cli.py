"""The command btnet. NumPy, Pillow and OpenVINO are imported only by the subcommands that need them."""

from __future__ import annotations

import json
import logging
import uuid
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from btnet_ext.commands import Command, progress_bar
from btnet_ext.errors import BtnetError, InvalidImage

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from btnet_ext.bundle import Bundle
    from btnet_ext.engine import Engine
    from btnet_ext.images import Pixels
    from btnet_ext.sources import Source

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_COMMAND = Command(app, "btnet", (BtnetError, OSError, ImportError))

_BATCH_BYTES = 2**28  # of pixels: keeps a batch of large photographs, given by mistake, within memory


def _show_version(wanted: bool) -> None:
    if wanted:
        from btnet_ext import __version__

        typer.echo(f"btnet {__version__}")
        raise typer.Exit


@app.callback()
def _group(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Embed faces of any resolution into one metric space."""


@app.command()
def embed(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Images, folders, and archives (.zip).")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.npz", help="Where the results go.")],
    model: Annotated[str, typer.Option(help="Name of a model, or path of a bundle.")] = "res50",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "cpu",
    precision: Annotated[str, typer.Option(help="f32, bf16 or int8; on a GPU f32, f16 or int8.")] = "f32",
    hint: Annotated[str, typer.Option(help="throughput or latency.")] = "throughput",
    threads: Annotated[int | None, typer.Option(min=1, help="[default: as many as cores]")] = None,
    resolutions: Annotated[
        str | None, typer.Option(metavar="R,R", help="Branches to select from. [default: all]")
    ] = None,
    indicator: Annotated[str | None, typer.Option(help="max, min or avg. [default: the model's]")] = None,
    rounding: Annotated[str | None, typer.Option(help="floor, near or ceil. [default: the model's]")] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Add the embedding of the mirror image.")] = False,
    normalize: Annotated[bool, typer.Option(help="Scale each embedding to length 1.")] = True,
    batch_size: Annotated[int, typer.Option(min=1, help="Images to embed at a time.")] = 256,
) -> None:
    """Embed face crops, and write embeddings, paths and the resolutions they went to into FILE.npz.

    Folders are searched at any depth. In folders and archives only what looks like an image by its name is read.
    An image that cannot be read is named and the others are embedded; the exit code is then 1.
    """
    if out.suffix != ".npz":
        raise typer.BadParameter(f"--out must end in .npz, got {str(out)!r}")
    branches = None if resolutions is None else _parse_resolutions(resolutions)
    _quieten_pillow()
    with ExitStack() as stack:
        sources = _find_all(paths, stack)
        file = stack.enter_context(_new_file(out))
        from btnet_ext.engine import Engine

        engine = Engine(
            model,
            device=device,
            precision=precision,
            hint=hint,
            threads=threads,
            resolutions=branches,
            indicator=indicator,
            rounding=rounding,
        )
        count = _embed_into(file, engine, sources, batch_size, {"flip": flip, "normalize": normalize})
    typer.echo(f"{out}: {count} of {len(sources)} images embedded")
    if count < len(sources):
        raise typer.Exit(1)


def _quieten_pillow() -> None:
    """Keep Pillow's remarks on odd metadata off stderr; pixels that it cannot read are errors in any case."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)


def _parse_resolutions(text: str) -> list[int]:
    try:
        return [int(resolution) for resolution in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--resolutions must be numbers with commas, got {text!r}") from None


def _find_all(paths: list[Path], open_archives: ExitStack) -> list[Source]:
    """List the images at all paths. Raises OSError for a path that cannot be opened, BtnetError where none has any."""
    from btnet_ext.sources import SUFFIXES, find_images

    found = {path: find_images(path, open_archives) for path in paths}
    empty = [str(path) for path in paths if not found[path]]
    if len(empty) == len(paths):
        raise BtnetError(f"no images in {', '.join(empty)}: expected files ending in {', '.join(sorted(SUFFIXES))}")
    for path in empty:
        _COMMAND.complain(f"warning: no images in {path}")
    return [source for path in paths for source in found[path]]


def _embed_into(
    file: BinaryIO, engine: Engine, sources: list[Source], batch_size: int, options: dict[str, bool]
) -> int:
    """Embed what can be read of `sources` and write it to `file`, .npz. Return how many images that were."""
    import numpy as np

    from btnet_ext.sources import decode_all

    embeddings = np.empty((len(sources), engine.dim), np.float32)
    resolutions = np.empty(len(sources), np.int32)
    names: list[str] = []
    with progress_bar() as progress:
        task = progress.add_task("embedding", total=len(sources))
        for batch in _batches(_readable(decode_all(sources), progress, task), batch_size):
            pixels = [image for _, image in batch]
            rows = slice(len(names), len(names) + len(batch))
            embeddings[rows] = engine.embed(pixels, **options)
            resolutions[rows] = engine.select(pixels)
            names += [name for name, _ in batch]
            progress.advance(task, len(batch))
    if not names:
        raise BtnetError(f"none of {len(sources)} images can be read")
    np.savez(
        file,
        embeddings=embeddings[: len(names)],
        paths=np.array(names),
        resolutions=resolutions[: len(names)],
        model=engine.bundle.name,
        digest=engine.bundle.digest,
    )
    return len(names)


def _readable(
    images: Iterable[tuple[Source, Pixels | InvalidImage]], progress: Progress, task: TaskID
) -> Iterator[tuple[str, Pixels]]:
    """Yield names and pixels; name the images that could not be decoded, above the progress bar."""
    for source, image in images:
        if isinstance(image, InvalidImage):
            progress.console.out(_COMMAND.line(image), highlight=False)
            progress.advance(task)
        else:
            yield source.name, image


def _batches(images: Iterable[tuple[str, Pixels]], batch_size: int) -> Iterator[list[tuple[str, Pixels]]]:
    batch: list[tuple[str, Pixels]] = []
    size = 0
    for name, pixels in images:
        batch.append((name, pixels))
        size += pixels.nbytes
        if len(batch) == batch_size or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@contextmanager
def _new_file(target: Path) -> Iterator[BinaryIO]:
    """Yield a new file beside `target` to write into; it becomes `target`, or is removed after an error.

    Raises OSError that names `target` at once where that cannot work.
    """
    target = target.resolve()
    if target.exists() and not target.is_file():
        raise OSError(f"{target} exists and is no file: it is not overwritten")
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        file = part.open("xb")
    except OSError as error:
        raise OSError(f"{target} cannot be written: {error.strerror}") from error
    try:
        with file:
            yield file
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@app.command()
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


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_as_text, value))
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_as_text(below)}" for name, below in value.items()) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="An image of a face.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    model: Annotated[str, typer.Option(help="Name of a model, or path of a bundle.")] = "res50",
    far: Annotated[
        float, typer.Option(help="Part of the pairs of different persons that may be taken for the same one.")
    ] = 1e-3,
    least_tar: Annotated[
        float, typer.Option(help="Say nothing where fewer of the pairs of one person than this part are recognised.")
    ] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether two faces are the same person, different ones, or too small to tell.

    The model's own thresholds decide, one for each pair of resolutions; btnet-eval thresholds measures them.
    """
    from btnet_ext.compare import compare as compare_faces
    from btnet_ext.engine import Engine
    from btnet_ext.sources import Source, decode

    _quieten_pillow()
    images = [decode(Source(str(path), path.read_bytes)) for path in (first, second)]
    found = compare_faces(Engine(model), images, far=far, least_tar=least_tar)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    typer.echo(
        f"{found.verdict}: similarity {found.similarity:.3f}, threshold {found.threshold:.3f} at a false-accept rate "
        f"of {found.far:g}; {found.resolutions[0]} px and {found.resolutions[1]} px, where {found.tar:.0%} are "
        "recognised"
    )


@app.command()
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


@app.command()
def models() -> None:
    """List the models that can be named, and where they are looked for."""
    from btnet_ext import models as known

    for name in known.list():
        typer.echo(f"{name}  {known.path(name)}")
    typer.echo("looked for in")
    for folder in known.folders():
        typer.echo(f"  {folder}{'' if folder.is_dir() else '  (not there)'}")


@app.command()
def doctor() -> None:
    """Check this machine and this installation: CPU, OpenVINO, devices, model store, cache."""
    from btnet_ext.doctor import examine

    findings = examine()
    for finding in findings:
        typer.echo(f"{finding.name:<14}{'PROBLEM: ' if finding.is_problem else ''}{finding.text}")
    problems = [finding for finding in findings if finding.is_problem]
    for problem in problems:
        _COMMAND.complain(f"{problem.name}: {problem.text}")
    if problems:
        raise typer.Exit(1)


def main() -> None:
    """Run the command."""
    logging.basicConfig(format="btnet: %(message)s")
    _COMMAND.run()


if __name__ == "__main__":
    main()
