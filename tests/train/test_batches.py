"""Batches: which images, in which resolution, flipped or not, in one process or in several."""

import io
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from face_files import encode, png, write_folder, write_zip
from PIL import Image
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from btnet_eval.base import DataError
from btnet_train.batches import Batch, Batches, steps_per_epoch
from btnet_train.recipes import View
from btnet_train.sources import Faces

HIGH = View((112,), (1.0,))
MIXED = View((112, 56, 28, 14, 7), (0.3, 0.25, 0.2, 0.15, 0.1))
NATIVE = View((14,), (1.0,), native=True)
IMAGES = 23


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Faces:
    """Three identities, 20 images of 16 px, and three of 112 px without identity."""
    folder = tmp_path_factory.mktemp("faces")
    files = {f"{number % 3}/{number:02d}.png": png(number, 16) for number in range(20)}
    more = {f"{number}.png": png(number, 112) for number in range(20, IMAGES)}
    return Faces([write_zip(folder / "labeled.zip", files)], [write_folder(folder / "unlabeled", more)])


def batches(faces: Faces, views: Sequence[View] = (HIGH,), **changes: Any) -> list[Batch]:
    options: dict[str, Any] = {"batch_size": 4, "seed": 3, "steps": range(5), "workers": 0}
    return list(Batches(faces, views, **{**options, **changes}))


def check_equal(actual: Sequence[Batch], expected: Sequence[Batch]) -> None:
    assert [batch.step for batch in actual] == [batch.step for batch in expected]
    for one, other in zip(actual, expected, strict=True):
        assert one.labeled == other.labeled
        tensors = [(batch.indices, batch.labels, batch.flips, *batch.views) for batch in (one, other)]
        assert all(torch.equal(*pair) for pair in zip(*tensors, strict=True))


def joined(parts: Sequence[Batch]) -> Batch:
    """Parts of one step as a whole."""
    views = tuple(torch.cat(views) for views in zip(*(part.views for part in parts), strict=True))
    (step,) = {part.step for part in parts}
    indices, labels, flips = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("indices", "labels", "flips")
    )
    return Batch(step, indices, labels, sum(part.labeled for part in parts), flips, views)


def by_pillow(image: np.ndarray[Any, Any], resolution: int, native: bool) -> np.ndarray[Any, Any]:
    """Down to `resolution`, and up again if not native."""
    small = Image.fromarray(image)
    if resolution != 112 or native:
        small = small.resize((resolution, resolution), Image.Resampling.BICUBIC)
    large = small if native else small.resize((112, 112), Image.Resampling.BICUBIC)
    return np.asarray(large).transpose(2, 0, 1)


def test_types_and_shapes(faces: Faces) -> None:
    for batch in batches(faces, [HIGH, NATIVE]):
        assert (batch.indices.dtype, batch.labels.dtype) == (torch.int64, torch.int64)
        assert batch.labels.tolist() == faces.labels[batch.indices].tolist()
        assert [view.shape for view in batch.views] == [(4, 3, 112, 112), (4, 3, 14, 14)]
        for view in batch.views:
            assert view.dtype == torch.uint8
            assert view.is_contiguous(memory_format=torch.channels_last)


def test_every_image_once_in_a_pass(faces: Faces) -> None:
    assert steps_per_epoch(faces, 4) == 5
    passes = [
        torch.cat([batch.indices for batch in batches(faces, steps=range(k, k + 5))]).tolist() for k in (0, 5, 10)
    ]
    for order in passes:
        assert len(set(order)) == 20
    assert passes[0] != passes[1] != passes[2]
    left_out = set.union(*({*range(IMAGES)}.difference(order) for order in passes))
    assert len(left_out) > 3  # not always the same
    (whole,) = batches(faces, batch_size=IMAGES, steps=range(1))
    assert sorted(whole.indices.tolist()) == list(range(IMAGES))


def test_views_are_those_of_pillow(faces: Faces) -> None:
    """A flip is of the image, before it is resampled, and the same in all views; each resolution is one of its view."""
    flips = Counter[bool]()
    seen = Counter[int]()
    for batch in batches(faces, [HIGH, MIXED, NATIVE], steps=range(20)):
        for row, index in enumerate(batch.indices.tolist()):
            image = faces.read(index)
            (flip,) = {flip for flip in (False, True) if np.array_equal(batch.views[0][row], view(image, flip, 112))}
            flips[flip] += 1
            (resolution,) = {r for r in MIXED.resolutions if np.array_equal(batch.views[1][row], view(image, flip, r))}
            seen[resolution] += 1
            assert np.array_equal(batch.views[2][row], by_pillow(image[:, ::-1] if flip else image, 14, native=True))
    assert 20 < flips[True] < 60
    assert [seen[resolution] for resolution in MIXED.resolutions] == pytest.approx([24, 20, 16, 12, 8], abs=8)


def view(image: np.ndarray[Any, Any], flip: bool, resolution: int) -> np.ndarray[Any, Any]:
    return by_pillow(image[:, ::-1] if flip else image, resolution, native=False)


