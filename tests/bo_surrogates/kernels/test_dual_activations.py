"""Dual maps against quadrature of their definition, and against each other."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.kernels.dual_activations import (
    DUAL_ACTIVATIONS,
    DualActivation,
    LeakyReLU,
    ReLU,
    dual_activation,
)

SMOOTH = ["erf", "gelu", "sin", "rbf_sin"]
KINKED = ["relu", "leaky_relu"]

# (q1, q2, correlation): equal and unequal variances, small and large, both signs, independence.
CASES = [(1.0, 1.0, 0.5), (0.3, 2.0, -0.7), (2.5, 0.1, 0.9), (1.5, 1.5, 0.0), (0.7, 0.9, -0.99)]


def covariance(case: tuple[float, float, float]) -> tuple[Tensor, Tensor, Tensor]:
    q1, q2, c = case
    values = (q1, q2, c * math.sqrt(q1 * q2))
    q1_, q2_, K = (torch.tensor(v, dtype=torch.float64) for v in values)
    return q1_, q2_, K


def activation_slope(name: str, u: np.ndarray) -> np.ndarray:
    """phi'(u), written down here independently of the package."""
    density = np.exp(-(u**2) / 2) / math.sqrt(2 * math.pi)
    return {
        "relu": lambda: (u > 0).astype(float),
        "leaky_relu": lambda: np.where(u > 0, 1.0, LeakyReLU.slope),
        "erf": lambda: 2 / math.sqrt(math.pi) * np.exp(-(u**2)),
        "gelu": lambda: ndtr(u) + u * density,
        "sin": lambda: np.cos(u),
        "rbf_sin": lambda: math.sqrt(2) * np.cos(u + math.pi / 4),
    }[name]()


def expectation_smooth(phi: object, case: tuple[float, float, float], nodes: int = 120) -> float:
    """E[phi(u) phi(v)] by Gauss-Hermite quadrature on both axes."""
    q1, q2, c = case
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    u = math.sqrt(q1) * x[:, None]
    v = math.sqrt(q2) * (c * x[:, None] + math.sqrt(1 - c * c) * x[None, :])
    return float((w[:, None] * w[None, :] * phi(u) * phi(v)).sum())  # type: ignore[operator]


def expectation_polar(phi: object, case: tuple[float, float, float]) -> float:
    """E[phi(u) phi(v)] for phi homogeneous of degree 0 or 1 on each side of a kink at 0.

    In polar coordinates (x, y) = rho (cos t, sin t) the radius is smooth; the angle is integrated
    by Gauss-Legendre between the directions in which u or v changes its sign.
    """
    q1, q2, c = case
    s = math.sqrt(1 - c * c)
    kinks = [math.pi / 2, 3 * math.pi / 2]  # u = 0
    kinks += [math.atan2(-c, s) % math.pi, math.atan2(-c, s) % math.pi + math.pi]  # v = 0
    edges = sorted({0.0, 2 * math.pi, *kinks})
    nodes, weights = np.polynomial.legendre.leggauss(20)
    radius, mass = np.polynomial.laguerre.laggauss(20)  # rho^2 / 2 is exponential
    rho = np.sqrt(2 * radius)[None, :]
    total = 0.0
    for low, high in pairwise(edges):
        t = (low + high) / 2 + (high - low) / 2 * nodes[:, None]
        u = math.sqrt(q1) * rho * np.cos(t)
        v = math.sqrt(q2) * rho * (c * np.cos(t) + s * np.sin(t))
        values = phi(u) * phi(v)  # type: ignore[operator]
        total += (high - low) / 2 * float((weights[:, None] * mass[None, :] * values).sum())
    return total / (2 * math.pi)


def expectation(name: str, phi: object, case: tuple[float, float, float]) -> float:
    return expectation_polar(phi, case) if name in KINKED else expectation_smooth(phi, case)


@pytest.fixture(params=list(DUAL_ACTIVATIONS))
def activation(request: pytest.FixtureRequest) -> DualActivation:
    return DUAL_ACTIVATIONS[request.param]


