"""What can be seen of a run: a progress bar, losses.csv, TensorBoard, and a plot of the losses at the end."""

import csv
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from btnet_ext.whole_files import naming, whole_file, write_all

logger = logging.getLogger(__name__)

LOSSES = "losses.csv"
_COLUMNS = ("step", "epoch", "rate", "images_per_second", "name", "value")


class Means:
    """Means of values by name since the last `take`."""

    def __init__(self, sums: Mapping[str, float] | None = None, count: int = 0) -> None:
        self.sums = dict(sums or {})
        self.count = count

    def add(self, values: Mapping[str, float]) -> None:
        """Take one more value of each name."""
        self.count += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def take(self) -> dict[str, float]:
        """Return the means, and begin again."""
        means = {name: value / self.count for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


class Progress:
    """Shows and keeps the values of a run in `folder`; what an interrupted run wrote after `start` is dropped.

    title: of the bar. steps: of the whole run. images: in one step. seconds: that the training took until `start`. A
    context manager; writes only on `enabled` processes, one of those that train together.
    """

    def __init__(
        self, folder: Path, title: str, start: int, steps: int, images: int, seconds: float, enabled: bool = True
    ) -> None:
        self._path, self._logs = folder / LOSSES, folder / "tensorboard"
        self._enabled = enabled
        self._images = images
        self._since = (start, seconds)
        self._bar = tqdm(
            desc=title, total=steps * images, initial=start * images, unit=" images", disable=not enabled, mininterval=1
        )
        if enabled:
            from torch.utils.tensorboard import SummaryWriter

            folder.mkdir(parents=True, exist_ok=True)
            _keep_until(self._path, start)
            # Not buffered: then closing the file writes nothing, and cannot hide the error of a full disk.
            self._file = self._path.open("ab", buffering=0)
            with naming(self._logs):
                self._board: Any = SummaryWriter(str(self._logs), purge_step=start + 1)

    def advance(self) -> None:
        """Count one step."""
        self._bar.update(self._images)

    def write(self, step: int, epoch: float, rate: float, seconds: float, values: Mapping[str, float]) -> None:
        """Keep values of the run after `step` steps and `seconds` of training, without those of validation."""
        if not self._enabled:
            return
        since, until = self._since
        speed = (step - since) * self._images / max(seconds - until, 1e-9)
        self._since = (step, seconds)
        lines = io.StringIO(newline="")
        start = (step, f"{epoch:.4f}", f"{rate:.3e}", f"{speed:.1f}")
        csv.writer(lines).writerows((*start, name, repr(value)) for name, value in values.items())
        with naming(self._path):
            write_all(self._file, lines.getvalue().encode())
        with naming(self._logs):
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()}, refresh=False)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._enabled:
            self._file.close()
            with naming(self._logs):
                self._board.close()


def read_values(path: Path) -> list[dict[str, str]]:
    """Read the rows of a losses.csv; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def _keep_until(path: Path, step: int) -> None:
    """Drop the rows of a losses.csv after a step; a new one gets its header. The file changes whole or not at all."""
    rows = [row for row in read_values(path) if int(row["step"]) <= step]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    with whole_file(path) as append:
        append(text.getvalue().encode())


def plot_values(folder: Path) -> Path:
    """Draw every value of folder/losses.csv against the step, as folder/losses.png."""
    from matplotlib.figure import Figure

    values: dict[str, list[tuple[int, float]]] = {}
    for row in read_values(folder / LOSSES):
        values.setdefault(row["name"], []).append((int(row["step"]), float(row["value"])))
    rows = max(len(values), 1)
    figure = Figure(figsize=(8, 2.4 * rows), layout="constrained")
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, points) in zip(panels, values.items(), strict=False):
        axes.plot(*zip(*points, strict=True), linewidth=1)
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    figure.supxlabel("step")
    path = folder / "losses.png"
    image = io.BytesIO()
    figure.savefig(image, dpi=100)
    with whole_file(path) as append:
        append(image.getvalue())
    return path
