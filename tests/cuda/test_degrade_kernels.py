"""degrade on the device is two of Pillow's resizes."""

import numpy as np
import pytest
from kernels import FILTERS, Kernels
from test_resize_kernels import noise

from pillow_reference import pillow_resize


@pytest.mark.parametrize("canonical", [112, 130, 20])
@pytest.mark.parametrize("channels", [(), (1,), (3,)], ids=["HxW", "HxWx1", "HxWx3"])
def test_down_and_up_again(kernels: Kernels, channels: tuple[int, ...], canonical: int) -> None:
    resolutions = [7, 14, 28, 56, 84, 33, 1]
    shapes = [(130, 101), (101, 130), (20, 20), (112, 112), (90, 90), (10, 60), (60, 10)]
    images = [noise(seed, *shape, *channels) for seed, shape in enumerate(shapes)]
    name = FILTERS[canonical == 20]
    results = kernels.degrade(images, resolutions, canonical=canonical, name=name)
    for image, resolution, result in zip(images, resolutions, results, strict=True):
        small = pillow_resize(image, resolution, resolution, name)
        expected = pillow_resize(small, canonical, canonical, name)
        np.testing.assert_array_equal(result, expected, err_msg=f"{image.shape}, {resolution}")


def test_no_images_are_no_launch(kernels: Kernels) -> None:
    assert kernels.degrade([], []) == []


@pytest.mark.parametrize("resolution", [0, 85])
def test_resolutions_that_do_not_fit_are_refused(emulated_kernels: Kernels, resolution: int) -> None:
    with pytest.raises(RuntimeError, match=f"resolution is {resolution}, expected 1 to 84"):
        emulated_kernels.degrade([noise(0, 9, 9, 3)], [resolution])
