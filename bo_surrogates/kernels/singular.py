"""Kernels of infinitely wide and deep networks, and what classifiers they become.

Inputs on the unit sphere, with cosines t in [0, 1]; an activation phi with E[phi(u)^2] = 1 for
u ~ N(0, 1), and its dual D(t) = E[phi(u) phi(v)], (u, v) standard normal of correlation t. With
normalized Hermite polynomials, phi = sum_k c_k He_k / sqrt(k!) has D(t) = sum_k c_k^2 t^k. Kernels
of L hidden layers, without biases, from S_0 = T_0 = t:

    S_l = D(S_{l-1})                          NNGP,
    T_l = S_l + T_{l-1} D'(S_{l-1})           tangent kernel.

As L grows, sign(y' K^{-1} k(X, x)) tends to (Radhakrishnan, Belkin and Uhler 2023, arXiv
2204.14126):

* 1-nearest neighbour, if D(0) = 0 and D'(0) = 0;
* the majority of all labels, if D(0) > 0;
* sign sum_i y_i R(|x - x_i|) / |x - x_i|^alpha, if D(0) = 0, D'(0) > 0 and D'(1) > 1: a singular
  kernel, with R bounded away from 0 and infinity near 0, and

      alpha = -2 log D'(0) / log D'(1).

The last follows from G(t) = lim S_L(t) / D'(0)^L, for which G(D(t)) = D'(0) G(t) by definition:
near t = 1, where 1 - D(t) = D'(1) (1 - t) to first order and |x - x'|^2 = 2 (1 - t), only
|x - x'|^{-alpha} obeys it, up to a bounded factor. The singular classifier is consistent, that is
Bayes optimal as n grows, if alpha is the dimension d of the sphere (Devroye, Gyorfi and Krzyzak
1998, for R = 1). `optimal_dual` and `optimal_sine` have that exponent.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from scipy.optimize import brentq
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.kernels.arc_cosine import ArcCosinePair

Regime = Literal["nearest neighbour", "majority", "singular"]
SMALLEST_COSINE = 1e-300


class Dual(ABC):
    """A dual activation D on [0, 1] with D(1) = 1.

    Attributes:
        order: The lowest k with c_k > 0: D(t) is of order t^k near 0.
    """

    order: int

    @abstractmethod
    def activation(self, u: Tensor) -> Tensor:
        """phi(u), elementwise."""

    @abstractmethod
    def reduced(self, t: Tensor) -> Tensor:
        """D(t) / t^order, elementwise, positive on [0, 1]."""

    @abstractmethod
    def derivative(self, t: Tensor) -> Tensor:
        """D'(t), elementwise."""

    def __call__(self, t: Tensor) -> Tensor:
        """D(t), elementwise."""
        return t**self.order * self.reduced(t)

    @property
    def regime(self) -> Regime:
        """What the classifier becomes with depth; see the module's docstring.

        Raises:
            InputError: None of the three: D(0) = 0 and D'(1) <= 1, a linear activation.
        """
        if self.order == 0:
            return "majority"
        if self.order > 1:
            return "nearest neighbour"
        if self._at(1.0) <= 1.0 + 1e-12:
            raise InputError("a linear activation has no limit with depth: its kernel stays t")
        return "singular"

    @property
    def exponent(self) -> float:
        """alpha of the singular kernel, > 0.

        Raises:
            InputError: The limit is no singular kernel.
        """
        if self.regime != "singular":
            raise InputError(f"the limit is the {self.regime} classifier, without an exponent")
        return -2.0 * math.log(self._at(0.0)) / math.log(self._at(1.0))

    def _at(self, t: float) -> float:
        """D'(t)."""
        return self.derivative(torch.tensor(t, dtype=torch.float64)).item()


class HermiteDual(Dual):
    """D(t) = sum_k w_k t^k, of phi = sum_k sqrt(w_k) He_k / sqrt(k!).

    Args:
        weights: w_0, w_1, ..., at least 0, of which one is positive; divided by their sum.

    Raises:
        InputError: A weight is negative, or none is positive.
    """

    def __init__(self, weights: list[float] | tuple[float, ...]) -> None:
        total = sum(weights)
        if not total > 0 or min(weights) < 0 or not math.isfinite(total):
            raise InputError(f"Hermite weights must be >= 0, and one positive, got {weights}")
        self.weights = tuple(w / total for w in weights)
        self.order = next(k for k, w in enumerate(self.weights) if w > 0)

    def activation(self, u: Tensor) -> Tensor:
        """See `Dual.activation`."""
        # h_{k+1} = (u h_k - sqrt(k) h_{k-1}) / sqrt(k + 1)
        before, h = torch.zeros_like(u), torch.ones_like(u)
        value = torch.zeros_like(u)
        for k, w in enumerate(self.weights):
            value = value + math.sqrt(w) * h
            before, h = h, (u * h - math.sqrt(k) * before) / math.sqrt(k + 1)
        return value

    def reduced(self, t: Tensor) -> Tensor:
        """See `Dual.reduced`."""
        return _horner(self.weights[self.order :], t)

    def derivative(self, t: Tensor) -> Tensor:
        """See `Dual.derivative`."""
        return _horner([k * w for k, w in enumerate(self.weights)][1:] or [0.0], t)


