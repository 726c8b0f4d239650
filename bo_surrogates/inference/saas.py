"""Log posterior of the hyper-parameters of a SAAS Gaussian process, for many chains at once.

Model (Eriksson & Jankowiak 2021, arXiv 2103.00349, section 4.1): y ~ N(c, v k + (s2 + 1e-4) I), k
Matern-5/2 with inverse squared lengthscales t r_j,

    t ~ HalfCauchy(0.1),  r_j ~ HalfCauchy(1),
    v ~ Gamma(2, 0.15),  s2 ~ Gamma(0.9, 10),  c ~ N(0, 1)

(the priors of BoTorch's `SaasFullyBayesianSingleTaskGP`). Coordinates are the logarithms of what is
positive: log r_1, ..., log r_d, log t, log v, log s2, c. A half-Cauchy variable has a logarithm
with exponential tails, and r_j is not tied to t: the funnel of the hierarchy is gone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

MIN_NOISE = 1e-4
GLOBAL_SCALE = 0.1


class Hyperparameters(NamedTuple):
    """Attributes: lengthscale `K x d`; outputscale, noise (a variance) and mean `K`."""

    lengthscale: Tensor
    outputscale: Tensor
    noise: Tensor
    mean: Tensor


def unpack(position: Tensor) -> Hyperparameters:
    """Hyper-parameters of positions `K x (d + 4)`."""
    log_r, log_t, log_v, log_noise, mean = position.split([position.shape[-1] - 4, 1, 1, 1, 1], -1)
    lengthscale = (-0.5 * (log_r + log_t)).exp()
    return Hyperparameters(
        lengthscale, log_v.exp()[:, 0], MIN_NOISE + log_noise.exp()[:, 0], mean[:, 0]
    )


def scales(d: int) -> Tensor:
    """`d + 4` prior standard deviations, about, of the coordinates."""
    return torch.tensor([math.pi / 2] * (d + 1) + [0.8, 1.2, 1.0], dtype=torch.float64)


class SaasPosterior:
    """Log density and gradient at positions, up to a constant.

    Args:
        X: `n x d` inputs in the unit cube.
        y: `n` standardized outcomes.
        variance: `n` known noise variances, or None. The coordinate log s2 then follows its prior.
    """

    def __init__(self, X: Tensor, y: Tensor, variance: Tensor | None) -> None:
        self.X, self.y = X.double(), y.double()
        self.variance = None if variance is None else variance.double().clamp_min(MIN_NOISE)
        self.identity = torch.eye(len(X), dtype=torch.float64, device=X.device)

    def log_prior(self, position: Tensor) -> Tensor:
        """`K` log prior densities of the coordinates, Jacobians included."""
        d = self.X.shape[-1]
        log_r, log_t, log_v, log_noise, mean = position.split([d, 1, 1, 1, 1], dim=-1)

        def half_cauchy(log_value: Tensor, scale: float) -> Tensor:
            u = log_value - math.log(scale)
            return u - torch.nn.functional.softplus(2 * u)

        return (
            half_cauchy(log_r, 1.0).sum(dim=-1)
            + half_cauchy(log_t, GLOBAL_SCALE)[:, 0]
            + (2.0 * log_v - 0.15 * log_v.exp())[:, 0]
            + (0.9 * log_noise - 10.0 * log_noise.exp())[:, 0]
            - 0.5 * mean.square()[:, 0]
        )

    def log_likelihood(self, position: Tensor) -> Tensor:
        """`K` log marginal likelihoods; -inf where the covariance is not positive definite."""
        parameters = unpack(position)
        Z = self.X / parameters.lengthscale.unsqueeze(-2)  # K x n x d
        squares = Z.square().sum(dim=-1)
        square = squares.unsqueeze(-1) + squares.unsqueeze(-2) - 2 * Z @ Z.mT
        distance = (5.0 * square.clamp_min(1e-15)).sqrt()
        matern = (1 + distance + distance.square() / 3) * (-distance).exp()
        noise = (
            parameters.noise[:, None].expand(-1, len(self.y))
            if self.variance is None
            else self.variance
        )
        covariance = (
            parameters.outputscale[:, None, None] * matern + noise.unsqueeze(-1) * self.identity
        )
        root, info = torch.linalg.cholesky_ex(covariance)
        residual = self.y - parameters.mean[:, None]
        white = torch.linalg.solve_triangular(root, residual.unsqueeze(-1), upper=False)
        value = -0.5 * white.square().sum(dim=(-2, -1)) - root.diagonal(dim1=-2, dim2=-1).log().sum(
            dim=-1
        )
        return torch.where(info == 0, value, -torch.inf)

    def __call__(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Log densities `K` and gradients `K x (d + 4)`."""
        with torch.enable_grad():
            position = position.detach().requires_grad_()
            value = self.log_prior(position) + self.log_likelihood(position)
            (gradient,) = torch.autograd.grad(value.sum(), position)
        return value.detach(), gradient
