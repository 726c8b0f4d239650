"""Prior laws of the scale in a scale mixture of Gaussian processes, and their posteriors.

Given the scale, n observations with quadratic form r = (y - c)' S^-1 (y - c) have the density
N(y; c, s2 S), which depends on s2 as s2^(-n/2) exp(-r / (2 s2)). All that the data say of s2, and
all that s2 does to the data, is in the pair (n, r), and in the evidence

    Z(n, r) = integral of p(s2) s2^(-n/2) exp(-r / (2 s2)) ds2.

The laws (those of Lee et al. 2022, arXiv 2107.01408, and the log-normal), each of mean 1:

    inverse-gamma   s2 ~ InvGamma(v/2, (v - 2)/2): the observations are multivariate t
    Burr XII        p(x) = c k x^(c-1) (1 + x^c)^(-k-1) of x = s2 k B(k - 1/c, 1 + 1/c)
    log-normal      log s2 ~ N(-t^2/2, t^2)

The first is in closed form. For the others, where the paper samples from the prior, the integral
over u = log s2 is a sum: the integrand is log-concave and analytic, and the trapezoidal rule on an
interval outside which it has fallen by e^-40 is exact to rounding for practical purposes. The
posterior of s2 is then a law on the nodes.

So that laws are compared at equal spread, the parameters c and t can be had from degrees of freedom
v: log s2 then has the variance it has under the inverse-gamma law, trigamma(v/2).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import NamedTuple, Self

import torch
from torch import Tensor

NODES = 128
_DROP = 40.0  # of the log posterior density at the ends of the grid
_SMALLEST_FORM = 1e-8  # of r / n, of standardized outcomes: residuals are known no better


def spread(df: Tensor) -> Tensor:
    """Standard deviation of log s2 under the inverse-gamma law of `df` degrees of freedom."""
    return torch.polygamma(1, df.double() / 2).sqrt()


class ScaleGrid(NamedTuple):
    """A law of s2 on K nodes.

    Attributes:
        log_scale: `batch_shape x K`, log s2, ascending; without gradient.
        log_weight: `batch_shape x K` log probabilities.
    """

    log_scale: Tensor
    log_weight: Tensor


@dataclass(frozen=True)
class ScaleLaw(ABC):
    """A law of s2 for each element of a batch, e.g. for each output; parameters are tensors."""

    @abstractmethod
    def log_density(self, u: Tensor) -> Tensor:
        """Of u = log s2 (not of s2), for `u` that broadcasts with the parameters."""

    @abstractmethod
    def log_evidence(self, n: int, r: Tensor) -> Tensor:
        """log Z(n, r), in the dtype of `r`.

        Args:
            n: Number of observations.
            r: Quadratic forms, broadcastable with the parameters.
        """

    def unsqueeze(self) -> Self:
        """The law with a last dimension of 1 added to its parameters."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {k: v.unsqueeze(-1) for k, v in values.items()}
        return type(self)(**tensors)


@dataclass(frozen=True)
class InverseGamma(ScaleLaw):
    """InvGamma(v/2, (v - 2)/2): its mixtures are Student-t.

    Attributes:
        df: v > 2.
    """

    df: Tensor

    def log_density(self, u: Tensor) -> Tensor:
        """See `ScaleLaw`."""
        a, b = self.df.double() / 2, self.df.double() / 2 - 1
        return a * (b.log() - u) - torch.lgamma(a) - b * torch.exp(-u)

    def log_evidence(self, n: int, r: Tensor) -> Tensor:
        """See `ScaleLaw`; with a = v/2, b = a - 1: b^a G(a + n/2) / (G(a) (b + r/2)^(a + n/2))."""
        # In float64: in float32 nothing would be left of the differences for large v.
        a, b = self.df.double() / 2, self.df.double() / 2 - 1
        gammas = torch.lgamma(a + n / 2) - torch.lgamma(a)
        power = (a + n / 2) * torch.log1p(r.double() / (2 * b))
        return (gammas - n / 2 * b.log() - power).to(r)

    def posterior(self, n: int, r: Tensor) -> tuple[Tensor, Tensor]:
        """InvGamma(v'/2, f v'/2), the law of s2 given the data.

        Predictive distributions are t of v' degrees of freedom, whose scale matrix is f times the
        covariance at s2 = 1.

        Returns:
            f = (v - 2 + r) / (v + n), in the shape of `r`, and v' = v + n.
        """
        return (self.df - 2 + r) / (self.df + n), self.df + n


