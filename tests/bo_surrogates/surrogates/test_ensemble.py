"""What is particular to `ensemble` and to surrogates of finite width; the rest is the contract."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.posteriors.posterior import Posterior
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from bo_surrogates.errors import FitError, RunError
from bo_surrogates.surrogates import SURROGATES
from bo_surrogates.surrogates.ensemble import (
    LOG_NOISE_MEAN,
    LOG_NOISE_STD,
    MIN_LEARNT,
    DeepEnsemble,
    EnsembleConfig,
)

from .conftest import BOUNDS, measurements, points

SMALL: dict[str, Any] = {"members": 5, "width": 8, "depth": 2, "steps": 40}


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


def test_members_are_networks_plus_prior_functions_in_the_users_units(model: DeepEnsemble) -> None:
    X = points(2, 3)
    values = model.posterior(X).values
    assert values.shape == (2, 5, 3, 2)
    unit = (X - BOUNDS[0]) / (BOUNDS[1] - BOUNDS[0])
    inputs = (unit - 0.5) * 12**0.5
    network, beta = model.network, model.config.prior_function
    standard = network.forward(model.weights, inputs) + beta * network.forward(
        model.prior_weights, inputs
    )
    _, Y = measurements(m=2)
    expected = Y.mean(dim=0) + Y.std(dim=0) * standard
    torch.testing.assert_close(values, expected.movedim(0, 1))


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_the_negative_log_posterior_up_to_a_constant(
    known: bool, weighted: bool
) -> None:
    X, Y = measurements(6, m=2)
    model = fit(X, Y, steps=1)
    k, P, config = 5, model.network.num_parameters, model.config
    generator = torch.Generator().manual_seed(1)
    w = torch.rand(k, 6, 1, generator=generator, dtype=torch.float64) if weighted else None
    noise = torch.rand(6 if known else 1, 2, generator=generator, dtype=torch.float64) + 0.1
    scales = model.network.scales(
        config.input_scale, config.weight_scale, output_scale=config.weight_scale
    )

    def log_posterior(theta: Tensor) -> Tensor:
        inputs = model.network_inputs(X)
        f = model.network.forward(theta, inputs) + config.prior_function * (
            model.network.forward(model.prior_weights, inputs)
        )
        standard = (Y - Y.mean(dim=0)) / Y.std(dim=0)
        likelihood = Normal(f, noise.expand_as(f).sqrt()).log_prob(standard)
        prior = Normal(torch.zeros(P).to(scales), scales).log_prob(theta)
        return ((1.0 if w is None else w) * likelihood).sum() + prior.sum()

    loss = model._negative_log_posterior(noise, w)
    a, b = torch.randn(2, k, P, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(loss(a) - loss(b), log_posterior(b) - log_posterior(a))


def test_training_descends_for_every_member() -> None:
    X, Y = measurements()
    residuals = []
    for steps in (1, 300):
        model = fit(X, Y, steps=steps)
        residuals.append((model.posterior(X).values - Y).square().mean(dim=(-2, -1)))
    assert (residuals[1] < 0.2 * residuals[0]).all()


def test_prior_functions_make_members_differ_more_between_the_data() -> None:
    X, Y = measurements()
    spread = {
        beta: fit(X, Y, prior_function=beta, members=20, steps=300)
        .posterior(points(100))
        .variance.mean()
        for beta in (0.0, 1.5)
    }
    assert spread[1.5] > 2 * spread[0.0]


def test_members_are_surer_at_the_data_than_far_from_them() -> None:
    generator = torch.Generator().manual_seed(0)
    unit = 0.2 * torch.rand(20, 2, generator=generator, dtype=torch.float64)
    X = BOUNDS[0] + (BOUNDS[1] - BOUNDS[0]) * unit
    Y = torch.sin(20 * unit.sum(dim=-1, keepdim=True))
    posterior = fit(X, Y, steps=300).posterior(torch.stack([X.mean(dim=0), BOUNDS[1]]))
    assert posterior.variance[1] > 10 * posterior.variance[0]


def test_bootstrap_weights_change_the_members_and_nothing_is_left_of_unused_prior_functions() -> (
    None
):
    X, Y = measurements()
    plain, weighted = (fit(X, Y, bootstrap=b, prior_function=0.0) for b in (False, True))
    new = points(4)
    assert not torch.allclose(plain.posterior(new).values, weighted.posterior(new).values)
    inputs = plain.network_inputs(new)
    expected = Y.mean() + Y.std() * plain.network.forward(plain.weights, inputs)
    torch.testing.assert_close(plain.posterior(new).values, expected)


# ---- noise -----------------------------------------------------------------------------------
def test_fixed_noise_is_that_of_standardized_outcomes() -> None:
    X, Y = measurements(m=2)
    posterior = fit(X, Y, noise="fixed", noise_variance=0.3).posterior(
        points(2), observation_noise=True
    )
    torch.testing.assert_close(
        posterior.noise_variance, (0.3 * Y.var(dim=0)).expand(5, 2, 2), rtol=1e-10, atol=0
    )


def test_known_noise_is_predicted_with_its_mean() -> None:
    X, Y = measurements(m=2)
    Yvar = Y.square() + 0.1
    posterior = fit(X, Y, Yvar).posterior(points(2), observation_noise=True)
    torch.testing.assert_close(posterior.noise_variance, Yvar.mean(dim=0).expand(5, 2, 2))


def test_learnt_noise_maximizes_the_marginal_likelihood_under_the_networks_prior() -> None:
    X, Y = measurements(20, m=2)
    model = fit(X, Y, steps=1)
    # The prior covariance again, from other and ten times as many networks.
    config, network = model.config, model.network
    scales = network.scales(
        config.input_scale, config.weight_scale, output_scale=config.weight_scale
    )
    draws = network.draw(10_000, scales, torch.Generator().manual_seed(99))
    functions = network.forward(draws, model.network_inputs(X))[..., 0]
    covariance = (1 + config.prior_function**2) * functions.T @ functions / 10_000
    standard = (Y - Y.mean(dim=0)) / Y.std(dim=0)
    grid = torch.linspace(math.log(MIN_LEARNT), 2, 200, dtype=torch.float64)
    for i in range(2):
        scores = [
            MultivariateNormal(
                torch.zeros(20).to(Y), covariance + t.exp() * torch.eye(20).to(Y)
            ).log_prob(standard[:, i])
            + Normal(LOG_NOISE_MEAN, LOG_NOISE_STD).log_prob(t)
            for t in grid
        ]
        best = grid[torch.stack(scores).argmax()]
        # Two Monte Carlo estimates of the covariance and two grids.
        assert (model.noise_variance[0, i].log() - best).abs() < 0.3


def test_learnt_noise_is_about_that_of_noisy_outcomes() -> None:
    X, Y = measurements(80)
    noise = torch.randn(80, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    learnt = [
        fit(X, Y + sd * noise, steps=1).posterior(X[:1], observation_noise=True).noise_variance
        for sd in (0.0, 1.0)
    ]
    assert (learnt[0] < 0.05).all()  # the data's own noise has variance 0.0025
    assert ((learnt[1] > 0.5) & (learnt[1] < 2.0)).all()
    assert (learnt[0] >= (1 - 1e-9) * MIN_LEARNT * Y.var()).all()


def test_a_tensor_of_noise_is_a_variance_of_standardized_outcomes(model: DeepEnsemble) -> None:
    _, Y = measurements(m=2)
    noise = torch.tensor([[0.5, 2.0]], dtype=torch.float64)
    posterior = model.posterior(points(4, 3), observation_noise=noise.expand(4, 3, 2))
    expected = (noise * Y.var(dim=0)).expand(4, 5, 3, 2)
    torch.testing.assert_close(posterior.noise_variance, expected)


# ---- what all surrogates of finite width share ---------------------------------------------------
def test_drawn_functions_are_the_members_each_once_before_any_twice(model: DeepEnsemble) -> None:
    X = points(3)
    values = model.posterior(X).values
    drawn = model.sample_functions(10, seed=0)(X)
    for part in (drawn[:5], drawn[5:]):
        matches = (part.unsqueeze(1) - values).abs().amax(dim=(-2, -1)) < 1e-12
        assert torch.equal(matches.sum(dim=0), torch.ones(5, dtype=torch.long))


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


def test_a_warm_start_goes_on_from_the_old_members() -> None:
    X, Y = measurements()
    old = fit(X, Y, steps=300)
    new = fit(X, Y, warm_start=old, steps=1, learning_rate=1e-6)
    cold = fit(X, Y, steps=1, learning_rate=1e-6)
    test_X = points(5)
    torch.testing.assert_close(
        new.posterior(test_X).values, old.posterior(test_X).values, rtol=0, atol=1e-3
    )
    assert not torch.allclose(
        cold.posterior(test_X).values, old.posterior(test_X).values, rtol=0, atol=1e-1
    )


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
    diagnostics = fit(X, Y, warm_start=good, steps=1, learning_rate=1.0).diagnostics
    assert not diagnostics.converged
    assert "learning rate" in diagnostics.message
    assert good.diagnostics.converged


def test_weights_that_are_not_finite_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverged(self: DeepEnsemble, *_: object) -> Callable[[Tensor], Tensor]:
        return lambda state: (state * float("inf")).sum()

    monkeypatch.setattr(DeepEnsemble, "_negative_log_posterior", diverged)
    with pytest.raises(FitError, match="ensemble diverged"):
        fit(*measurements())


def test_the_default_configuration_can_be_searched_and_written() -> None:
    config = EnsembleConfig()
    assert EnsembleConfig.from_dict(config.to_dict()) == config
    space = EnsembleConfig.search_space()
    assert set(space.names) == set(EnsembleConfig._searched or ())
    assert space.validate({name: getattr(config, name) for name in space.names})
