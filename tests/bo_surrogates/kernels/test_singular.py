"""Wide and deep kernels: duals by quadrature, and the limits by the recursion itself."""

import math

import numpy as np
import pytest
import torch

from bo_surrogates.errors import InputError
from bo_surrogates.kernels.dual_activations import ReLU
from bo_surrogates.kernels.recursion import Network, propagate
from bo_surrogates.kernels.singular import (
    Dual,
    ErfDual,
    HermiteDual,
    ReLUDual,
    SineDual,
    log_nngp,
    log_singular,
    ntk,
    optimal_dual,
    optimal_sine,
)

SMOOTH = {
    **{f"optimal {d}": optimal_dual(d) for d in (1, 2, 4, 8)},
    "sine": SineDual(2.5),
    "optimal sine": optimal_sine(3),
    "erf": ErfDual(),
    "mixed": HermiteDual([0.2, 0.3, 0.0, 0.1, 0.4]),
}
T = torch.linspace(0.0, 1.0, 11, dtype=torch.float64)


def by_quadrature(dual: Dual, t: float) -> float:
    """E[phi(u) phi(v)] by Gauss-Hermite quadrature in both independent normals."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(160)
    x = torch.from_numpy(nodes)
    w = torch.from_numpy(weights / weights.sum())
    v = t * x.unsqueeze(-1) + math.sqrt(1 - t * t) * x
    return (w @ (dual.activation(x).unsqueeze(-1) * dual.activation(v)) @ w).item()


@pytest.mark.parametrize("name", SMOOTH)
def test_the_dual_is_the_expectation_of_the_activations(name):
    dual = SMOOTH[name]
    for t in (0.0, 0.3, 0.77, 1.0):
        exact = dual(torch.tensor(t, dtype=torch.float64)).item()
        assert by_quadrature(dual, t) == pytest.approx(exact, abs=1e-10)
    assert dual(torch.ones(1, dtype=torch.float64)).item() == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("name", [*SMOOTH, "relu"])
def test_the_derivative_is_the_duals(name):
    dual = SMOOTH.get(name, ReLUDual())
    t = T[1:-1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(dual(t).sum(), t)
    torch.testing.assert_close(dual.derivative(T[1:-1]), gradient)


def test_the_relus_kernels_are_those_of_the_general_recursion():
    """The recursion without biases, sw = 2, which keeps variances at 1."""
    one, t = torch.ones(11, 1, dtype=torch.float64), T.unsqueeze(-1)
    layers = propagate(Network(ReLU(), 4, 2.0), one, one, t, torch.zeros_like(one), tangent=True)
    assert layers.T is not None
    torch.testing.assert_close(log_nngp(ReLUDual(), T, 4).exp().unsqueeze(-1), layers.K)
    torch.testing.assert_close(ntk(ReLUDual(), t, 4), layers.T / layers.T[-1])


@pytest.mark.parametrize("d", [1, 2, 4, 8])
def test_optimal_activations_have_the_dimension_as_their_exponent(d):
    assert optimal_dual(d).exponent == pytest.approx(d, abs=1e-12)
    if d > 1:
        assert optimal_sine(d).exponent == pytest.approx(d, abs=1e-9)


def test_activations_are_classified():
    assert HermiteDual([0, 0, 1]).regime == "nearest neighbour"
    assert HermiteDual([0.1, 0.4, 0.5]).regime == "majority"
    assert ReLUDual().regime == "majority"
    assert SineDual(1.0).regime == "singular"
    assert ErfDual().regime == "singular"
    assert ErfDual().exponent == pytest.approx(0.89, abs=0.005)
    for dual, message in ((HermiteDual([0, 1]), "linear"), (ReLUDual(), "majority")):
        with pytest.raises(InputError, match=message):
            _ = dual.exponent


@pytest.mark.parametrize("name", ["optimal 2", "optimal 4", "sine", "optimal 1"])
def test_deep_kernels_tend_to_a_fixed_point_of_the_recursion(name):
    """G(D(t)) = D'(0) G(t), which one more layer does not change."""
    dual = SMOOTH[name]
    t = torch.tensor([0.2, 0.6, 0.9, 0.999, 1 - 1e-6], dtype=torch.float64)
    G = log_singular(dual, t, 200)
    torch.testing.assert_close(log_singular(dual, t, 400), G, rtol=0, atol=1e-9)
    slope = math.log(dual.derivative(torch.zeros(1).double()).item())
    torch.testing.assert_close(log_singular(dual, dual(t), 200), G + slope, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "name", ["optimal 1", "optimal 2", "optimal 4", "optimal 8", "sine", "erf"]
)
def test_deep_kernels_are_singular_with_the_exponent(name):
    """log G = -alpha log |x - x'| + log R, R bounded: alpha over ten decades of distances."""
    dual = SMOOTH[name]
    w = torch.logspace(-3, -9, 25, dtype=torch.float64)  # 1 - t; |x - x'| = sqrt(2 w)
    log_distance = 0.5 * (2 * w).log()
    log_R = log_singular(dual, 1 - w, 400) + dual.exponent * log_distance
    # R may oscillate, once each factor D'(1), and drift with 1 - t; not more.
    assert log_R.max() - log_R.min() < 0.05
    wrong = log_R - 0.1 * log_distance
    assert wrong.max() - wrong.min() > 0.5


@pytest.mark.parametrize("kernel", ["nngp", "ntk"])
def test_kernels_are_positive_definite_with_unit_diagonal(kernel):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20, 3, generator=generator, dtype=torch.float64)
    x = x / x.norm(dim=-1, keepdim=True)
    t = (x @ x.mT).clamp(0, 1)
    for dual in (optimal_dual(2), SineDual(2.0)):
        K = log_nngp(dual, t, 5).exp() if kernel == "nngp" else ntk(dual, t, 5)
        torch.testing.assert_close(K.diagonal(), torch.ones(20).double(), rtol=0, atol=1e-9)
        assert torch.linalg.eigvalsh(K).min() > -1e-9


def test_logarithms_are_finite_where_the_kernel_is_not():
    t = torch.tensor([1e-3, 0.5], dtype=torch.float64)
    assert torch.isfinite(log_nngp(optimal_dual(20), t, 400)).all()
    assert log_nngp(optimal_dual(20), t, 400).max() < -2000
    monomial = log_nngp(HermiteDual([0, 0, 1]), t, 12)
    torch.testing.assert_close(monomial, 2.0**12 * t.log())


@pytest.mark.parametrize(
    "call",
    [
        lambda: HermiteDual([0.0, -1.0]),
        lambda: HermiteDual([0.0]),
        lambda: SineDual(0.0),
        lambda: optimal_dual(0),
        lambda: optimal_sine(1),
    ],
)
def test_bad_arguments_are_refused(call):
    with pytest.raises(InputError):
        call()