def test_without_flips(faces: Faces) -> None:
    for batch in batches(faces, flip=False):
        for row, index in enumerate(batch.indices.tolist()):
            assert np.array_equal(batch.views[0][row], by_pillow(faces.read(index), 112, native=False))


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.25, 0.75), (0.2, 0.8), (1 / 3, 2 / 3)])
def test_resolutions_are_as_many_as_their_weights_say(tmp_path: Path, weights: tuple[float, float]) -> None:
    flat = np.full((112, 112, 3), 7, np.uint8)
    flat[::2] = 255  # stripes, which 7 px do not show
    faces = Faces([], [write_folder(tmp_path / "set", {f"{number:02d}.png": encode(flat) for number in range(24)})])
    first_degraded = set()
    for batch in batches(faces, [View((7, 112), weights)], batch_size=12, steps=range(10), flip=False):
        degraded = (batch.views[0].amax(dim=(1, 2, 3)) < 255).tolist()
        assert abs(sum(degraded) - 12 * weights[0]) < 1
        first_degraded.add(degraded.index(True))
    assert len(first_degraded) > 2  # they are not in the order of the view


def test_a_run_that_goes_on_sees_the_same(faces: Faces) -> None:
    whole = batches(faces, [MIXED, NATIVE], steps=range(12))
    check_equal(batches(faces, [MIXED, NATIVE], steps=range(7, 12)), whole[7:])
    other = batches(faces, [MIXED, NATIVE], steps=range(12), seed=4)
    assert all(not torch.equal(one.indices, two.indices) for one, two in zip(whole, other, strict=True))


@pytest.mark.parametrize(("micro_batches", "world_size"), [(2, 1), (2, 2), (4, 2), (4, 4)])
def test_parts_of_processes_are_the_whole(faces: Faces, micro_batches: int, world_size: int) -> None:
    whole = batches(faces, [MIXED, NATIVE])
    ranks = [
        batches(faces, [MIXED, NATIVE], micro_batches=micro_batches, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    count = micro_batches // world_size  # parts of each process in a step
    for step, expected in enumerate(whole):
        parts = [ranks[part % world_size][step * count + part // world_size] for part in range(micro_batches)]
        check_equal([joined(parts)], [expected])


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_same(faces: Faces, workers: int) -> None:
    expected = batches(faces, [MIXED, NATIVE], micro_batches=2)
    loader = Batches(
        faces, [MIXED, NATIVE], batch_size=4, seed=3, steps=range(5), micro_batches=2, rank=0, workers=workers
    )
    assert len(loader) == 10
    state = torch.get_rng_state()
    for _ in range(2):
        actual = list(loader)
        check_equal(actual, expected)
    assert actual[0].views[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (png(1, 16)[:200], r"set:13\.png cannot be decoded: .*"),
        (png(1, 16, 12), r"set:13\.png has 12 x 16 pixels, expected a square: aligned faces"),
    ],
)
def test_an_image_that_cannot_be_used(tmp_path: Path, workers: int, content: bytes, problem: str) -> None:
    files = {f"{number:02d}.png": png(number, 16) for number in range(20)}
    faces = Faces([], [write_folder(tmp_path / "set", {**files, "13.png": content})])
    with pytest.raises(DataError, match=f"^{problem}$") as caught:
        batches(faces, workers=workers)
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []


def test_workers_end_with_the_loop(faces: Faces) -> None:
    for batch in Batches(faces, [HIGH], batch_size=4, seed=3, steps=range(100), workers=2):
        if batch.step == 2:
            break
    del batch
    assert multiprocessing.active_children() == []


class LethalFaces(Faces):
    """Kills the process that reads an image, in the third batch."""

    def read(self, index: int) -> Any:
        if index == int(np.random.default_rng([3, 0, 0]).permutation(IMAGES)[8]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(index)


def test_a_worker_that_is_killed(faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    # PyTorch looks after its workers every five seconds.
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))
    handler = signal.getsignal(signal.SIGCHLD)
    lethal = LethalFaces.__new__(LethalFaces)
    lethal.__dict__.update(faces.__dict__)
    with pytest.raises(ChildProcessError, match=r"^a process that prepares images was killed, .* \(pid"):
        batches(lethal, workers=2)
    assert signal.getsignal(signal.SIGCHLD) == handler


def test_numbers_that_do_not_fit(faces: Faces) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"batch_size": 24}, "batch_size must be from 1 to the number of images, 23, got 24"),
        ({"batch_size": 0}, "batch_size must be from 1"),
        ({"micro_batches": 3}, "batch_size must be a multiple of micro_batches, got 4 and 3"),
        ({"micro_batches": 0}, "batch_size must be a multiple of micro_batches, got 4 and 0"),
        ({"world_size": 2}, "micro_batches must be a multiple of world_size, got 1 and 2"),
        ({"rank": 1}, "rank must be from 0 to 0, got 1"),
    ]
    for changes, problem in wrong:
        with pytest.raises(ValueError, match=problem):
            batches(faces, **changes)


def test_real_faces_of_another_size(data_folder: Path) -> None:
    faces = Faces([data_folder / "celeba" / "train56.zip"], min_images=1)
    (batch,) = batches(faces, [HIGH, NATIVE], steps=range(1), flip=False, batch_size=8)
    for row, index in enumerate(batch.indices.tolist()):
        stream = io.BytesIO(faces._sources[0].encoded(index))
        image = np.asarray(Image.open(stream))
        assert image.shape == (56, 56, 3)
        assert np.array_equal(batch.views[0][row], by_pillow(image, 112, native=False))
        assert np.array_equal(batch.views[1][row], by_pillow(image, 14, native=True))
