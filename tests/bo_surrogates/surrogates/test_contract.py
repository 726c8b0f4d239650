"""The predictive distribution every registered surrogate owes: shapes, samples, gradients,
quantiles, densities and drawn functions. Models come from `conftest.py`."""

from __future__ import annotations

import pytest
import torch
from botorch.sampling.get_sampler import get_sampler
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.seeding import fixed_seed
from bo_surrogates.surrogates import SurrogateEntry

from .conftest import Fitted, assert_samples_follow, points

BATCHES = [(), (3,), (2, 3)]
LEVELS = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
SAMPLER_SHAPE = torch.Size([16])


@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_posterior_has_the_shapes_of_botorch(fitted: Fitted, batch: tuple[int, ...]) -> None:
    m = fitted.Y.shape[-1]
    X = points(*batch, 4)
    posterior = fitted.model.posterior(X)
    expected = torch.Size([*batch, 4, m])
    assert posterior.mean.shape == expected
    assert posterior.variance.shape == expected
    assert (posterior.variance >= 0).all()
    assert posterior.rsample(torch.Size([5])).shape == (5, *expected)
    assert posterior.rsample(torch.Size([2, 5])).shape == (2, 5, *expected)
    sampler = get_sampler(posterior, SAMPLER_SHAPE, seed=1)
    assert sampler(posterior).shape == (16, *expected)
    assert fitted.model.quantile(X, LEVELS).shape == (3, *expected)
    assert fitted.model.quantile(X, LEVELS[:1]).shape == (1, *expected)
    assert fitted.model.log_predictive_density(X, posterior.mean).shape == expected
    assert fitted.model.num_outputs == m
    assert fitted.model.batch_shape == torch.Size()


