"""Priors of the noise against SciPy's, by change of variables, and autograd."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import halfcauchy, norm

from bo_surrogates.errors import InputError
from bo_surrogates.networks.noise_priors import HalfCauchyNoisePrior, LogNoisePrior, NoisePrior

L = torch.linspace(-15.0, 12.0, 40, dtype=torch.float64)
PRIORS: list[NoisePrior] = [LogNoisePrior(-3.0, 0.7), HalfCauchyNoisePrior(0.3)]
BOTH = pytest.mark.parametrize("prior", PRIORS, ids=str)


def density(prior: NoisePrior, log_variance: float) -> float:
    """SciPy's, of the log variance."""
    if isinstance(prior, LogNoisePrior):
        return float(norm(prior.mean, prior.std).pdf(log_variance))
    assert isinstance(prior, HalfCauchyNoisePrior)
    sd = math.exp(0.5 * log_variance)
    return float(halfcauchy(scale=prior.scale).pdf(sd) * 0.5 * sd)  # d sd / dl = sd / 2


@BOTH
def test_log_densities_are_scipys_up_to_a_constant(prior: NoisePrior) -> None:
    expected = np.log([density(prior, l) for l in L.tolist()])
    difference = prior.log_density(L).numpy() - expected
    np.testing.assert_allclose(difference, difference[0], rtol=0, atol=1e-11)


@BOTH
def test_slopes_and_the_curvature_are_derivatives(prior: NoisePrior) -> None:
    l = L.clone().requires_grad_()
    (slope,) = torch.autograd.grad(prior.log_density(l).sum(), l)
    torch.testing.assert_close(prior.slope(L), slope)
    centre = torch.tensor(prior.mean, dtype=torch.float64)
    bend = torch.autograd.functional.hessian(prior.log_density, centre)
    assert prior.curvature == pytest.approx(-bend.item(), rel=1e-12)


@BOTH
def test_the_mean_is_that_of_the_log_variance(prior: NoisePrior) -> None:
    mean, _ = quad(lambda l: l * density(prior, l), -80, 80, points=[prior.mean], limit=200)
    assert mean == pytest.approx(prior.mean, abs=1e-6)


def test_extreme_noise_has_a_finite_density() -> None:
    far = torch.tensor([-800.0, 800.0], dtype=torch.float64)
    prior = HalfCauchyNoisePrior(1.0)
    torch.testing.assert_close(prior.log_density(far), torch.full_like(far, -400.0))
    torch.testing.assert_close(prior.slope(far), torch.tensor([0.5, -0.5], dtype=torch.float64))


@pytest.mark.parametrize("make", [partial(LogNoisePrior, 0.0), HalfCauchyNoisePrior])
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_scale_that_is_not_positive_is_refused(make: partial[NoisePrior], bad: float) -> None:
    with pytest.raises(InputError, match="must be positive"):
        make(bad)
