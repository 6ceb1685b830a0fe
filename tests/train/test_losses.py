"""Classifiers against the papers' formulas in float64 NumPy, and their gradients against finite differences."""

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from derivatives import finite_differences, gradient_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from btnet_train.losses import Classifier
from btnet_train.margins import LOSSES

OPTIONS: dict[str, dict[str, Any]] = {
    "arcface": {"margin": 0.5, "scale": 64.0},
    "cosface": {"margin": 0.4, "scale": 48.0},
    "curricularface": {"margin": 0.5, "scale": 64.0},
    "normface": {"margin": 0.0, "scale": 20.0},
    "sphereface": {"margin": 4, "scale": 1.0},
}
T = 0.3


def unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / lengths


def expected_loss(
    loss: str, x: NDArray[np.float64], w: NDArray[np.float64], y: NDArray[np.int64], margin: float, scale: float
) -> float:
    """The loss of all rows, one at a time and as the papers write it; t of curricularface is T."""
    total, m = 0.0, margin
    for row, label in enumerate(y):
        cosines = unit(x)[row] @ unit(w).T
        theta = math.acos(min(1.0, max(-1.0, cosines[label])))
        logits = cosines.copy()
        if loss in ("arcface", "curricularface"):
            if loss == "curricularface":
                hard = cosines > math.cos(theta + m)
                logits[hard] = cosines[hard] * (T + cosines[hard])
            beyond = theta + m > math.pi
            logits[label] = math.cos(theta) - m * math.sin(m) if beyond else math.cos(theta + m)
        elif loss == "cosface":
            logits[label] = cosines[label] - m
        elif loss == "sphereface":
            k = min(int(theta // (math.pi / m)), m - 1)
            logits[label] = (-1) ** k * math.cos(m * theta) - 2 * k
            logits *= np.linalg.norm(x[row])
        logits *= scale
        total += np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label]
    return total / len(y)


def make(loss: str, w: NDArray[np.float64]) -> Classifier:
    """A classifier with these weights, in evaluation mode, so that t stays T."""
    classifier = Classifier(loss, *w.shape, **OPTIONS[loss]).eval()
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(w))
        if loss == "curricularface":
            classifier.t.fill_(T)
    return classifier


