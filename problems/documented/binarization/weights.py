"""How a layer's latent weights become +-1: their sign, or that of rectified or periodic ones.

Rectified (ReCU): with w standardized per output channel to a standard deviation of 2 sqrt(2), that
of a Laplace law of scale 2, the sign of clamp(w, -Q, Q), Q = -ln(2 - 2 tau) mean|w|, the quantile
tau of such a law. The gradient passes the sign unchanged, then the clamp and the standardization,
so that weights beyond the quantile move no further. tau grows exponentially over the epochs.

Source: Xu et al. 2021, ReCU: Reviving the Dead Weights in Binary Neural Networks, ICCV, arXiv
2103.12369; Qin et al. 2023, BiBench, arXiv 2301.11233.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from problems.documented.binarization.estimators import Identity
from problems.documented.binarization.inputs import VARIANCE_FLOOR, Binary
from problems.documented.binarization.noise import NoiseAdaptation
from problems.documented.binarization.operators import BinarizerConfig, make_weight_estimator
from problems.documented.quantization import SMALLEST_BOUND, channel_bound


class WeightBinarizer(nn.Module, ABC):
    """From latent weights, `outputs x ...`, to signs and a scale, `outputs x 1 ...`."""

    @abstractmethod
    def threshold_input(self, weight: Tensor) -> Tensor:
        """What the sign is taken of."""

    @abstractmethod
    def signs(self, weight: Tensor) -> Tensor:
        """The signs alone, with their own gradient: no noise, and no scale divides it."""

    @abstractmethod
    def forward(self, weight: Tensor) -> Binary:
        """Signs, and the scale where there is one."""


class SignWeights(WeightBinarizer):
    """The sign of the weights; see `BinarizerConfig` for its options.

    Args:
        config: See there.
        fan_in: Weights of an output.
        linear: Whether the layer is linear, where `config.centre` applies.
    """

    def __init__(self, config: BinarizerConfig, fan_in: int, linear: bool) -> None:
        super().__init__()
        self.estimator = make_weight_estimator(config)
        self.scale = config.weight_scale
        self.scale_in_gradient = config.scale_in_gradient
        self.centre = config.centre and linear
        self.noise = NoiseAdaptation(fan_in) if config.noise_adaptation else None

    def threshold_input(self, weight: Tensor) -> Tensor:
        """The weights, centred or not."""
        return weight - weight.mean(dim=1, keepdim=True) if self.centre else weight

    def signs(self, weight: Tensor) -> Tensor:
        """See `WeightBinarizer`."""
        signs: Tensor = self.estimator(self.threshold_input(weight))
        return signs

    def forward(self, weight: Tensor) -> Binary:
        """See `WeightBinarizer`."""
        v = self.threshold_input(weight)
        scale = self._scale(v)
        signs = self.estimator(
            v, None if self.scale_in_gradient or scale is None else scale.detach()
        )
        if self.noise is not None and self.training:
            signs = signs + self.noise(v.flatten(1)).unflatten(1, v.shape[1:])
        return Binary(signs, scale)

    def _scale(self, v: Tensor) -> Tensor | None:
        dims = tuple(range(1, v.ndim))
        match self.scale:
            case "layer":
                mean = v.detach().abs().mean().expand(len(v), *[1] * len(dims))
            case "channel":
                mean = v.detach().abs().mean(dim=dims, keepdim=True)
            case "channel_graph":
                mean = v.abs().mean(dim=dims, keepdim=True)
            case "half_max":
                return channel_bound(v) / 2
            case _:
                return None
        return mean.clamp_min(SMALLEST_BOUND)


class RectifiedWeights(WeightBinarizer):
    """See the module's docstring.

    Args:
        first_tau: tau in the first epoch, in [1/2, 1).
        last_tau: What it tends to at the last.
    """

    def __init__(self, first_tau: float = 0.85, last_tau: float = 0.99) -> None:
        super().__init__()
        self.first_tau = first_tau
        self.last_tau = last_tau
        self.tau = first_tau
        self.estimator = Identity()

    def anneal(self, epoch: int, epochs: int) -> None:
        """tau = A exp(epoch / epochs) + B, A = (last - first) / (e - 1), B = first - A."""
        growth = (self.last_tau - self.first_tau) / (math.e - 1)
        self.tau = growth * math.exp(epoch / epochs) + self.first_tau - growth

    def threshold_input(self, weight: Tensor) -> Tensor:
        """The standardized weights."""
        dims = tuple(range(1, weight.ndim))
        centred = weight - weight.mean(dim=dims, keepdim=True)
        deviation = torch.sqrt(centred.var(dim=dims, keepdim=True) + VARIANCE_FLOOR)
        return centred / (deviation / (2 * math.sqrt(2)))

    def quantile(self, standardized: Tensor) -> Tensor:
        """Q, a number without gradient."""
        return -math.log(2 - 2 * self.tau) * standardized.detach().abs().mean()

    def signs(self, weight: Tensor) -> Tensor:
        """See `WeightBinarizer`."""
        standardized = self.threshold_input(weight)
        bound = self.quantile(standardized)
        signs: Tensor = self.estimator(standardized.clamp(-bound, bound))
        return signs

    def forward(self, weight: Tensor) -> Binary:
        """See `WeightBinarizer`."""
        return Binary(self.signs(weight), None)


class PeriodicWeights(WeightBinarizer):
    """sin(w frequency): itself in the first stage of BiPer, its sign in the second.

    The gradient passes the sign unchanged, so that in both stages it is multiplied by
    frequency cos(frequency w).

    Args:
        frequency: In radians per unit of weight.
    """

    second_stage: Tensor

    def __init__(self, frequency: float = 20.0) -> None:
        super().__init__()
        self.frequency = frequency
        self.estimator = Identity()
        # Saved with the weights: without it a saved network would not be the same function.
        self.register_buffer("second_stage", torch.tensor(True))

    @property
    def stage(self) -> int:
        """1 or 2."""
        return 2 if self.second_stage else 1

    def threshold_input(self, weight: Tensor) -> Tensor:
        """The sine."""
        return torch.sin(self.frequency * weight)

    def signs(self, weight: Tensor) -> Tensor:
        """See `WeightBinarizer`; those of the sine in the first stage too."""
        signs: Tensor = self.estimator(self.threshold_input(weight))
        return signs

    def forward(self, weight: Tensor) -> Binary:
        """See `WeightBinarizer`; in the first stage the signs are the sine itself."""
        sine = self.threshold_input(weight)
        return Binary(torch.where(self.second_stage, self.estimator(sine), sine), None)

    def extra_repr(self) -> str:
        """The frequency."""
        return f"frequency={self.frequency}"


def make_weight_binarizer(config: BinarizerConfig, fan_in: int, linear: bool) -> WeightBinarizer:
    """What the configuration says; for the arguments see `SignWeights`."""
    match config.weights:
        case "rectified":
            return RectifiedWeights(config.first_tau, config.last_tau)
        case "periodic":
            return PeriodicWeights(config.frequency)
    return SignWeights(config, fan_in, linear)
