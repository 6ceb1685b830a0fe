"""resize_normalize: with mean 0 and std 1, planes are bytes, and these have to be Pillow's."""

import os
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernels import FILTERS, ORDERS, SANITIZED, Kernels

from pillow_reference import pillow_resize

MEAN, STD = (127.5, 120.25, 99.0), (127.5, 60.0, 3.0)
BRANCHES = [7, 14, 28, 56, 112]
SHAPES = [(1, 1), (1, 90), (90, 1), (7, 7), (9, 11), (14, 14), (20, 14), (33, 60), (112, 112), (130, 90), (250, 250)]


def noise(seed: int, *shape: int) -> np.ndarray:
    """Every other image is black and white, where cubic overshoot has to be clipped."""
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return values if seed % 2 == 0 else np.where(values < 128, 0, 255).astype(np.uint8)


def expected_planes(image: np.ndarray, side: int, name: str = "bicubic") -> np.ndarray:
    pixels = pillow_resize(image, side, side, name).reshape(side, side, -1)
    return np.broadcast_to(pixels, (side, side, 3)).transpose(2, 0, 1)


def assert_like_pillow(
    kernels: Kernels, images: list[np.ndarray], sides: list[int], name: str = "bicubic", shift: int = 0
) -> None:
    outs, mirrored = kernels.resize_normalize(images, sides, name=name, mirror=True, shift=shift)
    for i, (image, side) in enumerate(zip(images, sides, strict=True)):
        expected, case = expected_planes(image, side, name), f"image {i}: {image.shape} to {side}, {name}"
        np.testing.assert_array_equal(outs[i], expected, err_msg=case)
        np.testing.assert_array_equal(mirrored[i], expected[..., ::-1], err_msg=f"{case}, mirrored")


def test_one_launch_for_all_sizes_and_branches(kernels: Kernels) -> None:
    images = [noise(seed, *shape, 3) for seed, shape in enumerate(SHAPES)]
    assert_like_pillow(
        kernels, [image for image in images for _ in BRANCHES], [side for _ in images for side in BRANCHES]
    )


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("channels", [(), (1,), (3,)], ids=["HxW", "HxWx1", "HxWx3"])
def test_grey_and_colour(kernels: Kernels, name: str, channels: tuple[int, ...]) -> None:
    images = [noise(seed, *shape, *channels) for seed, shape in enumerate([(30, 20), (20, 30), (70, 71), (28, 28)])]
    for side in (7, 28, 112):
        assert_like_pillow(kernels, images, [side] * len(images), name)


SIDE = st.integers(1, 80)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # it is one library for all examples
)
@given(
    st.lists(st.tuples(SIDE, SIDE, st.sampled_from([(), (3,)]), st.integers(1, 125)), min_size=1, max_size=4),
    st.sampled_from(FILTERS),
    st.sampled_from(list(ORDERS.values())),
    st.integers(0, 1000),
)
def test_random_sizes(
    unordered_kernels: Kernels, jobs: list[tuple[int, int, tuple[int, ...], int]], name: str, order: int, seed: int
) -> None:
    unordered_kernels.set_order(order)
    images = [noise(seed + i, height, width, *channels) for i, (height, width, channels, _) in enumerate(jobs)]
    assert_like_pillow(unordered_kernels, images, [side for *_, side in jobs], name)


@pytest.mark.parametrize("side", [113, 224, 225], ids=str)
def test_sides_of_several_tiles(kernels: Kernels, side: int) -> None:
    assert_like_pillow(kernels, [noise(1, 60, 50, 3), noise(2, 240, 231)], [side, side])


@pytest.mark.parametrize("shape", [(2, 4096, 3), (4096, 2, 3), (3, 2000), (700, 900, 3)], ids=str)
def test_long_lines_come_in_segments(kernels: Kernels, shape: tuple[int, ...]) -> None:
    assert_like_pillow(kernels, [noise(3, *shape)] * 2, [7, 112])


