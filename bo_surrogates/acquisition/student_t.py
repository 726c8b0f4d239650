"""Analytic acquisition functions for Student-t posteriors, one point at a time.

With location m, scale s and v degrees of freedom at a point, z = (m - best) / s, and T and t the
distribution function and the density of the standard Student-t distribution,

    EI = s h(z),    h(z) = z T(z) + (v + z^2) / (v - 1) t(z),    PI = T(z),

(Shah, Wilson & Ghahramani 2014, arXiv 1402.4306). BoTorch's analytic functions take
a posterior's mean and variance for a normal distribution's. Its Monte Carlo functions need none of
this: they work on any posterior that can be sampled, and take batches.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from botorch.acquisition.analytic import AnalyticAcquisitionFunction
from botorch.acquisition.objective import PosteriorTransform
from botorch.models.model import Model
from botorch.utils.transforms import t_batch_mode_transform
from torch import Tensor
from torch.autograd.function import once_differentiable

from bo_surrogates.errors import InputError
from bo_surrogates.posteriors.student_t import (
    StudentTPosterior,
    student_t_cdf,
    student_t_log_density,
    student_t_quantile,
)

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


class StudentTAnalyticAcquisition(AnalyticAcquisitionFunction):
    """What the analytic acquisition functions share: location and scale at one point.

    Args:
        model: One outcome, or several with a `posterior_transform` that leaves one.
        posterior_transform: Applied to the posterior.
        maximize: Whether the outcome is maximized.
    """

    def __init__(
        self,
        model: Model,
        posterior_transform: PosteriorTransform | None = None,
        maximize: bool = True,
    ) -> None:
        super().__init__(model=model, posterior_transform=posterior_transform)
        self.sign = 1.0 if maximize else -1.0

    @t_batch_mode_transform(expected_q=1)  # type: ignore[arg-type]  # its type takes no methods
    def forward(self, X: Tensor) -> Tensor:
        """Values at `b x 1 x d` points: `b`.

        Raises:
            InputError: The model's posterior is no `StudentTPosterior`.
        """
        posterior = self.model.posterior(X, posterior_transform=self.posterior_transform)
        if not isinstance(posterior, StudentTPosterior):
            raise InputError(
                f"{type(self).__name__} needs a model with a StudentTPosterior such as 'tp', got "
                f"a {type(posterior).__name__}; use BoTorch's acquisition functions for it"
            )
        location, scale = posterior.loc[..., 0, 0], posterior.scale[..., 0, 0]
        return self._value(self.sign * location, scale, posterior.df[0])

    @abstractmethod
    def _value(self, location: Tensor, scale: Tensor, df: Tensor) -> Tensor:
        """Of an outcome to be maximized: from `b` locations, `b` scales and a number."""


class StudentTLogExpectedImprovement(StudentTAnalyticAcquisition):
    """Logarithm of the expected improvement: its gradient does not vanish far from the best.

    Args:
        model: See `StudentTAnalyticAcquisition`.
        best_f: Best outcome so far, a number or a tensor that broadcasts to `b`.
        posterior_transform: See `StudentTAnalyticAcquisition`.
        maximize: See `StudentTAnalyticAcquisition`.
    """

    def __init__(
        self,
        model: Model,
        best_f: float | Tensor,
        posterior_transform: PosteriorTransform | None = None,
        maximize: bool = True,
    ) -> None:
        super().__init__(model, posterior_transform, maximize)
        best = best_f if isinstance(best_f, Tensor) else torch.tensor(best_f, dtype=torch.float64)
        self.register_buffer("best_f", best)

    def _standardized(self, location: Tensor, scale: Tensor) -> Tensor:
        best = torch.as_tensor(self.best_f).to(location)
        return (location - self.sign * best) / scale

    def _value(self, location: Tensor, scale: Tensor, df: Tensor) -> Tensor:
        return scale.log() + log_improvement(self._standardized(location, scale), df)


class StudentTExpectedImprovement(StudentTLogExpectedImprovement):
    """Expected improvement, in units of the outcome; arguments as for its logarithm."""

    def _value(self, location: Tensor, scale: Tensor, df: Tensor) -> Tensor:
        return scale * log_improvement(self._standardized(location, scale), df).exp()


class StudentTProbabilityOfImprovement(StudentTLogExpectedImprovement):
    """Probability that the outcome is better than `best_f`; arguments as above."""

    def _value(self, location: Tensor, scale: Tensor, df: Tensor) -> Tensor:
        return student_t_cdf(self._standardized(location, scale), df)


class StudentTUpperConfidenceBound(StudentTAnalyticAcquisition):
    """A quantile of the outcome: what it does not exceed with probability `level`.

    For minimization, minus the outcome's quantile at 1 - `level`. A normal distribution's bound
    m + beta s is the quantile at the level Phi(beta).

    Args:
        model: See `StudentTAnalyticAcquisition`.
        level: In (0, 1); above 0.5 it explores.
        posterior_transform: See `StudentTAnalyticAcquisition`.
        maximize: See `StudentTAnalyticAcquisition`.

    Raises:
        InputError: The level is not in (0, 1).
    """

    def __init__(
        self,
        model: Model,
        level: float = 0.975,
        posterior_transform: PosteriorTransform | None = None,
        maximize: bool = True,
    ) -> None:
        if not 0 < level < 1:
            raise InputError(f"level must be in (0, 1), got {level}")
        super().__init__(model, posterior_transform, maximize)
        self.level = level

    def _value(self, location: Tensor, scale: Tensor, df: Tensor) -> Tensor:
        return location + scale * student_t_quantile(location.new_tensor(self.level), df)
