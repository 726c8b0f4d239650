"""What is particular to `ensemble` and to surrogates of finite width; the rest is the contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.posteriors.posterior import Posterior
from scipy.stats import kstest
from torch import Tensor
from torch.nn.functional import pad

from bo_surrogates.errors import FitError, RunError
from bo_surrogates.inference.adam import Minimum
from bo_surrogates.networks import Layer
from bo_surrogates.networks.posterior import CollapsedNetworkPosterior, NetworkPosterior
from bo_surrogates.surrogates import SURROGATES
from bo_surrogates.surrogates.ensemble import DeepEnsemble, EnsembleConfig

from .conftest import BOUNDS, measurements, points

SMALL: dict[str, Any] = {
    "members": 5, "width": 8, "depth": 2, "steps": 40, "output_draws": 2, "prior_function": 1.0,
}  # fmt: skip


def fit(
    X: Tensor, Y: Tensor, Yvar: Tensor | None = None, warm_start: Any = None, **config: Any
) -> DeepEnsemble:
    model = SURROGATES["ensemble"].build(
        X, Y, Yvar, bounds=BOUNDS, config=SMALL | config, seed=0, warm_start=warm_start
    )
    assert isinstance(model, DeepEnsemble)
    return model


@pytest.fixture(scope="module")
def model() -> DeepEnsemble:
    return fit(*measurements(m=2))


def single_heads(model: DeepEnsemble, draw: int) -> Tensor:
    """Parameters of the members with one of their output layers."""
    heads = model.network.outputs // model.member.outputs
    *hidden, (weight, bias) = model.network.unpack(model.weights)
    return model.member.pack([*hidden, Layer(weight[..., draw::heads], bias[..., draw::heads])])


def test_functions_are_networks_plus_prior_functions_in_the_users_units(
    model: DeepEnsemble,
) -> None:
    X = points(2, 3)
    values = model.posterior(X).values
    assert values.shape == (2, 10, 3, 2)
    unit = (X - BOUNDS[0]) / (BOUNDS[1] - BOUNDS[0])
    inputs = (unit - 0.5) * 12**0.5
    prior = model.config.prior_function * model.member.forward(model.prior_weights, inputs)
    _, Y = measurements(m=2)
    for draw in range(2):
        standard = model.member.forward(single_heads(model, draw), inputs) + prior
        expected = Y.mean(dim=0) + Y.std(dim=0) * standard
        torch.testing.assert_close(values[:, draw::2], expected.movedim(0, 1))


def test_output_layers_are_draws_of_the_regression_on_the_hidden_layers() -> None:
    X, Y = measurements(12)
    count = 4000
    config = {"members": 1, "output_draws": count, "prior_function": 0.0, "steps": 5}
    model = fit(X, Y, noise="fixed", noise_variance=0.1, **config)
    new, theta = points(3), single_heads(model, 0)
    with torch.no_grad():
        draws = model.posterior(new).values[..., 0]  # count x 3
        inputs = (model.network_inputs(x).unsqueeze(0) for x in (X, new))
        h, g = (pad(model.member.features(theta, x)[0], (0, 1), value=1.0) for x in inputs)
    # The Gaussian process with the features' kernel, at the new points.
    prior = model.prior_scales[-9:].square()  # eight units and the bias
    gain = (g * prior) @ h.T @ torch.linalg.inv((h * prior) @ h.T + 0.1 * torch.eye(12).to(h))
    mean = Y.mean() + gain @ (Y - Y.mean())[:, 0]
    covariance = Y.var() * ((g * prior) @ g.T - gain @ (h * prior) @ g.T)
    deviation = covariance.diagonal().sqrt()
    # Six standard errors: exceeded by chance less often than once in 10^7.
    assert ((draws.mean(dim=0) - mean).abs() < 6 * deviation / count**0.5).all()
    standard = (draws - mean) / deviation
    expected = covariance / (deviation * deviation.unsqueeze(-1))
    assert ((standard.T @ standard / count - expected).abs() < 6 * (2 / count) ** 0.5).all()


@pytest.mark.parametrize("kind", [NetworkPosterior, CollapsedNetworkPosterior])
def test_resampled_observations_are_observations_with_multiplicities(
    kind: type[NetworkPosterior],
) -> None:
    X, Y = measurements(6, m=2)
    model = fit(X, Y, steps=1, bootstrap="replacement")
    generator = torch.Generator().manual_seed(1)
    counts = model._observation_weights(generator)
    assert counts is not None
    assert torch.equal(counts.sum(dim=1), torch.full((5, 1), 6.0, dtype=torch.float64))
    member, inputs, scales = model.member, model.network_inputs(X), model.prior_scales
    Y = (Y - Y.mean(dim=0)) / Y.std(dim=0)
    weighted = kind(member, inputs, Y.expand(5, -1, -1), scales, 0.3 / counts)
    shape = (2, 5, weighted.num_parameters)
    theta = torch.randn(*shape, generator=generator, dtype=torch.float64)
    difference = weighted(theta[0])[0] - weighted(theta[1])[0]
    noise = torch.tensor([[0.3]], dtype=torch.float64)
    for k in range(5):
        rows = counts[k, :, 0].long()
        repeated = kind(
            member, inputs.repeat_interleave(rows, 0), Y.repeat_interleave(rows, 0), scales, noise
        )
        expected = repeated(theta[0, k : k + 1])[0] - repeated(theta[1, k : k + 1])[0]
        torch.testing.assert_close(difference[k : k + 1], expected)


def test_bayesian_bootstrap_weights_are_exponential() -> None:
    model = fit(*measurements(), steps=1, bootstrap="bayesian", members=500)
    weights = model._observation_weights(torch.Generator().manual_seed(0))
    assert weights is not None
    assert kstest(weights.flatten().numpy(), "expon").pvalue > 1e-6


@pytest.mark.parametrize("output_layer", ["integrated", "trained"])
@pytest.mark.parametrize("bootstrap", ["bayesian", "replacement"])
def test_bootstrap_weights_change_the_members(bootstrap: str, output_layer: str) -> None:
    X, Y = measurements()
    new, options = points(4), {"output_layer": output_layer, "prior_function": 0.0}
    plain, weighted = (
        fit(X, Y, bootstrap=b, **options).posterior(new).values for b in ("none", bootstrap)
    )
    assert torch.isfinite(weighted).all()
    assert not torch.allclose(plain, weighted, atol=1e-2)


def test_training_descends_for_every_member() -> None:
    X, Y = measurements()
    residuals = []
    for steps in (1, 300):
        model = fit(X, Y, steps=steps, output_layer="trained")
        residuals.append((model.posterior(X).values - Y).square().mean(dim=(-2, -1)))
    assert (residuals[1] < 0.2 * residuals[0]).all()


def test_training_makes_hidden_layers_more_probable() -> None:
    diagnostics = fit(*measurements(), steps=100).diagnostics
    assert diagnostics.converged
    loss = diagnostics.values
    assert loss["loss_per_member"] < loss["first_loss_per_member"] - 1.0


def test_prior_functions_make_members_differ_more_between_the_data() -> None:
    X, Y = measurements()
    spread = {
        beta: fit(X, Y, prior_function=beta, members=20, steps=300, output_layer="trained")
        .posterior(points(100))
        .variance.mean()
        for beta in (0.0, 1.5)
    }
    assert spread[1.5] > 1.5 * spread[0.0]


def test_members_are_surer_at_the_data_than_far_from_them() -> None:
    generator = torch.Generator().manual_seed(0)
    unit = 0.2 * torch.rand(20, 2, generator=generator, dtype=torch.float64)
    X = BOUNDS[0] + (BOUNDS[1] - BOUNDS[0]) * unit
    Y = torch.sin(20 * unit.sum(dim=-1, keepdim=True))
    posterior = fit(X, Y, steps=300).posterior(torch.stack([X.mean(dim=0), BOUNDS[1]]))
    assert posterior.variance[1] > 10 * posterior.variance[0]


def test_nothing_is_left_of_unused_prior_functions() -> None:
    X, Y = measurements()
    model = fit(X, Y, prior_function=0.0, output_layer="trained")
    new = points(4)
    expected = Y.mean() + Y.std() * model.network.forward(model.weights, model.network_inputs(new))
    torch.testing.assert_close(model.posterior(new).values, expected)


# ---- noise -----------------------------------------------------------------------------------
def test_fixed_noise_is_that_of_standardized_outcomes() -> None:
    X, Y = measurements(m=2)
    posterior = fit(X, Y, noise="fixed", noise_variance=0.3).posterior(
        points(2), observation_noise=True
    )
    torch.testing.assert_close(
        posterior.noise_variance, (0.3 * Y.var(dim=0)).expand(10, 2, 2), rtol=1e-10, atol=0
    )


def test_known_noise_is_predicted_with_its_mean() -> None:
    X, Y = measurements(m=2)
    Yvar = Y.square() + 0.1
    posterior = fit(X, Y, Yvar).posterior(points(2), observation_noise=True)
    torch.testing.assert_close(posterior.noise_variance, Yvar.mean(dim=0).expand(10, 2, 2))


def test_learnt_noise_is_about_that_of_noisy_outcomes() -> None:
    X, Y = measurements(80)
    noise = torch.randn(80, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    learnt = [
        fit(X, Y + sd * noise, steps=1).posterior(X[:1], observation_noise=True).noise_variance
        for sd in (0.0, 1.0)
    ]
    assert (learnt[0] < 0.05).all()  # the data's own noise has variance 0.0025
    assert ((learnt[1] > 0.5) & (learnt[1] < 2.0)).all()


def test_a_tensor_of_noise_is_a_variance_of_standardized_outcomes(model: DeepEnsemble) -> None:
    _, Y = measurements(m=2)
    noise = torch.tensor([[0.5, 2.0]], dtype=torch.float64)
    posterior = model.posterior(points(4, 3), observation_noise=noise.expand(4, 3, 2))
    expected = (noise * Y.var(dim=0)).expand(4, 10, 3, 2)
    torch.testing.assert_close(posterior.noise_variance, expected)


# ---- what all surrogates of finite width share ---------------------------------------------------
def test_drawn_functions_are_the_members_each_once_before_any_twice(model: DeepEnsemble) -> None:
    X = points(3)
    values = model.posterior(X).values
    drawn = model.sample_functions(20, seed=0)(X)
    for part in (drawn[:10], drawn[10:]):
        matches = (part.unsqueeze(1) - values).abs().amax(dim=(-2, -1)) < 1e-12
        assert torch.equal(matches.sum(dim=0), torch.ones(10, dtype=torch.long))


def test_drawn_functions_outlive_a_later_fit() -> None:
    X, Y = measurements()
    model = fit(X, Y)
    functions = model.sample_functions(2, seed=0)
    before = functions(X)
    model.weights.zero_()
    assert torch.equal(functions(X), before)


def test_a_subset_of_outputs_draws_functions_of_these_outputs(model: DeepEnsemble) -> None:
    X = points(3)
    swapped = model.subset_output([1, 0])
    torch.testing.assert_close(
        swapped.sample_functions(3, seed=0)(X), model.sample_functions(3, seed=0)(X)[..., [1, 0]]
    )
    twice = swapped.subset_output([1])
    torch.testing.assert_close(twice.posterior(X).mean, model.posterior(X).mean[..., :1])
    assert model.num_outputs == 2


def test_other_posterior_transforms_are_called_with_the_posterior(model: DeepEnsemble) -> None:
    class Record(PosteriorTransform):
        def evaluate(self, Y: Tensor, X: Tensor | None = None) -> Tensor:
            return Y

        def forward(self, posterior: Posterior, X: Tensor | None = None) -> Posterior:
            self.seen = posterior, X
            return posterior

    transform, X = Record(), points(3)
    posterior = model.posterior(X, posterior_transform=transform)
    assert transform.seen[0] is posterior
    assert transform.seen[1] is X


STILL: dict[str, Any] = {"steps": 1, "learning_rate": 1e-6, "renewal": 0.0}


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_a_warm_start_goes_on_from_the_old_members(beta: float) -> None:
    X, Y = measurements()
    options = {"prior_function": beta, "output_layer": "trained"}
    old = fit(X, Y, steps=300, **options)
    new = fit(X, Y, warm_start=old, **options | STILL)
    cold = fit(X, Y, **options | STILL)
    values, warm_values, cold_values = (m.posterior(points(5)).values for m in (old, new, cold))
    torch.testing.assert_close(warm_values, values, rtol=0, atol=1e-3)
    assert not torch.allclose(cold_values, values, rtol=0, atol=1e-1)


def test_a_warm_start_keeps_hidden_layers_and_draws_output_layers_given_the_new_data() -> None:
    X, Y = measurements()
    old = fit(X, Y, steps=300, scales="fixed")
    new = fit(X, -3 * Y + 7, warm_start=old, scales="fixed", **STILL)
    for a, b in zip(*(m.network.unpack(m.weights)[:-1] for m in (old, new)), strict=True):
        torch.testing.assert_close(a.weight, b.weight, rtol=0, atol=1e-5)
    # Of a function three times as large, upside down.
    error = (new.posterior(X).mean - (-3 * Y + 7)).square().mean().sqrt()
    assert error < 0.5 * (3 * Y.std())


def test_a_warm_start_follows_the_outcomes_to_another_scale() -> None:
    X, Y = measurements(m=2)
    options = {"prior_function": 0.0, "output_layer": "trained"}
    old = fit(X, Y, steps=300, **options)
    # One observation more moves the outcomes' mean and standard deviation far.
    X2 = torch.cat([X, points(1)])
    Y2 = torch.cat([Y, torch.tensor([[40.0, -90.0]], dtype=torch.float64)])
    assert (Y2.std(dim=0) > 2 * Y.std(dim=0)).all()
    new = fit(X2, Y2, warm_start=old, **options | STILL)
    torch.testing.assert_close(
        new.posterior(points(5)).values, old.posterior(points(5)).values, rtol=0, atol=1e-3
    )


def test_repeated_warm_starts_leave_the_members_about_as_different_as_a_cold_start() -> None:
    X, Y = measurements()
    cold = fit(X, Y, steps=200)
    warm = cold
    for _ in range(8):
        warm = fit(X, Y, steps=200, warm_start=warm)
    spread = [m.posterior(points(100)).variance.mean() for m in (cold, warm)]
    assert spread[1] > 0.4 * spread[0]


def test_a_warm_start_of_another_shape_is_a_cold_start() -> None:
    X, Y = measurements()
    warm = fit(X, Y, warm_start=fit(X, Y, width=4))
    assert torch.equal(warm.weights, fit(X, Y).weights)


def test_a_model_that_was_not_fitted_does_not_predict() -> None:
    X, Y = measurements()
    with pytest.raises(RunError, match="not been fitted"):
        DeepEnsemble(X, Y, seed=0).posterior(X)


def test_a_fit_whose_loss_rose_says_so() -> None:
    X, Y = measurements()
    good = fit(X, Y, steps=300)
    diagnostics = fit(X, Y, warm_start=good, steps=1, learning_rate=3.0).diagnostics
    assert not diagnostics.converged
    assert "learning rate" in diagnostics.message
    assert good.diagnostics.converged


def test_weights_that_are_not_finite_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverged(self: NetworkPosterior, start: Tensor, **_: object) -> Minimum:
        return Minimum(start * float("inf"), 0.0, float("nan"))

    monkeypatch.setattr(NetworkPosterior, "maximize", diverged)
    with pytest.raises(FitError, match="ensemble diverged"):
        fit(*measurements())


def test_the_default_configuration_can_be_searched_and_written() -> None:
    config = EnsembleConfig()
    assert EnsembleConfig.from_dict(config.to_dict()) == config
    space = EnsembleConfig.search_space()
    assert set(space.names) == set(EnsembleConfig._searched or ())
    assert space.validate({name: getattr(config, name) for name in space.names})