def draw(
    seed: int, n: int, classes: int, dim: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Embeddings, weights and labels; float32 holds the numbers exactly."""
    rng = np.random.default_rng(seed)
    x, w = (rng.normal(size=(rows, dim)).astype(np.float32).astype(np.float64) for rows in (n, classes))
    return x, w, rng.integers(classes, size=n)


@pytest.mark.parametrize("loss", LOSSES)
@settings(deadline=None, max_examples=25, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 9), classes=st.integers(2, 12), dim=st.integers(2, 40))
def test_the_loss_is_the_papers(loss: str, seed: int, n: int, classes: int, dim: int) -> None:
    x, w, y = draw(seed, n, classes, dim)
    expected = expected_loss(loss, x, w, y, **OPTIONS[loss])
    result = make(loss, w)(torch.from_numpy(x).float(), torch.from_numpy(y))
    assert result.dtype == torch.float32
    assert result.shape == ()
    assert result.item() == pytest.approx(expected, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_those_of_the_formula(loss: str) -> None:
    x, w, y = draw(11, 6, 5, 4)
    y[:2] = np.argmin(unit(x) @ unit(w).T, axis=1)[:2]  # two far from their class
    classifier = make(loss, w)
    embeddings = torch.from_numpy(x).float().requires_grad_()
    classifier(embeddings, torch.from_numpy(y)).backward()
    for tensor, array in ((embeddings, x), (classifier.weight, w)):
        expected = finite_differences(lambda: expected_loss(loss, x, w, y, **OPTIONS[loss]), array)
        np.testing.assert_allclose(gradient_of(tensor).numpy(), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("margin", [1, 2, 3, 5, 8])
def test_sphereface_with_other_margins(margin: int) -> None:
    angles = np.linspace(0, math.pi, 40)
    x, w = np.stack([np.cos(angles), np.sin(angles)], axis=1), np.array([[1.0, 0.0], [0.6, 0.8]])
    y = np.zeros(len(x), np.int64)
    classifier = Classifier("sphereface", 2, 2, margin=margin, scale=2.0)
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(w))
    result = classifier(torch.from_numpy(x).float(), torch.from_numpy(y))
    assert result.item() == pytest.approx(expected_loss("sphereface", x, w, y, margin, 2.0), rel=1e-5)


@pytest.mark.parametrize("loss", ["arcface", "curricularface"])
def test_beyond_pi_the_target_is_lowered_by_m_sin_m(loss: str) -> None:
    # Worked out by hand for theta = 170 degrees and m = 0.5: the target is cos(theta) - 0.5 sin(0.5) = -1.2245,
    # where cos(theta + m) would have risen to -0.9475; the other class is at 80 degrees: 0.1736.
    theta = math.radians(170)
    classifier = Classifier(loss, 2, 2, margin=0.5, scale=1.0).eval()
    with torch.no_grad():
        classifier.weight.copy_(torch.eye(2))
    result = classifier(torch.tensor([[math.cos(theta), math.sin(theta)]]), torch.tensor([0]))
    other = 0.1736482 * 0.1736482 if loss == "curricularface" else 0.1736482  # t is 0
    assert result.item() == pytest.approx(math.log1p(math.exp(other + 1.2245205)), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sign", [1, -1])
def test_gradients_are_finite_exactly_along_and_against_the_class(loss: str, sign: int) -> None:
    classifier = make(loss, 2 * np.eye(3, 4))
    embeddings = torch.tensor([[3.0 * sign, 0, 0, 0], [1, 2, 3, 4]], requires_grad=True)
    result = classifier(embeddings, torch.tensor([0, 1]))
    result.backward()
    expected = expected_loss(
        loss, embeddings.detach().double().numpy(), 2 * np.eye(3, 4), np.array([0, 1]), **OPTIONS[loss]
    )
    assert result.item() == pytest.approx(expected, rel=2e-5)
    for tensor in (embeddings, classifier.weight):
        assert torch.isfinite(gradient_of(tensor)).all()
    assert gradient_of(embeddings)[1].abs().max() > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_a_zero_embedding_has_a_finite_loss(loss: str) -> None:
    embeddings = torch.zeros(2, 4, requires_grad=True)
    result = make(loss, np.eye(3, 4))(embeddings, torch.tensor([0, 1]))
    result.backward()
    assert torch.isfinite(result)
    assert torch.isfinite(gradient_of(embeddings)).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_rows_without_a_label_count_for_nothing(loss: str) -> None:
    x, w, y = draw(5, 7, 4, 6)
    y[[0, 3, 6]] = -1
    classifier = make(loss, w)
    embeddings = torch.from_numpy(x).float().requires_grad_()
    result = classifier(embeddings, torch.from_numpy(y))
    result.backward()
    assert result.item() == pytest.approx(expected_loss(loss, x[y >= 0], w, y[y >= 0], **OPTIONS[loss]), rel=2e-5)
    assert (gradient_of(embeddings).abs().sum(dim=1) > 0).tolist() == (y >= 0).tolist()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("rows", [0, 3])
def test_without_any_label_the_loss_is_exactly_zero_and_has_gradients(loss: str, rows: int) -> None:
    classifier = Classifier(loss, 3, 4, **OPTIONS[loss])
    embeddings = torch.full((rows, 4), 1e30, requires_grad=True)
    result = classifier(embeddings, torch.full((rows,), -1))
    result.backward()
    assert result.item() == 0
    assert torch.equal(gradient_of(embeddings), torch.zeros(rows, 4))
    assert torch.equal(gradient_of(classifier.weight), torch.zeros(3, 4))
    if loss == "curricularface":
        assert classifier.t == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_autocast_changes_nothing(loss: str) -> None:
    x, w, y = draw(2, 8, 6, 16)
    classifier, labels = make(loss, w), torch.from_numpy(y)
    results = []
    for enabled in (False, True):
        embeddings = torch.from_numpy(x).float().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            result = classifier(embeddings, labels)
        result.backward()
        results.append((result.detach(), embeddings.grad))
    assert results[1][0].dtype == torch.float32
    assert all(torch.equal(plain, autocast) for plain, autocast in zip(*results, strict=True))


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_embeddings_leave_the_weight_in_float32(loss: str) -> None:
    x, w, y = draw(3, 8, 6, 16)
    classifier = make(loss, w)
    embeddings = torch.from_numpy(x).bfloat16().requires_grad_()
    result = classifier(embeddings, torch.from_numpy(y))
    result.backward()
    rounded = embeddings.detach().double().numpy()
    assert result.item() == pytest.approx(expected_loss(loss, rounded, w, y, **OPTIONS[loss]), rel=2e-5)
    assert classifier.weight.dtype == gradient_of(classifier.weight).dtype == torch.float32
    assert gradient_of(embeddings).dtype == torch.bfloat16


def test_t_of_curricularface_follows_the_mean_cosine_in_training_only() -> None:
    classifier = Classifier("curricularface", 2, 2, margin=0.5, scale=64.0)
    with torch.no_grad():
        classifier.weight.copy_(torch.eye(2))
    x, y = torch.tensor([[0.6, 0.8], [2.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 0, -1])
    for expected in (0.008, 0.01592):  # 0.01 times the mean 0.8, then 0.99 * 0.008 + 0.008
        classifier.train()(x, y)
        assert classifier.t.item() == pytest.approx(expected, rel=1e-6)
        classifier.eval()(x, y)
        assert classifier.t.item() == pytest.approx(expected, rel=1e-6)
    restored = Classifier("curricularface", 2, 2, margin=0.5, scale=64.0)
    restored.load_state_dict(classifier.state_dict())
    assert restored.t == classifier.t


def test_training_uses_the_new_t_of_curricularface() -> None:
    x, w, y = draw(8, 6, 4, 3)
    classifier = make("curricularface", w).train()
    start = (T - 0.01 * (unit(x) * unit(w)[y]).sum(axis=1).mean()) / 0.99  # so that T comes out
    with torch.no_grad():
        classifier.t.fill_(start)
    result = classifier(torch.from_numpy(x).float(), torch.from_numpy(y))
    assert result.item() == pytest.approx(expected_loss("curricularface", x, w, y, 0.5, 64.0), rel=2e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_weight_is_all_that_is_kept(loss: str) -> None:
    classifier = Classifier(loss, 7, 5, **OPTIONS[loss])
    assert [name for name, _ in classifier.named_parameters()] == ["weight"]
    assert set(classifier.state_dict()) == ({"weight", "t"} if loss == "curricularface" else {"weight"})
    assert classifier.weight.shape == (7, 5)
    x, w, y = draw(4, 3, 7, 5)
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(w))
    arguments = torch.from_numpy(x).float(), torch.from_numpy(y)
    expected = classifier.eval()(*arguments)
    for other in (copy.deepcopy(classifier), pickle.loads(pickle.dumps(classifier))):  # noqa: S301
        assert other(*arguments) == expected
    classifier.weight.requires_grad_(False)
    assert not classifier(*arguments).requires_grad


def test_a_frozen_weight_serves_under_another_loss() -> None:
    x, w, y = draw(6, 3, 7, 5)
    source = make("arcface", w)
    target = Classifier("cosface", 7, 5, **OPTIONS["cosface"])
    target.load_state_dict(source.state_dict())
    result = target(torch.from_numpy(x).float(), torch.from_numpy(y))
    assert result.item() == pytest.approx(expected_loss("cosface", x, w, y, 0.4, 48.0), rel=2e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_of_descent_separates_the_classes(loss: str) -> None:
    torch.manual_seed(0)
    classifier = Classifier(loss, 4, 8, **OPTIONS[loss])
    embeddings, labels = torch.randn(4, 8), torch.arange(4)
    optimizer = torch.optim.SGD(classifier.parameters(), 0.01)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        losses.append(classifier(embeddings, labels))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "arcfaec"}, "loss must be one of arcface, .*, got 'arcfaec'"),
        ({"classes": 1}, "classes must be at least 2, got 1"),
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"scale": 0.0}, r"scale must be positive and finite, got 0\.0"),
        ({"scale": math.inf}, "scale must be positive and finite, got inf"),
        ({"scale": math.nan}, "scale must be positive and finite, got nan"),
        ({"margin": 28.6}, r"margin must be an angle in radians, .* for arcface, got 28\.6"),
        ({"margin": math.nan}, "margin must be an angle in radians, .* got nan"),
        ({"loss": "curricularface", "margin": -0.1}, "margin must be an angle .* for curricularface"),
        ({"loss": "cosface", "margin": 2.0}, "margin must be from 0 to below 2 for cosface"),
        ({"loss": "normface", "margin": 0.5}, r"margin must be 0 for normface, got 0\.5"),
        ({"loss": "sphereface", "margin": 1.5}, "margin must be a whole number from 1 to 8 for sphereface"),
        ({"loss": "sphereface", "margin": 0}, "margin must be a whole number from 1 to 8"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    valid: dict[str, Any] = {"loss": "arcface", "classes": 3, "dim": 4, "margin": 0.5, "scale": 64.0}
    with pytest.raises(ValueError, match=message):
        Classifier(**{**valid, **arguments})


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("label", [3, 10**12, -2])
def test_a_label_of_no_class_is_named(loss: str, label: int) -> None:
    classifier = Classifier(loss, 3, 4, **OPTIONS[loss])
    with pytest.raises(ValueError, match=rf"labels must be -1 or a class from 0 to 2, got {label} in row 1"):
        classifier(torch.ones(3, 4), torch.tensor([0, label, -1]))


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (torch.ones(3, 5), torch.zeros(3, dtype=torch.int64), r"embeddings must have the shape \(n, 4\), got \(3, 5\)"),
        (torch.ones(4), torch.zeros(4, dtype=torch.int64), r"embeddings must have the shape \(n, 4\)"),
        (
            torch.ones(3, 4),
            torch.zeros(2, dtype=torch.int64),
            r"labels must be int64 of the shape \(3,\), got",
        ),
        (torch.ones(3, 4), torch.zeros(3), "labels must be int64 .* got torch.float32"),
    ],
)
def test_wrong_shapes_are_named(embeddings: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Classifier("arcface", 3, 4, **OPTIONS["arcface"])(embeddings, labels)


def test_printing_names_the_arguments() -> None:
    printed = repr(Classifier("cosface", 3, 4, margin=0.4, scale=48.0))
    assert printed == "Classifier('cosface', 3, 4, margin=0.4, scale=48.0)"
