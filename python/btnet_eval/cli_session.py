"""The command btnet-eval itself, the options that all its measurements have, and the session that is made of them."""

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from btnet_ext.commands import HALF, Color, Command, progress_bar, three_numbers
from btnet_ext.errors import BtnetError

if TYPE_CHECKING:
    from rich.progress import TaskID

    from btnet_eval.embedder import Progress
    from btnet_eval.models import Model
    from btnet_eval.onnx_network import Preprocessing
    from btnet_eval.session import Run, Session


class Interrupted(Exception):
    """A measurement that was interrupted, and can be gone on with."""


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

# Modules that come with the extra "eval".
_MODULES = ("faiss", "markdown_it", "matplotlib", "scipy", "sklearn", "threadpoolctl")

COMMAND = Command(
    app, "btnet-eval", (BtnetError, ValueError, OSError), extra=("eval", _MODULES), stopped=(Interrupted,)
)


Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the report.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop at the first problem with the data; else the report counts them.")
]
Resolutions = Annotated[str, typer.Option(metavar="R,R", help="In pixels, from 112 down.")]
Mean = Annotated[str, typer.Option(metavar="X,X,X", help="Of the input of all ONNX models, in units of 0 to 255.")]
Std = Annotated[str, typer.Option(metavar="X,X,X", help="Of the input of all ONNX models, in units of 0 to 255.")]
Channels = Annotated[Color, typer.Option(help="Order of the channels of all ONNX models.")]


def measuring(command: Callable[..., Path], *, normalize: bool = True) -> Callable[..., None]:
    """Make a subcommand of a function that takes a `Session` first and returns the path of its report.

    It has the options of `open_session` besides the function's own, and prints the path. normalize: whether the models'
    embeddings have the length 1. A function with an option `flip` of its own embeds mirror images itself, and gets
    models that do not.
    """
    own = list(inspect.signature(command).parameters.values())[1:]
    taken = {parameter.name for parameter in own}
    shared = [p for p in inspect.signature(open_session).parameters.values() if p.name not in {*taken, "normalize"}]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        options = {parameter.name: given.pop(parameter.name) for parameter in shared} | {"normalize": normalize}
        if "flip" in taken:
            options["flip"] = False
        with open_session(**options) as session:
            typer.echo(command(session, **given))

    # Only by keyword may one that is required follow one that is not.
    options = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in (*own, *shared)]
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run


@contextmanager
def open_session(
    out: Out,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="[NAME=]MODEL",
            help="A bundle by name or path, or FILE.onnx, and what the report calls it; may be repeated. "
            "[default: res50]",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto; an ONNX model runs on the CPU.")] = "cpu",
    precision: Annotated[str, typer.Option(help="Of bundles: f32, bf16 or int8; on a GPU f32, f16 or int8.")] = "f32",
    flip: Annotated[bool, typer.Option(help="Add the embedding of the mirror image.")] = True,
    mean: Mean = HALF,
    std: Std = HALF,
    color: Channels = Color.rgb,
    strict: Strict = False,
    normalize: bool = True,
) -> "Iterator[Session]":
    """Yield a session with the models opened, as `open_run` yields a run; normalize is no option.

    Raises Interrupted for what was interrupted in it.
    """
    from btnet_eval.cache import EmbeddingCache
    from btnet_eval.models import open_model
    from btnet_eval.onnx_network import is_onnx
    from btnet_eval.session import Session
    from btnet_ext._native import core

    check_folder(out)
    preprocessing = parse_preprocessing(mean, std, color)
    named = [_split_name(text) for text in model or ["res50"]]
    paths = [path for _, path in named]
    check_models(paths, preprocessing)
    if all(map(is_onnx, paths)) and (device not in ("cpu", "auto") or precision != "f32"):
        raise typer.BadParameter("ONNX models run on the CPU in f32: leave out --device and --precision")
    for_bundles, for_onnx = {"device": device, "precision": precision}, {"preprocessing": preprocessing}
    try:
        models = []
        for name, path in named:
            given: Any = for_onnx if is_onnx(path) else for_bundles
            opened = open_model(path, flip=flip, normalize=normalize, **given)
            models.append(opened if name is None else replace(opened, name=name))
        _check_names(models, paths)
        cache = EmbeddingCache(core.cache_folder() / "embeddings")
        with open_run(out, strict) as run:
            yield Session(models=models, cache=cache, **vars(run))
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the same command goes on after what it has embedded") from None


@contextmanager
def open_run(out: Path, strict: bool) -> "Iterator[Run]":
    """Yield a run with progress bars on a terminal; at its end, stderr says what was left out, also after an error."""
    from btnet_eval.base import Problems
    from btnet_eval.session import Run

    check_folder(out)
    problems = Problems(strict=strict)
    try:
        with progress_bars() as progress:
            yield Run(out=out, command=[COMMAND.name, *sys.argv[1:]], problems=problems, progress=progress)
    finally:
        if problems.count:
            COMMAND.complain(f"warning: {problems.count} problems with the data, the first one: {problems.messages[0]}")


def check_folder(out: Path) -> None:
    """Raise typer.BadParameter if a report cannot be written to a folder, before anything is measured."""
    if out.exists() and not out.is_dir():
        raise typer.BadParameter(f"--out must be a folder, and {out} is a file")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"--out {out} cannot be made: {error.strerror}") from error


def check_models(paths: Sequence[str], preprocessing: "Preprocessing") -> None:
    """Raise typer.BadParameter for ONNX files that are none, and for options of ONNX models where there is none."""
    from btnet_eval.onnx_network import Preprocessing, is_onnx

    for path in paths:
        if is_onnx(path) and not Path(path).is_file():
            raise typer.BadParameter(f"--model {path} is no file")
    if preprocessing != Preprocessing() and not any(map(is_onnx, paths)):
        raise typer.BadParameter("--mean, --std and --color are for ONNX models: a bundle says itself what it is given")


def _split_name(text: str) -> tuple[str | None, str]:
    """Name and model, from NAME=MODEL or MODEL, which may have a = in its path."""
    name, equals, model = text.partition("=")
    if not equals or not name or "/" in name or Path(text).exists():
        return None, text
    return name, model


def _check_names(models: "Sequence[Model]", paths: Sequence[str]) -> None:
    seen = set()
    for model, path in zip(models, paths, strict=True):
        if model.name in seen:
            raise typer.BadParameter(f"two models are called {model.name}: call one otherwise, --model NAME={path}")
        seen.add(model.name)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises OSError."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def parse_preprocessing(mean: str, std: str, color: Color) -> "Preprocessing":
    """What an ONNX model is given, from the options. Raises typer.BadParameter."""
    from btnet_eval.onnx_network import Preprocessing

    return Preprocessing(three_numbers("--mean", mean), three_numbers("--std", std), color.value)


def parse_resolutions(text: str, option: str = "--resolutions") -> list[int]:
    """Resolutions in pixels, from "112,28": whole numbers from 1 to 112, each once. Raises typer.BadParameter."""
    try:
        sides = [int(resolution) for resolution in text.split(",")]
    except ValueError:
        sides = []
    if not sides or len(set(sides)) < len(sides) or not all(1 <= side <= 112 for side in sides):
        raise typer.BadParameter(f"{option} must be numbers from 1 to 112 with commas, each once, got {text!r}")
    return sides


@contextmanager
def progress_bars() -> "Iterator[Progress]":
    """Yield what shows on a terminal how far everything is."""
    tasks: dict[str, TaskID] = {}
    with progress_bar() as bars:

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield show
