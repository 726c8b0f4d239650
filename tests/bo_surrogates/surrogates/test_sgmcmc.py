"""What is particular to `sghmc`, `csgld` and `sgld`; the rest is the contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.inference.diagnostics import bulk_ess
from bo_surrogates.surrogates import SURROGATES
from bo_surrogates.surrogates.hmc import HMCConfig, HMCNetwork
from bo_surrogates.surrogates.sampled_network import SampledNetwork
from bo_surrogates.surrogates.sghmc import SGHMCConfig, SGHMCNetwork
from bo_surrogates.surrogates.sgld import CSGLDConfig, CyclicalSGLDNetwork, SGLDNetwork
from bo_surrogates.surrogates.sgmcmc import SGMCMCNetwork

from .conftest import BOUNDS, measurements, points

NAMES = ("sghmc", "csgld", "sgld")
SMALL: dict[str, Any] = {
    "width": 8, "chains": 8, "warmup": 40, "samples": 20, "draws": 40, "map_steps": 50,
    "thinning": 4, "max_r_hat": 100.0, "min_ess": 0.0,
}  # fmt: skip


def fit(
    name: str, X: Tensor, Y: Tensor, Yvar: Tensor | None = None, warm_start: Any = None,
    **config: Any,
) -> SGMCMCNetwork:  # fmt: skip
    model = SURROGATES[name].build(
        X, Y, Yvar, bounds=BOUNDS, config=SMALL | config, seed=0, warm_start=warm_start
    )
    assert isinstance(model, SGMCMCNetwork)
    return model


# ---- the posterior is that of `hmc` ------------------------------------------------------------
# Inputs and outcomes have no transforms, and the network has two units.
TINY: dict[str, Any] = {
    "width": 2, "depth": 1, "input_scale": 1.5, "weight_scale": 1.2, "log_noise_mean": -1.5,
    "log_noise_std": 0.5, "chains": 32, "max_r_hat": 1.1, "min_ess": 100.0,
}  # fmt: skip
TINY_X = torch.tensor([[0.1], [0.35], [0.5], [0.8], [0.95]], dtype=torch.float64)
TINY_Y = torch.tensor([[-1.2], [-0.3], [0.4], [0.9], [0.2]], dtype=torch.float64)
NEW = torch.linspace(0, 1, 5, dtype=torch.float64).unsqueeze(-1)


def moments(model: SampledNetwork, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, standard deviation and effective sizes of predictions at `NEW` and of log noise."""
    assert model.diagnostics.converged
    f = model.posterior(NEW).values[..., 0]
    values = torch.cat([f, model.noise_variance.log()], dim=-1)
    chains = values.unflatten(0, (samples, 32)).transpose(0, 1)
    squares = (chains - values.mean(dim=0)).square()
    ess = torch.minimum(bulk_ess(chains), bulk_ess(squares))
    return values.mean(dim=0), values.std(dim=0), ess


@pytest.fixture(scope="module")
def reference() -> tuple[Tensor, Tensor, Tensor]:
    config = HMCConfig(**TINY, warmup=50, samples=200, draws=32 * 200)
    return moments(HMCNetwork(TINY_X, TINY_Y, config=config, seed=0).fit(), 200)


