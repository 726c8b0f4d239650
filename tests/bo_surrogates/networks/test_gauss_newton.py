"""Gauss-Newton training, and the evidence, against closed forms and finite differences."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime, minimize
from scipy.stats import multivariate_normal
from torch import Tensor

from bo_surrogates.networks import BatchedMLP, gauss_newton
from bo_surrogates.networks.gauss_newton import (
    Evidence,
    log_evidence,
    maximize_evidence,
    negative_log_posterior,
    train,
)
from bo_surrogates.networks.linearization import linearize
from bo_surrogates.networks.linearized_posterior import WeightPrior

FIXED = Evidence((), 1.0, False, -3.0, 1.0, 50, 0)
LEARNT = replace(FIXED, factors=(0, 1, 2, 3), noise=True, iterations=500)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


NETWORK = BatchedMLP(2, 1, 6, 1)
X, Y = normal(15, 2, seed=0), normal(15, 1, seed=1)
NOISE = torch.full_like(Y, 0.1)
PRIOR = WeightPrior(
    NETWORK,
    torch.zeros(NETWORK.num_parameters).double(),
    torch.tensor([1.0, 0.5, 0.3, 0.8], dtype=torch.float64),
)
START = PRIOR.diagonal.sqrt() * normal(NETWORK.num_parameters, seed=2)


def hyperparameters(state: np.ndarray) -> tuple[Tensor, Tensor]:
    """Prior and noise variances from four logarithmic factors and one logarithm."""
    values = torch.from_numpy(np.asarray(state)).exp()
    return PRIOR.variances * values[:4], values[4].expand_as(Y)


def negative_log_marginal(state: np.ndarray) -> float:
    """With the priors of `LEARNT`, by SciPy's density of the observations."""
    at = linearize(NETWORK, START, X)
    variances, noise = hyperparameters(state)
    prior = replace(PRIOR, variances=variances)
    J = at.jacobian().squeeze(-2)
    covariance = (J * prior.diagonal) @ J.T + torch.diag(noise.flatten())
    mean = at.values.flatten() + J @ (PRIOR.mean - START)
    likely = multivariate_normal(mean.numpy(), covariance.numpy()).logpdf(Y.flatten().numpy())
    centre = np.array([0.0, 0.0, 0.0, 0.0, LEARNT.log_noise_mean])
    return float(0.5 * ((np.asarray(state) - centre) ** 2).sum() - likely)


def test_training_ends_where_the_gradient_of_the_log_posterior_vanishes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gauss_newton, "TOLERANCE", 0.0)
    trained = train(START, PRIOR, X, Y, NOISE, FIXED, steps=150)
    assert trained.objective < negative_log_posterior(START, PRIOR, X, Y, NOISE)
    theta = trained.theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(negative_log_posterior(theta, PRIOR, X, Y, NOISE), theta)
    start = START.clone().requires_grad_()
    (first,) = torch.autograd.grad(negative_log_posterior(start, PRIOR, X, Y, NOISE), start)
    assert gradient.norm() < 1e-4 * first.norm()


def test_the_objective_never_rises_while_the_prior_is_fixed() -> None:
    values = [train(START, PRIOR, X, Y, NOISE, FIXED, steps=s).objective for s in (1, 2, 4, 8)]
    assert all(b <= a for a, b in pairwise(values))


def test_log_evidence_is_the_density_of_the_observations() -> None:
    at = linearize(NETWORK, START, X)
    state = np.array([0.3, -0.5, 0.2, 0.8, -1.5])
    variances, noise = hyperparameters(state)
    residual = Y.flatten() - PRIOR.function_mean(at)
    value = log_evidence(at.gram(at), variances, residual, noise.flatten()).item()
    priors = 0.5 * (state[:4] ** 2).sum() + 0.5 * (state[4] - LEARNT.log_noise_mean) ** 2
    assert value == pytest.approx(priors - negative_log_marginal(state), rel=1e-9)


def test_the_gradient_of_the_evidence_is_its_derivative() -> None:
    at = linearize(NETWORK, START, X)
    gram, residual = at.gram(at), Y.flatten() - PRIOR.function_mean(at)

    def value(state: Tensor) -> Tensor:
        return log_evidence(gram, state[:4], residual, state[4].expand(15))

    state = torch.tensor([0.5, 0.4, 1.3, 2.0, 0.3], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(value(state), state)
    expected = approx_fprime(
        state.detach().numpy(), lambda s: value(torch.from_numpy(s)).item(), 1e-7
    )
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_evidence_is_maximized() -> None:
    """Against a search over SciPy's density by finite differences, which shares no code."""
    prior, noise, _ = maximize_evidence(
        linearize(NETWORK, START, X), PRIOR.variances, PRIOR, Y, NOISE, LEARNT
    )
    factors = (prior.variances / PRIOR.variances).log()
    found = torch.cat([factors, noise[0].log()]).numpy()
    best = minimize(negative_log_marginal, found + 0.3, method="BFGS")
    assert negative_log_marginal(found) <= best.fun + 1e-5
    np.testing.assert_allclose(found, best.x, atol=1e-2)


def test_a_shared_factor_multiplies_all_prior_variances() -> None:
    shared = replace(LEARNT, factors=(0, 0, 0, 0), noise=False)
    prior, noise, _ = maximize_evidence(
        linearize(NETWORK, START, X), PRIOR.variances, PRIOR, Y, NOISE, shared
    )
    factors = prior.variances / PRIOR.variances
    torch.testing.assert_close(factors, factors[0].expand(4))
    assert not torch.allclose(factors, torch.ones(4).double())
    assert torch.equal(noise, NOISE)
