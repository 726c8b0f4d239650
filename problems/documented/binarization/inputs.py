"""How a layer's inputs become +-1."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bo_surrogates.errors import InputError
from problems.documented.binarization.noise import NoiseAdaptation
from problems.documented.binarization.operators import BinarizerConfig, make_input_estimator
from problems.documented.quantization import SMALLEST_BOUND

VARIANCE_FLOOR = 1e-5  # added to a variance before its root is taken


class Binary(NamedTuple):
    """A binarized tensor.

    Attributes:
        signs: +-1. In training noise may be added; in the first stage of BiPer weights are sines.
        scale: What to multiply the layer's output by, broadcasting with it; None: nothing.
    """

    signs: Tensor
    scale: Tensor | None


class InputBinarizer(nn.Module):
    """The sign of a layer's inputs.

    Args:
        config: See `BinarizerConfig`.
        channels: Input channels.
        sample_dims: Dimensions of one sample: 1 for vectors, 2 for sequences, 3 for images; the
            first of them are the channels.
    """

    def __init__(self, config: BinarizerConfig, channels: int, sample_dims: int) -> None:
        super().__init__()
        self.estimator = make_input_estimator(config)
        self.scale = config.input_scale
        self.half_bound = config.input_bound / 2
        self.scale_in_gradient = config.scale_in_gradient
        self.normalize = config.normalize
        self.channels = channels
        self.sample_dims = tuple(range(-sample_dims, 0))
        self.shift = (
            nn.Parameter(torch.zeros(channels, *[1] * (sample_dims - 1))) if config.shift else None
        )
        self.noise = NoiseAdaptation(channels, -sample_dims) if config.noise_adaptation else None

    def threshold_input(self, x: Tensor) -> Tensor:
        """What the sign is taken of in evaluation mode."""
        return x if self.shift is None else x + self.shift

    def sample_scale(self, x: Tensor) -> Tensor | None:
        """K, or B/2, of the inputs of a layer; None where there is none, or one a position."""
        if self.scale == "sample":
            mean = x.detach().abs().mean(dim=self.sample_dims, keepdim=True)
            return mean.clamp_min(SMALLEST_BOUND)
        if self.scale == "half_bound":
            return x.new_full((), self.half_bound)
        return None

    def forward(self, x: Tensor) -> Binary:
        """`... x sample`; the scale has a sample's dimensions, all of size 1, or none."""
        scale = self.sample_scale(x)
        v = self.threshold_input(x)
        if self.normalize and self.training:
            v = self._normalized(v)
        signs = self.estimator(v, None if self.scale_in_gradient else scale)
        if self.noise is not None and self.training:
            signs = signs + self.noise(x)
        return Binary(signs, scale)

    def elementwise_ops(self, output: Binary) -> int:
        """An addition a shift; a sum, in evaluation mode, for K."""
        return ((self.shift is not None) + (self.scale == "sample")) * output.signs.numel()

    def _normalized(self, v: Tensor) -> Tensor:
        if math.prod(v.shape[dim] for dim in self.sample_dims) < 2:
            raise InputError(
                "inputs of one element a sample have no standard deviation to be divided by; "
                "use an operator that does not normalize its inputs"
            )
        variance = v.var(dim=self.sample_dims, keepdim=True)
        return v / torch.sqrt(variance + VARIANCE_FLOOR)
