"""Regression with a scale mixture of Gaussian processes: a Gaussian process of unknown scale.

    s2 ~ p(s2),    y | s2 ~ N(c, s2 S),    S = K(X, X) + noise

With r = (y - c)' S^-1 (y - c), the marginal likelihood of n observations is

    (2 pi)^(-n/2) |S|^(-1/2) Z(n, r),

Z the evidence of the scale's law (`scale_laws.py`). For an inverse-gamma law this is a multivariate
t density (Shah, Wilson & Ghahramani 2014, arXiv 1402.4306). Outputs that share their scale are one
set of observations: their r and n are added.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bo_surrogates.inference.cholesky import psd_safe_cholesky
from bo_surrogates.inference.marginal_likelihood import (
    QuadraticFormAndLogDeterminant,
    TrainingDensity,
)
from bo_surrogates.inference.scale_laws import ScaleLaw


def pool(form: Tensor, n: int, shared: bool) -> tuple[Tensor, int]:
    """What the law of each output's scale is given.

    Args:
        form: `... x m` quadratic forms of n observations each.
        n: Number of observations of an output.
        shared: Whether all outputs have one scale.

    Returns:
        r, `... x m`, and the number of observations behind it.
    """
    if not shared:
        return form, n
    return form.sum(dim=-1, keepdim=True).expand_as(form), n * form.shape[-1]


def log_marginal_likelihood(
    residual: Tensor, K: Tensor, noise: Tensor, law: ScaleLaw, shared: bool = False
) -> Tensor:
    """Log density of the observations, the scale integrated out.

    Args:
        residual: `batch_shape x n` observations minus their prior mean.
        K: `batch_shape x n x n` prior covariances at s2 = 1.
        noise: `batch_shape x n` variances of the noise at s2 = 1.
        law: Of s2, of the shape of the batch.
        shared: Whether the last dimension of the batch has one scale.

    Returns:
        `batch_shape` log densities; if the scale is shared, shares of the joint one, which is
        their sum.
    """
    n = residual.shape[-1]
    form, log_determinant = QuadraticFormAndLogDeterminant.apply(K, noise, residual)
    r, count = pool(form, n, shared)
    evidence = law.log_evidence(count, r) * (n / count)
    return evidence - 0.5 * log_determinant - 0.5 * n * math.log(2 * math.pi)


def leave_one_out_log_density(
    residual: Tensor, S: Tensor, law: ScaleLaw, shared: bool = False
) -> Tensor:
    """Log predictive density of each observation given all others.

    The ratio of two marginal likelihoods. With P = S^-1 and alpha = P (y - c), leaving point i out
    makes r - alpha_i^2 / P_ii of r and P_ii |S| of |S|, as for a Gaussian process (Rasmussen &
    Williams 2006, equation 5.12).

    Args:
        residual: See `log_marginal_likelihood`.
        S: `batch_shape x n x n` covariances of the observations at s2 = 1, noise included.
        law: See `log_marginal_likelihood`.
        shared: See `log_marginal_likelihood`.

    Returns:
        `batch_shape x n` log densities.
    """
    n = residual.shape[-1]
    P = torch.cholesky_inverse(psd_safe_cholesky(S))
    alpha = (P @ residual.unsqueeze(-1)).squeeze(-1)
    precision = P.diagonal(dim1=-2, dim2=-1)
    r, count = pool((residual * alpha).sum(dim=-1), n, shared)
    r_without = (r.unsqueeze(-1) - alpha.square() / precision).clamp_min(0)
    with_all = law.log_evidence(count, r).unsqueeze(-1)
    without = law.unsqueeze().log_evidence(count - 1, r_without)
    return with_all - without + 0.5 * precision.log() - 0.5 * math.log(2 * math.pi)


class ScaleMixtureMarginalLogLikelihood(TrainingDensity):
    """The marginal likelihood plus log priors, per point, for BoTorch's `fit_gpytorch_mll`.

    The model has an attribute `shared_scale` and a method `scale_law()`, of the shape of its batch.
    Its kernel and its likelihood describe S.
    """

    def density(self, residual: Tensor, K: Tensor, noise: Tensor) -> Tensor:
        """See `TrainingDensity.density`."""
        model = self.model
        return log_marginal_likelihood(residual, K, noise, model.scale_law(), model.shared_scale)
