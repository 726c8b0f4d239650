"""The joint multivariate-t posterior.

Output j at q points is distributed as

    f_j = loc_j + sqrt(df_j / w_j) L_j z,    z ~ N(0, I_q),  w_j ~ chi-square with df_j degrees,

with L_j L_j' the scale matrix: the scale mixture of Gaussians (`scale_mixture.py`) whose law of the
scale is inverse-gamma (Shah, Wilson & Ghahramani 2014, arXiv 1402.4306).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from botorch.exceptions.errors import UnsupportedError
from scipy import special
from torch import Tensor
from torch.autograd.function import once_differentiable

from bo_surrogates.errors import InputError
from bo_surrogates.posteriors.scale_mixture import ScaleMixturePosterior


class _StudentTCDF(torch.autograd.Function):
    """P(T <= z), which torch lacks; the derivative in z is the density, itself differentiable."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, df: Tensor) -> Tensor:
        ctx.save_for_backward(z, df)
        values = special.stdtr(
            df.detach().double().cpu().numpy(), z.detach().double().cpu().numpy()
        )
        return torch.as_tensor(values).to(z)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        z, df = ctx.saved_tensors
        return gradients[0] * student_t_log_density(z, df).exp(), None


def student_t_log_density(z: Tensor, df: Tensor) -> Tensor:
    """Log density of the standard Student-t distribution.

    The normalizing constant is a difference of log gamma functions, computed in float64 whatever
    the dtype of `z`: in float32 nothing would be left of it for thousands of degrees of freedom.

    Args:
        z: Where, of any shape.
        df: Degrees of freedom, broadcastable to `z`.
    """
    v = df.double()
    constant = torch.lgamma((v + 1) / 2) - torch.lgamma(v / 2) - 0.5 * (math.pi * v).log()
    return constant.to(z) - 0.5 * (df + 1) * torch.log1p(z.square() / df)


def student_t_cdf(z: Tensor, df: Tensor) -> Tensor:
    """Distribution function of the standard Student-t distribution, differentiable in `z`.

    Args:
        z: Where, of any shape.
        df: Degrees of freedom, broadcastable to `z`; no gradient is taken in them.
    """
    return _StudentTCDF.apply(z, df.to(z).expand_as(z))


def student_t_quantile(levels: Tensor, df: Tensor) -> Tensor:
    """Quantiles of the standard Student-t distribution, without gradient.

    Args:
        levels: In (0, 1), broadcastable against `df`.
        df: Degrees of freedom.
    """
    values = special.stdtrit(df.double().cpu().numpy(), levels.double().cpu().numpy())
    return torch.as_tensor(values).to(levels)


def scale_multiplier(normal: Tensor, df: Tensor) -> Tensor:
    """sqrt(df / w) with w the chi-square variable at the level of a standard normal one.

    Args:
        normal: `... x m` standard normal numbers.
        df: `m` degrees of freedom.
    """
    # Entries repeated by `expand` (t-batches share base samples) are computed once.
    few = normal[tuple(slice(0, 1) if s == 0 else slice(None) for s in normal.stride())]
    # Each half of the distribution from its own tail, where levels are exact.
    x, half = few.double().cpu().numpy(), df.double().cpu().numpy() / 2
    low = special.gammaincinv(half, special.ndtr(x))
    high = special.gammainccinv(half, special.ndtr(-x))
    w = 2 * torch.as_tensor(low).where(torch.as_tensor(x < 0), torch.as_tensor(high))
    multiplier = (df.double().cpu() / w).sqrt()
    return multiplier.to(normal).expand_as(normal)


_TAIL = -3.0  # below this z, a continued fraction replaces a formula that cancels
_TERMS = 40  # of the continued fraction: an error below 1e-11 from z = _TAIL on, whatever df


