"""The evidence lower bound of a Bayesian last layer, at its best variational distribution.

Given features phi(x) (the last hidden units and 1, whitened by the prior of the last layer), each
outcome is y = phi(x)' w + e, w ~ N(0, I), e ~ N(0, v). For q(w) = N(mu, C) with any covariance, the
bound of Harrison et al. (2024, arXiv 2404.11599, section 3) is

    sum_i [log N(y_i; phi_i' mu, v_i) - phi_i' C phi_i / (2 v_i)] - KL(q || N(0, I)).

The likelihood is Gaussian, so that the best q is the posterior of Bayesian linear regression, and
the bound is then equal to the log marginal likelihood log N(y; 0, Phi Phi' + diag(v)). Training the
features on that, instead of on mu and C as well, leaves nothing for the gradient to find that has a
closed form. Several outcomes have a q each; their joint q factorizes at the optimum.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bo_surrogates.inference.cholesky import psd_safe_cholesky


def collapsed_bound(phi: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
    """The bound at the best q, summed over outcomes, in whichever space is smaller.

    Args:
        phi: `m x n x p` features of each outcome, whitened by its prior.
        targets: `n x m` outcomes.
        noise: `n x m` noise variances, positive.
    """
    n, p = phi.shape[-2:]
    root = noise.mT.sqrt().unsqueeze(-1)
    scaled, z = phi / root, targets.mT.unsqueeze(-1) / root  # of unit noise
    smaller = scaled @ scaled.mT if n <= p else scaled.mT @ scaled
    eye = torch.eye(smaller.shape[-1], dtype=phi.dtype, device=phi.device)
    L = psd_safe_cholesky(eye + smaller)
    if n <= p:
        square = torch.linalg.solve_triangular(L, z, upper=False).square().sum()
    else:  # z' (I + Phi Phi')^-1 z = z' z - |R^-1 Phi' z|^2
        explained = torch.linalg.solve_triangular(L, scaled.mT @ z, upper=False)
        square = z.square().sum() - explained.square().sum()
    determinant = L.diagonal(dim1=-2, dim2=-1).log().sum() + root.log().sum()
    return -0.5 * square - determinant - 0.5 * targets.numel() * math.log(2 * math.pi)
