"""Dual activations: how one layer of an infinitely wide network maps covariances.

For pre-activations (u, v) ~ N(0, [[q1, K], [K, q2]]), an activation phi has

* the dual map            F(q1, q2, K)  = E[phi(u) phi(v)],
* the derivative map      Fd(q1, q2, K) = E[phi'(u) phi'(v)] = dF/dK (Price's theorem),
* their diagonals         F(q), Fd(q), where u = v and q1 = q2 = K = q.

All are closed forms here. The NNGP kernel needs the first and its diagonal; the neural tangent
kernel also needs the derivative map.

Sources: Cho and Saul 2009, "Kernel Methods for Deep Learning" (ReLU); Williams 1997, "Computing
with Infinite Networks" (erf); Tsuchida et al. 2021, arXiv 2002.08517 (GELU); Jacot et al. 2018,
arXiv 1806.07572 (their use in the tangent kernel).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from bo_surrogates.errors import InputError, did_you_mean
from bo_surrogates.kernels.arc_cosine import ArcCosinePair
from bo_surrogates.kernels.sine import SinePair


class DualActivation(ABC):
    """An activation function with its dual maps.

    All maps are elementwise and broadcast: `q1` and `q2` are variances (> 0), `K` a covariance
    (|K| <= sqrt(q1 q2) up to rounding). Meant for float64: near |K| = sqrt(q1 q2) the maps of
    piecewise linear activations lose half of the digits.

    Attributes:
        name: How configurations call the activation.
        weight_variance: Default weight variance of a network with this activation, near which
            signals neither vanish nor explode with depth.
    """

    name: ClassVar[str]
    weight_variance: ClassVar[float]

    @abstractmethod
    def activation(self, u: Tensor) -> Tensor:
        """phi(u), elementwise."""

    @abstractmethod
    def slope_of(self, u: Tensor) -> Tensor:
        """phi'(u), elementwise; at a kink the slope on its left."""

    @abstractmethod
    def pair(self, q1: Tensor, q2: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
        """F and Fd together, which share most of their terms."""

    def dual(self, q1: Tensor, q2: Tensor, K: Tensor) -> Tensor:
        """F(q1, q2, K) = E[phi(u) phi(v)]."""
        return self.pair(q1, q2, K)[0]

    def derivative(self, q1: Tensor, q2: Tensor, K: Tensor) -> Tensor:
        """Fd(q1, q2, K) = E[phi'(u) phi'(v)]."""
        return self.pair(q1, q2, K)[1]

    @abstractmethod
    def diagonal(self, q: Tensor) -> Tensor:
        """F(q, q, q) = E[phi(u)^2]."""

    @abstractmethod
    def derivative_diagonal(self, q: Tensor) -> Tensor:
        """Fd(q, q, q) = E[phi'(u)^2]."""


class LeakyReLU(DualActivation):
    """phi(u) = u where u > 0, `slope` * u elsewhere. `slope` 0 is the ReLU.

    The dual map is the arc-cosine kernel of order 1 (Cho and Saul 2009, equation 6), the
    derivative map that of order 0, each blended with its linear counterpart.
    """

    name = "leaky_relu"
    weight_variance = 2.0
    slope: ClassVar[float] = 0.1

    def activation(self, u: Tensor) -> Tensor:
        """See `DualActivation.activation`."""
        return functional.leaky_relu(u, self.slope)

    def slope_of(self, u: Tensor) -> Tensor:
        """See `DualActivation.slope_of`."""
        return torch.where(u > 0, 1.0, self.slope).to(u)

    def pair(self, q1: Tensor, q2: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
        """See `DualActivation.pair`."""
        first, second = ArcCosinePair.apply(q1, q2, K)
        factor = (1.0 - self.slope) ** 2 / (2.0 * math.pi)
        if not self.slope:
            return first * factor, second * factor
        return torch.add(self.slope * K, first, alpha=factor), second * factor + self.slope

    def dual(self, q1: Tensor, q2: Tensor, K: Tensor) -> Tensor:
        """See `DualActivation.dual`."""
        F = ArcCosinePair.apply(q1, q2, K)[0] * ((1.0 - self.slope) ** 2 / (2.0 * math.pi))
        return F + self.slope * K if self.slope else F

    def diagonal(self, q: Tensor) -> Tensor:
        """See `DualActivation.diagonal`."""
        return q * ((1.0 + self.slope**2) / 2.0)

    def derivative_diagonal(self, q: Tensor) -> Tensor:
        """See `DualActivation.derivative_diagonal`."""
        return torch.full_like(q, (1.0 + self.slope**2) / 2.0)


class ReLU(LeakyReLU):
    """phi(u) = max(u, 0)."""

    name = "relu"
    weight_variance = 2.0
    slope = 0.0


class Erf(DualActivation):
    """phi(u) = erf(u) (Williams 1997): a sigmoid whose expectations are closed forms.

    1 + 2 q1 and 1 + 2 q2 keep the argument of the arcsine below 1: smooth at coincident points.
    """

    name = "erf"
    weight_variance = 1.5

    def activation(self, u: Tensor) -> Tensor:
        """See `DualActivation.activation`."""
        return torch.erf(u)

    def slope_of(self, u: Tensor) -> Tensor:
        """See `DualActivation.slope_of`."""
        return torch.exp(-u.square()) * (2.0 / math.sqrt(math.pi))

    def pair(self, q1: Tensor, q2: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
        """See `DualActivation.pair`."""
        twice = 2.0 * K
        squared_cosine = torch.addcmul((1.0 + 2.0 * q1) * (1.0 + 2.0 * q2), twice, twice, value=-1)
        inverse = squared_cosine.rsqrt()
        # arcsin(s) = arctan2(s, sqrt(1 - s^2)), in two thirds of the time of an arcsine
        F = torch.atan2(twice, squared_cosine * inverse) * (2.0 / math.pi)
        return F, inverse * (4.0 / math.pi)

    def diagonal(self, q: Tensor) -> Tensor:
        """See `DualActivation.diagonal`."""
        return torch.arcsin(2.0 * q / (1.0 + 2.0 * q)) * (2.0 / math.pi)

    def derivative_diagonal(self, q: Tensor) -> Tensor:
        """See `DualActivation.derivative_diagonal`."""
        return (1.0 + 4.0 * q).rsqrt() * (4.0 / math.pi)


class GELU(DualActivation):
    """phi(u) = u Phi(u), Phi the standard normal distribution function.

    With P = (1 + q1)(1 + q2), D = sqrt(P - K^2) and A = arcsin(K / sqrt(P)); D >= 1, so it is
    smooth at coincident points.
    """

    name = "gelu"
    weight_variance = 2.0

    def activation(self, u: Tensor) -> Tensor:
        """See `DualActivation.activation`."""
        return functional.gelu(u)

    def slope_of(self, u: Tensor) -> Tensor:
        """See `DualActivation.slope_of`."""
        density = torch.exp(-0.5 * u.square()) / math.sqrt(2.0 * math.pi)
        return torch.special.ndtr(u) + u * density

    def pair(self, q1: Tensor, q2: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
        """See `DualActivation.pair`."""
        P = (1.0 + q1) * (1.0 + q2)
        squared_K, q1q2 = K.square(), q1 * q2
        squared_D = P - squared_K
        inverse_D = squared_D.rsqrt()
        # A / (2 pi) + 1 / 4, with arcsin as an arctangent as in `Erf`
        angle = torch.atan2(K, squared_D * inverse_D) * (0.5 / math.pi) + 0.25
        F = K * angle + (squared_K + q1q2 * squared_D) * inverse_D / (2.0 * math.pi * P)
        smooth = K * inverse_D * (inverse_D.square() + ((1.0 - q1q2) / P + 1.0))
        return F, angle + smooth / (2.0 * math.pi)

    def diagonal(self, q: Tensor) -> Tensor:
        """See `DualActivation.diagonal`."""
        A = torch.arcsin(q / (1.0 + q))
        return q * (0.25 + A / (2.0 * math.pi)) + q**2 * (1.0 + 2.0 * q).rsqrt() / (
            math.pi * (1.0 + q)
        )

    def derivative_diagonal(self, q: Tensor) -> Tensor:
        """See `DualActivation.derivative_diagonal`."""
        A = torch.arcsin(q / (1.0 + q))
        # (1 - q^2) / (1 + q)^2 = (1 - q) / (1 + q)
        inner = 1.0 / (1.0 + 2.0 * q) + (1.0 - q) / (1.0 + q) + 1.0
        return 0.25 + (A + q * (1.0 + 2.0 * q).rsqrt() * inner) / (2.0 * math.pi)


class Sine(DualActivation):
    """phi(u) = amplitude * sin(u + phase); see `sine.py`."""

    name = "sin"
    weight_variance = 1.5
    amplitude: ClassVar[float] = 1.0
    phase: ClassVar[float] = 0.0

    def activation(self, u: Tensor) -> Tensor:
        """See `DualActivation.activation`."""
        return self.amplitude * torch.sin(u + self.phase)

    def slope_of(self, u: Tensor) -> Tensor:
        """See `DualActivation.slope_of`."""
        return self.amplitude * torch.cos(u + self.phase)

    def pair(self, q1: Tensor, q2: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
        """See `DualActivation.pair`."""
        pair: tuple[Tensor, Tensor] = SinePair.apply(
            q1, q2, K, math.cos(2.0 * self.phase), self.amplitude**2 / 2.0
        )
        return pair

    def diagonal(self, q: Tensor) -> Tensor:
        """See `DualActivation.diagonal`."""
        # 1 - exp(-2q) by expm1: exact for small variances, where it is all there is.
        cosine = math.cos(2.0 * self.phase)
        return (1.0 - cosine - cosine * torch.expm1(-2.0 * q)) * (self.amplitude**2 / 2.0)

    def derivative_diagonal(self, q: Tensor) -> Tensor:
        """See `DualActivation.derivative_diagonal`."""
        return (1.0 + math.cos(2.0 * self.phase) * torch.exp(-2.0 * q)) * (self.amplitude**2 / 2.0)


class RBFSine(Sine):
    """phi(u) = sqrt(2) sin(u + pi/4): the dual map exp(-(q1 + q2 - 2K)/2) is an RBF kernel.

    q1 + q2 - 2K is the expected squared distance of the pre-activations, so that the network's
    kernel is stationary: it depends on x - x' alone.
    """

    name = "rbf_sin"
    weight_variance = 1.0
    amplitude = math.sqrt(2.0)
    phase = math.pi / 4.0

    def pair(self, q1: Tensor, q2: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
        """See `DualActivation.pair`."""
        kernel = (K - (q1 + q2) / 2.0).exp()  # cos(2 phase) is 0 but for rounding
        return kernel, kernel

    def diagonal(self, q: Tensor) -> Tensor:
        """See `DualActivation.diagonal`."""
        return torch.ones_like(q)

    def derivative_diagonal(self, q: Tensor) -> Tensor:
        """See `DualActivation.derivative_diagonal`."""
        return torch.ones_like(q)


DUAL_ACTIVATIONS: dict[str, DualActivation] = {
    a.name: a for a in (ReLU(), LeakyReLU(), Erf(), GELU(), Sine(), RBFSine())
}


def dual_activation(name: str) -> DualActivation:
    """The dual activation of that name.

    Raises:
        InputError: There is none; the nearest name is suggested.
    """
    try:
        return DUAL_ACTIVATIONS[name]
    except KeyError:
        raise InputError(
            f"unknown activation {name!r}{did_you_mean(name, DUAL_ACTIVATIONS)}"
        ) from None
