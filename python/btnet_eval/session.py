"""What every report is made with: models, their embeddings on disk, what was read and left out, where it all goes."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from btnet_eval.base import DataError, Problems
from btnet_eval.cache import EmbeddingCache
from btnet_eval.datasets.images import PROGRESS, NamedImages
from btnet_eval.embedder import Embedder, Progress, labelled
from btnet_eval.models import Model
from btnet_eval.plots import save
from btnet_eval.report import Section, write_report, write_result


def image_sizes(
    names: Iterable[str], images: NamedImages, problems: Problems, progress: Progress | None = None
) -> dict[str, tuple[int, int]]:
    """Height and width, by name, of the images that can be decoded, in the order of names; all are decoded for it.

    So that problems are told before anything is embedded, and the digest of what is embedded is that of what is left.
    problems: told of the others, once each, which are left out. Raises DataError if none can be decoded.
    """
    distinct = dict.fromkeys(names)
    sizes = {}
    for done, name in enumerate(distinct, start=1):
        try:
            height, width, _ = images.read(name).shape
            sizes[name] = (height, width)
        except DataError as error:
            problems.report(str(error))
        if progress is not None and (done % PROGRESS == 0 or done == len(distinct)):
            progress("reading images", done, len(distinct))
    if not sizes:
        raise DataError(f"{images.where}: none of {len(distinct)} images can be decoded")
    return sizes


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a command, and what is to stand in its report.

    out: folder of the report, made where it is missing. command: the command line, program first. problems: told of
    what is left out. progress: told of every step, or None. read: digests of what was read, by name; whoever reads
    adds to it.
    """

    out: Path
    command: Sequence[str]
    problems: Problems = field(default_factory=Problems)
    progress: Progress | None = None
    read: dict[str, str] = field(default_factory=dict)

    def note(self, images: NamedImages, names: Sequence[str]) -> None:
        """Add the digest of images, of their names and contents, to what was read. Raises DataError as `digest`.

        Before they are embedded: this is where progress is told of reading them for their digest.
        """
        whole = "\n".join([images.digest(names, labelled(self.progress, "digest of the images")), *names])
        self.read[images.where] = hashlib.sha256(whole.encode(errors="surrogateescape")).hexdigest()

    def draw(self, name: str, figure: Figure) -> str:
        """Save a figure as OUT/NAME.png and .svg; return the PNG's name, for `Section`. Raises OSError."""
        self.out.mkdir(parents=True, exist_ok=True)
        png, _ = save(figure, self.out / name)
        return png.name

    def write(
        self, name: str, kind: str, numbers: Mapping[str, Any], sections: Sequence[Section], models: Mapping[str, str]
    ) -> Path:
        """Write OUT/NAME.json, .md and .html, as `report.write_result`; return the page's path.

        models: digest by name. Raises ValueError for what JSON cannot hold, and OSError.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"{name}.json"
        write_result(path, kind, numbers, self.problems, models, self.read, self.command, sections=sections)
        return write_report(path)[1]


@dataclass(frozen=True, kw_only=True)
class Session(Run):
    """A run that measures models.

    models: with a name of its own each. cache: of their embeddings. Raises ValueError for no model, and for two of one
    name.
    """

    models: Sequence[Model]
    cache: EmbeddingCache

    def __post_init__(self) -> None:
        names = [model.name for model in self.models]
        if not names or len(set(names)) != len(names):
            given = ", ".join(names) or "none"
            raise ValueError(f"models must be one or more, each with a name of its own, not {given}")

    @property
    def embedders(self) -> list[Embedder]:
        """One for each model, in order."""
        return [Embedder(model, self.cache, self.progress) for model in self.models]

    def report(self, name: str, kind: str, numbers: Mapping[str, Any], sections: Sequence[Section]) -> Path:
        """`write` with the models of the session."""
        return self.write(name, kind, numbers, sections, {model.name: model.digest for model in self.models})
