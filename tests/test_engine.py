"""The engine against PyTorch and Pillow, and what its options do."""

import copy
import importlib
import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from btnet_ext import (
    BackendUnavailable,
    BtnetError,
    Engine,
    InvalidImage,
    InvalidOption,
    ModelNotFound,
    models,
)
from bundle_copies import BundleCopy
from pillow_reference import pillow_resize
from reference import Pixels, Reference, cosines, faces, normalized, small_reference

SEED = 11
RESOLUTIONS = (7, 14, 28, 112)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return small_reference()


@pytest.fixture(scope="module")
def engine(small_bundle: Path) -> Engine:
    return Engine(small_bundle)


@pytest.fixture(scope="module")
def mixed() -> list[Pixels]:
    """Images around every border between branches, tall and wide ones, large and tiny ones."""
    sides = [(1, 1), (1, 7), (7, 7), (8, 3), (14, 14), (15, 15), (28, 20), (29, 29), (112, 112), (113, 40), (3, 250)]
    generator = np.random.default_rng(SEED)
    drawn = (np.exp(generator.uniform(0, 6, 2)) + 1 for _ in range(30))
    sides += [(int(height), int(width)) for height, width in drawn]
    return faces(sides, SEED)


def test_an_engine_stays_in_its_process(small_bundle: Path) -> None:
    engine = Engine(small_bundle, resolutions=[7])
    for leave in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="an Engine cannot be pickled or copied: make one in each process"):
            leave(engine)


def test_mixed_sizes_equal_pytorch(engine: Engine, reference: Reference, mixed: list[Pixels]) -> None:
    embeddings = engine.embed(mixed)
    assert embeddings.shape == (len(mixed), 512)
    assert embeddings.dtype == np.float32
    assert cosines(embeddings, reference.selected(mixed)).min() >= 0.999999
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_each_branch_equals_pytorch(
    small_bundle: Path, reference: Reference, mixed: list[Pixels], resolution: int
) -> None:
    engine = Engine(small_bundle, resolutions=[resolution])
    assert engine.resolutions == (resolution,)
    assert set(engine.select(mixed)) == {resolution}
    expected = reference.raw(mixed, resolution)
    actual = engine.embed(mixed, normalize=False)
    assert cosines(actual, expected).min() >= 0.999999
    np.testing.assert_allclose(np.linalg.norm(actual, axis=1), np.linalg.norm(expected, axis=1), rtol=1e-3)


def test_different_images_have_different_embeddings(engine: Engine, mixed: list[Pixels]) -> None:
    """Cosines of 0.999999 to a reference say something only if other images are further away than that."""
    large = [image for image in mixed if min(image.shape[:2]) >= 4]
    embeddings = engine.embed(large).astype(np.float64)
    between = embeddings @ embeddings.T - 2 * np.eye(len(large))
    assert between.max() < 0.9999


def test_bf16(small_bundle: Path, reference: Reference, mixed: list[Pixels]) -> None:
    try:
        engine = Engine(small_bundle, precision="bf16")
    except BackendUnavailable as error:
        assert "bf16" in str(error)  # noqa: PT017
        pytest.skip(f"no bf16 here: {error}")
    similarity = cosines(engine.embed(mixed), reference.selected(mixed))
    assert similarity.min() >= 0.999
    assert similarity.min() < 0.9999999, "this was not bf16"
    assert engine.precision == "bf16"


