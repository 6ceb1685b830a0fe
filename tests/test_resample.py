"""The resampler against Pillow: the same bytes from every code path, whatever the size and the strides."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import btnet_ext
from btnet_ext import InvalidImage, InvalidOption
from btnet_ext._native import core
from pillow_reference import FILTERS, pillow_resize

MEAN, STD = (127.5, 120.25, 99.0), (127.5, 60.0, 3.0)
SHAPES = [(1, 1), (1, 500), (500, 1), (2, 3), (7, 7), (14, 14), (15, 33), (112, 112), (250, 250), (300, 90)]


@pytest.fixture(params=["plain", "avx2", "avx512"])
def simd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force a code path; plain always runs."""
    name: str = request.param
    monkeypatch.setenv("BTNET_SIMD", name)
    try:
        assert core.simd() == name
    except InvalidOption as error:
        pytest.skip(str(error))
    return name


def noise(seed: int, *shape: int) -> np.ndarray:
    """Every other image is black and white, where cubic overshoot has to be clipped."""
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return values if seed % 2 == 0 else np.where(values < 128, 0, 255).astype(np.uint8)


def assert_like_pillow(image: np.ndarray, height: int, width: int) -> None:
    for name in FILTERS:
        resized = btnet_ext.resize(image, (height, width), filter=name)
        np.testing.assert_array_equal(resized, pillow_resize(image, height, width, name), err_msg=name)


@pytest.mark.parametrize("channels", [(), (1,), (3,)], ids=["HxW", "HxWx1", "HxWx3"])
@pytest.mark.parametrize("source", SHAPES, ids=str)
def test_every_pair_of_sizes_is_like_pillow(simd: str, source: tuple[int, int], channels: tuple[int, ...]) -> None:
    image = noise(source[0], *source, *channels)
    for target in SHAPES:
        assert_like_pillow(image, *target)


@pytest.mark.parametrize(("source", "target"), [((900, 900), (7, 7)), ((7, 7), (112, 112)), ((40, 2000), (9, 31))])
def test_far_apart_sizes_are_like_pillow(simd: str, source: tuple[int, int], target: tuple[int, int]) -> None:
    assert_like_pillow(noise(1, *source, 3), *target)


SIDE = st.integers(1, 160)


@pytest.mark.parametrize("level", ["plain", "avx2", "avx512"])
@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.tuples(SIDE, SIDE, SIDE, SIDE), st.sampled_from([(), (1,), (3,)]), st.integers(0, 1000))
def test_random_sizes_are_like_pillow(
    level: str, sides: tuple[int, int, int, int], channels: tuple[int, ...], seed: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BTNET_SIMD", level)
        try:
            core.simd()
        except InvalidOption as error:
            pytest.skip(str(error))
        assert_like_pillow(noise(seed, *sides[:2], *channels), *sides[2:])


VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "crop": lambda a: a[3:50, 5:41],
    "every other row": lambda a: a[::2],
    "every third column": lambda a: a[:, ::3],
    "upside down": lambda a: a[::-1],
    "mirrored": lambda a: a[:, ::-1],
    "channels reversed": lambda a: a[..., ::-1],
    "all reversed": lambda a: a[::-1, ::-1, ::-1],
    "transposed": lambda a: a.transpose(1, 0, 2),
    "planar": lambda a: np.ascontiguousarray(a.transpose(2, 0, 1)).transpose(1, 2, 0),
    "one channel": lambda a: a[..., 1],
    "one channel of three axes": lambda a: a[..., 1:2],
    "same row": lambda a: np.broadcast_to(a[:1], a.shape),
    "three times the same channel": lambda a: np.broadcast_to(a[..., :1], a.shape),
}


@pytest.mark.parametrize("view", VIEWS)
def test_strides_make_no_difference(simd: str, view: str) -> None:
    image = VIEWS[view](noise(2, 61, 47, 3))
    image.flags.writeable = False
    before = image.copy()
    for target in [(20, 31), (90, 70), image.shape[:2]]:
        assert_like_pillow(image, *target)
    np.testing.assert_array_equal(image, before)


def test_result_is_new_contiguous_and_writable(simd: str) -> None:
    image = noise(4, 20, 20, 3)
    resized = btnet_ext.resize(image, (20, 20))
    assert resized.flags.c_contiguous
    assert resized.flags.writeable
    assert not np.shares_memory(resized, image)