class GridLaw(ScaleLaw):
    """A law without a closed form: log-concave in u = log s2, its mode between e^-5 and e^5."""

    @abstractmethod
    def slope(self, u: Tensor) -> Tensor:
        """The derivative of `log_density`, decreasing."""

    def log_evidence(self, n: int, r: Tensor) -> Tensor:
        """See `ScaleLaw`."""
        _, log_terms = self._terms(n, r)
        return log_terms.logsumexp(dim=-1).to(r)

    def posterior(self, n: int, r: Tensor) -> ScaleGrid:
        """The law of s2 given the data.

        Args:
            n: Number of observations, may be 0.
            r: Quadratic forms, broadcastable with the parameters.
        """
        u, log_terms = self._terms(n, r)
        return ScaleGrid(u.to(r), log_terms.log_softmax(dim=-1).to(r))

    def _terms(self, n: int, r: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes and the logarithms of the terms of Z(n, r), `... x NODES`, float64."""
        r = r.double().clamp_min(_SMALLEST_FORM * n)
        with torch.no_grad():
            low, high = self._support(n, r)
            steps = torch.linspace(0, 1, NODES, dtype=r.dtype, device=r.device)
            width = (high - low).unsqueeze(-1)
            u = low.unsqueeze(-1) + width * steps
            log_step = (width / (NODES - 1)).log()
        log_likelihood = -n / 2 * u - r.unsqueeze(-1) / 2 * torch.exp(-u)
        return u, self.unsqueeze().log_density(u) + log_likelihood + log_step

    def _support(self, n: int, r: Tensor) -> tuple[Tensor, Tensor]:
        """Where the integrand has fallen by e^-_DROP on either side of its mode."""

        def value(u: Tensor) -> Tensor:
            return self.log_density(u) - n / 2 * u - r / 2 * torch.exp(-u)

        # The mode is between those of the prior and of the likelihood, log(r / n).
        peak = (r / max(n, 1)).clamp_min(1e-12).log() + torch.zeros_like(self.slope(r))
        low, high = peak.clamp_max(-5.0), peak.clamp_min(5.0)
        for _ in range(24):
            middle = (low + high) / 2
            rising = self.slope(middle) - n / 2 + r / 2 * torch.exp(-middle) > 0
            low, high = middle.where(rising, low), high.where(rising, middle)
        mode = (low + high) / 2
        target = value(mode) - _DROP
        # Both distances at once, by bisection of their logarithm.
        side = torch.tensor([-1.0, 1.0], dtype=mode.dtype, device=mode.device)
        side = side.reshape(2, *[1] * mode.ndim)
        near = torch.full_like(mode, math.log(1e-5)).expand(2, *mode.shape)
        far = torch.full_like(mode, math.log(400.0)).expand(2, *mode.shape)
        for _ in range(12):
            middle = (near + far) / 2
            inside = value(mode + side * middle.exp()) > target
            near, far = middle.where(inside, near), far.where(inside, middle)
        return mode - far[0].exp(), mode + far[1].exp()


@dataclass(frozen=True)
class BurrXII(GridLaw):
    """The Burr type XII law, scaled to mean 1: s2 has moments of order below c k.

    Attributes:
        c: First shape, > 0.
        k: Second shape, > 1 / c; with k = 1 the law is log-logistic.
    """

    c: Tensor
    k: Tensor

    @classmethod
    def of_spread(cls, df: Tensor, k: float) -> BurrXII:
        """With the spread of log s2 that the inverse-gamma law has at `df` degrees of freedom."""
        shape = torch.full_like(df, k, dtype=torch.float64)
        one = torch.ones_like(shape)
        variance = torch.polygamma(1, shape) + torch.polygamma(1, one)  # of log s2, times c^2
        return cls(variance.sqrt() / spread(df), shape)

    def _shifted(self, u: Tensor) -> Tensor:
        """C log x, x = s2 E x."""
        c, k = self.c, self.k
        log_mean = k.log() + torch.lgamma(k - 1 / c) + torch.lgamma(1 + 1 / c) - torch.lgamma(k + 1)
        return c * (u + log_mean)

    def log_density(self, u: Tensor) -> Tensor:
        """See `ScaleLaw`."""
        x = self._shifted(u)
        return (self.c * self.k).log() + x - (self.k + 1) * torch.logaddexp(x, torch.zeros_like(x))

    def slope(self, u: Tensor) -> Tensor:
        """See `GridLaw`."""
        return self.c * (1 - (self.k + 1) * torch.sigmoid(self._shifted(u)))


@dataclass(frozen=True)
class LogNormal(GridLaw):
    """log s2 ~ N(-t^2/2, t^2).

    Attributes:
        std: t > 0.
    """

    std: Tensor

    @classmethod
    def of_spread(cls, df: Tensor) -> LogNormal:
        """With the spread of log s2 that the inverse-gamma law has at `df` degrees of freedom."""
        return cls(spread(df))

    def log_density(self, u: Tensor) -> Tensor:
        """See `ScaleLaw`."""
        z = u / self.std + self.std / 2
        return -0.5 * z.square() - self.std.log() - 0.5 * math.log(2 * math.pi)

    def slope(self, u: Tensor) -> Tensor:
        """See `GridLaw`."""
        return -(u / self.std + self.std / 2) / self.std
