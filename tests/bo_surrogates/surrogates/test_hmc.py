"""What is particular to `hmc`; the rest is the contract."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import halfcauchy, kstest, norm
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.inference.diagnostics import bulk_ess
from bo_surrogates.surrogates import SURROGATES
from bo_surrogates.surrogates.hmc import HMCConfig, HMCNetwork

from .conftest import BOUNDS, measurements, points

SMALL: dict[str, Any] = {
    "width": 8, "chains": 8, "warmup": 30, "samples": 30, "draws": 40, "map_steps": 50,
    "max_r_hat": 100.0, "min_ess": 0.0,
}  # fmt: skip


def fit(
    X: Tensor, Y: Tensor, Yvar: Tensor | None = None, warm_start: Any = None, **config: Any
) -> HMCNetwork:
    model = SURROGATES["hmc"].build(
        X, Y, Yvar, bounds=BOUNDS, config=SMALL | config, seed=0, warm_start=warm_start
    )
    assert isinstance(model, HMCNetwork)
    return model


@pytest.fixture(scope="module")
def model() -> HMCNetwork:
    return fit(*measurements(m=2))


# ---- the posterior is the right one ------------------------------------------------------------
# A network of 2 tanh units on one input: a posterior that is quick to sample by any method. Inputs
# and outcomes have no transforms, so that the model is exactly what is written below.
TINY: dict[str, Any] = {
    "width": 2, "depth": 1, "input_scale": 1.5, "weight_scale": 1.2, "log_noise_mean": -1.5,
    "log_noise_std": 0.5, "chains": 32, "warmup": 60, "samples": 400, "draws": 32 * 400,
    "max_r_hat": 1.05, "min_ess": 400.0, "precision": "double",
}  # fmt: skip
TINY_X = torch.tensor([[0.1], [0.35], [0.5], [0.8], [0.95]], dtype=torch.float64)
TINY_Y = torch.tensor([[-1.2], [-0.3], [0.4], [0.9], [0.2]], dtype=torch.float64)
NEW = torch.linspace(0, 1, 5, dtype=torch.float64).unsqueeze(-1)


def tiny(**config: Any) -> HMCNetwork:
    model = HMCNetwork(TINY_X, TINY_Y, config=HMCConfig(**TINY | config), seed=0)
    return model.fit()


def same_moments(a: Tensor, b: Tensor, ess_a: Tensor, ess_b: Tensor) -> None:
    """Means of two samples agree within 6 standard errors, by their effective sizes."""
    error = (a.var(dim=0) / ess_a + b.var(dim=0) / ess_b).sqrt()
    assert ((a.mean(dim=0) - b.mean(dim=0)).abs() < 6 * error).all()


@pytest.fixture(scope="module")
def tiny_values() -> tuple[Tensor, Tensor]:
    return values_of(tiny())


def values_of(model: HMCNetwork) -> tuple[Tensor, Tensor]:
    """`S K x 6` values at `NEW` and the log noise variance, and their effective sample sizes."""
    assert model.diagnostics.converged
    f = model.posterior(NEW).values[..., 0]
    values = torch.cat([f, model.noise_variance.log()], dim=-1)
    config = model.config
    chains = values.unflatten(0, (config.samples, config.chains)).transpose(0, 1)
    squares = (chains - values.mean(dim=0)).square()
    return values, torch.minimum(bulk_ess(chains), bulk_ess(squares))


def test_predictions_and_noise_agree_with_pyro(tiny_values: tuple[Tensor, Tensor]) -> None:
    values, ess = tiny_values
    budget = {"chains": 2, "warmup": 60, "samples": 100, "draws": 200, "max_leapfrog": 16}
    reference = tiny(engine="pyro", min_ess=60.0, max_r_hat=1.1, **budget)
    reference_values, reference_ess = values_of(reference)
    same_moments(values, reference_values, ess, reference_ess)
    spread = [(v - values.mean(dim=0)).square() for v in (values, reference_values)]
    same_moments(*spread, ess, reference_ess)
    assert reference_ess.min() > 60  # the comparison means something


@pytest.mark.parametrize(
    "change", [{"output_layer": "sampled"}, {"precision": "single"}, {"trajectory_length": 0.7}]
)
def test_ways_to_sample_the_same_posterior_agree(
    change: dict[str, Any], tiny_values: tuple[Tensor, Tensor]
) -> None:
    values, ess = tiny_values
    other, ess_other = values_of(tiny(**change))
    same_moments(values, other, ess, ess_other)
    spread = [(v - values.mean(dim=0)).square() for v in (values, other)]
    same_moments(*spread, ess, ess_other)


def test_posteriors_of_data_from_the_prior_are_calibrated() -> None:
    """Simulation-based calibration: where f ~ prior and y ~ f, the true f(x) has a uniform rank."""
    config = HMCConfig(**TINY | {"chains": 8, "warmup": 25, "samples": 25, "draws": 200,
                                 "max_r_hat": 100.0, "min_ess": 0.0})  # fmt: skip
    ranks = []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        X = torch.rand(6, 1, generator=generator, dtype=torch.float64)
        probe = HMCNetwork(X, X, config=config, seed=0)
        scales = probe.network.scales(1.5, 1.2, output_scale=1.2)
        theta = probe.network.draw(1, scales, generator)
        z = torch.randn(7, generator=generator, dtype=torch.float64)
        f = probe.network.forward(theta, probe.network_inputs(torch.cat([X, NEW[:1]])))[0]
        Y = f[:-1] + (0.5 * (-1.5 + 0.5 * z[6])).exp() * z[:6, None]
        model = HMCNetwork(X, Y, config=config, seed=seed).fit()
        ranks.append((model.posterior(NEW[:1]).values[:, 0, 0] < f[-1]).double().mean().item())
    assert kstest(ranks, "uniform").pvalue > 1e-6
    # A posterior that is half or twice as wide has ranks of the wrong variance (1/12 if uniform).
    assert torch.tensor(ranks).var().item() == pytest.approx(1 / 12, abs=6 * 0.075 / math.sqrt(60))


# ---- the gate -------------------------------------------------------------------------------
def test_a_run_that_is_too_short_runs_longer_and_then_says_so() -> None:
    X, Y = measurements()
    short = {"chains": 4, "warmup": 1, "samples": 4, "draws": 4, "map_steps": 1}
    good = fit(X, Y, **short)
    with pytest.warns(match="not converged"):
        bad = fit(X, Y, **short, max_r_hat=1.05, min_ess=100.0)
    assert good.diagnostics.converged
    assert good.diagnostics.values["runs"] == 1
    assert bad.diagnostics.values["runs"] == 2
    assert not bad.diagnostics.converged
    assert "not converged" in bad.diagnostics.message
    assert "warmup" in bad.diagnostics.message
    assert bad.diagnostics.values["ess"] < 100.0 or bad.diagnostics.values["r_hat"] > 1.05


def test_a_second_run_that_is_long_enough_makes_a_converged_fit() -> None:
    X, Y = measurements()
    short: dict[str, Any] = {"warmup": 5, "samples": 5}
    once, twice = (fit(X, Y, max_r_hat=limit, **short) for limit in (100.0, 1.0))
    assert [m.diagnostics.values["runs"] for m in (once, twice)] == [1, 2]
    assert not twice.diagnostics.converged
    reached = twice.diagnostics.values["r_hat"]
    assert reached < once.diagnostics.values["r_hat"]
    # The same two runs again: the first misses this limit, the second meets it.
    both = fit(X, Y, max_r_hat=reached, **short)
    assert both.diagnostics.values["runs"] == 2
    assert both.diagnostics.converged


def test_defaults_converge_and_report_how_the_chains_went() -> None:
    X, Y = measurements(20)
    model = SURROGATES["hmc"].build(X, Y, bounds=BOUNDS, seed=0)
    values, config = model.diagnostics.values, HMCConfig()
    assert model.diagnostics.converged
    assert 1.0 <= values["r_hat"] <= config.max_r_hat
    assert values["ess"] >= config.min_ess
    assert abs(values["acceptance"] - config.target_acceptance) < 0.2
    assert 0 < values["step_size"] < 1
    assert 0 <= values["divergences"] < 0.05 * config.chains * config.samples
    assert values["gradients"] >= config.chains * config.samples


# ---- what is kept ------------------------------------------------------------------------------
@pytest.mark.parametrize("draws", [3, 8, 40, 240])
def test_the_networks_kept_are_distinct(draws: int) -> None:
    X, Y = measurements()
    model = fit(X, Y, draws=draws)
    assert model.weights.shape[0] == draws
    assert len(model.weights.unique(dim=0)) == draws


def test_more_networks_than_there_are_samples_are_refused() -> None:
    with pytest.raises(InputError, match=r"draws must be at most chains \* samples = 20"):
        HMCConfig(chains=4, samples=5, draws=21)


def test_each_network_and_output_has_its_own_noise(model: HMCNetwork) -> None:
    assert model.noise_variance.shape == (40, 2)
    assert len(model.noise_variance.unique()) > 40  # a rejected proposal leaves it as it was
    _, Y = measurements(m=2)
    noise = model.posterior(points(3), observation_noise=True).noise_variance
    expected = (model.noise_variance * Y.var(dim=0)).unsqueeze(1).expand(40, 3, 2)
    torch.testing.assert_close(noise, expected, rtol=1e-9, atol=0)


def test_fixed_and_known_noise_are_what_was_given() -> None:
    X, Y = measurements(m=2)
    fixed = fit(X, Y, noise="fixed", noise_variance=0.25).posterior(X, observation_noise=True)
    torch.testing.assert_close(
        fixed.noise_variance, (0.25 * Y.var(dim=0)).expand(40, len(X), 2), rtol=1e-6, atol=0
    )
    Yvar = Y.square() + 0.1
    known = fit(X, Y, Yvar).posterior(X, observation_noise=True)
    torch.testing.assert_close(
        known.noise_variance, Yvar.mean(dim=0).expand(40, len(X), 2), rtol=1e-6, atol=0
    )


def test_inferred_noise_is_about_that_of_noisy_outcomes() -> None:
    X, Y = measurements(60)
    noise = torch.randn(60, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    learnt = [
        fit(X, Y + sd * noise).posterior(X[:1], observation_noise=True).noise_variance.mean()
        for sd in (0.0, 1.0)
    ]
    assert learnt[0] < 0.05
    assert 0.4 < learnt[1] < 2.0


def test_independent_weights_have_one_scale() -> None:
    X, Y = measurements()
    posterior = fit(X, Y, prior="iid", weight_scale=0.7)._posterior()
    weights, _ = posterior.split(posterior.scales.unsqueeze(0))
    torch.testing.assert_close(weights, torch.full_like(weights, 0.7))


def test_layers_may_have_scales_of_their_own() -> None:
    """Gain 2 for all weights, biases of standard deviation 1, log noise sd ~ N(log 0.05, 0.1^2)."""
    X, Y = measurements()
    hard: dict[str, Any] = {
        "prior": "per-layer", "layer_scales": [2.0] * 3, "bias_scales": [1.0] * 3,
        "log_noise_mean": 2 * math.log(0.05), "log_noise_std": 0.2, "output_layer": "sampled",
    }  # fmt: skip
    model = HMCNetwork(X, Y, config=HMCConfig(**SMALL | hard), seed=0)
    posterior = model._posterior()
    weights, _ = posterior.split(posterior.scales.double().unsqueeze(0))
    for layer, inputs in zip(model.network.unpack(weights), (2, 8, 8), strict=True):
        torch.testing.assert_close(
            layer.weight, torch.full_like(layer.weight, 2 / math.sqrt(inputs))
        )
        torch.testing.assert_close(layer.bias, torch.ones_like(layer.bias))
    # l = 2 log sd has twice the mean and twice the standard deviation.
    assert posterior.prior is not None
    assert posterior.prior.mean == pytest.approx(2 * math.log(0.05))
    assert posterior.prior.std == pytest.approx(2 * 0.1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prior": "per-layer", "layer_scales": [1.0] * 3}, "bias_scales must be a list of depth"),
        ({"prior": "per-layer", "layer_scales": [1.0] * 2, "bias_scales": [1.0] * 3},
         r"layer_scales must be a list of depth \+ 1 = 3 numbers"),
        ({"layer_scales": [1.0] * 3}, "layer_scales is for prior 'per-layer'"),
    ],
)  # fmt: skip
def test_scales_that_do_not_fit_the_layers_are_refused(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=f"HMCConfig.{message}"):
        HMCConfig(**fields)


# ---- warm start --------------------------------------------------------------------------------
def test_a_warm_start_goes_on_from_the_old_chains_with_fewer_gradients() -> None:
    X, Y = measurements()
    old = fit(X, Y, samples=60)
    new, cold = (fit(X, Y, warmup=100, warm_start=start) for start in (old, None))
    gradients = [m.diagnostics.values["gradients"] for m in (new, cold)]
    assert gradients[0] < 0.85 * gradients[1]
    assert not torch.equal(new.chains, cold.chains)
    test_X = points(20)
    # Three samples of one posterior: about 40 independent draws each.
    unit = old.posterior(test_X).variance.sqrt()
    for other in (new, cold):
        difference = (other.posterior(test_X).mean - old.posterior(test_X).mean) / unit
        assert difference.square().mean().sqrt() < 0.5


@pytest.mark.parametrize("output_layer", ["sampled", "integrated"])
def test_chains_go_on_as_the_same_functions_when_the_standardization_changes(
    output_layer: str,
) -> None:
    X, Y = measurements(m=2)
    short = {"warmup": 5, "samples": 5, "map_steps": 10, "output_layer": output_layer}
    old = fit(X, Y, **short, precision="double")
    more = torch.cat([X, points(1)]), torch.cat([Y, torch.tensor([[40.0, -300.0]]).to(Y)])
    new = fit(*more, **short, precision="double")
    posterior = new._posterior()
    position = new._continued(old, posterior)
    _, before = old._posterior().split(old.chains)
    _, after = posterior.split(position)
    assert before is not None
    assert after is not None
    units = [model.outcome_transform.stdvs[0] for model in (old, new)]  # type: ignore[operator]
    torch.testing.assert_close(after.exp() * units[1] ** 2, before.exp() * units[0] ** 2)
    if output_layer == "sampled":
        test_X = points(4)
        new.weights[:8], old.weights[:8] = posterior.split(position)[0], old.chains[:, :-2]
        values = [model.posterior(test_X).values[:8] for model in (old, new)]
        torch.testing.assert_close(values[0], values[1])
    else:
        assert torch.equal(position[:, :-2], old.chains[:, :-2])


def test_a_warm_start_of_another_shape_is_a_cold_start() -> None:
    X, Y = measurements()
    short = {"warmup": 5, "samples": 5, "map_steps": 10}
    cold = fit(X, Y, **short)
    for change in ({"width": 4}, {"activation": "relu"}, {"noise": "fixed"}):
        other = fit(X, Y, **short | change)
        assert torch.equal(fit(X, Y, warm_start=other, **short).weights, cold.weights)


def test_the_default_configuration_can_be_searched_and_written() -> None:
    config = HMCConfig()
    assert HMCConfig.from_dict(config.to_dict()) == config
    space = HMCConfig.search_space()
    assert set(space.names) == set(HMCConfig._searched or ())
    assert space.validate({name: getattr(config, name) for name in space.names})


@pytest.mark.parametrize("noise_prior", ["log-normal", "half-cauchy"])
def test_the_noise_of_a_network_that_is_zero_has_the_posterior_of_quadrature(noise_prior):
    """With weights of about nothing, y ~ N(0, v): one dimension is left."""
    n = 12
    X = torch.linspace(0, 1, n, dtype=torch.float64).unsqueeze(-1)
    Y = 0.3 * torch.randn(n, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, std = -3.0, 0.7
    config = {
        "prior": "iid", "weight_scale": 1e-3, "width": 1, "depth": 1, "noise_prior": noise_prior,
        "log_noise_mean": mean, "log_noise_std": std, "chains": 64, "samples": 50,
        "draws": 3200, "precision": "double", "max_r_hat": 100.0, "min_ess": 0.0,
    }  # fmt: skip
    model = HMCNetwork(X, Y, config=HMCConfig.from_dict(config), seed=0).fit()
    log_variance = np.linspace(-9.0, 5.0, 4001)
    if noise_prior == "log-normal":
        log_density = norm.logpdf(log_variance, mean, std)
    else:  # of the standard deviation, times its derivative in the log variance
        root = np.exp(0.5 * log_variance)
        log_density = halfcauchy.logpdf(root, scale=math.exp(0.5 * mean)) + np.log(root)
    log_density += norm.logpdf(Y.numpy(), scale=np.exp(0.5 * log_variance)).sum(axis=0)
    weight = np.exp(log_density - log_density.max())
    weight /= weight.sum()
    expected = (weight * log_variance).sum()
    spread = math.sqrt((weight * (log_variance - expected) ** 2).sum())
    drawn = model.noise_variance.log().flatten()
    # 64 chains, each moving a good deal at a step: more than 500 independent draws, of which five
    # standard errors are 0.23 standard deviations of the mean, and 0.16 of the spread.
    assert drawn.mean().item() == pytest.approx(expected, abs=0.23 * spread)
    assert drawn.std().item() == pytest.approx(spread, rel=0.16)