def test_a_point_has_the_same_marginals_in_any_batch(fitted: Fitted) -> None:
    X = points(2, 3, 4)
    together = fitted.model.posterior(X)
    alone = fitted.model.posterior(X[1, 2, 3:])
    scale = fitted.Y.std(dim=0)
    torch.testing.assert_close(
        together.mean[1, 2, 3:] / scale, alone.mean / scale, rtol=0, atol=1e-8
    )
    torch.testing.assert_close(
        together.variance[1, 2, 3:] / scale**2, alone.variance / scale**2, rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("observation_noise", [False, True])
def test_output_indices_select_outputs(two: Fitted, observation_noise: bool) -> None:
    X = points(3, 4)
    full = two.model.posterior(X, observation_noise=observation_noise)
    for outputs in ([0], [1], [1, 0]):
        part = two.model.posterior(X, output_indices=outputs, observation_noise=observation_noise)
        torch.testing.assert_close(part.mean, full.mean[..., outputs])
        torch.testing.assert_close(part.variance, full.variance[..., outputs])
        assert part.rsample(torch.Size([3])).shape == (3, 3, 4, len(outputs))


def test_subset_output_is_a_model_of_these_outputs(two: Fitted) -> None:
    X = points(3, 4)
    full = two.model.posterior(X)
    for outputs in ([0], [1]):
        part = two.model.subset_output(outputs)
        assert part.num_outputs == len(outputs)
        torch.testing.assert_close(part.posterior(X).mean, full.mean[..., outputs])
        torch.testing.assert_close(part.posterior(X).variance, full.variance[..., outputs])


def test_observation_noise_increases_the_variance_and_leaves_the_mean(fitted: Fitted) -> None:
    X = points(5)
    quiet, noisy = (fitted.model.posterior(X, observation_noise=on) for on in (False, True))
    torch.testing.assert_close(quiet.mean, noisy.mean)
    assert (noisy.variance > quiet.variance).all()


# ---- samples ---------------------------------------------------------------------------------
def test_a_sample_is_a_function_of_the_input(fitted: Fitted) -> None:
    a, b = points(2)
    posterior = fitted.model.posterior(torch.stack([a, b, a]))
    with fixed_seed(0):
        samples = posterior.rsample(torch.Size([64]))
    spread = samples.std(dim=0)
    # Repeated points make a covariance singular; the jitter of its Cholesky factor is allowed for.
    assert ((samples[:, 0] - samples[:, 2]).abs() < 0.02 * fitted.Y.std(dim=0)).all()
    assert (spread > 0).all()


def test_fixed_base_samples_give_identical_draws(fitted: Fitted) -> None:
    posterior = fitted.model.posterior(points(3))
    sampler = get_sampler(posterior, SAMPLER_SHAPE, seed=3)
    first = sampler(posterior)
    assert torch.equal(first, sampler(posterior))
    assert torch.equal(first, get_sampler(posterior, SAMPLER_SHAPE, seed=3)(posterior))
    assert not torch.equal(first, get_sampler(posterior, SAMPLER_SHAPE, seed=4)(posterior))


@pytest.mark.parametrize("observation_noise", [False, True])
def test_fixed_base_samples_do_not_depend_on_the_place_in_a_batch(
    fitted: Fitted, observation_noise: bool
) -> None:
    X = points(3, 2)
    together = fitted.model.posterior(X, observation_noise=observation_noise)
    alone = fitted.model.posterior(X[2:], observation_noise=observation_noise)
    sampler = get_sampler(together, SAMPLER_SHAPE, seed=3)
    torch.testing.assert_close(
        sampler(together)[:, 2:],
        get_sampler(alone, SAMPLER_SHAPE, seed=3)(alone),
        rtol=0,
        atol=1e-6 * fitted.Y.std().item(),
    )


@pytest.mark.parametrize("observation_noise", [False, True])
def test_samples_follow_the_quantiles(fitted: Fitted, observation_noise: bool) -> None:
    X = points(3)
    posterior = fitted.model.posterior(X, observation_noise=observation_noise)
    with fixed_seed(0):
        samples = posterior.rsample(torch.Size([20_000]))
    assert_samples_follow(samples, fitted.model.quantile(X, LEVELS, observation_noise), LEVELS)


# ---- gradients -------------------------------------------------------------------------------
def test_gradients_are_finite_at_training_points_and_duplicates(fitted: Fitted) -> None:
    X = torch.stack([fitted.X[0], fitted.X[0], points()]).requires_grad_()
    posterior = fitted.model.posterior(X)
    sampler = get_sampler(posterior, SAMPLER_SHAPE, seed=0)
    quantile = fitted.model.quantile(X, LEVELS, observation_noise=True)
    for value in (posterior.mean, posterior.variance, sampler(posterior), quantile):
        (gradient,) = torch.autograd.grad(value.sum(), X, retain_graph=True)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("statistic", ["mean", "variance", "quantile"])
def test_gradients_equal_finite_differences(fitted: Fitted, statistic: str) -> None:
    def value(X: Tensor) -> Tensor:
        if statistic == "quantile":
            return fitted.model.quantile(X, LEVELS, observation_noise=True).sum()
        return getattr(fitted.model.posterior(X), statistic).sum()

    X = points(2).requires_grad_()
    (gradient,) = torch.autograd.grad(value(X), X)
    step = 1e-5
    with torch.no_grad():
        for i in range(2):
            for j in range(2):
                shift = torch.zeros_like(X)
                shift[i, j] = step
                difference = (value(X + shift) - value(X - shift)) / (2 * step)
                torch.testing.assert_close(gradient[i, j], difference, rtol=1e-4, atol=1e-6)


# ---- quantiles and densities -----------------------------------------------------------------
@pytest.mark.parametrize("observation_noise", [False, True])
def test_quantiles_do_not_decrease_with_the_level(fitted: Fitted, observation_noise: bool) -> None:
    levels = torch.linspace(0.01, 0.99, 15, dtype=torch.float64)
    quantiles = fitted.model.quantile(points(2, 3), levels, observation_noise)
    steps = quantiles.diff(dim=0)
    assert (steps > 0).all() if observation_noise else (steps >= 0).all()
    assert (quantiles[-1] > quantiles[0]).all()


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_quantile_refuses_levels_outside_the_unit_interval(one: Fitted, level: float) -> None:
    with pytest.raises(InputError, match="levels"):
        one.model.quantile(points(2), torch.tensor([0.5, level]))


@pytest.mark.parametrize(("low", "high"), [(1e-9, 1 - 1e-9), (0.05, 0.7)])
def test_predictive_density_integrates_to_the_probability_between_quantiles(
    fitted: Fitted, low: float, high: float
) -> None:
    X, m = points(1, 1), fitted.Y.shape[-1]
    levels = torch.tensor([low, high], dtype=torch.float64)
    ends = fitted.model.quantile(X, levels, observation_noise=True)
    grid = ends[0] + (ends[1] - ends[0]) * torch.linspace(
        0, 1, 20_001, dtype=torch.float64
    ).reshape(-1, 1, 1)
    with torch.no_grad():
        density = fitted.model.log_predictive_density(X.expand(20_001, 1, 2), grid).exp()
    mass = torch.trapezoid(density, grid, dim=0)
    torch.testing.assert_close(mass, torch.full((1, m), high - low).to(mass), rtol=0, atol=1e-6)


# ---- drawn functions -------------------------------------------------------------------------
@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_drawn_functions_have_the_posteriors_shapes(fitted: Fitted, batch: tuple[int, ...]) -> None:
    functions = fitted.model.sample_functions(3, seed=0)
    assert functions(points(*batch, 4)).shape == (3, *batch, 4, fitted.Y.shape[-1])


def test_a_drawn_function_has_one_value_at_one_input(fitted: Fitted) -> None:
    functions = fitted.model.sample_functions(3, seed=0)
    X = points(2, 4)
    values = functions(X)
    torch.testing.assert_close(functions(X), values, rtol=0, atol=0)
    torch.testing.assert_close(functions(X[1, 2:3]), values[:, 1, 2:3])
    assert not torch.allclose(values[0], values[1])


def test_drawn_functions_are_determined_by_their_seed(fitted: Fitted) -> None:
    X = points(4)
    values = fitted.model.sample_functions(5, seed=1)(X)
    assert torch.equal(values, fitted.model.sample_functions(5, seed=1)(X))
    assert not torch.equal(values, fitted.model.sample_functions(5, seed=2)(X))


def test_drawn_functions_are_differentiable(fitted: Fitted) -> None:
    functions = fitted.model.sample_functions(2, seed=0)
    X = torch.cat([fitted.X[:1], points(1)]).requires_grad_()
    (gradient,) = torch.autograd.grad(functions(X).sum(), X)
    assert torch.isfinite(gradient).all()
    assert (gradient != 0).any()
    step = torch.tensor([[0.0, 0.0], [1e-5, 0.0]], dtype=torch.float64)
    with torch.no_grad():
        difference = (functions(X + step) - functions(X - step)).sum() / 2e-5
    torch.testing.assert_close(gradient[1, 0], difference, rtol=1e-4, atol=1e-6)


def test_drawn_functions_are_distributed_as_the_posterior(
    entry: SurrogateEntry, fitted: Fitted
) -> None:
    X = points(4)
    with torch.no_grad():
        values = fitted.model.sample_functions(400, seed=0)(X)
    assert_samples_follow(values, fitted.model.quantile(X, LEVELS), LEVELS)