@pytest.mark.parametrize("flip", [False, True])
def test_single_equals_batch(engine: Engine, mixed: list[Pixels], flip: bool) -> None:
    batch = engine.embed(mixed, flip=flip)
    single = np.concatenate([engine.embed([image], flip=flip) for image in mixed])
    np.testing.assert_allclose(single, batch, rtol=0, atol=1e-5)
    order = np.random.default_rng(SEED).permutation(len(mixed))
    shuffled = engine.embed([mixed[i] for i in order], flip=flip)
    np.testing.assert_allclose(shuffled, batch[order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_flip_sum(small_bundle: Path, reference: Reference, mixed: list[Pixels], resolution: int) -> None:
    engine = Engine(small_bundle, resolutions=[resolution])
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in mixed]
    expected = reference.raw(mixed, resolution) + reference.raw(mirrored, resolution)
    raw = engine.embed(mixed, flip=True, normalize=False)
    np.testing.assert_allclose(raw, expected, atol=2e-3 * np.abs(expected).max())
    assert cosines(raw, expected).min() >= 0.999999
    np.testing.assert_allclose(engine.embed(mixed, flip=True), normalized(raw), atol=1e-6)


def test_normalize(engine: Engine, mixed: list[Pixels]) -> None:
    raw = engine.embed(mixed, normalize=False)
    np.testing.assert_allclose(engine.embed(mixed), normalized(raw), atol=1e-6)
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 0.1


def test_latency_and_threads(small_bundle: Path, engine: Engine, mixed: list[Pixels]) -> None:
    expected = engine.embed(mixed)
    for options in ({"hint": "latency"}, {"threads": 1}, {"threads": 3}, {"hint": "latency", "threads": 2}):
        actual = Engine(small_bundle, **options).embed(mixed)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


def test_two_threads_at_once(engine: Engine, mixed: list[Pixels]) -> None:
    expected = engine.embed(mixed)
    found: list[Any] = [None] * 4

    def embed(number: int) -> None:
        images = mixed if number % 2 == 0 else mixed[::-1]
        rows = [engine.embed(images) for _ in range(3)]
        found[number] = [block if number % 2 == 0 else block[::-1] for block in rows]

    threads = [threading.Thread(target=embed, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for blocks in found:
        for block in blocks:
            np.testing.assert_allclose(block, expected, rtol=0, atol=1e-5)


# DESIGN.md, "Branch selection": the first and the last side of each row.
TABLES = {
    "ceil": {7: (1, 7), 14: (8, 14), 28: (15, 28), 112: (29, 500)},
    "floor": {7: (1, 13), 14: (14, 27), 28: (28, 111), 112: (112, 500)},
    "near": {7: (1, 10), 14: (11, 21), 28: (22, 70), 112: (71, 500)},
}


@pytest.mark.parametrize("rounding", TABLES)
def test_select(small_bundle: Path, rounding: str) -> None:
    sides = [side for ends in TABLES[rounding].values() for side in ends]
    expected = [resolution for resolution in TABLES[rounding] for _ in range(2)]
    shapes: dict[str, Callable[[int], tuple[int, int]]] = {
        "max": lambda side: (side, max(1, side // 3)),
        "min": lambda side: (side + 90, side),
        "avg": lambda side: (side + side // 2, side - side // 2 + 1),  # their mean is side + 1/2
    }
    for indicator, shape in shapes.items():
        engine = Engine(small_bundle, resolutions=None, indicator=indicator, rounding=rounding)
        selected = engine.select([np.zeros((*shape(side), 3), np.uint8) for side in sides])
        assert selected.dtype == np.int32
        assert selected.tolist() == expected


def test_select_follows_embed(engine: Engine, reference: Reference, mixed: list[Pixels]) -> None:
    selected = engine.select(mixed)
    expected = [normalized(reference.raw([image], int(r)))[0] for image, r in zip(mixed, selected, strict=True)]
    assert cosines(engine.embed(mixed), np.stack(expected)).min() >= 0.999999


def test_properties(engine: Engine, small_bundle: Path) -> None:
    assert (engine.dim, engine.resolutions, engine.device, engine.precision) == (512, RESOLUTIONS, "cpu", "f32")
    assert engine.bundle.path == small_bundle
    assert repr(engine) == "Engine('small', device='cpu', precision='f32', resolutions=(7, 14, 28, 112), dim=512)"


def test_the_bundle_outlives_its_engine(small_bundle: Path) -> None:
    assert Engine(small_bundle, resolutions=[7]).bundle.name == "small"


def test_auto_is_the_cpu_and_says_so(small_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="btnet_ext"):
        assert Engine(small_bundle, device="auto", resolutions=[7]).device == "cpu"
    assert "cpu" in caplog.text


INVALID: dict[str, tuple[Any, ...]] = {
    "device": ("gpu", "", "CPU", "cpu:0", "cudafoo", "cuda:x", 0, None),
    "precision": ("fp32", "", "f16", "f64", 32, None),
    "hint": ("fast", "", None),
    "indicator": ("mean", "MAX", "", 0, b"max"),
    "rounding": ("round", "up", "", False, []),
    "color": ("RGB", "grey", "", None),
    "threads": (0, -1, 1.5, "2", True, 2**31, 10**30),
    "resolutions": ([], [8], [112, 56], ["7"], [7.0], "7", 7, [None], [2**40], [-7], [True]),
}


@pytest.mark.parametrize(("option", "value"), [(option, value) for option in INVALID for value in INVALID[option]])
def test_invalid_options(small_bundle: Path, option: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=option) as caught:
        Engine(small_bundle, **{option: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_no_silent_fall_back_from_cuda(small_bundle: Path, device: str) -> None:
    with pytest.raises(BackendUnavailable, match=device):
        Engine(small_bundle, device=device)


def test_int8_of_a_bundle_that_has_none(small_bundle: Path) -> None:
    with pytest.raises(BackendUnavailable, match="int8"):
        Engine(small_bundle, precision="int8")


@pytest.mark.parametrize("flag", ["flip", "normalize"])
@pytest.mark.parametrize("value", ["yes", 1, None, []])
def test_flags_are_true_or_false(engine: Engine, mixed: list[Pixels], flag: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=flag):
        engine.embed(mixed, **{flag: value})
    with pytest.raises(InvalidOption, match=flag):
        engine.embed_stream(mixed, **{flag: value})


@pytest.mark.parametrize("model", [None, 5, b"small.btnet", "no\0name.btnet"])
def test_a_model_that_is_no_path(model: Any) -> None:
    with pytest.raises(InvalidOption, match="model must"):
        Engine(model)


def test_stream(engine: Engine, mixed: list[Pixels]) -> None:
    expected = engine.embed(mixed)
    for batch_size in (1, 10, len(mixed), 1000):
        blocks = list(engine.embed_stream(iter(mixed), batch_size=batch_size))
        full, rest = divmod(len(mixed), batch_size)
        assert [len(block) for block in blocks] == [batch_size] * full + [rest] * (rest > 0)
        np.testing.assert_allclose(np.concatenate(blocks), expected, rtol=0, atol=1e-5)
    flipped = np.concatenate(list(engine.embed_stream(mixed, batch_size=9, flip=True, normalize=False)))
    np.testing.assert_allclose(flipped, engine.embed(mixed, flip=True, normalize=False), rtol=1e-3, atol=1e-3)


def test_stream_of_nothing(engine: Engine) -> None:
    assert list(engine.embed_stream([])) == []


def test_stream_reads_no_further_than_asked(engine: Engine) -> None:
    read = 0

    def reader() -> Iterator[Pixels]:
        nonlocal read
        while True:
            read += 1
            yield np.full((7, 7, 3), read % 256, np.uint8)

    blocks = engine.embed_stream(reader(), batch_size=8)
    assert read == 0
    next(blocks)
    assert read == 8
    next(blocks)
    assert read == 16


def test_stream_whose_reader_fails(engine: Engine) -> None:
    def reader() -> Iterator[Pixels]:
        for _ in range(20):
            yield np.zeros((7, 7, 3), np.uint8)
        raise OSError("the disk is gone")

    blocks = engine.embed_stream(reader(), batch_size=8)
    assert [len(next(blocks)), len(next(blocks))] == [8, 8]
    with pytest.raises(OSError, match="the disk is gone"):
        next(blocks)


def test_stream_names_the_global_index(engine: Engine) -> None:
    images: list[Any] = [np.zeros((7, 7, 3), np.uint8)] * 30
    images[21] = np.zeros((7, 7, 4), np.uint8)
    blocks = engine.embed_stream(images, batch_size=8)
    assert [len(next(blocks)), len(next(blocks))] == [8, 8]
    with pytest.raises(InvalidImage, match=r"images\[21\]"):
        next(blocks)


def test_stream_of_one_array_of_images(engine: Engine) -> None:
    stacked = np.stack(faces([(20, 30)] * 7, SEED))
    expected = engine.embed(list(stacked))
    for images in (stacked, torch.from_numpy(stacked)):
        blocks = list(engine.embed_stream(images, batch_size=3))
        assert [len(block) for block in blocks] == [3, 3, 1]
        np.testing.assert_allclose(np.concatenate(blocks), expected, rtol=0, atol=1e-6)


def test_the_filter_and_the_normalisation_are_those_of_the_bundle(
    small_bundle: Path, reference: Reference, mixed: list[Pixels], tmp_path: Path
) -> None:
    copy = BundleCopy(small_bundle, tmp_path / "copy.btnet")
    given = {"color": "bgr", "mean": [110.0, 120.0, 130.0], "std": [100.0, 130.0, 160.0], "filter": "bilinear"}
    copy.edit_model(lambda model: model["input"].update(given))
    small = np.stack([pillow_resize(image, 14, 14, "bilinear")[..., ::-1] for image in mixed])
    inputs = (small - np.array(given["mean"])) / np.array(given["std"])
    with torch.inference_mode():
        planes = torch.from_numpy(inputs.transpose(0, 3, 1, 2).astype(np.float32))
        expected = reference.networks[14](planes)[0].numpy()
    found = Engine(copy.path, resolutions=[14]).embed(mixed, normalize=False)
    assert cosines(found, expected).min() >= 0.999999
    assert cosines(reference.raw(mixed, 14), expected).min() < 0.99, "the usual way would do as well"


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, "8", True, None])
def test_stream_with_an_invalid_batch_size(engine: Engine, batch_size: Any) -> None:
    with pytest.raises(InvalidOption, match="batch_size"):
        engine.embed_stream([], batch_size=batch_size)


@pytest.mark.parametrize("images", ["faces.zip", b"bytes", 7, None, Image.new("RGB", (9, 9))])
def test_stream_of_what_is_no_iterable(engine: Engine, images: Any) -> None:
    with pytest.raises(BtnetError, match="images"):
        engine.embed_stream(images)


def test_stream_of_one_bare_image(engine: Engine) -> None:
    """Its rows would pass for small grey images: N useless embeddings, and no error."""
    with pytest.raises(BtnetError, match="images"):
        list(engine.embed_stream(np.zeros((112, 112, 3), np.uint8)))


def test_model_not_found() -> None:
    with pytest.raises(ModelNotFound) as caught:
        Engine("no_such_model")
    message = str(caught.value)
    for part in ("'no_such_model'", "no_such_model.btnet", models.folders()[0].as_posix(), "btnet-train export"):
        assert part in message
    assert "\n" not in message
    for name in ("", "..", "x" * 300, "a\0b"):
        with pytest.raises(ModelNotFound):
            Engine(name)


@pytest.mark.parametrize("model", [None, 7, b"small.btnet", ["small"]])
def test_model_of_another_type(model: Any) -> None:
    with pytest.raises(InvalidOption, match="model"):
        Engine(model)


def test_a_users_own_model(small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTNET_HOME", str(tmp_path))
    assert "mine" not in models.list()
    (tmp_path / "mine.btnet").symlink_to(small_bundle)
    assert models.list() == sorted({"mine", *models.list()})
    assert "mine" in models.list()
    assert models.path("mine") == tmp_path / "mine.btnet"
    assert Engine("mine", resolutions=[7]).bundle.path == tmp_path / "mine.btnet"
    assert importlib.import_module("btnet_ext").models is models