class SineDual(Dual):
    """D(t) = sinh(a t) / sinh(a), of phi(u) = sin(sqrt(a) u) / sqrt(exp(-a) sinh(a)).

    Args:
        a: In (0, 300].

    Raises:
        InputError: `a` is out of range.
    """

    order = 1

    def __init__(self, a: float) -> None:
        if not 0.0 < a <= 300.0:
            raise InputError(f"the sine's parameter a must be in (0, 300], got {a}")
        self.a = a

    def activation(self, u: Tensor) -> Tensor:
        """See `Dual.activation`."""
        return torch.sin(math.sqrt(self.a) * u) / math.sqrt(-math.expm1(-2.0 * self.a) / 2.0)

    def reduced(self, t: Tensor) -> Tensor:
        """See `Dual.reduced`."""
        # sinh(x) / x is 1 + x^2 / 6 where x is small.
        x = self.a * t
        small = x < 1e-4
        safe = torch.where(small, torch.ones_like(x), x)
        ratio = torch.where(small, 1.0 + x.square() / 6.0, torch.sinh(safe) / safe)
        return ratio * (self.a / math.sinh(self.a))

    def derivative(self, t: Tensor) -> Tensor:
        """See `Dual.derivative`."""
        return torch.cosh(self.a * t) * (self.a / math.sinh(self.a))


class ErfDual(Dual):
    """D(t) = arcsin(2 t / 3) / arcsin(2 / 3), of phi(u) proportional to erf(u); alpha is 0.89."""

    order = 1

    def activation(self, u: Tensor) -> Tensor:
        """See `Dual.activation`."""
        return torch.erf(u) * math.sqrt(0.5 * math.pi / math.asin(2.0 / 3.0))

    def reduced(self, t: Tensor) -> Tensor:
        """See `Dual.reduced`."""
        # arcsin(x) / x is 1 + x^2 / 6 where x is small.
        x = (2.0 / 3.0) * t
        small = x < 1e-4
        safe = torch.where(small, torch.full_like(x, 0.5), x)
        ratio = torch.where(small, 1.0 + x.square() / 6.0, torch.arcsin(safe) / safe)
        return ratio * (2.0 / 3.0 / math.asin(2.0 / 3.0))

    def derivative(self, t: Tensor) -> Tensor:
        """See `Dual.derivative`."""
        return (9.0 - 4.0 * t.square()).rsqrt() * (2.0 / math.asin(2.0 / 3.0))


class ReLUDual(Dual):
    """D(t) = (t (pi - arccos t) + sqrt(1 - t^2)) / pi, of phi(u) = sqrt(2) max(u, 0)."""

    order = 0

    def activation(self, u: Tensor) -> Tensor:
        """See `Dual.activation`."""
        return math.sqrt(2.0) * torch.relu(u)

    def reduced(self, t: Tensor) -> Tensor:
        """See `Dual.reduced`."""
        return self._pair(t)[0]

    def derivative(self, t: Tensor) -> Tensor:
        """See `Dual.derivative`."""
        return self._pair(t)[1]

    @staticmethod
    def _pair(t: Tensor) -> tuple[Tensor, Tensor]:
        one = torch.ones_like(t)
        first, second = ArcCosinePair.apply(one, one, t)
        return first / math.pi, second / math.pi


def _horner(coefficients: list[float] | tuple[float, ...], t: Tensor) -> Tensor:
    value = torch.full_like(t, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        value = value * t + c
    return value


def optimal_dual(d: int) -> HermiteDual:
    """A polynomial activation whose exponent is d (arXiv 2204.14126).

    Args:
        d: Dimension of the sphere, at least 1.

    Raises:
        InputError: `d` is less than 1.
    """
    if d < 1:
        raise InputError(f"the dimension must be at least 1, got {d}")
    if d == 1:
        return HermiteDual([0.0, 0.5, 0, 0, 0, 0, 0, 0.5])
    c = 2.0 ** (-d / 2)
    return HermiteDual([0.0, c, max(1.0 - 2.0 * c, 0.0), c])


def optimal_sine(d: int) -> SineDual:
    """The sine whose exponent is d >= 2, by root finding.

    Args:
        d: Dimension of the sphere, 2 to 100. (A sine's exponent is always more than 1.)

    Raises:
        InputError: `d` is out of range.
    """
    if not 2 <= d <= 100:
        raise InputError(f"a sine has the exponent d for d in 2..100, got {d}")
    return SineDual(brentq(lambda a: SineDual(a).exponent - d, 1e-2, 300.0, xtol=1e-12))


def log_nngp(dual: Dual, t: Tensor, depth: int) -> Tensor:
    """log S_L, which is finite where S_L is too small for its type.

    Args:
        dual: D.
        t: Cosines in (0, 1].
        depth: L >= 0.
    """
    log_S = t.clamp_min(SMALLEST_COSINE).log()
    for _ in range(depth):
        # At most 0: the rounding of a layer must not grow by D'(1) in each that follows.
        log_S = (dual.order * log_S + dual.reduced(log_S.exp()).log()).clamp_max(0.0)
    return log_S


def log_singular(dual: Dual, t: Tensor, depth: int) -> Tensor:
    """log(S_L / D'(0)^L), which tends to the logarithm of the singular kernel.

    Args:
        dual: D, of the singular regime.
        t: Cosines in (0, 1).
        depth: L >= 0.
    """
    return log_nngp(dual, t, depth) - depth * math.log(dual._at(0.0))


def ntk(dual: Dual, t: Tensor, depth: int) -> Tensor:
    """T_L / T_L(1, 1), the tangent kernel with diagonal 1.

    Args:
        dual: D.
        t: Cosines in [0, 1].
        depth: L >= 0.
    """
    at_one = dual._at(1.0)
    S, T, diagonal = t, t, 1.0
    for _ in range(depth):
        # Divided by the diagonal at each layer, which grows as D'(1)^L.
        after = 1.0 + diagonal * at_one
        T = (dual(S) + diagonal * T * dual.derivative(S)) / after
        S, diagonal = dual(S).clamp(0.0, 1.0), after
    return T
