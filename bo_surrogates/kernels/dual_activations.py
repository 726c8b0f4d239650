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
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from bo_surrogates.errors import InputError, did_you_mean


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
    def dual(self, q1: Tensor, q2: Tensor, K: Tensor) -> Tensor:
        """F(q1, q2, K) = E[phi(u) phi(v)]."""

    @abstractmethod
    def derivative(self, q1: Tensor, q2: Tensor, K: Tensor) -> Tensor:
        """Fd(q1, q2, K) = E[phi'(u) phi'(v)]."""

    @abstractmethod
    def diagonal(self, q: Tensor) -> Tensor:
        """F(q, q, q) = E[phi(u)^2]."""

    @abstractmethod
    def derivative_diagonal(self, q: Tensor) -> Tensor:
        """Fd(q, q, q) = E[phi'(u)^2]."""


class _ArcCosine0(torch.autograd.Function):
    """J0(c) = pi - arccos(c), with J0'(c) = 1 / sqrt(1 - c^2) set to 0 at |c| = 1.

    The pole at c = 1 meets a factor dc/dx that vanishes there (c is largest at x = x'), but
    automatic differentiation would make infinity times zero of them. In the second derivative of
    the ReLU dual map the product tends to 0, so 0 is right; in the first derivative of the
    *derivative* map, which has a kink there, 0 is a subgradient.
    """

    @staticmethod
    def forward(ctx: Any, c: Tensor) -> Tensor:
        ctx.save_for_backward(c)
        return math.pi - torch.arccos(c.clamp(-1.0, 1.0))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (c,) = ctx.saved_tensors
        squared_sine = (1.0 - c) * (1.0 + c)
        regular = squared_sine > 1e-14
        # Two masks: the inner one keeps infinities out of the double backward as well.
        slope = torch.where(regular, squared_sine, torch.ones_like(c)).rsqrt()
        return grads[0] * torch.where(regular, slope, torch.zeros_like(c))


class _ArcCosine1(torch.autograd.Function):
    """J1(c) = sqrt(1 - c^2) + (pi - arccos c) c, with J1'(c) = J0(c) in place of the sum of two
    poles that cancel only on paper. `c` may leave [-1, 1] by rounding."""

    @staticmethod
    def forward(ctx: Any, c: Tensor) -> Tensor:
        ctx.save_for_backward(c)
        c = c.clamp(-1.0, 1.0)
        return ((1.0 - c) * (1.0 + c)).sqrt() + (math.pi - torch.arccos(c)) * c

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (c,) = ctx.saved_tensors
        return grads[0] * _ArcCosine0.apply(c)


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

    def dual(self, q1: Tensor, q2: Tensor, K: Tensor) -> Tensor:
        """See `DualActivation.dual`."""
        r = q1.sqrt() * q2.sqrt()
        F = r * _ArcCosine1.apply(K / r) * ((1.0 - self.slope) ** 2 / (2.0 * math.pi))
        return F + self.slope * K if self.slope else F

    def derivative(self, q1: Tensor, q2: Tensor, K: Tensor) -> Tensor:
        """See `DualActivation.derivative`."""
        c = K / (q1.sqrt() * q2.sqrt())
        return _ArcCosine0.apply(c) * ((1.0 - self.slope) ** 2 / (2.0 * math.pi)) + self.slope

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

    def dual(self, q1: Tensor, q2: Tensor, K: Tensor) -> Tensor:
        """See `DualActivation.dual`."""
        sine = 2.0 * K * (1.0 + 2.0 * q1).rsqrt() * (1.0 + 2.0 * q2).rsqrt()
        return torch.arcsin(sine) * (2.0 / math.pi)

    def derivative(self, q1: Tensor, q2: Tensor, K: Tensor) -> Tensor:
        """See `DualActivation.derivative`."""
        return ((1.0 + 2.0 * q1) * (1.0 + 2.0 * q2) - 4.0 * K**2).rsqrt() * (4.0 / math.pi)

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

    def dual(self, q1: Tensor, q2: Tensor, K: Tensor) -> Tensor:
        """See `DualActivation.dual`."""
        P, squared_D, A = self._terms(q1, q2, K)
        smooth = (K**2 + q1 * q2 * squared_D) / (P * squared_D.sqrt())
        return K * (0.25 + A / (2.0 * math.pi)) + smooth / (2.0 * math.pi)

    def derivative(self, q1: Tensor, q2: Tensor, K: Tensor) -> Tensor:
        """See `DualActivation.derivative`."""
        P, squared_D, A = self._terms(q1, q2, K)
        smooth = K * squared_D.rsqrt() * (1.0 / squared_D + (1.0 - q1 * q2) / P + 1.0)
        return 0.25 + (A + smooth) / (2.0 * math.pi)

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

    @staticmethod
    def _terms(q1: Tensor, q2: Tensor, K: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """P, D^2 and A of the class's docstring."""
        P = (1.0 + q1) * (1.0 + q2)
        return P, P - K**2, torch.arcsin(K * P.rsqrt())


class Sine(DualActivation):
    """phi(u) = amplitude * sin(u + phase).

    The exponents are combined before `exp`: exp(-(q1 + q2)/2) sinh(K) is the same number on
    paper, and zero times infinity for large variances.
    """

    name = "sin"
    weight_variance = 1.5
    amplitude: ClassVar[float] = 1.0
    phase: ClassVar[float] = 0.0

    def activation(self, u: Tensor) -> Tensor:
        """See `DualActivation.activation`."""
        return self.amplitude * torch.sin(u + self.phase)

    def dual(self, q1: Tensor, q2: Tensor, K: Tensor) -> Tensor:
        """See `DualActivation.dual`."""
        return self._blend(q1, q2, K, -math.cos(2.0 * self.phase))

    def derivative(self, q1: Tensor, q2: Tensor, K: Tensor) -> Tensor:
        """See `DualActivation.derivative`."""
        return self._blend(q1, q2, K, math.cos(2.0 * self.phase))

    def _blend(self, q1: Tensor, q2: Tensor, K: Tensor, sign: float) -> Tensor:
        mean = (q1 + q2) / 2.0
        total = (K - mean).exp() + sign * (-K - mean).exp()
        return total * (self.amplitude**2 / 2.0)

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

    def _blend(self, q1: Tensor, q2: Tensor, K: Tensor, sign: float) -> Tensor:
        # cos(2 phase) is 0 but for rounding; half of the work is saved.
        return (K - (q1 + q2) / 2.0).exp()

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
