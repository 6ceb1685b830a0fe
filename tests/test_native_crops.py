"""The main job on real input: native face crops, and the same faces shrunk, equal to the PyTorch reference."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from btnet_ext import Engine
from reference import Embeddings, Pixels, Reference, cosines, small_reference

SEED = 3
LONGER_SIDES = (5, 7, 10, 14, 20, 28, 60)
SHRUNK_CROPS = 425  # a side


@pytest.fixture(scope="module")
def reference() -> Reference:
    return small_reference()


@pytest.fixture(scope="module")
def crops(data_folder: Path) -> list[Pixels]:
    with zipfile.ZipFile(data_folder / "celeba" / "native_crops.zip") as archive:
        names = sorted(name for name in archive.namelist() if not name.endswith("/"))
        images = [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names]
    assert len(images) == 425
    return images


@pytest.fixture(scope="module")
def shrunk(crops: list[Pixels]) -> dict[int, list[Pixels]]:
    """By longer side, a subset of the crops with that side, as Pillow shrinks them with a box filter."""
    generator = np.random.default_rng(SEED)

    def pick() -> list[Pixels]:
        return [crops[index] for index in generator.choice(len(crops), SHRUNK_CROPS, replace=False)]

    return {side: [_shrink(crop, side) for crop in pick()] for side in LONGER_SIDES}


def _shrink(crop: Pixels, side: int) -> Pixels:
    height, width = (max(1, round(length * side / max(crop.shape[:2]))) for length in crop.shape[:2])
    return np.asarray(Image.fromarray(crop).resize((width, height), Image.Resampling.BOX))


def check(actual: Embeddings, expected: Embeddings) -> None:
    similarity = cosines(actual, expected)
    worst = int(similarity.argmin())
    assert similarity[worst] >= 0.999999, f"image {worst}: {similarity[worst]}"


def test_native_crops_by_selection(small_bundle: Path, reference: Reference, crops: list[Pixels]) -> None:
    check(Engine(small_bundle).embed(crops), reference.selected(crops))


@pytest.mark.parametrize("resolution", [7, 14, 28, 112])
def test_native_crops_by_branch(small_bundle: Path, reference: Reference, crops: list[Pixels], resolution: int) -> None:
    engine = Engine(small_bundle, resolutions=[resolution])
    check(engine.embed(crops, normalize=False), reference.raw(crops, resolution))


def test_shrunk_crops_by_selection(small_bundle: Path, reference: Reference, shrunk: dict[int, list[Pixels]]) -> None:
    images = [image for images in shrunk.values() for image in images]
    engine = Engine(small_bundle)
    assert set(engine.select(images)) == {7, 14, 28, 112}
    check(engine.embed(images), reference.selected(images))


@pytest.mark.parametrize("resolution", [7, 14, 28, 112])
def test_shrunk_crops_by_branch(
    small_bundle: Path, reference: Reference, shrunk: dict[int, list[Pixels]], resolution: int
) -> None:
    images = [image for images in shrunk.values() for image in images]
    engine = Engine(small_bundle, resolutions=[resolution])
    check(engine.embed(images, normalize=False), reference.raw(images, resolution))
