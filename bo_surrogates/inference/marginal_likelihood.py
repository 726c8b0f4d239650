"""Gaussian log densities with their gradient in the covariance by one inverse.

With S = L L' and a = S^-1 r, the quadratic form r' a and log |S| have the gradients

    d(r' a) = 2 a' dr - a' dS a,    d log |S| = tr(S^-1 dS)

(Rasmussen & Williams 2006, equation 5.9): the inverse from L costs as much as two more Cholesky
factors, where automatic differentiation of L costs several products of matrices.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from gpytorch.distributions import MultivariateNormal
from gpytorch.mlls import ExactMarginalLogLikelihood
from linear_operator.utils.cholesky import psd_safe_cholesky
from torch import Tensor
from torch.autograd.function import once_differentiable


class QuadraticFormAndLogDeterminant(torch.autograd.Function):
    """r' S^-1 r and log |S|; once differentiable.

    Args:
        S: `batch_shape x n x n` covariances.
        residual: `batch_shape x n`.
    """

    @staticmethod
    def forward(ctx: Any, S: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """`batch_shape` quadratic forms and log determinants."""
        L = psd_safe_cholesky(S)
        alpha = torch.cholesky_solve(residual.unsqueeze(-1), L).squeeze(-1)
        ctx.save_for_backward(L, alpha)
        log_determinant = 2.0 * L.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        return (residual * alpha).sum(dim=-1), log_determinant

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients in `S` and `residual`."""
        L, alpha = ctx.saved_tensors
        of_form, of_determinant = grads
        grad_S = torch.cholesky_inverse(L).mul_(of_determinant[..., None, None])
        scaled = alpha * of_form.unsqueeze(-1)
        grad_S -= scaled.unsqueeze(-1) * alpha.unsqueeze(-2)
        return grad_S, 2.0 * scaled


def log_density(residual: Tensor, S: Tensor) -> Tensor:
    """log N(residual; 0, S).

    Args:
        residual: `batch_shape x n`.
        S: `batch_shape x n x n`.

    Returns:
        `batch_shape` log densities.
    """
    form, log_determinant = QuadraticFormAndLogDeterminant.apply(S, residual)
    return -0.5 * (form + log_determinant + residual.shape[-1] * math.log(2.0 * math.pi))


class MarginalLogLikelihood(ExactMarginalLogLikelihood):
    """GPyTorch's exact marginal likelihood plus log priors, per point, by `log_density`."""

    def forward(
        self, function_dist: MultivariateNormal, target: Tensor, *params: Any, **kwargs: Any
    ) -> Tensor:
        """Of targets `batch_shape x n`; `batch_shape` values."""
        observed = self.likelihood(function_dist, *params, **kwargs)
        value = log_density(target - observed.mean, observed.covariance_matrix)
        return self._add_other_terms(value, params) / target.shape[-1]
