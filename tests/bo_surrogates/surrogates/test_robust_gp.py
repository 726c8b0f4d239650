"""What is `robust_gp`'s own: outliers are found, and without any it is `gp`."""

from copy import deepcopy

import pytest
import torch
from gpytorch.mlls import ExactMarginalLogLikelihood

from bo_surrogates.surrogates import SURROGATES

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(40, 1, generator=GENERATOR, dtype=torch.float64)
CLEAN = torch.sin(6 * X) + 0.05 * torch.randn(40, 1, generator=GENERATOR, dtype=torch.float64)
WRONG = torch.tensor([3, 11, 22, 35])
Y = CLEAN.clone()
Y[WRONG] += torch.tensor([[4.0], [-5.0], [3.0], [6.0]])
TEST = torch.linspace(0.05, 0.95, 50, dtype=torch.float64).unsqueeze(-1)
TRUTH = torch.sin(6 * TEST)


@pytest.fixture(scope="module")
def robust():
    return SURROGATES["robust_gp"].build(X, Y, seed=0)


@pytest.fixture(scope="module")
def undisturbed():
    return SURROGATES["robust_gp"].build(X, CLEAN, seed=0)


def test_exactly_the_outliers_are_found(robust):
    assert robust.outliers.nonzero().flatten().tolist() == WRONG.tolist()
    assert robust.diagnostics.values["outliers"] == 4


def test_predictions_are_those_of_the_data_without_the_outliers(robust):
    kept = torch.ones(40, dtype=torch.bool)
    kept[WRONG] = False
    reference = SURROGATES["gp"].build(X[kept], Y[kept], seed=0)
    error = (robust.posterior(TEST).mean - TRUTH).square().mean().sqrt()
    plain = SURROGATES["gp"].build(X, Y, seed=0).posterior(TEST).mean - TRUTH
    assert error < 2 * (reference.posterior(TEST).mean - TRUTH).square().mean().sqrt()
    assert error < 0.2 * plain.square().mean().sqrt()


def test_the_noise_of_new_observations_is_that_of_regular_points(robust):
    with_noise = robust.posterior(TEST, observation_noise=True).variance
    stdv = (with_noise - robust.posterior(TEST).variance).sqrt()
    # 36 regular points: a standard deviation is known to 12 %; five of these.
    assert ((stdv / 0.05).log().abs() < 0.6).all()


def test_without_outliers_it_is_the_gaussian_process(undisturbed):
    assert not undisturbed.outliers.any()
    reference = SURROGATES["gp"].build(X, CLEAN, seed=0).posterior(TEST)
    found = undisturbed.posterior(TEST)
    torch.testing.assert_close(found.mean, reference.mean, atol=2e-3, rtol=0)
    torch.testing.assert_close(found.variance, reference.variance, atol=1e-5, rtol=0.05)


def test_the_fit_is_a_maximum_of_gpytorchs_marginal_likelihood(robust):
    model = deepcopy(robust).train()
    mll = ExactMarginalLogLikelihood(model.likelihood, model)
    inputs = [model.transform_inputs(x) for x in model.train_inputs]
    mll(model(*model.train_inputs), model.train_targets, *inputs).backward()
    share = model.likelihood.noise_covar.raw_rho
    for name, parameter in model.named_parameters():
        if parameter is not share:
            assert parameter.grad.abs().max() < 1e-4, name
    inside = (share > 0) & (share < 0.999)
    assert (share.grad[inside].abs() < 1e-3).all()
    assert (share.grad[share >= 0.999] > -1e-3).all()


def test_the_posterior_is_that_of_dense_linear_algebra(robust):
    with torch.no_grad():
        joint = torch.cat([X, TEST])
        K = robust.covar_module(joint).to_dense()
        noise = robust.training_noise().to_dense()
        assert (noise.diagonal()[WRONG] > 100 * noise.diagonal()[0]).all()
        target, _ = robust.outcome_transform(Y)
        constant = robust.mean_module.constant
        mean = constant + K[40:, :40] @ torch.linalg.solve(K[:40, :40] + noise, target - constant)
        expected, _ = robust.outcome_transform.untransform(mean)
    torch.testing.assert_close(robust.posterior(TEST).mean, expected, atol=1e-6, rtol=0)


def test_new_observations_are_regular_points(robust):
    new = robust.condition_on_observations(TEST[:1], torch.tensor([[3.0]], dtype=torch.float64))
    assert abs(new.posterior(TEST[:1]).mean.item() - 3.0) < 0.5 * abs(
        robust.posterior(TEST[:1]).mean.item() - 3.0
    )


def test_drawn_functions_discount_the_outliers(robust):
    with torch.no_grad():
        values = robust.sample_functions(200, seed=0)(X[WRONG])
    assert ((values.mean(dim=0) - torch.sin(6 * X[WRONG])).abs() < 0.3).all()


def test_a_higher_cost_finds_fewer_outliers_down_to_none():
    counts = [
        SURROGATES["robust_gp"]
        .build(X[:20], Y[:20], config={"outlier_cost": cost}, seed=0)
        .outliers.sum()
        .item()
        for cost in (0.0, 1000.0)
    ]
    assert counts[0] > 2
    assert counts[1] == 0
