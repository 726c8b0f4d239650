"""Units: what a surrogate predicts does not depend on the units of outcomes and inputs."""

from __future__ import annotations

import pytest
import torch
from botorch.sampling.get_sampler import get_sampler
from torch import Tensor

from bo_surrogates.surrogates import SurrogateEntry

from .conftest import BOUNDS, Fitted, build, measurements, points

LEVELS = torch.tensor([0.2, 0.9], dtype=torch.float64)
# Rounding errors of a and b enter the standardized outcomes and grow in the fit; quantities are
# compared on the scale of the outcomes' standard deviation.
TOLERANCE = 1e-4


def close(actual: Tensor, expected: Tensor, unit: float) -> None:
    torch.testing.assert_close(actual / unit, expected / unit, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("a", "b"), [(1e6, -3e6), (1.0, 1e3), (1e-9, 0.0)])
def test_predictions_are_equivariant_under_affine_maps_of_the_outcomes(
    entry: SurrogateEntry, one: Fitted, a: float, b: float
) -> None:
    scaled = build(entry, one.X, a * one.Y + b)
    X = points(4)
    unit = abs(a) * one.Y.std().item()
    for noise in (False, True):
        old = one.model.posterior(X, observation_noise=noise)
        new = scaled.posterior(X, observation_noise=noise)
        close(new.mean, a * old.mean + b, unit)
        close(new.variance / unit, a**2 * old.variance / unit, unit)
        samples = [get_sampler(p, torch.Size([8]), seed=0)(p) for p in (old, new)]
        close(samples[1], a * samples[0] + b, unit)
        close(scaled.quantile(X, LEVELS, noise), a * one.model.quantile(X, LEVELS, noise) + b, unit)
    # p(a y + b) = p(y) / |a|
    Y = old.mean + 0.1
    density = scaled.log_predictive_density(X, a * Y + b)
    expected = one.model.log_predictive_density(X, Y) - torch.tensor(abs(a)).log()
    torch.testing.assert_close(density, expected.to(density), rtol=0, atol=1e-3)


def test_an_exact_surrogate_is_equivariant_under_a_change_of_sign(
    entry: SurrogateEntry, one: Fitted
) -> None:
    if entry.capabilities.posterior == "ensemble":
        pytest.skip("a drawn network and its negative are different draws")
    flipped = build(entry, one.X, -2.0 * one.Y)
    X = points(4)
    unit = 2 * one.Y.std().item()
    old, new = one.model.posterior(X), flipped.posterior(X)
    close(new.mean, -2 * old.mean, unit)
    close(new.variance / unit, 4 * old.variance / unit, unit)
    close(flipped.quantile(X, LEVELS), -2 * one.model.quantile(X, 1 - LEVELS), unit)


def test_bounds_make_predictions_independent_of_the_units_of_the_inputs(
    entry: SurrogateEntry, one: Fitted
) -> None:
    lower, width = BOUNDS[0], BOUNDS[1] - BOUNDS[0]
    in_unit_cube = build(entry, (one.X - lower) / width, one.Y, bounds=None)
    X = points(4)
    old, new = one.model.posterior(X), in_unit_cube.posterior((X - lower) / width)
    unit = one.Y.std().item()
    close(new.mean, old.mean, unit)
    close(new.variance / unit, old.variance / unit, unit)


def test_each_outcome_has_its_own_scale(entry: SurrogateEntry, two: Fitted) -> None:
    factor = torch.tensor([1e-6, 1e6], dtype=torch.float64)
    scaled = build(entry, two.X, factor * two.Y)
    X = points(4)
    old, new = two.model.posterior(X), scaled.posterior(X)
    close(new.mean / factor, old.mean, two.Y.std().item())
    close(new.variance / factor**2, old.variance, two.Y.std().item())


@pytest.mark.parametrize(
    ("dtype", "a", "b"),
    [(torch.float64, 1.0, 0.0), (torch.float32, 1e6, 1e6), (torch.float32, 1e-6, 1e-6)],
    ids=str,
)
def test_everything_follows_the_dtype_of_the_data_and_is_finite(
    entry: SurrogateEntry, dtype: torch.dtype, a: float, b: float
) -> None:
    X, Y = measurements(m=2 if entry.capabilities.multi_output else 1)
    model = build(entry, X.to(dtype), (a * Y + b).to(dtype))
    new = points(4).to(dtype)
    posterior = model.posterior(new)
    functions = model.sample_functions(2, seed=0)
    for values in (
        posterior.mean,
        posterior.variance,
        posterior.rsample(torch.Size([3])),
        model.quantile(new, LEVELS.to(dtype)),
        model.log_predictive_density(new, posterior.mean),
        functions(new),
    ):
        assert values.dtype == dtype
        assert torch.isfinite(values).all()
    fitted_values = model.posterior(X.to(dtype)).mean
    assert ((fitted_values - (a * Y + b).to(dtype)).std(dim=0) < a * Y.std(dim=0)).all()
