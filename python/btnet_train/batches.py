"""Batches for training: which images are in a step, how each is seen, and their decoding by worker processes.

What a step sees depends on the seed and on the number of the step alone, so that a run that goes on after an
interruption, or on another number of processes, sees the same.
"""

import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from btnet_eval.base import DataError
from btnet_ext import degrade, resize
from btnet_train.image_files import Pixels
from btnet_train.recipes import View
from btnet_train.sources import Faces
from btnet_train.topology import CANONICAL

_ORDER, _STEP = 0, 1  # streams of random numbers of a seed


@dataclass(frozen=True)
class Batch:
    """n images of a step, as each of the views sees them.

    indices: int64 (n,), into Faces. labels: int64 (n,), -1 for none. labeled: how many images with a label the parts of
    the step have on average. flips: bool (n,); an image is mirrored in all views or in none. views: for each view uint8
    (n, 3, s, s), RGB, contiguous in torch.channels_last.
    """

    step: int
    indices: Tensor
    labels: Tensor
    labeled: float
    flips: Tensor
    views: tuple[Tensor, ...]


@dataclass(frozen=True)
class _Draw:
    """What chance decides about n images of a step."""

    step: int
    labeled: float  # images with a label in a part of the step, on average
    indices: NDArray[np.int64]  # (n,)
    flips: NDArray[np.bool_]  # (n,)
    resolutions: NDArray[np.int64]  # (views, n)


def steps_per_epoch(faces: Faces, batch_size: int) -> int:
    """Return the number of whole batches in a pass. Raises ValueError if there is none."""
    if not 1 <= batch_size <= len(faces):
        raise ValueError(
            f"batch_size must be from 1 to the number of images, {len(faces)}, got {batch_size}: it is the recipe's "
            "stages.NAME.schedule.batch_size"
        )
    return len(faces) // batch_size


class Batches:
    """The batches of a range of steps, in order.

    A pass is a shuffling of all images, of which the rest that fills no batch is left out. For each view half of a
    batch has one of two equally probable resolutions, and so on: they are drawn by systematic sampling.

    Args:
        faces: the images.
        views: how each image is seen.
        batch_size: images of a step, in all processes together.
        seed: of all that is drawn, 0 or more.
        steps: numbers of the steps, counted from the first of the training.
        micro_batches: equal parts into which the images of a step are cut, each a Batch.
        rank, world_size: this process gets the parts rank, rank + world_size, ...
        workers: processes that decode; 0: this one does, when the batch is asked for.
        flip: whether half of the images, by chance, are mirrored.

    Raises ValueError for numbers that do not fit together. Iterating raises DataError, which names the image, for one
    that cannot be read or is not square, and ChildProcessError if a worker was killed.
    """

    def __init__(
        self,
        faces: Faces,
        views: Sequence[View],
        *,
        batch_size: int,
        seed: int,
        steps: range,
        micro_batches: int = 1,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 2,
        flip: bool = True,
    ) -> None:
        steps_per_epoch(faces, batch_size)
        if micro_batches < 1 or batch_size % micro_batches:
            raise ValueError(f"batch_size must be a multiple of micro_batches, got {batch_size} and {micro_batches}")
        if world_size < 1 or micro_batches % world_size:
            raise ValueError(f"micro_batches must be a multiple of world_size, got {micro_batches} and {world_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to {world_size - 1}, got {rank}")
        self._preparation = _Preparation(faces, tuple(views))
        self._draw = _Lottery(faces.labels >= 0, tuple(views), batch_size, seed, flip)
        self._steps = steps
        self._micro_batches = micro_batches
        self._own_parts = range(rank, micro_batches, world_size)
        self._workers = workers

    def __len__(self) -> int:
        return len(self._steps) * len(self._own_parts)

    def __iter__(self) -> Iterator[Batch]:
        for result in (
            _detect_deaths(self._start()) if self._workers else map(self._preparation.__getitem__, self._parts())
        ):
            if isinstance(result, DataError):
                raise result
            yield result

    def _parts(self) -> Iterator[_Draw]:
        for step in self._steps:
            whole = self._draw(step)
            size = len(whole.indices) // self._micro_batches
            for part in self._own_parts:
                own = slice(part * size, (part + 1) * size)
                labeled = whole.labeled / self._micro_batches
                yield _Draw(step, labeled, whole.indices[own], whole.flips[own], whole.resolutions[:, own])

    def _start(self) -> Iterator[Batch | DataError]:
        """Start the workers."""
        loader: DataLoader[Batch | DataError] = DataLoader(
            self._preparation,
            batch_size=None,
            sampler=self._parts(),
            num_workers=self._workers,
            # Of its own, so that it takes no number from the one that the training draws from.
            generator=torch.Generator(),
        )
        with warnings.catch_warnings(), _handler_of_dead_children_kept():
            # Python 3.12 and later: a fork may find a lock held by another thread. The workers take none of those.
            warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
            return iter(loader)


