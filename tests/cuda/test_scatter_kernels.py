"""scatter_rows against float64 NumPy."""

import numpy as np
import pytest
from kernels import Kernels


@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "normalize"])
@pytest.mark.parametrize("flip", [False, True], ids=["", "flip"])
@pytest.mark.parametrize(("dim", "shift"), [(512, 0), (512, 4), (128, 0), (130, 0), (7, 0), (1, 0)])
def test_rows_go_to_their_places(kernels: Kernels, dim: int, shift: int, flip: bool, normalize: bool) -> None:
    random = np.random.default_rng(dim)
    rows, mirrored = random.standard_normal((2, 11, dim), np.float32) * 10
    rows[3] = mirrored[3] = 0
    destinations = random.permutation(15)[:11]
    out = np.full((15, dim), np.float32(42))
    kernels.scatter_rows(rows, mirrored if flip else None, destinations, out, normalize=normalize, shift=shift)

    expected = rows + mirrored if flip else rows
    if normalize:
        lengths = np.linalg.norm(expected.astype(np.float64), axis=1, keepdims=True)
        expected = expected / np.where(lengths == 0, 1, lengths)
    # Sums of squares in another order may differ by a last bit of double: by half a last bit of float at most, then.
    np.testing.assert_allclose(out[destinations], expected, rtol=2**-23 if normalize else 0, atol=0)
    untouched = np.setdiff1d(np.arange(15), destinations)
    assert (out[untouched] == 42).all()


def test_no_rows_are_no_launch(kernels: Kernels) -> None:
    out = np.ones((2, 8), np.float32)
    nothing = np.zeros((0, 8), np.float32)
    kernels.scatter_rows(nothing, None, np.zeros(0, np.int64), out, normalize=True)
    assert (out == 1).all()
