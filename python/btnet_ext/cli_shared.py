"""What the subcommands of btnet share: the command itself, and reading the images that people name."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from btnet_ext.commands import Command
from btnet_ext.errors import BtnetError, InvalidImage

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from btnet_ext.images import Pixels
    from btnet_ext.sources import Source

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

COMMAND = Command(app, "btnet", (BtnetError, OSError, ImportError))


def quieten_pillow() -> None:
    """Keep Pillow's remarks on odd metadata off stderr; pixels that it cannot read are errors in any case."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)


def find_all(paths: list[Path], open_archives: ExitStack) -> list[Source]:
    """List the images at all paths. Raises OSError for a path that cannot be opened, BtnetError where none has any."""
    from btnet_ext.sources import SUFFIXES, find_images

    found = {path: find_images(path, open_archives) for path in paths}
    empty = [str(path) for path in paths if not found[path]]
    if len(empty) == len(paths):
        raise BtnetError(f"no images in {', '.join(empty)}: expected files ending in {', '.join(sorted(SUFFIXES))}")
    for path in empty:
        COMMAND.complain(f"warning: no images in {path}")
    return [source for path in paths for source in found[path]]


def readable(
    images: Iterable[tuple[Source, Pixels | InvalidImage]], progress: Progress, task: TaskID
) -> Iterator[tuple[str, Pixels]]:
    """Yield names and pixels; name the images that could not be decoded, above the progress bar."""
    for source, image in images:
        if isinstance(image, InvalidImage):
            progress.console.out(COMMAND.line(image), highlight=False)
            progress.advance(task)
        else:
            yield source.name, image