@pytest.mark.parametrize(
    ("model_class", "options"),
    [
        (SGHMCNetwork, {}),
        (SGHMCNetwork, {"adapt_scale": False, "friction": 3.0}),
        (SGHMCNetwork, {"output_layer": "sampled"}),
        (SGLDNetwork, {"thinning": 20, "largest_step": 1.5}),
        (CyclicalSGLDNetwork, {"thinning": 20, "largest_step": 2.0, "exploration": 0.0}),
    ],
)
def test_predictions_and_noise_agree_with_hmc(
    model_class: type[SGMCMCNetwork],
    options: dict[str, Any],
    reference: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Within 6 standard errors and what small steps leave of bias, 5 % of a standard deviation."""
    settings = {"warmup": 200, "samples": 100, "thinning": 10, "max_error": 1e-5} | options
    config = model_class.config_class(**TINY, draws=32 * 100, **settings)
    mean, std, ess = moments(model_class(TINY_X, TINY_Y, config=config, seed=0).fit(), 100)
    true_mean, true_std, true_ess = reference
    error = (1.0 / ess + 1.0 / true_ess).sqrt()
    assert ((mean - true_mean).abs() / true_std < 6 * error + 0.05).all()
    # A standard deviation has the relative error sqrt(kurtosis - 1) / 2 sqrt(ess), at most 1.
    assert ((std / true_std).log().abs() < 6 * error + 0.05).all()
    assert error.max() < 0.12  # the comparison means something


def test_minibatches_sample_the_same_posterior() -> None:
    X, Y = measurements(60)
    Y = Y + 0.5 * torch.randn(Y.shape, generator=torch.Generator().manual_seed(3)).double()
    options = {
        "output_layer": "sampled", "max_error": 1e-6, "warmup": 200, "samples": 40, "thinning": 15,
        "draws": 320, "width": 4, "depth": 1,
    }  # fmt: skip
    full, part = (fit("sghmc", X, Y, batch_size=b, **options) for b in (0, 20))
    assert full.diagnostics.values["minibatch_noise"] == 0.0
    assert 0.01 < part.diagnostics.values["minibatch_noise"] < 1.0
    test_X = points(20)
    a, b = full.posterior(test_X), part.posterior(test_X)
    unit = a.variance.sqrt()
    assert ((b.mean - a.mean) / unit).square().mean().sqrt() < 0.5
    assert (b.variance.sqrt() / unit).log().mean().abs() < 0.3
    assert (part.noise_variance.log().mean() - full.noise_variance.log().mean()).abs() < 0.3


def test_minibatches_with_too_much_noise_are_no_converged_fit() -> None:
    X, Y = measurements(30)
    with pytest.warns(match="noise of the minibatches"):
        model = fit("sghmc", X, Y, output_layer="sampled", batch_size=1)
    assert model.diagnostics.values["minibatch_noise"] > 1.0
    assert not model.diagnostics.converged


def test_minibatches_of_an_integrated_output_layer_are_refused() -> None:
    for name in NAMES:
        with pytest.raises(InputError, match="set output_layer to 'sampled'"):
            SURROGATES[name].configure({"batch_size": 8})


# ---- the gate -------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_is_too_short_runs_longer_and_then_says_so(name: str) -> None:
    X, Y = measurements()
    short = {"chains": 4, "warmup": 1, "samples": 4, "draws": 4, "map_steps": 1, "thinning": 1}
    with pytest.warns(match="not converged"):
        model = fit(name, X, Y, **short, max_r_hat=1.05, min_ess=100.0)
    assert model.diagnostics.values["runs"] == 2
    assert not model.diagnostics.converged


@pytest.mark.parametrize("name", NAMES)
def test_defaults_converge_and_report_how_the_chains_went(name: str) -> None:
    X, Y = measurements(20)
    model = SURROGATES[name].build(X, Y, bounds=BOUNDS, seed=0)
    values = model.diagnostics.values
    assert model.diagnostics.converged
    assert 1.0 <= values["r_hat"] <= model.config.max_r_hat
    assert values["ess"] >= model.config.min_ess
    assert 0 < values["step_size"] < 1
    assert values["divergences"] == 0


def test_chains_that_leave_for_infinity_are_put_back_and_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, Y = measurements()
    advance = SGHMCNetwork.advance

    def explode(self: SGHMCNetwork, *arguments: Any) -> Any:
        state = advance(self, *arguments)
        state.position[0] = 1e30
        return state

    monkeypatch.setattr(SGHMCNetwork, "advance", explode)
    with pytest.warns(match="left for infinity 20 time"):
        model = fit("sghmc", X, Y)
    assert model.diagnostics.values["divergences"] == 20
    assert torch.isfinite(model.posterior(X).mean).all()


# ---- what is kept ------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_each_network_and_output_has_its_own_noise(name: str) -> None:
    X, Y = measurements(m=2)
    model = fit(name, X, Y)
    assert len(model.weights.unique(dim=0)) == 40
    assert len(model.noise_variance.unique()) == 80
    noise = model.posterior(points(3), observation_noise=True).noise_variance
    expected = (model.noise_variance * Y.var(dim=0)).unsqueeze(1).expand(40, 3, 2)
    torch.testing.assert_close(noise, expected, rtol=1e-9, atol=0)


def test_known_noise_is_what_was_given() -> None:
    X, Y = measurements(m=2)
    Yvar = Y.square() + 0.1
    for options in ({}, {"output_layer": "sampled", "batch_size": 5, "max_error": 1e-6}):
        known = fit("sghmc", X, Y, Yvar, **options).posterior(X, observation_noise=True)
        torch.testing.assert_close(
            known.noise_variance, Yvar.mean(dim=0).expand(40, len(X), 2), rtol=1e-6, atol=0
        )


def test_inferred_noise_is_about_that_of_noisy_outcomes() -> None:
    X, Y = measurements(60)
    noise = torch.randn(60, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    learnt = [
        fit("sghmc", X, Y + sd * noise, warmup=300)
        .posterior(X[:1], observation_noise=True)
        .noise_variance
        for sd in (0.0, 1.0)
    ]
    assert learnt[0].mean() < 0.05
    assert 0.4 < learnt[1].mean() < 2.0


# ---- warm start and configuration ----------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_a_warm_start_goes_on_from_the_old_chains(name: str) -> None:
    X, Y = measurements()
    old = fit(name, X, Y, warmup=100)
    new = fit(name, X, Y, warmup=4, samples=4, draws=32, thinning=1, warm_start=old)
    # Five steps do not get far: each chain is closest to the one that it came from.
    distance = (new.chains[:, None] - old.chains).square().sum(dim=-1)
    assert (distance.argmin(dim=1) == torch.arange(8)).all()


def test_a_warm_start_of_another_shape_is_a_cold_start() -> None:
    X, Y = measurements()
    cold = fit("sghmc", X, Y)
    for change in ({"width": 4}, {"activation": "relu"}, {"output_layer": "sampled"}):
        assert torch.equal(
            fit("sghmc", X, Y, warm_start=fit("sghmc", X, Y, **change)).weights, cold.weights
        )


def test_fewer_samples_than_cycles_are_refused() -> None:
    with pytest.raises(InputError, match=r"CSGLDConfig\.cycles = 5"):
        CSGLDConfig(samples=4, draws=16, cycles=5)


@pytest.mark.parametrize("name", NAMES)
def test_the_default_configuration_can_be_searched_and_written(name: str) -> None:
    config = SURROGATES[name].configure(None)
    assert type(config).from_dict(config.to_dict()) == config
    space = type(config).search_space()
    assert space.validate({n: getattr(config, n) for n in space.names})


def test_the_reference_is_another_sampler_of_the_same_model() -> None:
    fields = set(SGHMCConfig().to_dict()) & set(HMCConfig().to_dict())
    assert {"width", "prior", "log_noise_mean", "output_layer"} <= fields
