from __future__ import annotations

import pytest
import torch
from botorch.posteriors.gpytorch import GPyTorchPosterior
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from torch import Tensor

from bo_surrogates.posteriors.rescaled import RescaledGaussianPosterior
from bo_surrogates.seeding import fixed_seed


def standard(m: int) -> tuple[Tensor, Tensor]:
    """Means `m x 3` and covariances `m x 3 x 3`."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(m, 3, 3, generator=generator, dtype=torch.float64)
    return torch.randn(m, 3, generator=generator, dtype=torch.float64), root @ root.mT


def gaussian(mean: Tensor, covariance: Tensor) -> GPyTorchPosterior:
    parts = [MultivariateNormal(a, b) for a, b in zip(mean, covariance, strict=True)]
    if len(parts) == 1:
        return GPyTorchPosterior(parts[0])
    return GPyTorchPosterior(MultitaskMultivariateNormal.from_independent_mvns(parts))


@pytest.mark.parametrize("m", [1, 2])
@pytest.mark.parametrize("size", [1e-12, 1.0, 1e9])
def test_moments_and_samples_are_those_of_the_standard_posterior_scaled(
    m: int, size: float
) -> None:
    mean, covariance = standard(m)
    scale = size * torch.tensor([1.0, 3.0], dtype=torch.float64)[:m]
    offset = size * torch.tensor([5.0, -2.0], dtype=torch.float64)[:m]
    in_units = gaussian(
        offset.unsqueeze(-1) + scale.unsqueeze(-1) * mean,
        scale.square().reshape(m, 1, 1) * covariance,
    )
    plain, rescaled = gaussian(mean, covariance), RescaledGaussianPosterior(in_units, offset, scale)
    torch.testing.assert_close((rescaled.mean - offset) / scale, plain.mean)
    torch.testing.assert_close(rescaled.variance / scale.square(), plain.variance)
    base = torch.randn(
        4, *plain.base_sample_shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    shape = torch.Size([4])
    torch.testing.assert_close(
        (rescaled.rsample_from_base_samples(shape, base) - offset) / scale,
        plain.rsample_from_base_samples(shape, base),
    )
    draws = []
    for posterior in (plain, rescaled):
        with fixed_seed(0):
            draws.append(posterior.rsample(shape))
    torch.testing.assert_close((draws[1] - offset) / scale, draws[0])
    levels = torch.tensor([0.1, 0.7], dtype=torch.float64)
    torch.testing.assert_close((rescaled.quantile(levels) - offset) / scale, plain.quantile(levels))


def test_a_variance_below_gpytorchs_floor_is_kept() -> None:
    tiny = gaussian(torch.zeros(1, 2).double(), 1e-20 * torch.eye(2).double().unsqueeze(0))
    assert (tiny.variance > 1e-11).all()  # what GPyTorch makes of it
    one = torch.tensor([1e-10], dtype=torch.float64)
    rescaled = RescaledGaussianPosterior(tiny, torch.zeros(1).double(), one)
    torch.testing.assert_close(rescaled.variance, torch.full((2, 1), 1e-20).double())
