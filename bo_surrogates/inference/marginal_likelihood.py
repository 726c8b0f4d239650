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
from torch import Tensor
from torch.autograd.function import once_differentiable

from bo_surrogates.inference.cholesky import psd_safe_cholesky


class QuadraticFormAndLogDeterminant(torch.autograd.Function):
    """r' S^-1 r and log |S| of S = K + diag(noise); once differentiable.

    Args:
        K: `batch_shape x n x n` covariances.
        noise: `batch_shape x n` variances.
        residual: `batch_shape x n`.
    """

    @staticmethod
    def forward(ctx: Any, K: Tensor, noise: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """`batch_shape` quadratic forms and log determinants."""
        S = K.clone()
        S.diagonal(dim1=-2, dim2=-1).add_(noise)
        L = psd_safe_cholesky(S)
        alpha = torch.cholesky_solve(residual.unsqueeze(-1), L).squeeze(-1)
        ctx.save_for_backward(L, alpha)
        log_determinant = 2.0 * L.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        return (residual * alpha).sum(dim=-1), log_determinant

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients in `K`, `noise` and `residual`."""
        L, alpha = ctx.saved_tensors
        of_form, of_determinant = grads
        # Symmetric; its transpose has its rows, not its columns, side by side in memory.
        grad_K = torch.cholesky_inverse(L).mT.mul_(of_determinant[..., None, None])
        scaled = alpha * of_form.unsqueeze(-1)
        grad_K.addcmul_(scaled.unsqueeze(-1), alpha.unsqueeze(-2), value=-1.0)
        return grad_K, grad_K.diagonal(dim1=-2, dim2=-1).clone(), 2.0 * scaled


def log_density(residual: Tensor, K: Tensor, noise: Tensor) -> Tensor:
    """log N(residual; 0, K + diag(noise)).

    Args:
        residual: `batch_shape x n`.
        K: `batch_shape x n x n`.
        noise: `batch_shape x n`.

    Returns:
        `batch_shape` log densities.
    """
    form, log_determinant = QuadraticFormAndLogDeterminant.apply(K, noise, residual)
    return -0.5 * (form + log_determinant + residual.shape[-1] * math.log(2.0 * math.pi))


class MarginalLogLikelihood(ExactMarginalLogLikelihood):
    """GPyTorch's exact marginal likelihood plus log priors, per point, by `log_density`."""

    def forward(
        self, function_dist: MultivariateNormal, target: Tensor, *params: Any, **kwargs: Any
    ) -> Tensor:
        """Of targets `batch_shape x n`; `batch_shape` values."""
        mean = function_dist.mean
        noise = self.likelihood._shaped_noise_covar(mean.shape, *params, **kwargs)
        value = log_density(
            target - mean,
            function_dist.covariance_matrix,
            noise.diagonal(dim1=-2, dim2=-1).expand(mean.shape),
        )
        return self._add_other_terms(value, params) / target.shape[-1]
