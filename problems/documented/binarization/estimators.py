"""The sign, and the gradients that stand in for its derivative.

Forward sgn(v), with sgn(0) = +1; backward the gradient times a surrogate derivative d(v):

    clip       1[|v| <= B]                                   Hubara et al. 2016 (BNN), B = 1
    half_shift 1[|v| < B (1 - 2^-7)]                         Zhang et al. 2022 (PokeBNN), B = 3;
               for weights B is an output channel's largest |w|
    poly       max(0, 2 - 2 |v|)                             Liu et al. 2018 (Bi-Real)
    fourier    1[|v| <= 1] (4 w / pi) sum_i cos((2 i + 1) w v), i = 0, ..., n
                                                             Xu et al. 2021 (FDA)
    tanh       1 - tanh(v)^2
    identity   1

The Fourier derivative is that of the first n + 1 terms of a square wave of frequency w; with more
terms it is steeper at 0, and may be negative near 1. n grows over the epochs (`anneal`).

Source: Qin et al. 2023, BiBench, arXiv 2301.11233, and the papers above.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from problems.documented.quantization import channel_bound, gated

ESTIMATORS = ("clip", "half_shift", "poly", "fourier", "tanh", "identity")
HALF_SHIFT_CLIP = 1 - 2.0**-7  # of the bound: where the gradient of "half_shift" ends


def sign(v: Tensor) -> Tensor:
    """+1 where v >= 0, else -1; what is not a number stays so: a diverged training shows."""
    # floor takes [-1/2, 0) to -1 and [0, 1/2] to 0.
    return torch.floor(v.clamp(-0.5, 0.5)).mul_(2).add_(1)


class SignEstimator(nn.Module, ABC):
    """The sign with a surrogate derivative."""

    @abstractmethod
    def derivative(self, v: Tensor) -> Tensor:
        """d(v), elementwise."""

    def forward(self, v: Tensor, divide_gradient: Tensor | None = None) -> Tensor:
        """sgn(v), any shape.

        Args:
            v: What to binarize.
            divide_gradient: Broadcasts with v; the gradient is divided by it. A layer that
                multiplies by a scale after its convolution passes the scale here where the scale
                must not reach the gradient.
        """
        with torch.no_grad():
            gate = self.derivative(v)
            if divide_gradient is not None:
                gate = gate / divide_gradient
        return gated(v, sign(v.detach()), gate)


class Clip(SignEstimator):
    """See the module's docstring.

    Args:
        bound: B > 0.
    """

    def __init__(self, bound: float = 1.0) -> None:
        super().__init__()
        self.bound = bound

    def derivative(self, v: Tensor) -> Tensor:
        """1 inside the bound."""
        return (v.abs() <= self.bound).to(v.dtype)

    def extra_repr(self) -> str:
        """The bound."""
        return f"bound={self.bound}"


class HalfShift(Clip):
    """See the module's docstring; B is the bound."""

    def derivative(self, v: Tensor) -> Tensor:
        """1 inside what the clipping leaves of the bound."""
        return (v.abs() < self.bound * HALF_SHIFT_CLIP).to(v.dtype)


class HalfShiftWeights(SignEstimator):
    """See the module's docstring; B is the largest |v| of each output channel, the first axis."""

    def derivative(self, v: Tensor) -> Tensor:
        """0 at a channel's extreme weights."""
        return (v.abs() < channel_bound(v) * HALF_SHIFT_CLIP).to(v.dtype)


class Poly(SignEstimator):
    """See the module's docstring."""

    def derivative(self, v: Tensor) -> Tensor:
        """A triangle."""
        return (2 - 2 * v.abs()).clamp_min(0)


class Fourier(SignEstimator):
    """See the module's docstring.

    Args:
        omega: w > 0, in radians.
        first_terms: n in the first epoch, >= 0.
        last_terms: What n tends to at the last.
    """

    def __init__(self, omega: float = 0.1, first_terms: int = 9, last_terms: int = 18) -> None:
        super().__init__()
        self.omega = omega
        self.first_terms = first_terms
        self.last_terms = last_terms
        self.terms = first_terms

    def derivative(self, v: Tensor) -> Tensor:
        """The sum in closed form: (2 w / pi) sin(2 (n + 1) w v) / sin(w v)."""
        count = self.terms + 1
        angle = self.omega * v
        limit = torch.full_like(v, 2 * count)  # at 0, and where the angle rounds to it
        ratio = torch.where(
            angle.abs() < torch.finfo(v.dtype).tiny,
            limit,
            torch.sin(2 * count * angle) / torch.sin(angle),
        )
        return (2 * self.omega / math.pi) * ratio * (v.abs() <= 1)

    def anneal(self, epoch: int, epochs: int) -> None:
        """n = first + floor((last - first) epoch / epochs)."""
        added = math.floor((self.last_terms - self.first_terms) * epoch / epochs)
        self.terms = self.first_terms + added

    def extra_repr(self) -> str:
        """Frequency and terms."""
        return f"omega={self.omega}, terms={self.first_terms} to {self.last_terms}"


class Tanh(SignEstimator):
    """See the module's docstring."""

    def derivative(self, v: Tensor) -> Tensor:
        """The derivative of tanh."""
        return 1 - torch.tanh(v) ** 2


class Identity(SignEstimator):
    """See the module's docstring."""

    def derivative(self, v: Tensor) -> Tensor:
        """1 everywhere."""
        return torch.ones_like(v)


@runtime_checkable
class Annealed(Protocol):
    """A module whose behaviour in training depends on how far the training is."""

    def anneal(self, epoch: int, epochs: int) -> None:
        """Set itself for epoch number `epoch`, from 0, of `epochs`."""


def anneal(network: nn.Module, epoch: int, epochs: int) -> None:
    """Set every annealed module of a network; to be called before every epoch of training.

    Nothing that it sets is seen in evaluation mode.

    Args:
        network: Changed in place.
        epoch: Of the epoch that begins, from 0.
        epochs: Of the whole training, > epoch.
    """
    for module in network.modules():
        if isinstance(module, Annealed):
            module.anneal(epoch, epochs)
