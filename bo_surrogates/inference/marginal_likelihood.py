"""Gaussian log densities with their gradient in the covariance by one inverse.

With S = L L' and a = S^-1 r, the quadratic form r' a and log |S| have the gradients

    d(r' a) = 2 a' dr - a' dS a,    d log |S| = tr(S^-1 dS)

(Rasmussen & Williams 2006, equation 5.9): the inverse from L costs as much as two more Cholesky
factors, where automatic differentiation of L costs several products of matrices.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cached_property
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


class TrainingDensity(ExactMarginalLogLikelihood):
    """Log density of a model's training data plus log priors, per point, for BoTorch's fits.

    GPyTorch scales the inputs, wraps the covariances in lazy matrices and looks the priors up at
    every evaluation: two thirds of the time of one at a hundred points. `compute_custom_loss`, the
    name by which BoTorch asks for it, has them done once or not at all.
    """

    _scaled: tuple[Tensor, Tensor] | None = None  # training inputs, as they were given and scaled

    @abstractmethod
    def density(self, residual: Tensor, K: Tensor, noise: Tensor) -> Tensor:
        """`batch_shape` log densities; arguments as of `log_density`."""

    def forward(
        self, function_dist: MultivariateNormal, target: Tensor, *params: Any, **kwargs: Any
    ) -> Tensor:
        """Of targets `batch_shape x n`; `batch_shape` values."""
        return self._of(function_dist.mean, function_dist.covariance_matrix, target, *params)

    def compute_custom_loss(self, **kwargs: Any) -> Tensor:
        """`batch_shape` negative values of `forward`, of the training data."""
        model = self.model
        x = self._inputs()
        return -self._of(model.mean_module(x), model.covariance(x, x), model.train_targets, x)

    def _of(self, mean: Tensor, K: Tensor, target: Tensor, *params: Any) -> Tensor:
        noise = self.likelihood._shaped_noise_covar(mean.shape, *params)
        noise = noise.diagonal(dim1=-2, dim2=-1).expand(mean.shape)
        value = self.density(target - mean, K, noise)
        for module, prior, closure in self._log_priors:
            log_prior = prior.log_prob(closure(module))
            value = value + log_prior.reshape(*log_prior.shape[: value.ndim], -1).sum(dim=-1)
        return value / target.shape[-1]

    @cached_property
    def _log_priors(self) -> list[tuple[Any, Any, Any]]:
        return [
            (module, prior, closure) for _, module, prior, closure, _ in self.model.named_priors()
        ]

    def _inputs(self) -> Tensor:
        """The training inputs, scaled; kept unless the scaling is learnt."""
        (X,), transform = self.model.train_inputs, getattr(self.model, "input_transform", None)
        if self._scaled is not None and self._scaled[0] is X:
            return self._scaled[1]
        x: Tensor = self.model.transform_inputs(X)
        if transform is None or not any(p.requires_grad for p in transform.parameters()):
            self._scaled = X, x
        return x


class MarginalLogLikelihood(TrainingDensity):
    """GPyTorch's exact marginal likelihood plus log priors, per point, by `log_density`."""

    def density(self, residual: Tensor, K: Tensor, noise: Tensor) -> Tensor:
        """See `TrainingDensity.density`."""
        return log_density(residual, K, noise)
