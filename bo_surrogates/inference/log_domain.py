"""Positive hyper-parameters whose logarithm is optimized.

A noise variance is known to a factor: an optimizer that steps in the variance itself takes many
short steps where it is small. The maximum is the same in both parametrizations, as long as priors
are densities of the variance and not of its logarithm; the bound is met exactly in both.
"""

from __future__ import annotations

from typing import Any

import torch
from gpytorch.constraints import GreaterThan
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.module import Module
from torch import Tensor


class LogGreaterThan(GreaterThan):
    """Values above a bound, of which the parameter is the logarithm.

    GPyTorch's `exp` transform would be of the distance from the bound, which is then never met.

    Args:
        lower_bound: Positive.
        initial_value: Of the value, not of its logarithm.
    """

    def __init__(self, lower_bound: float | Tensor, initial_value: Any = None) -> None:
        super().__init__(
            lower_bound, transform=torch.exp, inv_transform=torch.log, initial_value=initial_value
        )

    def transform(self, tensor: Tensor) -> Tensor:
        """From parameter to value."""
        return torch.exp(tensor)

    def inverse_transform(self, transformed_tensor: Tensor) -> Tensor:
        """From value to parameter."""
        return torch.log(transformed_tensor)

    def check_raw(self, tensor: Tensor) -> bool:
        """Whether a parameter is within the bound, up to the rounding of the logarithm."""
        return bool(self.check(torch.exp(tensor) * (1.0 + 64.0 * torch.finfo(tensor.dtype).eps)))


def optimize_log_noise(likelihood: Module) -> None:
    """Let the noise variance of a Gaussian likelihood be optimized in its logarithm.

    Likelihoods whose variance is known, or already transformed, are left as they are.
    """
    if not isinstance(likelihood, GaussianLikelihood):
        return
    noise = likelihood.noise_covar
    constraint = noise.raw_noise_constraint
    if type(constraint) is not GreaterThan or constraint.enforced:
        return
    value = noise.noise.detach()
    noise.register_constraint("raw_noise", LogGreaterThan(constraint.lower_bound))
    noise.initialize(raw_noise=noise.raw_noise_constraint.inverse_transform(value))
