"""The subcommands of btnet-eval. Everything but typer is imported only by the subcommands that need it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from btnet_eval import cli_faces, cli_figures
from btnet_eval.cli_session import (
    COMMAND,
    Out,
    Resolutions,
    app,
    file_digest,
    measuring,
    open_run,
    parse_resolutions,
)

if TYPE_CHECKING:
    from btnet_eval.datasets.pairs import PairSet
    from btnet_eval.recommendations import LabeledPairs, LabeledPeople
    from btnet_eval.session import Session

PairsFile = Annotated[
    Path,
    typer.Argument(
        metavar="PAIRS",
        exists=True,
        dir_okay=False,
        help="FILE.bin of insightface, pairs.txt of LFW or XQLFW, or a table, .tsv.",
    ),
]
PairsImages = Annotated[
    Path | None, typer.Option("--images", "-i", help="Folder or zip with the images; a .bin has its own.")
]


@app.callback()
def _group() -> None:
    """Measure face models at many resolutions, and write reports."""


@app.command()
@measuring
def verify(
    session: "Session", pairs: PairsFile, images: PairsImages = None, resolutions: Resolutions = "112,56,28,14,7"
) -> Path:
    """Tell pairs of faces of one person from others, at every two resolutions: accuracy, TAR at FAR, ROC."""
    from btnet_eval.verify import usable_pairs, write_verification

    sides = parse_resolutions(resolutions)
    with _open_pairs(session, pairs, images) as found:
        usable = usable_pairs(found.known(session.problems), found.images, session.problems, session.progress)
        return write_verification(session, usable, found.images, sides)


@app.command()
@measuring
def mixed(
    session: "Session",
    pairs: PairsFile,
    images: PairsImages = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE", help="The resolutions of all images, in one line with commas; may be repeated."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Without --protocol, what the resolutions are drawn from. [default: 0]")
    ] = None,
) -> Path:
    """Tell pairs apart where each image has a resolution of its own: low, mid, high and all of Knoche et al.

    Without --protocol the resolutions are drawn.
    """
    from btnet_eval.mixed import MixedPairs, draw_resolutions, usable_mixed, write_mixed
    from btnet_eval.protocols import read_resolutions

    files = _parse_protocols(protocol or [])
    if files and seed is not None:
        raise typer.BadParameter("--seed is for resolutions that are drawn: leave it out, or --protocol")
    with _open_pairs(session, pairs, images) as found:
        count = 2 * len(found.pairs)
        given = MixedPairs(found.pairs, {name: read_resolutions(file, count) for name, file in files.items()})
        chosen = given if files else draw_resolutions(found.pairs, seed or 0)
        session.read.update({str(file): file_digest(file) for file in files.values()})
        usable = usable_mixed(chosen, found.images, found.place, session.problems, session.progress)
        return write_mixed(session, usable, found.images)


@app.command()
@measuring
def thresholds(
    session: "Session",
    labeled: Annotated[
        Path, typer.Argument(metavar="PAIRS|FOLDER", help="As for verify; or a folder or zip with a folder a person.")
    ],
    images: PairsImages = None,
    resolutions: Annotated[
        str | None,
        typer.Option(metavar="R,R", help="Sizes in pixels. [default: half octaves, and where branches begin]"),
    ] = None,
    far: Annotated[
        list[float] | None, typer.Option(help="False-accept rate; may be repeated. [default: 0.01, 0.001, 0.0001]")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Put them into the bundle, for btnet compare.")] = False,
    copy: Annotated[
        Path | None, typer.Option(metavar="NEW.btnet", help="Put them into a copy of the bundle instead.")
    ] = None,
) -> Path:
    """Recommend a cosine threshold for faces of every two sizes, at one false-accept rate or several.

    Of a folder, all images of one half are compared with all of the other, which is enough for lower rates.
    """
    from btnet_eval.recommendations import FARS, check_measuring, write_recommendations, write_thresholds
    from btnet_ext.models import check_own

    model = session.models[0]
    if write and copy:
        raise typer.BadParameter("give --write or --copy, not both")
    engine = model.engine if write or copy else None
    if write or copy:
        if len(session.models) > 1 or engine is None:
            raise typer.BadParameter("--write and --copy are for one bundle")
        if resolutions is not None:
            raise typer.BadParameter("--write and --copy are for all sizes of the bundle: leave out --resolutions")
        check_measuring(engine)
        if write:
            check_own(engine.bundle.path, "give --copy")
    if copy is not None and copy.exists():
        raise typer.BadParameter(f"--copy {copy} exists: it is not overwritten")
    for rate in far or ():
        if not 0 < rate < 1:
            raise typer.BadParameter(f"--far must be above 0 and below 1, got {rate:g}")
    sizes = _ladder(session) if resolutions is None else parse_resolutions(resolutions)
    with _open_labeled(session, labeled, images, sizes) as found:
        page, recommended = write_recommendations(session, found, far or FARS)
    if engine is not None:
        write_thresholds(engine, recommended[model.name], flip=model.flip, out=copy)
    return page


@app.command()
def gains(
    model: Annotated[str, typer.Argument(metavar="FILE.json[:NAME]", help="What verify wrote, and of which model.")],
    phi_hr: Annotated[str, typer.Option(metavar="FILE.json[:NAME]", help="The same of phi_hr, trained on 112 px.")],
    phi_mr: Annotated[str, typer.Option(metavar="FILE.json[:NAME]", help="Of phi_mr, one network for all.")],
    phi_mm: Annotated[str, typer.Option(metavar="FILE.json[:NAME]", help="Of phi_mm, a network a resolution.")],
    out: Out,
) -> None:
    """Say how much of the possible improvement over phi_hr a model reaches."""
    from btnet_eval.gains import write_gains

    with open_run(out, strict=True) as run:
        texts = {"FILE.json": model, "--phi-hr": phi_hr, "--phi-mr": phi_mr, "--phi-mm": phi_mm}
        files = [_parse_result(argument, text) for argument, text in texts.items()]
        run.read.update({str(file): file_digest(file) for file, _ in files})
        typer.echo(write_gains(run, *files))


for command in (cli_faces.own, cli_faces.identify, cli_faces.templates, cli_faces.survface, cli_faces.tinyface):
    app.command()(command)
for command in (cli_faces.scface, cli_figures.upsampling, cli_figures.features, cli_figures.projection):
    app.command()(command)


@contextmanager
def _open_pairs(session: "Session", pairs: Path, images: Path | None) -> "Iterator[PairSet]":
    """Yield pairs and their images."""
    from btnet_eval.datasets.images import open_images
    from btnet_eval.datasets.pairs import open_pairs

    session.read[str(pairs)] = file_digest(pairs)
    with ExitStack() as stack:
        faces = None if images is None else stack.enter_context(open_images(images))
        found = open_pairs(pairs, faces)
        stack.enter_context(found.images)
        yield found


@contextmanager
def _open_labeled(
    session: "Session", path: Path, images: Path | None, sizes: "Sequence[int]"
) -> "Iterator[LabeledPairs | LabeledPeople]":
    """Yield pairs, or images with a folder a person."""
    from btnet_eval.datasets.images import open_images
    from btnet_eval.people import read_faces
    from btnet_eval.recommendations import LabeledPairs, LabeledPeople
    from btnet_eval.verify import usable_pairs

    if path.is_file() and path.suffix.lower() != ".zip":
        with _open_pairs(session, path, images) as found:
            usable = usable_pairs(found.known(session.problems), found.images, session.problems, session.progress)
            yield LabeledPairs(usable, found.images, sizes)
    else:
        if images is not None:
            raise typer.BadParameter(f"--images is for a list of pairs, and {path} has images of its own")
        with open_images(path) as faces:
            yield LabeledPeople(read_faces(faces, session.problems, session.progress), faces, sizes)


def _ladder(session: "Session") -> tuple[int, ...]:
    """The sizes for which thresholds are measured, which are the same for all models."""
    first, *others = session.models
    for other in others:
        if other.ladder != first.ladder:
            raise typer.BadParameter(f"{first.name} and {other.name} have other branches: give --resolutions")
    return first.ladder


def _parse_protocols(texts: Sequence[str]) -> dict[str, Path]:
    """Files by name, from NAME=FILE each."""
    files: dict[str, Path] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not name or not equals or not file:
            raise typer.BadParameter(f"--protocol must be NAME=FILE, such as low=low.csv, got {text!r}")
        if name in files:
            raise typer.BadParameter(f"--protocol {name} is given twice")
        if not Path(file).is_file():
            raise typer.BadParameter(f"--protocol {name}: {file} is no file")
        files[name] = Path(file)
    return files


def _parse_result(argument: str, text: str) -> tuple[Path, str | None]:
    """File and model, from FILE.json or FILE.json:NAME."""
    file, ending, name = text.rpartition(".json")
    if not ending or (name and not name.startswith(":")):
        raise typer.BadParameter(f"{argument} must be FILE.json or FILE.json:NAME, got {text!r}")
    path = Path(file + ending)
    if not path.is_file():
        raise typer.BadParameter(f"{argument}: {path} is no file")
    return path, name[1:] or None


def main() -> None:
    """Run the command."""
    COMMAND.run()


if __name__ == "__main__":
    main()
