"""Embeddings on disk: what is computed and what is not, runs that are broken off, files that are damaged."""

import fcntl
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from btnet_eval.cache import EmbeddingCache, Images
from btnet_eval.models import Model

Pixels = NDArray[np.uint8]
DIM = 5


class Network:
    """A model that counts: an embedding holds means of the image. It breaks after `limit` images."""

    def __init__(self, limit: int = 10**9, digest: str = "network") -> None:
        self.seen = 0
        self.limit = limit
        self.largest = 0
        self.model = Model("network", self.embed, digest, (7, 112))

    def embed(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        if self.seen + len(images) > self.limit:
            raise KeyboardInterrupt
        self.seen += len(images)
        self.largest = max(self.largest, len(images))
        return np.stack([embedding(image) for image in images])


def embedding(image: Pixels) -> NDArray[np.float32]:
    return np.array([1, *image.mean(axis=(0, 1)), image.shape[0]], np.float32)


def make_images(count: int, digest: str = "images") -> Images:
    pixels = np.random.default_rng(11).integers(0, 256, (count, 9, 8, 3), np.uint8)
    return Images(digest, [f"{number}.png" for number in range(count)], pixels.__getitem__)


def pillow_resize(image: Pixels, side: int) -> Pixels:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def present(image: Pixels, resolution: int) -> Pixels:
    small = pillow_resize(image, resolution)
    return small if resolution in (7, 112) else pillow_resize(small, 112)


def expected_rows(images: Images, resolutions: Sequence[int] | None) -> NDArray[np.float32]:
    shown = [images.read(i) for i in range(images.count)]
    if resolutions is not None:
        shown = [present(image, resolution) for image, resolution in zip(shown, resolutions, strict=True)]
    return np.stack([embedding(image) for image in shown])


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@settings(derandomize=True, deadline=None, max_examples=15)
@given(st.integers(1, 20), st.integers(1, 25), st.sampled_from([7, 20, 112, None]))
def test_rows_in_blocks(
    tmp_path_factory: pytest.TempPathFactory, count: int, block: int, resolution: int | None
) -> None:
    folder, images, network = tmp_path_factory.mktemp("cache"), make_images(count), Network()
    expected = expected_rows(images, None if resolution is None else [resolution] * count)
    told: list[tuple[int, int]] = []
    rows = EmbeddingCache(folder, block=block).rows(
        network.model, images, resolution, progress=lambda done, total: told.append((done, total))
    )
    assert np.array_equal(rows, expected)
    assert rows.dtype == np.float32
    assert (network.seen, network.largest) == (count, min(block, count))
    assert told == [(done, count) for done in [*range(block, count, block), count]]
    assert len(files(folder)) == 1
    again = EmbeddingCache(folder, block=block + 1).rows(
        network.model, images, resolution, progress=lambda done, total: told.append((done, total))
    )
    assert np.array_equal(again, expected)
    assert network.seen == count
    assert told[-1] == (count, count)


def test_a_file_is_an_array_of_numpy(tmp_path: Path) -> None:
    images = make_images(6)
    rows = EmbeddingCache(tmp_path / "new" / "folder", block=4).rows(Network().model, images, 7)
    (path,) = (tmp_path / "new" / "folder").iterdir()
    assert np.array_equal(np.load(path), rows)
    assert not rows.flags.writeable


def test_a_resolution_for_each_image(tmp_path: Path) -> None:
    images, network, store = make_images(4), Network(), EmbeddingCache(tmp_path, block=3)
    rows = store.rows(network.model, images, [7, 20, 112, 5])
    assert np.array_equal(rows, expected_rows(images, [7, 20, 112, 5]))
    assert network.seen == 4
    store.rows(network.model, images, np.array([7, 7, 7, 7], np.int16))
    assert network.seen == 8
    store.rows(network.model, images, 7)
    assert network.seen == 8
    store.rows(network.model, images, [7, 20, 5, 112])
    assert network.seen == 12


def test_models_data_and_resolutions_are_told_apart(tmp_path: Path) -> None:
    store = EmbeddingCache(tmp_path)
    tasks: list[tuple[Network, Images, int | None]] = [
        (Network(), make_images(3), 7),
        (Network(digest="another"), make_images(3), 7),
        (Network(), make_images(3, digest="others"), 7),
        (Network(), make_images(2), 7),
        (Network(), make_images(3), 112),
        (Network(), make_images(3), None),
    ]
    for network, images, resolution in tasks:
        store.rows(network.model, images, resolution)
        assert network.seen == images.count
    assert len(files(tmp_path)) == len(tasks)


def test_a_run_that_was_broken_off_goes_on(tmp_path: Path) -> None:
    images, told = make_images(10), []
    with pytest.raises(KeyboardInterrupt):
        EmbeddingCache(tmp_path, block=3).rows(Network(limit=7).model, images, 7)
    network = Network()
    rows = EmbeddingCache(tmp_path, block=3).rows(
        network.model, images, 7, progress=lambda done, total: told.append(done)
    )
    assert np.array_equal(rows, expected_rows(images, [7] * 10))
    assert network.seen == 4
    assert told == [3, 6, 9, 10]
    assert len(files(tmp_path)) == 1


def test_other_blocks_start_again(tmp_path: Path) -> None:
    images, network = make_images(10), Network()
    with pytest.raises(KeyboardInterrupt):
        EmbeddingCache(tmp_path, block=3).rows(Network(limit=7).model, images, 7)
    rows = EmbeddingCache(tmp_path, block=4).rows(network.model, images, 7)
    assert np.array_equal(rows, expected_rows(images, [7] * 10))
    assert network.seen == 10
    assert len(files(tmp_path)) == 1


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    images, store = make_images(4), EmbeddingCache(tmp_path)
    store.rows(Network().model, images, 7)
    (path,) = tmp_path.iterdir()
    path.rename(tmp_path / f".{path.name}.1234")
    store.rows(Network().model, images, 7)
    assert files(tmp_path) == [path.name]


def damages() -> list[Any]:
    def cut(content: bytes) -> bytes:
        return content[:-10]

    def flip(content: bytes) -> bytes:
        return content[:150] + bytes([content[150] ^ 1]) + content[151:]

    return [
        pytest.param(cut, id="truncated"),
        pytest.param(flip, id="a bit of a row"),
        pytest.param(lambda content: content + b"\0", id="longer"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[:20], id="shorter than a seal"),
        pytest.param(lambda content: bytes(len(content)), id="zeros"),
    ]


@pytest.mark.parametrize("damage", damages())
def test_a_damaged_file_is_computed_again(tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture) -> None:
    images, store, network = make_images(4), EmbeddingCache(tmp_path), Network()
    store.rows(network.model, images, 7)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        rows = store.rows(network.model, images, 7)
    assert np.array_equal(rows, expected_rows(images, [7] * 4))
    assert network.seen == 8
    assert caplog.messages == [f"{path} is damaged, or is for something else: it is removed, and computed again"]
    store.rows(network.model, images, 7)
    assert network.seen == 8


def test_a_file_of_something_else_is_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images, store, network = make_images(4), EmbeddingCache(tmp_path), Network()
    store.rows(network.model, images, 7)
    (first,) = tmp_path.iterdir()
    store.rows(network.model, images, 112)
    (second,) = set(tmp_path.iterdir()) - {first}
    first.rename(second)
    assert np.array_equal(store.rows(network.model, images, 112), expected_rows(images, [112] * 4))
    assert len(caplog.messages) == 1


def test_a_damaged_block_is_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images, network = make_images(10), Network()
    with pytest.raises(KeyboardInterrupt):
        EmbeddingCache(tmp_path, block=3).rows(Network(limit=7).model, images, 7)
    (block,) = tmp_path.rglob("0-3.npy")
    block.write_bytes(block.read_bytes()[:-1])
    rows = EmbeddingCache(tmp_path, block=3).rows(network.model, images, 7)
    assert np.array_equal(rows, expected_rows(images, [7] * 10))
    assert network.seen == 7
    assert len(caplog.messages) == 1


def test_who_comes_second_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, networks, tried = make_images(10), [Network(), Network()], threading.Event()
    flock = fcntl.flock

    def noted(handle: int, operation: int) -> None:
        try:
            flock(handle, operation)
        except BlockingIOError:
            tried.set()
            raise

    monkeypatch.setattr(fcntl, "flock", noted)
    second = threading.Thread(target=lambda: EmbeddingCache(tmp_path).rows(networks[1].model, images, 7))

    def read(index: int) -> Pixels:
        if index == 0:
            second.start()
            assert tried.wait(60)
        return images.read(index)

    EmbeddingCache(tmp_path, block=3).rows(networks[0].model, Images(images.digest, images.names, read), 7)
    second.join(60)
    assert not second.is_alive()
    assert [network.seen for network in networks] == [10, 0]
    assert len(files(tmp_path)) == 1


def test_an_image_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    def read(index: int) -> Pixels:
        raise OSError(f"image {index} is missing")

    with pytest.raises(OSError, match="image 0 is missing"):
        EmbeddingCache(tmp_path).rows(Network().model, Images("missing", ["a", "b", "c"], read), 7)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.ones(4), r"odd gives embeddings of shape \(4,\) for 4 images"),
        (np.ones((3, DIM)), r"odd gives embeddings of shape \(3, 5\) for 4 images"),
        (np.diag([1.0, 1, 1, 0]), r"odd gives an embedding of 3\.png that is zero or not finite"),
        (np.diag([1.0, np.nan, 1, 1]), r"odd gives an embedding of 1\.png that is zero or not finite"),
        (np.diag([1.0, 1, np.inf, 1]), r"odd gives an embedding of 2\.png that is zero or not finite"),
    ],
)
def test_embeddings_that_cannot_be_used(tmp_path: Path, rows: NDArray[np.float64], message: str) -> None:
    model = Model("odd", lambda images: rows.astype(np.float32), "odd", (112,))
    with pytest.raises(ValueError, match=message):
        EmbeddingCache(tmp_path).rows(model, make_images(4), None)
    assert list(tmp_path.rglob("*.npy")) == []


