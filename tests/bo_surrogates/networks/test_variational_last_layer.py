"""The collapsed bound against the bound of any q, and against SciPy's marginal likelihood."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from bo_surrogates.networks.variational_last_layer import collapsed_bound

M = 2
SIZES = [(4, 9), (9, 4)]  # fewer observations than features, and more


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def data(n: int, p: int) -> tuple[Tensor, Tensor, Tensor]:
    return normal(M, n, p, seed=0), normal(n, M, seed=1), normal(n, M, seed=2).square() + 0.1


def bound(phi: Tensor, y: Tensor, v: Tensor, mean: Tensor, root: Tensor) -> Tensor:
    """One outcome's evidence lower bound with q = N(mean, root root')."""
    q = MultivariateNormal(mean, scale_tril=root)
    prior = MultivariateNormal(torch.zeros_like(mean), torch.eye(len(mean)).double())
    likely = Normal(phi @ mean, v.sqrt()).log_prob(y).sum()
    trace = 0.5 * ((phi @ root).square().sum(dim=-1) / v).sum()
    return likely - trace - kl_divergence(q, prior)


@pytest.mark.parametrize(("n", "p"), SIZES)
def test_the_collapsed_bound_is_the_marginal_likelihood(n: int, p: int) -> None:
    phi, Y, noise = data(n, p)
    expected = 0.0
    for c in range(M):
        covariance = phi[c] @ phi[c].T + torch.diag(noise[:, c])
        expected += multivariate_normal(cov=covariance.numpy()).logpdf(Y[:, c].numpy())
    assert collapsed_bound(phi, Y, noise).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "p"), SIZES)
def test_linear_regression_is_the_best_q_and_its_bound_is_the_collapsed_one(n: int, p: int) -> None:
    phi, Y, noise = data(n, p)
    total = 0.0
    for c in range(M):
        weighted = phi[c].T / noise[:, c]
        covariance = torch.linalg.inv(torch.eye(p).double() + weighted @ phi[c])
        mean = (covariance @ weighted @ Y[:, c]).requires_grad_()
        root = torch.linalg.cholesky(covariance).requires_grad_()
        value = bound(phi[c], Y[:, c], noise[:, c], mean, root)
        gradients = torch.autograd.grad(value, (mean, root))
        assert all(g.tril().abs().max() < 1e-8 if g.ndim > 1 else g.abs().max() < 1e-8
                   for g in gradients)  # fmt: skip
        total += value.item()
        # Any other q is worse.
        for seed in range(5):
            other = bound(
                phi[c], Y[:, c], noise[:, c],
                mean.detach() + 0.1 * normal(p, seed=seed),
                root.detach() * math.exp(0.1 * (seed - 2.5)),
            )  # fmt: skip
            assert other < value
    assert collapsed_bound(phi, Y, noise).item() == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize(("n", "p"), SIZES)
def test_the_bound_is_differentiable_in_features_and_noise(n: int, p: int) -> None:
    phi, Y, noise = data(n, p)
    assert torch.autograd.gradcheck(
        lambda phi, noise: collapsed_bound(phi, Y, noise),
        (phi.requires_grad_(), noise.requires_grad_()),
    )