@pytest.mark.parametrize("case", CASES)
def test_dual_map_is_the_expectation_of_the_product(
    activation: DualActivation, case: tuple[float, float, float]
) -> None:
    def phi(u: np.ndarray) -> np.ndarray:
        return activation.activation(torch.from_numpy(u)).numpy()

    value = activation.dual(*covariance(case)).item()
    assert value == pytest.approx(expectation(activation.name, phi, case), abs=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_derivative_map_is_the_expectation_of_the_slopes_product(
    activation: DualActivation, case: tuple[float, float, float]
) -> None:
    reference = expectation(activation.name, lambda u: activation_slope(activation.name, u), case)
    assert activation.derivative(*covariance(case)).item() == pytest.approx(reference, abs=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_derivative_map_is_the_derivative_of_the_dual_map(
    activation: DualActivation, case: tuple[float, float, float]
) -> None:
    q1, q2, K = covariance(case)
    K.requires_grad_()
    (slope,) = torch.autograd.grad(activation.dual(q1, q2, K), K)
    assert slope.item() == pytest.approx(activation.derivative(q1, q2, K).item(), rel=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_first_and_second_order_agree_with_finite_differences(
    activation: DualActivation, case: tuple[float, float, float]
) -> None:
    inputs = [t.clone().requires_grad_() for t in covariance(case)]
    assert torch.autograd.gradcheck(activation.dual, inputs)
    assert torch.autograd.gradcheck(activation.derivative, inputs)
    assert torch.autograd.gradgradcheck(activation.dual, inputs)


def test_diagonals_are_the_maps_at_equal_arguments(activation: DualActivation) -> None:
    q = torch.logspace(-6, 4, 50, dtype=torch.float64)
    torch.testing.assert_close(activation.diagonal(q), activation.dual(q, q, q))
    # The angle pi - arccos(c) has half of the digits at c = 1.
    torch.testing.assert_close(
        activation.derivative_diagonal(q), activation.derivative(q, q, q), rtol=1e-7, atol=1e-7
    )


def test_cauchy_schwarz_holds_and_the_map_grows_with_the_correlation(
    activation: DualActivation,
) -> None:
    q1, q2 = torch.tensor(0.8, dtype=torch.float64), torch.tensor(1.7, dtype=torch.float64)
    K = torch.linspace(-1, 1, 201, dtype=torch.float64) * (q1 * q2).sqrt()
    F = activation.dual(q1, q2, K)
    bound = (activation.diagonal(q1) * activation.diagonal(q2)).sqrt()
    assert (F.abs() <= bound * (1 + 1e-12)).all()
    assert (activation.derivative(q1, q2, K) >= -1e-12).all() == (F.diff() >= -1e-12).all()


def test_gradients_and_their_gradients_are_finite_where_points_coincide(
    activation: DualActivation,
) -> None:
    q = torch.tensor([1e-3, 0.3, 1.0, 7.0], dtype=torch.float64)
    for sign in (1.0, -1.0):  # the same point, and its mirror image
        inputs = [t.clone().requires_grad_() for t in (q, q, sign * q)]
        F = activation.dual(*inputs)
        first = torch.autograd.grad(F.sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.sum() for g in first), inputs)
        assert all(torch.isfinite(g).all() for g in (*first, *second))
        derivative = activation.derivative(*inputs)
        assert all(torch.isfinite(g).all() for g in torch.autograd.grad(derivative.sum(), inputs))


def test_total_derivative_at_coincident_points_is_that_of_the_diagonal(
    activation: DualActivation,
) -> None:
    q = torch.tensor([0.2, 1.0, 4.0], dtype=torch.float64, requires_grad=True)
    (along_map,) = torch.autograd.grad(activation.dual(q, q, q).sum(), q)
    diagonal = activation.diagonal(q) + 0.0 * q  # constant for rbf_sin
    (along_diagonal,) = torch.autograd.grad(diagonal.sum(), q)
    torch.testing.assert_close(along_map, along_diagonal, rtol=1e-7, atol=1e-7)


def test_correlations_beyond_one_by_rounding_are_taken_as_one() -> None:
    q = torch.tensor(1.0, dtype=torch.float64)
    beyond = torch.tensor(1.0 + 1e-15, dtype=torch.float64, requires_grad=True)
    F = ReLU().dual(q, q, beyond)
    (slope,) = torch.autograd.grad(F, beyond)
    assert F.item() == pytest.approx(0.5, abs=1e-12)
    assert slope.item() == pytest.approx(0.5, abs=1e-7)


def test_leaky_relu_at_slope_zero_is_relu() -> None:
    class Unleaky(LeakyReLU):
        slope = 0.0

    for case in CASES:
        ours, relu = Unleaky().dual(*covariance(case)), ReLU().dual(*covariance(case))
        assert ours.item() == relu.item()


def test_large_variances_do_not_overflow(activation: DualActivation) -> None:
    q = torch.tensor(1e4, dtype=torch.float64)
    for c in (-1.0, -0.5, 0.0, 0.999, 1.0):
        assert torch.isfinite(activation.dual(q, q, c * q))
        assert torch.isfinite(activation.derivative(q, q, c * q))


def test_unknown_activation_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="did you mean 'gelu'"):
        dual_activation("gleu")
