"""Gradients: PyTorch's, and by finite differences, in float64."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def gradient_of(tensor: Tensor) -> Tensor:
    """Return the gradient that PyTorch has computed."""
    assert tensor.grad is not None
    return tensor.grad


def finite_differences(f: Callable[[], float], array: NDArray[np.float64], step: float = 1e-6) -> NDArray[np.float64]:
    """Return the derivative of `f` by each element of `array`, which `f` reads and which is put back as it was."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        before = array[index]
        array[index] = before + step
        above = f()
        array[index] = before - step
        gradient[index] = (above - f()) / (2 * step)
        array[index] = before
    return gradient