def expected_planes(image: np.ndarray, size: tuple[int, int], swap: bool, mirror: bool, name: str) -> np.ndarray:
    pixels = pillow_resize(image, *size, name).astype(np.float64)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = np.repeat(pixels.reshape(*size, 1), 3, axis=2)
    pixels = pixels[..., ::-1] if swap else pixels
    pixels = pixels[:, ::-1] if mirror else pixels
    planes: np.ndarray = ((pixels - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)
    return planes


@pytest.mark.parametrize("mirror", [False, True], ids=["", "mirror"])
@pytest.mark.parametrize("swap", [False, True], ids=["", "swap"])
@pytest.mark.parametrize("channels", [(), (1,), (3,)], ids=["HxW", "HxWx1", "HxWx3"])
def test_fused_form_is_resize_and_normalize(simd: str, channels: tuple[int, ...], swap: bool, mirror: bool) -> None:
    for source, size in [
        ((90, 61), (112, 112)),
        ((112, 112), (112, 112)),
        ((250, 250), (28, 28)),
        ((30, 20), (7, 7)),
        ((7, 7), (7, 7)),
        ((60, 20), (30, 41)),
        ((5, 9), (1, 1)),
    ]:
        image = noise(6, *source, *channels)
        for name in FILTERS:
            planes = core.resize_normalize(image, *size, MEAN, STD, swap, mirror, name)
            assert planes.dtype == np.float32
            np.testing.assert_allclose(planes, expected_planes(image, size, swap, mirror, name), rtol=3e-7, atol=0)


@pytest.mark.parametrize("channels", [(), (1,), (3,)], ids=["HxW", "HxWx1", "HxWx3"])
@pytest.mark.parametrize("name", FILTERS)
def test_degrade_is_two_resizes(simd: str, name: str, channels: tuple[int, ...]) -> None:
    image = noise(8, 130, 101, *channels)
    for resolution, canonical in [(7, 112), (14, 112), (28, 56), (56, 20)]:
        small = pillow_resize(image, resolution, resolution, name)
        expected = pillow_resize(small, canonical, canonical, name)
        result = btnet_ext.degrade(image, resolution, filter=name, canonical=canonical)
        np.testing.assert_array_equal(result, expected)
    assert btnet_ext.degrade(image, 14).shape == (112, 112, *channels)


def test_pil_images_and_array_interface_are_taken() -> None:
    image = noise(10, 40, 30, 3)

    class Holder:
        __array_interface__ = image.__array_interface__

    expected = pillow_resize(image, 14, 14, "bicubic")
    np.testing.assert_array_equal(btnet_ext.resize(Image.fromarray(image), (14, 14)), expected)
    size: Any = [14, np.int64(14)]
    np.testing.assert_array_equal(btnet_ext.resize(Holder(), size), expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 4), np.uint8), "4 channels"),
        (np.zeros(4, np.uint8), r"\(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((4, 4, 3), object), "object"),
        ("face.png", "str"),
        (None, "NoneType"),
    ],
)
def test_wrong_images_are_refused(image: Any, message: str) -> None:
    with pytest.raises(InvalidImage, match=message):
        btnet_ext.resize(image, (14, 14))
    with pytest.raises(InvalidImage, match=message):
        btnet_ext.degrade(image, 14)


@pytest.mark.parametrize("size", [(0, 14), (14, -1), (14,), 14, (14.0, 14), ("14", 14), (True, 14), (2**31, 1), None])
def test_wrong_sizes_are_refused(size: Any) -> None:
    with pytest.raises(InvalidOption, match="size"):
        btnet_ext.resize(noise(0, 4, 4, 3), size)


@pytest.mark.parametrize("option", [{"resolution": 0}, {"resolution": 7.5}, {"resolution": 7, "canonical": 0}])
def test_wrong_resolutions_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=r"resolution|canonical"):
        btnet_ext.degrade(noise(0, 4, 4, 3), **option)


@pytest.mark.parametrize("name", ["lanczos", "", 3, None])
def test_unknown_filters_are_refused(name: Any) -> None:
    with pytest.raises(InvalidOption, match="filter"):
        btnet_ext.resize(noise(0, 4, 4, 3), (2, 2), filter=name)
    with pytest.raises(InvalidOption, match="filter"):
        btnet_ext.degrade(noise(0, 4, 4, 3), 2, filter=name)


def test_unknown_code_paths_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTNET_SIMD", "mmx")
    with pytest.raises(InvalidOption, match="BTNET_SIMD must be plain, avx2 or avx512, not 'mmx'"):
        btnet_ext.resize(noise(0, 4, 4, 3), (2, 2))