def test_the_name_is_that_of_the_image_in_its_block(tmp_path: Path) -> None:
    model = Model("odd", lambda images: np.array([[image[0, 0, 0]] for image in images], np.float32), "odd", (112,))
    pixels = np.ones((5, 2, 2, 3), np.uint8)
    pixels[3] = 0
    names = [f"people/{name}.png" for name in "abcde"]
    with pytest.raises(ValueError, match=r"an embedding of people/d\.png that is zero"):
        EmbeddingCache(tmp_path, block=2).rows(model, Images("pixels", names, pixels.__getitem__), None)


def test_embeddings_of_different_lengths(tmp_path: Path) -> None:
    model = Model("odd", lambda images: np.ones((len(images), len(images)), np.float32), "odd", (112,))
    with pytest.raises(ValueError, match="odd gives embeddings of different lengths: 3 and 1"):
        EmbeddingCache(tmp_path, block=3).rows(model, make_images(4), None)


@pytest.mark.parametrize("resolution", [7.0, [7, 7], [[7, 7, 7]], "7"])
def test_resolutions_that_do_not_fit(tmp_path: Path, resolution: Any) -> None:
    with pytest.raises(ValueError, match="resolution must be an integer, or one for each of the 3 images, not "):
        EmbeddingCache(tmp_path).rows(Network().model, make_images(3), resolution)


def test_nothing_to_embed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there must be an image at least"):
        EmbeddingCache(tmp_path).rows(Network().model, make_images(0), 7)
    with pytest.raises(ValueError, match="block must be at least 1, not 0"):
        EmbeddingCache(tmp_path, block=0)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match=str(tmp_path / "cache")):
        EmbeddingCache(tmp_path / "cache").rows(Network().model, make_images(1), 7)
