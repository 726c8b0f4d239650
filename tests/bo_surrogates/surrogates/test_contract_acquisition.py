"""BoTorch's acquisition functions run on every surrogate, with finite values and gradients."""

from __future__ import annotations

import pytest
import torch
from botorch.acquisition import AcquisitionFunction
from botorch.acquisition.logei import qLogExpectedImprovement, qLogNoisyExpectedImprovement
from botorch.acquisition.monte_carlo import qExpectedImprovement
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.acquisition.objective import LinearMCObjective, ScalarizedPosteriorTransform
from botorch.exceptions.errors import UnsupportedError
from botorch.sampling.get_sampler import get_sampler
from torch import Tensor

from bo_surrogates.acquisition.thompson import ThompsonSampling
from bo_surrogates.surrogates import SurrogateEntry

from .conftest import Fitted, build, measurements, points

SHAPE = torch.Size([64])


def is_finite_and_differentiable(function: AcquisitionFunction) -> None:
    X = points(3, 2).requires_grad_()
    value = function(X)
    assert value.shape == (3,)
    (gradient,) = torch.autograd.grad(value.sum(), X)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()
    assert (gradient != 0).any()
    with torch.no_grad():  # sample average approximation: a deterministic function
        torch.testing.assert_close(function(X), value)
        torch.testing.assert_close(function(X[1:2]), value[1:2], rtol=1e-4, atol=1e-6)


def test_log_expected_improvement(one: Fitted) -> None:
    sampler = get_sampler(one.model.posterior(one.X), SHAPE, seed=0)
    is_finite_and_differentiable(
        qLogExpectedImprovement(one.model, best_f=one.Y.max(), sampler=sampler)
    )


def test_expected_improvement_is_the_mean_of_the_samples_improvements(one: Fitted) -> None:
    X = points(3, 2)
    sampler = get_sampler(one.model.posterior(X), SHAPE, seed=0)
    best = one.Y.median()
    value = qExpectedImprovement(one.model, best_f=best, sampler=sampler)(X)
    samples = get_sampler(one.model.posterior(X), SHAPE, seed=0)(one.model.posterior(X))
    improvement = (samples.squeeze(-1) - best).clamp_min(0).amax(dim=-1).mean(dim=0)
    torch.testing.assert_close(value, improvement)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_log_noisy_expected_improvement(entry: SurrogateEntry, scale: float) -> None:
    X, Y = measurements()
    model = build(entry, X, scale * Y)
    function = qLogNoisyExpectedImprovement(
        model,
        X_baseline=X,
        sampler=get_sampler(model.posterior(X), SHAPE, seed=0),
        objective=LinearMCObjective(torch.tensor([1 / scale], dtype=torch.float64)),
        prune_baseline=False,
    )
    is_finite_and_differentiable(function)


def test_log_noisy_expected_improvement_with_pending_points(one: Fitted) -> None:
    function = qLogNoisyExpectedImprovement(
        one.model,
        X_baseline=one.X,
        sampler=get_sampler(one.model.posterior(one.X), SHAPE, seed=0),
        X_pending=points(2, seed=9),
    )
    is_finite_and_differentiable(function)


def test_log_noisy_expected_hypervolume_improvement(two: Fitted) -> None:
    function = qLogNoisyExpectedHypervolumeImprovement(
        two.model,
        ref_point=(two.Y.mean(dim=0) - two.Y.std(dim=0)).tolist(),
        X_baseline=two.X,
        sampler=get_sampler(two.model.posterior(two.X), SHAPE, seed=0),
    )
    is_finite_and_differentiable(function)


def test_thompson_sampling(one: Fitted) -> None:
    mean = one.model.posterior(one.X).mean.detach()
    function = ThompsonSampling(one.model, torch.ones(1, 1).double(), mean, seed=0)
    X = points(5, 1).requires_grad_()
    value = function(X)
    (gradient,) = torch.autograd.grad(value.sum(), X)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()
    assert torch.equal(function(X), value)
    function.set_X_pending(one.X[:1])
    assert not torch.equal(function(X), value)


@pytest.mark.parametrize("weights", [(0.7, -2.0), (0.0, -2.0)])
def test_a_scalarized_posterior_is_that_of_the_weighted_outcomes(
    entry: SurrogateEntry, two: Fitted, weights: tuple[float, float]
) -> None:
    check_scalarization(entry, two, torch.tensor(weights, dtype=torch.float64))


def check_scalarization(entry: SurrogateEntry, two: Fitted, weights: Tensor) -> None:
    transform = ScalarizedPosteriorTransform(weights, offset=3.0)
    X = points(3)
    plain = two.model.posterior(X)
    if entry.capabilities.posterior == "student-t" and (weights != 0).all():
        # A sum of independent t variables has no t distribution.
        with pytest.raises(UnsupportedError, match="LinearMCObjective"):
            two.model.posterior(X, posterior_transform=transform)
        return
    scalar = two.model.posterior(X, posterior_transform=transform)
    expected = plain.mean @ weights.unsqueeze(-1) + 3.0
    torch.testing.assert_close(scalar.mean, expected)
    # Whatever the correlation of the outcomes, the variance is that of the weighted samples.
    sampler = get_sampler(plain, torch.Size([4096]), seed=0)
    sampled = (sampler(plain) @ weights.unsqueeze(-1)).var(dim=0)
    # 4096 draws: five standard errors of a Gaussian's variance are 0.11; ensembles have the
    # divisor of their members in addition.
    torch.testing.assert_close(scalar.variance, sampled, rtol=0.35, atol=1e-9)