@contextmanager
def _handler_of_dead_children_kept() -> Iterator[None]:
    """Keep PyTorch's handler of SIGCHLD out.

    It would raise the death of a worker wherever the training happens to be, saving a checkpoint for example. Without
    it the loader finds out when it waits for the worker.
    """
    if threading.current_thread() is not threading.main_thread():  # handlers are set in the main thread only
        yield
        return
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)


class _Lottery:
    """Draws what is in a step and how it is seen."""

    def __init__(
        self, labeled: NDArray[np.bool_], views: Sequence[View], batch_size: int, seed: int, flip: bool
    ) -> None:
        self._labeled, self._views, self._batch_size = labeled, views, batch_size
        self._seed, self._flip = seed, flip
        self._epoch = -1

    def __call__(self, step: int) -> _Draw:
        size = self._batch_size
        images = len(self._labeled)
        epoch, place = divmod(step, images // size)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self._seed, _ORDER, epoch]).permutation(images)
            self._epoch = epoch
        generator = np.random.default_rng([self._seed, _STEP, step])
        flips = (generator.random(size) < 0.5) & self._flip
        resolutions = [_draw_resolutions(view, size, generator) for view in self._views]
        indices = self._order[place * size : (place + 1) * size]
        return _Draw(step, float(self._labeled[indices].sum()), indices, flips, np.stack(resolutions))


class _Preparation(Dataset["Batch | DataError"]):
    """Reads, flips and resamples the images of a draw. A DataError is returned: raised, PyTorch would wrap it."""

    def __init__(self, faces: Faces, views: Sequence[View]) -> None:
        self._faces, self._views = faces, views

    def __getitem__(self, draw: _Draw) -> Batch | DataError:
        sides = [view.resolutions[0] if view.native else CANONICAL for view in self._views]
        views = [np.empty((len(draw.indices), side, side, 3), np.uint8) for side in sides]
        try:
            for row, index in enumerate(draw.indices.tolist()):
                image = self._read(index, bool(draw.flips[row]))
                for seen, side, resolutions in zip(views, sides, draw.resolutions, strict=True):
                    seen[row] = _see(image, int(resolutions[row]), side)
        except DataError as error:
            return error
        return Batch(
            draw.step,
            torch.from_numpy(draw.indices.copy()),
            torch.from_numpy(self._faces.labels[draw.indices]),
            draw.labeled,
            torch.from_numpy(draw.flips.copy()),
            tuple(torch.from_numpy(seen).permute(0, 3, 1, 2) for seen in views),
        )

    def _read(self, index: int, flip: bool) -> Pixels:
        image = self._faces.read(index)
        # PyTorch flips seven times as fast as NumPy copies backwards.
        return torch.from_numpy(image).flip(1).numpy() if flip else image


def _see(image: Pixels, resolution: int, side: int) -> Pixels:
    """Return an image side x side that shows no more than `resolution` does."""
    return degrade(image, resolution) if resolution < side else resize(image, (side, side))


def _draw_resolutions(view: View, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw `count` resolutions; each is there as often as its weight says, but for the rounding."""
    points = np.arange(count) + generator.random()
    ends = np.cumsum(view.weights) * count
    chosen = np.searchsorted(ends[:-1], points, side="right")
    return generator.permutation(np.array(view.resolutions, np.int64)[chosen])


def _detect_deaths(results: Iterator[Batch | DataError]) -> Iterator[Batch | DataError]:
    """Pass on what workers return; raise ChildProcessError when one of them is gone."""
    while True:
        try:
            result = next(results, None)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker (pid"):
                raise
            raise ChildProcessError(
                "a process that prepares images was killed, which happens most often when memory, or shared memory, "
                f"runs out: {error}"
            ) from error
        if result is None:
            return
        yield result
