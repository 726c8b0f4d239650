"""Sparse variational inference for a Gaussian process with Gaussian noise: the collapsed bound.

With M inducing points z, values u = f(z) and q(u) Gaussian, the evidence lower bound has its
maximum over q in closed form (Titsias 2009, "Variational learning of inducing variables in sparse
Gaussian processes", equation 9):

    log N(y; c, Q + S) - tr(S^-1 (K - Q)) / 2,    Q = K_nM K_MM^-1 K_Mn,    S = diag(s2_i).

Everything costs O(n M^2). With z = x it is the exact log marginal likelihood.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bo_surrogates.inference.cholesky import psd_safe_cholesky


class Collapsed(NamedTuple):
    """The bound and the optimal q.

    Attributes:
        bound: The evidence lower bound, a number.
        mean: `M`, of the whitened L^-1 (u - c) with K_MM = L L'.
        root: `M x M` lower triangular, of the covariance of the same.
    """

    bound: Tensor
    mean: Tensor
    root: Tensor


def collapse(
    K_MM: Tensor, K_Mn: Tensor, diagonal: Tensor, residual: Tensor, noise: Tensor
) -> Collapsed:
    """The bound, differentiable in all its arguments, and the optimal q.

    Args:
        K_MM: `M x M` prior covariance of the inducing values, jitter included.
        K_Mn: `M x n` prior covariance with the training points' values.
        diagonal: `n` prior variances at the training points.
        residual: `n` outcomes minus the mean c.
        noise: `n` noise variances, > 0.
    """
    L = psd_safe_cholesky(K_MM)
    white = torch.linalg.solve_triangular(L, K_Mn, upper=False)  # Q = white' white
    scaled = white / noise.sqrt()
    identity = torch.eye(len(L), dtype=L.dtype, device=L.device)
    B = psd_safe_cholesky(identity + scaled @ scaled.mT)  # precision of the whitened values
    z = residual / noise.sqrt()
    c = torch.linalg.solve_triangular(B, (scaled @ z).unsqueeze(-1), upper=False)
    log_determinant = 2 * B.diagonal().log().sum() + noise.log().sum()
    fit = z.square().sum() - c.square().sum()
    trace = ((diagonal - white.square().sum(dim=0)).clamp_min(0.0) / noise).sum()
    bound = -0.5 * (len(residual) * math.log(2 * math.pi) + log_determinant + fit + trace)
    mean = torch.linalg.solve_triangular(B.mT, c, upper=True).squeeze(-1)
    with torch.no_grad():
        inverse = torch.linalg.solve_triangular(B, identity, upper=False)
        root = psd_safe_cholesky(inverse.mT @ inverse)
    return Collapsed(bound, mean, root)
