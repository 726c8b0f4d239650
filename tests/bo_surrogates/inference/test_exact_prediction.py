"""Predictions from one Cholesky factor are GPyTorch's."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from botorch.models.utils import gpt_posterior_settings
from gpytorch.models import ExactGP

from bo_surrogates.surrogates import SURROGATES

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(12, 2, generator=GENERATOR, dtype=torch.float64)
Y = torch.stack([torch.sin(5 * X[:, 0]) + X[:, 1], torch.cos(4 * X[:, 1])], dim=-1)
NEW = torch.rand(3, 4, 2, generator=GENERATOR, dtype=torch.float64)


@pytest.fixture(scope="module", params=["gp", "nngp"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=[1, 2])
def model(name: str, request: pytest.FixtureRequest) -> Any:
    """Of one and of two outputs."""
    return SURROGATES[name].build(X, Y[:, : request.param], seed=0).eval()


def scaled(model: Any, new: torch.Tensor) -> torch.Tensor:
    """Inputs as the model's `__call__` takes them."""
    return new.unsqueeze(-3).expand(*new.shape[:-2], 2, -1, -1) if model.num_outputs > 1 else new


def by_gpytorch(model: Any, new: torch.Tensor) -> Any:
    with gpt_posterior_settings():
        return ExactGP.__call__(model, new)


@pytest.mark.parametrize("shape", [(), (3,), (3, 1)], ids=str)
@pytest.mark.parametrize("q", [1, 4])
def test_means_covariances_and_gradients_are_gpytorchs(model, shape, q):
    new = scaled(model, NEW[:, :q].expand(2, 3, q, 2)[0] if shape else NEW[0, :q])
    if len(shape) == 2:
        new = new.unsqueeze(1)
    found, expected = [], []
    for predict, into in ((model, found), (lambda x: by_gpytorch(deepcopy(model), x), expected)):
        at = new.clone().requires_grad_()
        with gpt_posterior_settings():
            law = predict(at)
        covariance = law.covariance_matrix
        (gradient,) = torch.autograd.grad(law.mean.sum() + covariance.square().sum(), at)
        into += [law.mean, covariance, gradient]
    assert found[0].shape == new.shape[:-1]
    for own, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-7, atol=1e-9)


def test_known_noise_variances_are_each_points_own(name):
    variance = torch.linspace(0.01, 0.5, 12, dtype=torch.float64).unsqueeze(-1)
    model: Any = SURROGATES[name].build(X, Y[:, :1], variance, seed=0).eval()
    own, theirs = model(NEW), by_gpytorch(deepcopy(model), NEW)
    torch.testing.assert_close(own.mean, theirs.mean)
    torch.testing.assert_close(own.covariance_matrix, theirs.covariance_matrix)


def test_the_factor_is_made_once_and_anew_when_the_model_changes(model):
    model = deepcopy(model)
    new = scaled(model, NEW)
    before = model(new).mean
    kept = model.observed()
    assert model.observed() is kept
    copied = deepcopy(model)
    torch.testing.assert_close(copied(new).mean, before)
    model.train()
    with torch.no_grad():
        model.mean_module.raw_constant.add_(0.5)
    model.eval()
    assert model.observed() is not kept
    torch.testing.assert_close(model(new).mean, by_gpytorch(deepcopy(model), new).mean)
    torch.testing.assert_close(copied(new).mean, before)
    model.set_train_data(targets=model.train_targets + 1.0)
    torch.testing.assert_close(model(new).mean, by_gpytorch(deepcopy(model), new).mean)


def test_fantasies_do_not_change_the_model_they_are_of(model):
    before = model(scaled(model, NEW)).mean
    at = NEW[:, :1]
    targets = Y[:3].unsqueeze(1)[..., : model.num_outputs]
    conditioned = model.condition_on_observations(at, targets)
    assert conditioned.posterior(NEW).mean.shape == (3, 4, model.num_outputs)
    torch.testing.assert_close(model(scaled(model, NEW)).mean, before)
    one = model.condition_on_observations(at[0], targets[0])
    torch.testing.assert_close(
        conditioned.posterior(NEW).mean[0], one.posterior(NEW).mean[0], rtol=1e-6, atol=1e-8
    )


def test_derivatives_in_the_hyper_parameters_go_through_gpytorch(model):
    """BoTorch asks for them by turning the detaching of caches off."""
    from botorch.settings import propagate_grads

    model = deepcopy(model)
    with propagate_grads(True):
        mean = model.posterior(NEW[0]).mean.sum()
    (noise,) = torch.autograd.grad(mean, [model.likelihood.noise_covar.raw_noise])
    assert (noise != 0).all()
