"""Fitting: deterministic by its seed, apart from the global random state, restartable, and
conditioned on new observations exactly or not at all."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from botorch.exceptions.errors import UnsupportedError
from torch import Tensor

from bo_surrogates.surrogates import Surrogate, SurrogateEntry

from .conftest import Fitted, build, cheap_config, measurements, points


def same_posterior(a: Surrogate, b: Surrogate) -> bool:
    X = points(5)
    first, second = a.posterior(X), b.posterior(X)
    return torch.equal(first.mean, second.mean) and torch.equal(first.variance, second.variance)


def test_the_same_seed_gives_the_same_model(entry: SurrogateEntry, one: Fitted) -> None:
    assert same_posterior(one.model, build(entry, one.X, one.Y, seed=0))


def test_without_a_seed_the_global_seed_decides(entry: SurrogateEntry, one: Fitted) -> None:
    models = []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            models.append(build(entry, one.X, one.Y, seed=None))
    assert models[0].seed == models[1].seed
    assert same_posterior(*models)


def test_the_number_of_threads_does_not_change_the_model(
    entry: SurrogateEntry, one: Fitted
) -> None:
    before = torch.get_num_threads()
    X, means = points(5), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            model = build(entry, one.X, one.Y, config=cheap_config(entry, steps=10))
            means.append(model.posterior(X).mean)
    finally:
        torch.set_num_threads(before)
    # Sums may be split differently between threads: equal up to rounding that the fit amplifies.
    unit = one.Y.std().item()
    torch.testing.assert_close(means[0], means[1], rtol=0, atol=1e-5 * unit)


def test_building_leaves_the_global_random_state_alone(entry: SurrogateEntry, one: Fitted) -> None:
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    model = build(entry, one.X, one.Y, seed=1)
    model.sample_functions(2, seed=1)(points(2))
    model.posterior(points(2)).mean  # noqa: B018
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))
    assert random.getstate() == before[2]


def test_a_model_is_ready_to_predict_and_needs_no_training_mode(fitted: Fitted) -> None:
    assert not fitted.model.training
    assert fitted.model.diagnostics.converged
    assert fitted.model.diagnostics.values


def test_a_warm_start_gives_a_working_model(entry: SurrogateEntry, one: Fitted) -> None:
    X, Y = measurements(n=18)
    model = build(entry, X, Y, warm_start=one.model)
    assert model.diagnostics.converged
    residual = model.posterior(X).mean - Y
    assert residual.std() < 0.7 * Y.std()
    assert same_posterior(model, build(entry, X, Y, warm_start=one.model))


def test_a_warm_start_does_not_change_the_old_model(entry: SurrogateEntry) -> None:
    X, Y = measurements()
    old = build(entry, X, Y)
    before = {k: v.clone() for k, v in old.state_dict().items()}
    build(entry, X, -Y, warm_start=old)
    assert all(torch.equal(v, before[k]) for k, v in old.state_dict().items())


# ---- conditioning --------------------------------------------------------------------------------
def conditional(
    entry: SurrogateEntry, model: Surrogate, X: Tensor, X_new: Tensor, Y_new: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and variance at X given noisy observations, from the joint posterior alone.

    Gaussian: m* + K*n (Knn + N)^-1 (y - mn) and diag(K** - K*n (Knn + N)^-1 Kn*). The parts of a
    multivariate t of v degrees of freedom have the same mean, v + n degrees of freedom, and the
    scale matrix times (v + r) / (v + n), where r = (y - mn)' (Knn + N)^-1 (y - mn).
    """
    joint = model.posterior(torch.cat([X, X_new]))
    noise = (
        model.posterior(X_new, observation_noise=True).variance - model.posterior(X_new).variance
    ).squeeze(-1)
    heavy_tails = entry.capabilities.posterior == "student-t"
    if heavy_tails:
        v = joint.df.item()
        matrix = joint.unit.square() * joint.scale_matrix.squeeze(-3)
        noise = noise * (v - 2) / v
    else:
        matrix = joint.distribution.covariance_matrix
    mean, k, n = joint.mean.squeeze(-1), len(X), len(X_new)
    observed = matrix[k:, k:] + torch.diag(noise)
    gain = torch.linalg.solve(observed, matrix[k:, :k]).T
    residual = Y_new.squeeze(-1) - mean[k:]
    variance = (matrix[:k, :k] - gain @ matrix[k:, :k]).diagonal()
    if heavy_tails:
        r = residual @ torch.linalg.solve(observed, residual)
        variance = variance * (v + r) / (v + n) * (v + n) / (v + n - 2)
    return mean[:k] + gain @ residual, variance


def test_conditioning_is_exact_where_it_is_declared(entry: SurrogateEntry) -> None:
    if not entry.capabilities.exact_conditioning:
        pytest.skip(f"{entry.name} does not declare exact conditioning")
    X, Y = measurements()
    model = build(entry, X, 50 * Y + 1000)
    X_new, test_X = points(3, seed=7), points(4)
    Y_new = 50 * torch.tensor([[2.0], [-1.0], [0.5]], dtype=torch.float64) + 1000
    mean, variance = conditional(entry, model, test_X, X_new, Y_new)
    conditioned = model.condition_on_observations(X_new, Y_new).posterior(test_X)
    torch.testing.assert_close(conditioned.mean.squeeze(-1), mean, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(conditioned.variance.squeeze(-1), variance, rtol=1e-4, atol=1e-3)
    again = model.posterior(test_X)
    assert not torch.allclose(again.mean.squeeze(-1), mean)  # the old model is as it was


def test_fantasies_are_exact_where_conditioning_is_declared(entry: SurrogateEntry) -> None:
    if not entry.capabilities.exact_conditioning:
        pytest.skip(f"{entry.name} does not declare exact conditioning")
    from botorch.sampling.normal import IIDNormalSampler

    X, Y = measurements()
    model = build(entry, X, Y)
    X_new, test_X = points(2, seed=7), points(3)
    sampler = IIDNormalSampler(torch.Size([4]), seed=0)
    posterior = model.fantasize(X_new, sampler).posterior(test_X)
    assert posterior.mean.shape == (4, 3, 1)
    fantasies = sampler(model.posterior(X_new, observation_noise=True))
    for i in range(4):
        mean, variance = conditional(entry, model, test_X, X_new, fantasies[i])
        torch.testing.assert_close(posterior.mean[i].squeeze(-1), mean, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(
            posterior.variance[i].squeeze(-1), variance, rtol=1e-4, atol=1e-6
        )


def test_conditioning_that_is_not_exact_is_refused_with_an_alternative(
    entry: SurrogateEntry, one: Fitted
) -> None:
    if entry.capabilities.exact_conditioning:
        pytest.skip(f"{entry.name} conditions exactly")
    with pytest.raises(UnsupportedError, match="warm_start"):
        one.model.condition_on_observations(points(2), torch.zeros(2, 1).to(one.Y))
    with pytest.raises(UnsupportedError, match="warm_start"):
        one.model.fantasize(points(2), None)
