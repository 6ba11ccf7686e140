"""Surrogate slopes against the derivatives of their published primitives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from tests.neurons.which import FAST_NAMES
from torch import Tensor

from isofire.errors import SpecError
from isofire.neurons import IF, ATan, Sigmoid, Surrogate, Triangle, surrogate


def sigmoid_primitive(x: Tensor, alpha: float) -> Tensor:
    return 1.0 / (1.0 + torch.exp(-alpha * x))


def atan_primitive(x: Tensor, alpha: float) -> Tensor:
    return torch.atan(math.pi / 2.0 * alpha * x) / math.pi + 0.5


def triangle_primitive(x: Tensor, alpha: float) -> Tensor:
    inside = -0.5 * alpha**2 * x.abs() * x + alpha * x + 0.5
    return torch.where(x.abs() <= 1.0 / alpha, inside, (x > 0).to(x.dtype))


CASES = [(Sigmoid, sigmoid_primitive), (ATan, atan_primitive), (Triangle, triangle_primitive)]


@pytest.mark.parametrize(("kind", "primitive"), CASES)
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 4.0])
def test_slope_is_the_derivative_of_its_primitive(
    kind: type[Surrogate], primitive: Callable[[Tensor, float], Tensor], alpha: float
) -> None:
    x = torch.linspace(-3, 3, 1001, dtype=torch.float64, requires_grad=True)
    (derivative,) = torch.autograd.grad(primitive(x, alpha).sum(), x)
    torch.testing.assert_close(kind(alpha).slope(x.detach()), derivative, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "peak"), [(Sigmoid(4.0), 1.0), (ATan(2.0), 1.0), (Triangle(1.0), 1.0), (Triangle(3.0), 3.0)]
)
def test_peak_slope_lies_at_the_threshold(kind: Surrogate, peak: float) -> None:
    slopes = kind.slope(torch.tensor([-0.1, 0.0, 0.1], dtype=torch.float64))
    assert slopes[1].item() == pytest.approx(peak)
    assert slopes[0] < slopes[1] > slopes[2]
    assert slopes[0].item() == pytest.approx(slopes[2].item())


def test_names_and_their_usual_alpha() -> None:
    assert surrogate("sigmoid") == Sigmoid(4.0)
    assert surrogate("atan") == ATan(2.0)
    assert surrogate("triangle") == Triangle(1.0)
    assert surrogate("atan", 3.5) == ATan(3.5)


def test_unknown_name_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(SpecError, match="one of atan, sigmoid, triangle, got 'relu'"):
        surrogate("relu")


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf])
def test_alpha_must_be_positive_and_finite(alpha: float) -> None:
    with pytest.raises(SpecError, match="alpha must be positive and finite"):
        surrogate("sigmoid", alpha)


# each slope is the density of a known distribution, whose tails scipy computes in float64
DENSITIES: list[tuple[Callable[[float], Surrogate], Callable[[float], stats.rv_frozen]]] = [
    (Sigmoid, lambda alpha: stats.logistic(scale=1 / alpha)),
    (ATan, lambda alpha: stats.cauchy(scale=2 / (math.pi * alpha))),
    (Triangle, lambda alpha: stats.triang(0.5, loc=-1 / alpha, scale=2 / alpha)),
]


def slopes_at(kind: Surrogate, backend: str, x: Tensor) -> Tensor:
    """Gradient of each neuron's only spike at its input, which is its membrane."""
    leaf = x.clone().requires_grad_()
    IF(surrogate=kind, backend=backend)(leaf[None, None]).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize(("kind", "density"), DENSITIES)
@pytest.mark.parametrize("alpha", [0.5, 3.0, 4.0, 50.0])
def test_tails_keep_their_digits_on_every_path(kind: Any, density: Any, alpha: float) -> None:
    distance = np.concatenate([np.linspace(-40, 40, 4001), np.geomspace(1e-6, 1e6, 200), -np.geomspace(1e-6, 1e6, 200)])
    x = torch.from_numpy((1.0 + distance).astype(np.float32))
    exact = density(alpha).pdf(x.double().numpy() - 1.0)
    peak = float(density(alpha).pdf(0.0))
    reference = slopes_at(kind(alpha), "reference", x).double()
    # rounding alpha * distance costs digits: relative ones in an exponential tail, of the peak at a triangle's foot
    bound = 2e-7 * peak if kind is Triangle else 2e-5 * exact + 2e-38 * alpha
    assert (np.abs(reference.numpy() - exact) <= bound).all()
    for path in FAST_NAMES:
        got = slopes_at(kind(alpha), path, x).double()
        assert ((got - reference).abs() <= 1e-6 * reference + 2e-38 * alpha).all(), path
