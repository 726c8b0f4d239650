"""Learning the codes of one layer: over the whole grid (NUPES), or up or down (AdaRound).

NUPES varies the code u of each weight and the exponent a by gradient steps,

    W(u, a) = sgn(v) M (|v| / Q)^(1/a),    v = phi_kappa(u),

phi a rounding that is soft at first. The variable is the code, not the weight: the code's
derivative by the weight, Q a |w|^(a-1) / M^a, is infinite at 0 for a < 1. AdaRound varies which of
the two codes around it a weight gets. A change of a moves the codes of all weights at once, so that
only free codes can follow it.

Source: Yvinec, Dapogny and Bailly 2023, NUPES, arXiv 2308.05600 (details of the optimization are
this project's); Nagel et al. 2020, AdaRound, ICML, arXiv 2004.10568.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from problems.documented.power_quantization.grid import decode

STRETCH = (-0.1, 1.1)  # of AdaRound's sigmoid, before it is cut to [0, 1]


def soft_round(u: Tensor, sharpness: float) -> Tensor:
    """phi_kappa(u) = m + tanh(kappa (u - m)) / (2 tanh(kappa / 2)), m = floor(u) + 1/2.

    Continuous; u itself as the sharpness kappa -> 0, the nearest integer as it goes to infinity.
    """
    middle = u.detach().floor() + 0.5
    return middle + torch.tanh(sharpness * (u - middle)) / (2.0 * math.tanh(sharpness / 2.0))


class _PowerDecode(torch.autograd.Function):
    """`grid.decode` with gradients by codes and exponent.

    In the backward pass |v| / Q is at least 1 / (2 Q). Without that floor a code of 0 has the
    gradient 0 for a < 1, and stays 0 for ever, and an infinite one for a > 1; and 0 log 0 in the
    gradient by a.
    """

    @staticmethod
    def forward(ctx: Any, codes: Tensor, exponent: Tensor, bound: Tensor, largest: int) -> Tensor:
        value = decode(codes, bound, exponent, largest)
        ctx.save_for_backward(codes, exponent, bound, value)
        ctx.largest = largest
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        codes, a, bound, value = ctx.saved_tensors
        q = ctx.largest
        t = (codes.abs() / q).clamp_min(1.0 / (2 * q))
        by_codes = gradient * (bound / (a * q)) * t.pow(1.0 / a - 1.0)
        by_exponent = None
        if ctx.needs_input_grad[1]:
            by_exponent = -(gradient * value * t.log()).sum() / a**2
        return by_codes, by_exponent, None, None


def power_decode(codes: Tensor, exponent: Tensor, bound: Tensor, largest: int) -> Tensor:
    """`grid.decode` with NUPES' stabilised gradients.

    Args:
        codes: Any shape.
        exponent: A scalar.
        bound: M, broadcasts with the codes; no gradient goes to it.
        largest: Q.
    """
    result: Tensor = _PowerDecode.apply(codes, exponent, bound, largest)
    return result


class FreeCodes:
    """NUPES' variables of one layer.

    Args:
        start: Real codes u to start from, in [-Q, Q].
        exponent: a to start from.
        bound: M, broadcasts with the codes.
        largest: Q.
        first_sharpness: kappa at the first step.
        last_sharpness: kappa at the last; between them it grows exponentially.
        exponents: What a is kept within.
    """

    def __init__(
        self,
        start: Tensor,
        exponent: float,
        bound: Tensor,
        largest: int,
        *,
        first_sharpness: float,
        last_sharpness: float,
        exponents: tuple[float, float],
    ) -> None:
        self.u = start.clone().requires_grad_()
        self.a = start.new_tensor(exponent).requires_grad_()
        self.bound, self.largest = bound, largest
        self._sharpness = first_sharpness, last_sharpness
        self._exponents = exponents

    def variables(self) -> dict[str, Tensor]:
        """By name."""
        return {"u": self.u, "a": self.a}

    def weights(self, progress: float) -> Tensor:
        """With gradients, at a share of the steps."""
        first, last = self._sharpness
        v = soft_round(self.u, first * (last / first) ** progress)
        return power_decode(v.clamp(-self.largest, self.largest), self.a, self.bound, self.largest)

    def penalty(self, progress: float) -> Tensor | None:
        """None."""
        return None

    @torch.no_grad()
    def project(self) -> None:
        """Back to where codes and exponent may be, after a step."""
        self.u.clamp_(-self.largest, self.largest)
        self.a.clamp_(*self._exponents)

    @torch.no_grad()
    def hard(self) -> tuple[Tensor, float]:
        """Rounded codes, and the exponent."""
        return self.u.round(), float(self.a)


class AdaptiveRounding:
    """AdaRound's variables of one layer, on the grid of a fixed exponent.

    A code is floor(u) + h(V), h = clip(1.2 sigmoid(V) - 0.1, 0, 1), which starts as u itself. The
    penalty sum (1 - |2 h - 1|^beta) drives h to 0 or 1; beta falls from 20 to 2 after a first fifth
    of the steps without penalty.

    Args:
        start: Real codes u.
        exponent: a.
        bound: M, broadcasts with the codes.
        largest: Q.
        weight: Of the penalty.
    """

    WARMUP, FIRST_BETA, LAST_BETA = 0.2, 20.0, 2.0

    def __init__(
        self, start: Tensor, exponent: float, bound: Tensor, largest: int, *, weight: float
    ) -> None:
        low, high = STRETCH
        self.floor = start.floor()
        share = ((start - self.floor - low) / (high - low)).clamp(1e-6, 1 - 1e-6)
        self.v = torch.logit(share).requires_grad_()
        self.exponent = start.new_tensor(exponent)
        self.bound, self.largest, self.weight = bound, largest, weight

    def variables(self) -> dict[str, Tensor]:
        """By name."""
        return {"v": self.v}

    def _up(self) -> Tensor:
        low, high = STRETCH
        return (torch.sigmoid(self.v) * (high - low) + low).clamp(0.0, 1.0)

    def weights(self, progress: float) -> Tensor:
        """With gradients."""
        codes = (self.floor + self._up()).clamp(-self.largest, self.largest)
        return power_decode(codes, self.exponent, self.bound, self.largest)

    def penalty(self, progress: float) -> Tensor | None:
        """At a share of the steps."""
        if progress < self.WARMUP:
            return None
        done = (progress - self.WARMUP) / (1.0 - self.WARMUP)
        beta = self.LAST_BETA + (self.FIRST_BETA - self.LAST_BETA) * (1.0 - done)
        return self.weight * (1.0 - (2.0 * self._up() - 1.0).abs().pow(beta)).sum()

    def project(self) -> None:
        """Nothing: every V is allowed."""

    @torch.no_grad()
    def hard(self) -> tuple[Tensor, float]:
        """Codes with every h at its nearer end, and the exponent."""
        codes = self.floor + (self._up() >= 0.5).to(self.floor)
        return codes.clamp(-self.largest, self.largest), float(self.exponent)


Rounding = FreeCodes | AdaptiveRounding