@pytest.mark.skipif(SANITIZED in os.environ, reason="takes too long with sanitizers; smaller ones read the same way")
def test_largest_to_smallest(unordered_kernels: Kernels) -> None:
    assert_like_pillow(unordered_kernels, [noise(4, 4096, 4096, 3)], [7])


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
    "same row": lambda a: np.broadcast_to(a[:1], a.shape),
    "three times the same channel": lambda a: np.broadcast_to(a[..., :1], a.shape),
}


@pytest.mark.parametrize("side", [20, 112])
def test_strides_make_no_difference(kernels: Kernels, side: int) -> None:
    source = noise(2, 61, 47, 3)
    images = [view(source) for view in VIEWS.values()]
    assert_like_pillow(kernels, images, [side] * len(images))


@pytest.mark.parametrize("shift", [0, 16, 4, 1])
@pytest.mark.parametrize("channels", [1, 3])
def test_rows_at_multiples_of_16_bytes(kernels: Kernels, channels: int, shift: int) -> None:
    widths = [1, 5, 16, 21, 50, 112]
    buffer = noise(6, len(widths), 60, 112 * channels)
    images = [
        np.lib.stride_tricks.as_strided(rows, (60, w, channels), (112 * channels, channels, 1), writeable=False)
        for rows, w in zip(buffer, widths, strict=True)
    ]
    assert_like_pillow(kernels, images, [14] * len(widths), shift=shift)


@pytest.mark.parametrize("swap", [False, True], ids=["", "swap"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_normalization_has_the_bits_of_numpy(kernels: Kernels, dtype: type, swap: bool) -> None:
    images = [noise(8, 90, 61, 3), noise(10, 60, 70, 3), noise(12, 20, 20)]
    for side in (7, 28, 112):
        outs, mirrored = kernels.resize_normalize(
            images, [side] * 3, mean=MEAN, std=STD, swap=swap, dtype=dtype, mirror=True
        )
        for image, out, flipped in zip(images, outs, mirrored, strict=True):
            pixels = expected_planes(image, side)[:: -1 if swap else 1].astype(np.float32)
            mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (MEAN, STD))
            expected: np.ndarray = ((pixels - mean) * (np.float32(1) / std)).astype(dtype)
            assert out.dtype == dtype
            np.testing.assert_array_equal(out, expected)
            np.testing.assert_array_equal(flipped, expected[..., ::-1])


def test_mirrored_is_only_written_where_asked_for(kernels: Kernels) -> None:
    outs, mirrored = kernels.resize_normalize([noise(0, 9, 9, 3)], [14])
    np.testing.assert_array_equal(outs[0], expected_planes(noise(0, 9, 9, 3), 14))
    assert mirrored == []


def test_no_images_are_no_launch(kernels: Kernels) -> None:
    assert kernels.resize_normalize([], []) == ([], [])


@pytest.mark.parametrize(
    ("shape", "side", "message"),
    [
        ((4, 4, 2), 7, r"image has 2 channels, expected 3 \(or 1: grey\)"),
        ((0, 4, 3), 7, "image has no pixels: it is 0 high and 4 wide"),
        ((4, 4, 3), 0, "side is 0, expected at least 1"),
    ],
)
def test_plan_refuses(emulated_kernels: Kernels, shape: tuple[int, ...], side: int, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        emulated_kernels.resize_normalize([np.zeros(shape, np.uint8)], [side])


def test_images_of_one_size_share_their_taps(emulated_kernels: Kernels) -> None:
    # 30 -> 7 and 20 -> 7, each in the order of its pass; a square one needs its axis in both.
    assert emulated_kernels.count_tables([noise(i, 20, 30, 3) for i in range(5)], [7] * 5) == 2
    assert emulated_kernels.count_tables([noise(0, 20, 30), noise(0, 30, 30), noise(0, 20, 20)], [7] * 3) == 4