class _LogImprovement(torch.autograd.Function):
    """log h(z), whose derivative is T(z) / h(z), without cancellation or underflow.

    For z < 0 let x = v / (v + z^2). T(z) = I_x(v/2, 1/2) / 2, and the hypergeometric series of
    this incomplete beta function has positive terms (DLMF 8.17.8). Put into h, what cancels in
    z T(z) + (v + z^2) / (v - 1) t(z) is removed term by term; what is left is positive:

        h(z) / t(z) = 1 / (x (v - 1)) + F(v/2 + 1/2, 1; v/2 + 2; x) / (v + 2).
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, df: Tensor) -> Tensor:
        z64 = z.detach().double()
        v = df.detach().double().expand_as(z64)
        log_t = student_t_log_density(z64, v)
        cdf = student_t_cdf(z64, v)
        factor = (v + z64.square()) / (v - 1)
        near = z64 * cdf + factor * log_t.exp()
        # To x = v / (v + z^2), 1 / (x (v - 1)) is the factor of t(z) over v.
        ratio = factor / v + _hypergeometric(v, v / (v + z64.square())) / (v + 2)
        tail = z64 < _TAIL
        slope = torch.where(tail, (ratio - factor) / (z64 * ratio), cdf / near)
        ctx.save_for_backward(slope.to(z))
        return torch.where(tail, log_t + ratio.log(), near.log()).to(z)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None


def _hypergeometric(df: Tensor, x: Tensor) -> Tensor:
    """F(v/2 + 1/2, 1; v/2 + 2; x) by Gauss's continued fraction (DLMF 15.7.1 with b = 0)."""
    a, c = (df + 1) / 2, df / 2 + 1
    value = c + _TERMS
    for k in range(_TERMS, 0, -1):
        n = k // 2
        numerator = (a + n) * (c + n) if k % 2 else n * (c - a + n)
        value = c + (k - 1) - numerator * x / value
    return c / value


def log_improvement(z: Tensor, df: Tensor) -> Tensor:
    """log h(z): of the expected improvement in units of the scale.

    Args:
        z: Standardized improvement of the location, of any shape.
        df: Degrees of freedom, above 1, broadcastable to `z`; no gradient is taken in them.
    """
    return _LogImprovement.apply(z, df)


class StudentTPosterior(ScaleMixturePosterior):
    """Multivariate-t over q points, for m outputs.

    Args:
        loc: `batch_shape x q x m` locations, in units of the outcomes.
        scale_matrix: `batch_shape x m x q x q` scale matrices (df / (df - 2) times smaller than
            the covariance), in squared units of `unit`.
        df: `m` degrees of freedom, positive.
        unit: See `ScaleMixturePosterior`.
        shared_scale: Whether one chi-square variable serves all outputs, which are then
            uncorrelated but dependent; `df` are then equal.

    Raises:
        InputError: Shapes do not match, or degrees of freedom are not positive, or not equal
            where the scale is shared.
    """

    def __init__(
        self,
        loc: Tensor,
        scale_matrix: Tensor,
        df: Tensor,
        unit: Tensor | None = None,
        shared_scale: bool = False,
    ) -> None:
        super().__init__(loc, scale_matrix, unit, shared_scale)
        m = loc.shape[-1]
        if df.shape != (m,) or not (df > 0).all():
            raise InputError(f"df must hold {m} positive value(s), one an output, got {df}")
        if shared_scale and not (df == df[0]).all():
            raise InputError(f"outputs that share a scale have equal df, got {df.tolist()}")
        self.df = df.to(loc)

    def with_parts(
        self, loc: Tensor, scale_matrix: Tensor, unit: Tensor, outputs: list[int]
    ) -> StudentTPosterior:
        """See `ScaleMixturePosterior`."""
        return StudentTPosterior(loc, scale_matrix, self.df[outputs], unit, self.shared_scale)

    @property
    def mean(self) -> Tensor:
        """`batch_shape x q x m`.

        Raises:
            UnsupportedError: Some degrees of freedom are 1 or fewer: there is no mean.
        """
        if not (self.df > 1).all():
            raise UnsupportedError(f"a t distribution has a mean for df > 1, got {self.df}")
        return self.loc

    @property
    def mean_square_scale(self) -> Tensor:
        """df / (df - 2); see `ScaleMixturePosterior`.

        Raises:
            UnsupportedError: Some degrees of freedom are 2 or fewer: there is no variance.
        """
        if not (self.df > 2).all():
            raise UnsupportedError(
                f"a t distribution has a variance for df > 2, got {self.df}; use quantiles"
            )
        return self.df / (self.df - 2)

    def standard_log_density(self, z: Tensor) -> Tensor:
        """See `ScaleMixturePosterior`."""
        return student_t_log_density(z, self.df)

    def standard_cdf(self, z: Tensor) -> Tensor:
        """See `ScaleMixturePosterior`."""
        return student_t_cdf(z, self.df)

    def standard_quantile(self, levels: Tensor) -> Tensor:
        """See `ScaleMixturePosterior`."""
        z = student_t_quantile(levels.unsqueeze(-1), self.df)  # levels.shape x m
        return z.reshape(*levels.shape, *[1] * (self.loc.ndim - 1), z.shape[-1])

    def log_improvement(self, z: Tensor) -> Tensor:
        """See `ScaleMixturePosterior`."""
        return log_improvement(z, self.df)

    def scale_multiplier(self, normal: Tensor) -> Tensor:
        """See `ScaleMixturePosterior`."""
        return scale_multiplier(normal, self.df[: normal.shape[-1]])
