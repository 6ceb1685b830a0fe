"""What the commands btnet, btnet-train and btnet-eval have in common: how they end, and how they say why."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from btnet_ext.errors import reason

if TYPE_CHECKING:
    from rich.progress import Progress

# typer exports only this one of its usage errors; its parent is also that of unknown options and the like.
_UsageError: Any = typer.BadParameter.__base__


class Command:
    """A command of this project.

    An error is one line on stderr, without a traceback, and the exit code is 1; it is 2 for a wrong command line and
    130 after an interruption. What is in none of these groups is a defect, and keeps its traceback.

    errors: what can go wrong and is not a defect. extra: the optional dependencies that it needs, by the name in
    pyproject.toml, with the modules that they bring. stopped: raised by work that was interrupted and can be gone on
    with; the message says so.
    """

    def __init__(
        self,
        app: typer.Typer,
        name: str,
        errors: tuple[type[Exception], ...],
        *,
        extra: tuple[str, Collection[str]] | None = None,
        stopped: tuple[type[Exception], ...] = (),
    ) -> None:
        self.app, self.name, self.errors, self.extra, self.stopped = app, name, errors, extra, stopped

    def run(self) -> NoReturn:
        """Run it with the arguments of this process, and end the process."""
        sys.exit(self._status())

    def complain(self, message: object) -> None:
        """Print a message on stderr, as `line` makes it."""
        typer.echo(self.line(message), err=True)

    def line(self, message: object) -> str:
        """Return a message as one line, after the command's name."""
        return f"{self.name}: {' '.join(str(message).split())}"

    def _status(self) -> int:
        warnings.showwarning = self._show_warning
        try:
            status: int = typer.main.get_command(self.app).main(prog_name=self.name, standalone_mode=False)
        except _UsageError as error:
            self.complain(error.format_message())
            return 2
        except self.stopped as error:
            self.complain(error)
            return 130
        except (typer.Abort, KeyboardInterrupt):
            return 130
        except ImportError as error:
            if not self._is_of_extra(error) and not isinstance(error, self.errors):
                raise
            self.complain(self._advice(error))
            return 1
        except self.errors as error:
            file = error.filename if isinstance(error, OSError) else None  # one that nobody has put into words
            self.complain(reason(error) if file is None else f"{file}: {reason(error)}")
            return 1
        return status

    def _show_warning(self, message: Warning | str, *_: object, **__: object) -> None:
        self.complain(f"warning: {message}")

    def _is_of_extra(self, error: ImportError) -> bool:
        return self.extra is not None and (error.name or "").partition(".")[0] in self.extra[1]

    def _advice(self, error: ImportError) -> str:
        if self.extra is None or not self._is_of_extra(error):
            return str(error)
        return f"{(error.name or '').partition('.')[0]} is not installed: pip install 'btnet-ext[{self.extra[0]}]'"


def progress_bar() -> Progress:
    """Return a progress bar on stderr, which shows itself on a terminal alone."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), disable=not sys.stderr.isatty())


HALF = "127.5,127.5,127.5"
"""Mean and std of most models in ONNX, as `three_numbers` reads them."""


class Color(str, Enum):
    """Order of the channels of a model in ONNX."""

    rgb = "rgb"
    bgr = "bgr"


def three_numbers(option: str, text: str) -> tuple[float, float, float]:
    """One for each channel, from "1,2,3". Raises typer.BadParameter, which names the option."""
    try:
        first, second, third = map(float, text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{option} must be three numbers with commas, got {text!r}") from None
    return first, second, third
