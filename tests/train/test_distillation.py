"""Losses of distillation against float64 NumPy, and their gradients against finite differences."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from derivatives import finite_differences, gradient_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from btnet_train import distillation
from btnet_train.distillation import PAIR_LOSSES, log_exp, map_distance, similarity_matrix


def unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / lengths


def expected_log_exp(x: NDArray[np.float64], y: NDArray[np.float64], p: int) -> float:
    dim = x.shape[1]
    sums = (np.exp(np.abs(unit(x) - unit(y)) ** p) - 1).sum(axis=1)
    return float((np.log(1 + sums) / (p * dim)).mean())


EXPECTED: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], float]] = {
    "cosine": lambda x, y: float((1 - (unit(x) * unit(y)).sum(axis=1)).mean()),
    "logexp1": lambda x, y: expected_log_exp(x, y, 1),
    "logexp2": lambda x, y: expected_log_exp(x, y, 2),
    "l1": lambda x, y: float(np.abs(unit(x) - unit(y)).mean()),
    "l2": lambda x, y: float(((unit(x) - unit(y)) ** 2).mean()),
}


def expected_similarity(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    pairs = [(i, j) for i in range(len(x)) for j in range(len(x)) if i != j]
    differences = [unit(x)[i] @ unit(x)[j] - unit(y)[i] @ unit(y)[j] for i, j in pairs]
    return float(np.mean(np.square(differences)))


def draw(seed: int, *shapes: tuple[int, ...]) -> list[NDArray[np.float64]]:
    """Normal numbers that float32 holds exactly, at norms from small to large."""
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=shape) * 10 ** rng.uniform(-2, 2)).astype(np.float32).astype(float) for shape in shapes]


def tensors(*arrays: NDArray[np.float64]) -> list[Tensor]:
    return [torch.from_numpy(array).float().requires_grad_() for array in arrays]


def test_pair_losses_are_the_ones_that_recipes_name() -> None:
    assert set(PAIR_LOSSES) == set(EXPECTED)
    assert PAIR_LOSSES["cosine"] is distillation.cosine_distance


@pytest.mark.parametrize("name", EXPECTED)
@settings(deadline=None, max_examples=30, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 9), dim=st.integers(1, 600))
def test_pair_losses_are_their_formulas(name: str, seed: int, n: int, dim: int) -> None:
    x, y = draw(seed, (n, dim), (n, dim))
    result = PAIR_LOSSES[name](*tensors(x, y))
    assert result.dtype == torch.float32
    assert result.shape == ()
    assert result.item() == pytest.approx(EXPECTED[name](x, y), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", EXPECTED)
def test_gradients_of_pair_losses(name: str) -> None:
    x, y = draw(21, (3, 5), (3, 5))
    inputs = tensors(x, y)
    torch.autograd.backward(PAIR_LOSSES[name](*inputs))
    for tensor, array in zip(inputs, (x, y), strict=True):
        expected = finite_differences(lambda: EXPECTED[name](x, y), array, 1e-6 * np.abs(array).max())
        np.testing.assert_allclose(gradient_of(tensor).numpy(), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", EXPECTED)
def test_equal_embeddings_are_exactly_at_zero_with_zero_gradient(name: str) -> None:
    (x,) = draw(4, (6, 512))
    inputs = tensors(x, x)
    result = PAIR_LOSSES[name](*inputs)
    torch.autograd.backward(result)
    assert result.item() == 0
    for tensor in inputs:
        assert torch.equal(gradient_of(tensor), torch.zeros_like(tensor))


@pytest.mark.parametrize("name", EXPECTED)
def test_opposite_embeddings_have_finite_gradients(name: str) -> None:
    axis = torch.zeros(2, 8)
    axis[:, 3] = 2
    inputs = [axis.clone().requires_grad_(), (-5 * axis).requires_grad_()]
    result = PAIR_LOSSES[name](*inputs)
    torch.autograd.backward(result)
    # By hand, from a single difference of 2 in 8 dimensions.
    by_hand = {"cosine": 2, "logexp1": 2 / 8, "logexp2": 4 / 16, "l1": 2 / 8, "l2": 4 / 8}
    assert result.item() == pytest.approx(by_hand[name], rel=1e-6)
    assert all(torch.isfinite(gradient_of(tensor)).all() for tensor in inputs)


@pytest.mark.parametrize("p", [1, 2])
def test_log_exp_keeps_its_precision_near_zero(p: int) -> None:
    # A difference of 1e-4 in one of 512 dimensions; exp(1e-8) - 1 is zero in float32, if taken naively.
    x, y = np.eye(1, 512), np.eye(1, 512)
    y[0, 1] = 1e-4
    first, second = tensors(x, y)
    result = log_exp(first, second, p=p)
    assert result.item() == pytest.approx(1e-4**p / (p * 512), rel=1e-3)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 9), dim=st.integers(2, 64), other=st.integers(2, 64))
def test_similarity_matrix_is_its_formula(seed: int, n: int, dim: int, other: int) -> None:
    x, y = draw(seed, (n, dim), (n, other))
    result = similarity_matrix(*tensors(x, y))
    assert result.dtype == torch.float32
    assert result.item() == pytest.approx(expected_similarity(x, y), rel=1e-4, abs=1e-9)


def test_gradient_of_similarity_matrix() -> None:
    x, y = draw(22, (4, 5), (4, 3))
    inputs = tensors(x, y)
    torch.autograd.backward(similarity_matrix(*inputs))
    for tensor, array in zip(inputs, (x, y), strict=True):
        expected = finite_differences(lambda: expected_similarity(x, y), array, 1e-6 * np.abs(array).max())
        np.testing.assert_allclose(gradient_of(tensor).numpy(), expected, atol=1e-4 * np.abs(expected).max())


def test_similarity_matrix_does_not_see_a_rotation() -> None:
    (x,) = draw(23, (6, 8))
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))
    assert similarity_matrix(*tensors(x, 3 * x @ rotation)).item() < 1e-12
    assert similarity_matrix(*tensors(x, x[::-1].copy())).item() > 1e-3


@settings(deadline=None, max_examples=20, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), shape=st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_map_distance_is_the_mean_over_elements(seed: int, shape: list[int]) -> None:
    x, y = draw(seed, tuple(shape), tuple(shape))
    inputs = tensors(x, y)
    result = map_distance(*inputs)
    torch.autograd.backward(result)
    assert result.item() == pytest.approx(((x - y) ** 2).mean(), rel=1e-5)
    np.testing.assert_allclose(gradient_of(inputs[0]).numpy(), 2 * (x - y) / x.size, rtol=1e-4)


@pytest.mark.parametrize("loss", [*PAIR_LOSSES.values(), similarity_matrix, map_distance])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_and_half_precision_leave_the_result_in_float32(
    loss: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype
) -> None:
    x, y = (tensor.detach().to(dtype) for tensor in tensors(*draw(9, (8, 32), (8, 32))))
    with torch.autocast("cpu", torch.bfloat16):
        result = loss(x, y)
    assert result.dtype == torch.float32
    assert torch.equal(result, loss(x.float(), y.float()))


@pytest.mark.parametrize("loss", [*PAIR_LOSSES.values(), map_distance])
@pytest.mark.parametrize("shapes", [((3, 4), (3, 5)), ((3, 4), (1, 4)), ((0, 4), (0, 4))])
def test_pairs_of_other_shapes_are_refused(
    loss: Callable[[Tensor, Tensor], Tensor], shapes: tuple[tuple[int, ...], ...]
) -> None:
    x, y = map(torch.ones, shapes)
    with pytest.raises(ValueError, match=rf"x and y must have the same shape.* got \({shapes[0][0]}, 4\) and "):
        loss(x, y)


def test_pair_losses_refuse_maps() -> None:
    with pytest.raises(ValueError, match=r"x and y must have the same shape \(n, D\)"):
        PAIR_LOSSES["l2"](torch.ones(2, 3, 4), torch.ones(2, 3, 4))


@pytest.mark.parametrize("shapes", [((3, 4), (2, 4)), ((3, 4), (3,)), ((3, 4, 5), (3, 4))])
def test_similarity_matrix_refuses_other_shapes(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"x and y must have the shapes \(n, D\) and \(n, E\)"):
        similarity_matrix(*map(torch.ones, shapes))


def test_similarity_matrix_needs_two_rows() -> None:
    with pytest.raises(ValueError, match="x and y must have at least 2 rows, got 1"):
        similarity_matrix(torch.ones(1, 4), torch.ones(1, 4))


@pytest.mark.parametrize("p", [0, 3, 1.5])
def test_log_exp_refuses_other_powers(p: int) -> None:
    with pytest.raises(ValueError, match=f"p must be 1 or 2, got {p}"):
        log_exp(torch.ones(2, 3), torch.ones(2, 3), p)
