"""Gaussian log densities against torch's, and their gradients against automatic differentiation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch.distributions import MultivariateNormal

from bo_surrogates.inference.marginal_likelihood import MarginalLogLikelihood, log_density
from bo_surrogates.surrogates import SURROGATES


def test_log_density_and_its_gradients_are_those_of_torchs_normal_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(2, 5, 5, generator=generator, dtype=torch.float64)
    K = (root @ root.mT).requires_grad_()
    noise = (0.5 + torch.rand(2, 5, generator=generator, dtype=torch.float64)).requires_grad_()
    S = K + torch.diag_embed(noise)
    residual = torch.randn(2, 5, generator=generator, dtype=torch.float64).requires_grad_()
    weights = torch.tensor([1.0, -2.0], dtype=torch.float64)
    value = log_density(residual, K, noise)
    reference = MultivariateNormal(torch.zeros(5, dtype=torch.float64), S).log_prob(residual)
    torch.testing.assert_close(value, reference)
    ours = torch.autograd.grad(weights @ value, [K, noise, residual])
    K_gradient, *expected = torch.autograd.grad(weights @ reference, [K, noise, residual])
    torch.testing.assert_close(ours[1:], tuple(expected))
    # Of a symmetric matrix only the symmetric part of a gradient matters.
    torch.testing.assert_close(ours[0], (K_gradient + K_gradient.mT) / 2)


def test_marginal_likelihood_is_gpytorchs() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(8, 2, generator=generator, dtype=torch.float64)
    model = SURROGATES["gp"].build(X, torch.stack([X[:, 0], X.prod(-1)], dim=-1), seed=0)
    gradients, values = [], []
    for cls in (MarginalLogLikelihood, ExactMarginalLogLikelihood):
        model.train()
        mll = cls(model.likelihood, model)
        values.append(mll(model(*model.train_inputs), model.train_targets))
        gradients.append(torch.autograd.grad(values[-1].sum(), list(model.parameters())))
    torch.testing.assert_close(values[0], values[1])
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("name", ["gp", "nngp", "tp"])
def test_what_a_fit_minimizes_is_the_marginal_likelihood_of_the_training_data(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(8, 2, generator=generator, dtype=torch.float64)
    Y = torch.stack([X[:, 0], X.prod(-1)], dim=-1)
    surrogate = SURROGATES[name].build(X, Y, seed=0)
    model: Any = surrogate.gp if name == "tp" else surrogate
    mll = model.train().marginal_likelihood()
    for _ in range(2):  # scaled inputs and priors are kept
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1
        expected = -mll(model(*model.train_inputs), model.train_targets, *model.train_inputs)
        torch.testing.assert_close(mll.compute_custom_loss(), expected)
    X_new = torch.rand(2, 8, 2, generator=generator, dtype=torch.float64)
    model.set_train_data(X_new, strict=False)
    expected = -mll(model(*model.train_inputs), model.train_targets, *model.train_inputs)
    torch.testing.assert_close(mll.compute_custom_loss(), expected)
