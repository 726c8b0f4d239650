"""What is the variational last layer's own: linear regression on its features, and when it trains
them again. The contract is tested elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bo_surrogates.surrogates import SURROGATES
from bo_surrogates.surrogates.vbll import VariationalLastLayer

from .conftest import BOUNDS, measurements, points

SMALL: dict[str, Any] = {"width": 12, "depth": 2, "steps": 40, "hidden_std": 1.0}


def build(
    X: Tensor, Y: Tensor, *, warm_start: VariationalLastLayer | None = None, **config: Any
) -> VariationalLastLayer:
    model = SURROGATES["vbll"].build(
        X, Y, bounds=BOUNDS, seed=0, config=SMALL | config, warm_start=warm_start
    )
    assert isinstance(model, VariationalLastLayer)
    return model


@pytest.fixture(scope="module")
def fitted() -> VariationalLastLayer:
    return build(*measurements())


def features(model: VariationalLastLayer, X: Tensor) -> Tensor:
    """`n x p` last hidden units and 1, times the prior's standard deviations."""
    h = ((X - BOUNDS[0]) / (BOUNDS[1] - BOUNDS[0]) - 0.5) * 12**0.5
    for weight, bias in model.network.unpack(model.theta.unsqueeze(0))[:-1]:
        h = torch.tanh(h @ weight.squeeze(0) + bias.squeeze(0))
    s = model.prior_variances[-2:].sqrt()
    return torch.cat([s[0] * h, s[1].expand(len(h), 1)], dim=-1)


@pytest.mark.parametrize("n", [8, 30])
def test_the_prediction_is_bayesian_linear_regression_on_the_features(n: int) -> None:
    """Fewer observations than features, and more; two outcomes with their own noise."""
    X, Y = measurements(n, m=2)
    model, new = build(X, Y), points(5)
    phi, z = features(model, X), (Y - Y.mean(dim=0)) / Y.std(dim=0)
    posterior: Any = model.posterior(new)
    for c in range(2):
        v = model.noise_variance[c]
        covariance = torch.linalg.inv(torch.eye(13).double() + phi.T @ phi / v)
        at_new = features(model, new)
        mean = Y[:, c].mean() + Y[:, c].std() * (at_new @ covariance @ phi.T @ z[:, c] / v)
        torch.testing.assert_close(posterior.mean[:, c], mean)
        joint = posterior.distribution.covariance_matrix.reshape(5, 2, 5, 2)[:, c, :, c]
        expected = Y[:, c].var() * at_new @ covariance @ at_new.T
        torch.testing.assert_close(joint, expected, rtol=1e-6, atol=1e-9)


def test_training_raises_the_bound() -> None:
    diagnostics = build(*measurements()).diagnostics.values
    assert diagnostics["loss_per_point"] < diagnostics["first_loss_per_point"]


def test_observations_that_were_expected_leave_the_features_as_they_are(
    fitted: VariationalLastLayer,
) -> None:
    X, Y = measurements()
    new = points(3, seed=9)
    expected = fitted.posterior(new).mean.detach()  # type: ignore[attr-defined]
    model = build(torch.cat([X, new]), torch.cat([Y, expected]), warm_start=fitted)
    assert model.diagnostics.values["trained"] == 0.0
    assert model.diagnostics.values["new_observations"] == 3.0
    assert torch.equal(model.theta, fitted.theta)
    # The recursive update of the earlier model, in the user's units.
    updated: Any = fitted.condition_on_observations(new, expected).posterior(points(6))
    again: Any = model.posterior(points(6))
    # Only the standardization differs: the mean of the outcomes moved by less than 0.1 deviations.
    unit = Y.std()
    torch.testing.assert_close(again.mean / unit, updated.mean / unit, rtol=0, atol=0.02)
    torch.testing.assert_close(again.variance, updated.variance, rtol=0.05, atol=1e-6)


def test_observations_that_surprise_train_the_features_again(
    fitted: VariationalLastLayer,
) -> None:
    X, Y = measurements()
    new = points(3, seed=9)
    surprising = fitted.posterior(new).mean.detach() + 5.0  # type: ignore[attr-defined]
    model = build(torch.cat([X, new]), torch.cat([Y, surprising]), warm_start=fitted)
    assert model.diagnostics.values["trained"] == 1.0
    assert not torch.equal(model.theta, fitted.theta)
    # Whatever happens, with a threshold of 0 features are trained, and with none never.
    expected = fitted.posterior(new).mean.detach() + 0.01  # type: ignore[attr-defined]
    data = torch.cat([X, new]), torch.cat([Y, expected])
    always = build(*data, warm_start=fitted, surprise=0.0)
    assert always.diagnostics.values["trained"] == 1.0
    never = build(
        torch.cat([X, new]), torch.cat([Y, surprising]), warm_start=fitted, surprise=float("inf")
    )
    assert never.diagnostics.values["trained"] == 0.0


def test_changed_outcomes_at_old_inputs_are_new_observations(fitted: VariationalLastLayer) -> None:
    X, Y = measurements()
    assert build(X, Y, warm_start=fitted).diagnostics.values["new_observations"] == 0.0
    flipped = build(X, -Y, warm_start=fitted)
    assert flipped.diagnostics.values["trained"] == 1.0


def test_kept_features_keep_the_noise_and_scale_in_the_users_units(
    fitted: VariationalLastLayer,
) -> None:
    """More observations change the standard deviation that outcomes are divided by."""
    X, Y = measurements()
    new = points(2, seed=3)
    expected = fitted.posterior(new).mean.detach()  # type: ignore[attr-defined]
    model = build(torch.cat([X, new]), torch.cat([Y, expected]), warm_start=fitted)
    ratio = (model.outcome_transform.stdvs / fitted.outcome_transform.stdvs).item()  # type: ignore[operator]
    assert ratio != pytest.approx(1.0, abs=1e-6)
    torch.testing.assert_close(model.noise_variance * ratio**2, fitted.noise_variance)
    torch.testing.assert_close(model.prior_variances[-2:] * ratio**2, fitted.prior_variances[-2:])


def test_fixed_noise_is_kept() -> None:
    model = build(*measurements(), noise="fixed", noise_variance=0.05)
    torch.testing.assert_close(model.noise_variance, torch.tensor([0.05]).double())


def test_a_small_hidden_std_leaves_the_features_random(fitted: VariationalLastLayer) -> None:
    still = build(*measurements(), hidden_std=1e-4)
    moved = (still.theta - still.prior_mean).abs().max()
    assert 0.0 < moved < 1e-2
    assert (fitted.theta - fitted.prior_mean).abs().max() > 10 * moved
