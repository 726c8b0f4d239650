"""Priors of the observation noise, as densities of the logarithm l of its variance.

Outcomes are standardized, and each output has a noise of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from bo_surrogates.errors import InputError


class NoisePrior(Protocol):
    """What `posterior.py` needs to know of a prior."""

    @property
    def mean(self) -> float:
        """Of l."""

    @property
    def curvature(self) -> float:
        """Minus the second derivative of the log density at the mean."""

    def log_density(self, log_variance: Tensor) -> Tensor:
        """Of each l, up to a constant."""

    def slope(self, log_variance: Tensor) -> Tensor:
        """The log density's derivative."""


@dataclass(frozen=True)
class LogNoisePrior:
    """Normal prior of l: the variance is log-normal.

    Attributes:
        mean: Its mean.
        std: Its standard deviation, > 0.
    """

    mean: float
    std: float

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise InputError(f"LogNoisePrior: std must be positive, got {self.std!r}")

    @property
    def curvature(self) -> float:
        """See `NoisePrior`."""
        return self.std**-2

    def log_density(self, log_variance: Tensor) -> Tensor:
        """See `NoisePrior`."""
        return -0.5 * ((log_variance - self.mean) / self.std).square()

    def slope(self, log_variance: Tensor) -> Tensor:
        """See `NoisePrior`."""
        return (self.mean - log_variance) / self.std**2


@dataclass(frozen=True)
class HalfCauchyNoisePrior:
    """Half-Cauchy prior of the standard deviation exp(l / 2) (Gelman 2006, Bayesian Analysis 1).

    It favours small noise, and forbids no large one: with s the scale, the density of the standard
    deviation sigma is proportional to 1 / (1 + sigma^2 / s^2), and that of l, with the Jacobian
    sigma / 2,

        log p(l) = l / 2 - log(1 + e^l / s^2) + c,

    symmetric about 2 log s.

    Attributes:
        scale: s, the median of the standard deviation, > 0.
    """

    scale: float

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise InputError(f"HalfCauchyNoisePrior: scale must be positive, got {self.scale!r}")

    @property
    def mean(self) -> float:
        """See `NoisePrior`."""
        return 2.0 * math.log(self.scale)

    @property
    def curvature(self) -> float:
        """See `NoisePrior`."""
        return 0.25

    def log_density(self, log_variance: Tensor) -> Tensor:
        """See `NoisePrior`."""
        x = log_variance - self.mean
        return 0.5 * x - functional.softplus(x)

    def slope(self, log_variance: Tensor) -> Tensor:
        """See `NoisePrior`."""
        return 0.5 - torch.sigmoid(log_variance - self.mean)
