"""Acquisition over ensembles: the values are BoTorch's on the whole ensemble, at less work."""

from __future__ import annotations

import pytest
import torch
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.acquisition.objective import LinearMCObjective
from botorch.models import ModelList
from torch import Tensor

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.acquisition.defaults import make_acquisition, make_sampler
from bo_surrogates.acquisition.ensemble import (
    FunctionwiseLogNoisyExpectedImprovement,
    sampled_functions,
)
from bo_surrogates.surrogates import SURROGATES

X = torch.rand(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = ((X - 0.4) ** 2).sum(-1, keepdim=True)
TEST = torch.rand(5, 1, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
PENDING = torch.rand(3, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
WEIGHTS = -torch.ones(1, 1, dtype=torch.float64)
SAMPLES = 16


@pytest.fixture(scope="module")
def networks():
    config = {
        "width": 8, "chains": 4, "warmup": 20, "samples": 20, "draws": 40, "map_steps": 20,
        "max_r_hat": 100.0, "min_ess": 0.0,
    }  # fmt: skip
    return SURROGATES["hmc"].build(X, Y, config=config, seed=0)


def acquisition(model, name: str = "qlognei", constraints=None, outcomes: int = 1):
    weights = torch.zeros(1, outcomes, dtype=torch.float64)
    weights[0, 0] = -1.0
    return make_acquisition(
        model, config=AcquisitionConfig(name=name, mc_samples=SAMPLES), weights=weights,
        X_baseline=X, seed=3, constraints=constraints,
    )  # fmt: skip


def botorch(model, constraints=None, outcomes: int = 1) -> qLogNoisyExpectedImprovement:
    """Over the whole ensemble, evaluated at all points at each call; nothing is pruned."""
    weights = torch.zeros(outcomes, dtype=torch.float64)
    weights[0] = -1.0
    return qLogNoisyExpectedImprovement(
        model, X_baseline=X.unique(dim=0), sampler=make_sampler(model, X, SAMPLES, 3),
        objective=LinearMCObjective(weights), constraints=constraints, prune_baseline=False,
        cache_root=False,
    )  # fmt: skip


def value_and_gradient(function, points: Tensor) -> tuple[Tensor, Tensor]:
    points = points.clone().requires_grad_()
    value = function(points)
    (gradient,) = torch.autograd.grad(value.sum(), points)
    return value.detach(), gradient


def assert_same(ours, theirs) -> None:
    for pending in (None, PENDING[:1], PENDING, None):
        for function in (ours, theirs):
            function.set_X_pending(pending)
        for points in (TEST, TEST.reshape(1, 5, 2)):  # one point, and a batch of five
            for a, b in zip(
                value_and_gradient(ours, points), value_and_gradient(theirs, points), strict=True
            ):
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_noisy_expected_improvement_is_that_of_botorch_on_the_whole_ensemble(networks):
    """Points that are pruned are the best of no function: values are the same without them."""
    ours = acquisition(networks)
    assert isinstance(ours, FunctionwiseLogNoisyExpectedImprovement)
    assert_same(ours, botorch(networks))


def test_so_it_is_with_several_outcomes_and_constraints(networks):
    model = ModelList(networks, SURROGATES["gp"].build(X, Y, seed=0))
    assert not isinstance(
        acquisition(model, outcomes=2), FunctionwiseLogNoisyExpectedImprovement
    )  # a Gaussian process's samples at points depend on the other points
    model = ModelList(networks, networks)

    def constraint(samples: Tensor) -> Tensor:
        return 0.05 - samples[..., 1]

    ours = acquisition(model, constraints=[constraint], outcomes=2)
    assert isinstance(ours, FunctionwiseLogNoisyExpectedImprovement)
    assert_same(ours, botorch(model, [constraint], 2))


@pytest.mark.parametrize("name", ["qlogei", "qucb"])
def test_functions_without_a_sample_are_not_evaluated(networks, name):
    function = acquisition(networks, name)
    assert len(function.model.weights) == SAMPLES < len(networks.weights)
    sampler = make_sampler(networks, X, SAMPLES, 3)
    whole = sampler(networks.posterior(TEST))
    part, fixed = sampled_functions(networks, sampler, X)
    assert torch.equal(fixed(part.posterior(TEST)), whole)
    noisy = part.posterior(TEST, observation_noise=True)
    chosen = sampler.members(networks.posterior(TEST))
    assert torch.equal(
        noisy.noise_variance[:, fixed.members(noisy)],
        networks.posterior(TEST, observation_noise=True).noise_variance[:, chosen],
    )
    assert len(networks.posterior(TEST).values[0]) == 40  # the model itself is as it was


def test_an_ensemble_with_prior_functions_keeps_them_in_a_part():
    config = {"members": 24, "width": 6, "steps": 20, "output_layer": "trained"}
    model = SURROGATES["ensemble"].build(X, Y, config=config, seed=0)
    draws = torch.tensor([3, 17, 5])
    part = model.subset_draws(draws)
    assert torch.equal(part.posterior(TEST).values, model.posterior(TEST).values[:, draws])
    shared = SURROGATES["ensemble"].build(
        X, Y, config=config | {"output_layer": "integrated"}, seed=0
    )
    assert shared.subset_draws(draws) is None
    sampler = make_sampler(shared, X, SAMPLES, 0)
    assert sampled_functions(shared, sampler, X) == (shared, sampler)
