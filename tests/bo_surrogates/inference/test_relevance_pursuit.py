"""The density of outliers against SciPy's, its gradient, and the pursuit against all choices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gpytorch.kernels import MaternKernel, RBFKernel
from scipy.optimize import approx_fprime
from scipy.stats import lognorm, multivariate_normal

from bo_surrogates.inference.relevance_pursuit import (
    FINE_TOLERANCE,
    LogNormal,
    OutlierDensity,
    pursue,
)

RANDOM = np.random.default_rng(0)
X = RANDOM.random((9, 2))
Y = np.sin(5.0 * X[:, 0]) + X[:, 1] + 0.05 * RANDOM.standard_normal(9)
WRONG = 4
Y[WRONG] += 6.0
OUTLIERS = np.array([1, WRONG, 7])
LENGTHSCALE, NOISE = LogNormal(1.8, 1.7), LogNormal(-4.0, 1.0)
POSITION = np.array([-0.4, 0.3, -3.0, 0.2])  # log lengthscales, log noise variance, mean
SHARE = np.array([0.0, 0.9, 0.3])


def density(nu: float = math.inf) -> OutlierDensity:
    return OutlierDensity(X, Y, nu, LENGTHSCALE, NOISE, lower=(2.5e-2, 1e-4))


@pytest.mark.parametrize("nu", [1.5, 2.5, math.inf])
def test_the_density_is_that_of_scipy_and_gpytorch(nu: float) -> None:
    kernel = RBFKernel(ard_num_dims=2) if math.isinf(nu) else MaternKernel(nu, ard_num_dims=2)
    kernel.double().lengthscale = torch.from_numpy(np.exp(POSITION[:2]))
    noise = math.exp(POSITION[2])
    variance = np.full(9, noise)
    variance[OUTLIERS] += (1.0 + noise) * SHARE / (1.0 - SHARE)
    covariance = kernel(torch.from_numpy(X)).to_dense().detach().numpy() + np.diag(variance)
    expected = multivariate_normal(np.full(9, POSITION[3]), covariance).logpdf(Y)
    expected += lognorm(LENGTHSCALE.scale, scale=math.exp(LENGTHSCALE.location)).logpdf(
        np.exp(POSITION[:2])
    ).sum()  # fmt: skip
    expected += lognorm(NOISE.scale, scale=math.exp(NOISE.location)).logpdf(noise)
    value, _ = density(nu)(np.concatenate([POSITION, SHARE]), OUTLIERS)
    assert value == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("nu", [1.5, 2.5, math.inf])
def test_the_gradient_is_that_of_finite_differences(nu: float) -> None:
    point, of = np.concatenate([POSITION, np.array([0.1, 0.9, 0.3])]), density(nu)
    _, gradient = of(point, OUTLIERS)
    step = 1e-6
    ahead = approx_fprime(point, lambda x: of(x, OUTLIERS)[0], step)
    behind = approx_fprime(point, lambda x: of(x, OUTLIERS)[0], -step)
    np.testing.assert_allclose(gradient, (ahead + behind) / 2, rtol=1e-6, atol=1e-6)


def test_the_pursuit_of_one_outlier_is_the_best_of_all_choices() -> None:
    of = density()
    one, none = pursue(of, [0, 1])
    every = [of.maximize(np.array([i]), of.start, tolerance=FINE_TOLERANCE) for i in range(9)]
    assert int(np.argmax([optimum.log_density for optimum in every])) == WRONG
    assert one.outliers.tolist() == [WRONG]
    assert one.log_density == pytest.approx(every[WRONG].log_density, abs=1e-3)
    assert len(none.outliers) == 0
    assert none.log_density < one.log_density
