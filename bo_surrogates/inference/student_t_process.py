"""Student-t process regression: a Gaussian process whose scale is unknown, in closed form.

With an inverse-gamma prior on the scale,

    s2 ~ InvGamma(v / 2, (v - 2) / 2),    y | s2 ~ N(c, s2 S),    S = K(X, X) + noise,

the observations are jointly multivariate t with v > 2 degrees of freedom and covariance S (the
prior mean of s2 is 1), and all that follows is closed (Shah, Wilson & Ghahramani 2014,
arXiv 1402.4306). Throughout, r = (y - c)' S^-1 (y - c).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from gpytorch.distributions import MultivariateNormal
from gpytorch.mlls import ExactMarginalLogLikelihood
from linear_operator.utils.cholesky import psd_safe_cholesky
from torch import Tensor
from torch.distributions import StudentT


def log_marginal_likelihood(residual: Tensor, S: Tensor, df: Tensor) -> Tensor:
    """Log density of the observations under the multivariate t, the scale integrated out.

    Args:
        residual: `batch_shape x n` observations minus their prior mean.
        S: `batch_shape x n x n` prior covariance of the observations, noise included.
        df: `batch_shape` degrees of freedom v > 2.

    Returns:
        `batch_shape` log densities.
    """
    n = residual.shape[-1]
    root = psd_safe_cholesky(S)
    whitened = torch.linalg.solve_triangular(root, residual.unsqueeze(-1), upper=False)
    r = whitened.square().sum(dim=(-2, -1))
    log_determinant = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    v = df.double()  # in float32 nothing would be left of the difference for large v
    constant = (
        torch.lgamma((v + n) / 2)
        - torch.lgamma(v / 2)
        - 0.5 * n * (math.log(math.pi) + (v - 2).log())
    ).to(residual)
    return constant - 0.5 * log_determinant - 0.5 * (df + n) * torch.log1p(r / (df - 2))


def scale_factor(r: Tensor, n: int, df: Tensor) -> Tensor:
    """What the posterior covariance at scale 1 is multiplied by to give the scale matrix.

    The posterior of s2 is InvGamma((v + n) / 2, (v - 2 + r) / 2); the predictive distribution has
    v + n degrees of freedom.

    Args:
        r: Quadratic form of the data.
        n: Number of observations.
        df: v, broadcastable against `r`.
    """
    return (df - 2 + r) / (df + n)


def leave_one_out(residual: Tensor, S: Tensor, df: Tensor) -> StudentT:
    """The predictive distribution of each residual given all others.

    From P = S^-1 and alpha = P (y - c), as for a Gaussian process (Rasmussen & Williams 2006,
    equation 5.12), with r without point i equal to r - alpha_i^2 / P_ii.

    Args:
        residual: `batch_shape x n` observations minus their prior mean.
        S: `batch_shape x n x n` prior covariance of the observations, noise included.
        df: `batch_shape` degrees of freedom v > 2.

    Returns:
        `batch_shape x n` univariate distributions of v + n - 1 degrees of freedom.
    """
    n = residual.shape[-1]
    P = torch.cholesky_inverse(psd_safe_cholesky(S))
    alpha = (P @ residual.unsqueeze(-1)).squeeze(-1)
    precision = P.diagonal(dim1=-2, dim2=-1)
    r = (residual * alpha).sum(dim=-1, keepdim=True)
    r_without = (r - alpha.square() / precision).clamp_min(0)
    v = df.unsqueeze(-1)
    scale = (scale_factor(r_without, n - 1, v) / precision).sqrt()
    return StudentT((v + n - 1).expand_as(scale), residual - alpha / precision, scale)


class StudentTMarginalLogLikelihood(ExactMarginalLogLikelihood):
    """The t marginal likelihood plus log priors, per point, for BoTorch's `fit_gpytorch_mll`.

    The model has an attribute `df`, of the shape of its batch. Its kernel and its likelihood
    describe S.
    """

    def forward(
        self, function_dist: MultivariateNormal, target: Tensor, *params: Any, **kwargs: Any
    ) -> Tensor:
        """Of targets `batch_shape x n`; `batch_shape` values."""
        observed = self.likelihood(function_dist, *params, **kwargs)
        value = log_marginal_likelihood(
            target - observed.mean, observed.covariance_matrix, self.model.df
        )
        return self._add_other_terms(value, params) / target.shape[-1]
