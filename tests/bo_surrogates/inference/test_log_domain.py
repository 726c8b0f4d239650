"""The maximum does not depend on whether a variance or its logarithm is optimized."""

from __future__ import annotations

import math

import pytest
import torch
from botorch.models import SingleTaskGP
from botorch.models.utils.gpytorch_modules import get_gaussian_likelihood_with_lognormal_prior
from botorch.optim.utils.model_utils import get_parameters_and_bounds
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood

from bo_surrogates.inference.log_domain import LogGreaterThan, optimize_log_noise
from bo_surrogates.surrogates import SURROGATES, exact_gp

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(25, 2, generator=GENERATOR, dtype=torch.float64)
SMOOTH = torch.sin(5.0 * X[:, :1]) * torch.cos(3.0 * X[:, 1:])
NOISY = SMOOTH + 0.1 * torch.randn(25, 1, generator=GENERATOR, dtype=torch.float64)


@pytest.mark.parametrize("outcomes", ["noisy", "smooth: the variance ends on its bound"])
@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("gp", {}),
        ("gp", {"kernel": "matern"}),
        ("gp", {"kernel": "matern32"}),
        ("gp", {"kernel": "matern52"}),
    ],
    ids=str,
)
def test_both_parametrizations_end_at_the_same_maximum(
    name: str, config: dict, outcomes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Y = NOISY if outcomes == "noisy" else SMOOTH
    ours = SURROGATES[name].build(X, Y, config=config, seed=0)
    monkeypatch.setattr(exact_gp, "optimize_log_noise", lambda likelihood: None)
    plain = SURROGATES[name].build(X, Y, config=config, seed=0)
    raw = "likelihood.noise_covar.raw_noise"
    assert ours.get_parameter(raw).item() == pytest.approx(ours.likelihood.noise.log().item())
    assert plain.get_parameter(raw).item() == plain.likelihood.noise.item()
    key = "log_marginal_likelihood_per_point"
    found = ours.diagnostics.values[key]
    # The plain search may end too early, but not higher.
    assert found >= plain.diagnostics.values[key] - 1e-5
    # Nor does it get higher from where ours ended, where both have the same value.
    plain.load_state_dict({**ours.state_dict(), raw: ours.likelihood.noise.detach()}, strict=False)
    assert plain._diagnose(plain.marginal_likelihood()).values[key] == pytest.approx(found)
    plain.fit()
    assert plain.diagnostics.values[key] == pytest.approx(found, abs=1e-5)
    noise = plain.diagnostics.values["noise_variance"]
    assert ours.diagnostics.values["noise_variance"] == pytest.approx(noise, rel=0.02)


def test_the_bound_is_a_box_on_the_logarithm_and_can_be_met() -> None:
    likelihood = get_gaussian_likelihood_with_lognormal_prior()
    value = likelihood.noise.item()
    optimize_log_noise(likelihood)
    assert likelihood.noise.item() == pytest.approx(value)
    _, bounds = get_parameters_and_bounds(likelihood)
    low, high = bounds["noise_covar.raw_noise"]
    assert float(low) == pytest.approx(math.log(1e-4))
    assert float(high) == math.inf
    likelihood.noise = 1e-4
    assert likelihood.noise.item() == pytest.approx(1e-4)
    # Once more changes nothing.
    optimize_log_noise(likelihood)
    assert isinstance(likelihood.noise_covar.raw_noise_constraint, LogGreaterThan)
    assert likelihood.noise.item() == pytest.approx(1e-4)


def test_a_known_variance_stays_as_it_is() -> None:
    likelihood = SingleTaskGP(X, SMOOTH, torch.full_like(SMOOTH, 0.1)).likelihood
    before = likelihood.state_dict()
    optimize_log_noise(likelihood)
    assert isinstance(likelihood, FixedNoiseGaussianLikelihood)
    assert str(before) == str(likelihood.state_dict())
