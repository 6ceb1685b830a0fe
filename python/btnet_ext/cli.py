"""The command btnet. NumPy, Pillow and OpenVINO are imported only by the subcommands that need them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import typer

from btnet_ext import cli_bundles
from btnet_ext.cli_shared import COMMAND, app, find_all, quieten_pillow, readable
from btnet_ext.commands import progress_bar
from btnet_ext.errors import BtnetError
from btnet_ext.whole_files import whole_file

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from btnet_ext.engine import Engine
    from btnet_ext.images import Pixels
    from btnet_ext.sources import Source

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
    quieten_pillow()
    with ExitStack() as stack:
        sources = find_all(paths, stack)
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


def _parse_resolutions(text: str) -> list[int]:
    try:
        return [int(resolution) for resolution in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--resolutions must be numbers with commas, got {text!r}") from None


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
        for batch in _batches(readable(decode_all(sources), progress, task), batch_size):
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
    """Yield a new file to write into, which becomes `target`, where a link leads if it is one, or goes after an error.

    Raises OSError that names `target`, at once where that cannot work.
    """
    target = target.resolve()
    if target.exists() and not target.is_file():
        raise OSError(f"{target} exists and is no file: it is not overwritten")
    with whole_file(target) as append:
        yield cast("BinaryIO", _Appended(append))


class _Appended(io.RawIOBase):
    """What can only be appended to, as a file."""

    def __init__(self, append: Callable[[bytes], None]) -> None:
        super().__init__()
        self._append = append

    def writable(self) -> bool:
        return True

    def write(self, content: ReadableBuffer, /) -> int:
        written = bytes(content)
        self._append(written)
        return len(written)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="An image of a face.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    model: Annotated[str, typer.Option(help="Name of a model, or path of a bundle.")] = "res50",
    far: Annotated[
        float, typer.Option(help="Part of the pairs of different persons that may be taken for the same one.")
    ] = 1e-3,
    least_tar: Annotated[
        float,
        typer.Option(
            help="Say of no two faces that they are different where fewer pairs of one person are recognised."
        ),
    ] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether two faces are the same person, different ones, or too small to tell.

    The model's own thresholds decide, one for each pair of sizes; btnet-eval thresholds measures them.
    """
    from btnet_ext.compare import compare as compare_faces
    from btnet_ext.engine import Engine
    from btnet_ext.sources import Source, decode

    quieten_pillow()
    images = [decode(Source(str(path), path.read_bytes)) for path in (first, second)]
    found = compare_faces(Engine(model), images, far=far, least_tar=least_tar)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    typer.echo(
        f"{found.verdict}: similarity {found.similarity:.3f}, threshold {found.threshold:.3f} at a false-accept rate "
        f"of {found.far:g}, measured at {found.sizes[0]} px and {found.sizes[1]} px, where {found.tar:.0%} are "
        "recognised"
    )


for command in (cli_bundles.info, cli_bundles.quantize, cli_bundles.build, cli_bundles.models):
    app.command()(command)


@app.command()
def doctor() -> None:
    """Check this machine and this installation: CPU, OpenVINO, devices, model store, cache."""
    from btnet_ext.doctor import examine

    findings = examine()
    for finding in findings:
        typer.echo(f"{finding.name:<14}{'PROBLEM: ' if finding.is_problem else ''}{finding.text}")
    problems = [finding for finding in findings if finding.is_problem]
    for problem in problems:
        COMMAND.complain(f"{problem.name}: {problem.text}")
    if problems:
        raise typer.Exit(1)


def main() -> None:
    """Run the command."""
    logging.basicConfig(format="btnet: %(message)s")
    COMMAND.run()


if __name__ == "__main__":
    main()
