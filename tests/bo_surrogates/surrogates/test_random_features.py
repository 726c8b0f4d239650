"""What is the random-feature surrogates' own: the Gaussian process of their features, the choice of
scales and ridge, learning curves. The contract is tested elsewhere."""

from __future__ import annotations

import math
from typing import Any

import gpytorch
import pytest
import torch
from torch import Tensor

from bo_surrogates.inference.eigenframework import Eigenstructure
from bo_surrogates.surrogates import SURROGATES
from bo_surrogates.surrogates.random_features import RandomFeatureSurrogate

from .conftest import BOUNDS, measurements, points

FEATURES = [
    ("rff", {"kernel": name}) for name in ("rbf", "matern32", "matern52", "relu", "erf", "gelu")
]
FEATURES += [
    ("bandlimited", {"activation": activation, "domain": domain})
    for activation, domain in (
        ("cos", "cube"),
        ("cos", "ball"),
        ("tanh", "cube"),
        ("sigmoid", "ball"),
        ("gaussian", "cube"),
    )
]


def build(name: str, X: Tensor, Y: Tensor, *, seed: int = 0, **options: Any) -> Any:
    arguments = {k: options.pop(k) for k in ("train_Yvar", "warm_start") if k in options}
    model = SURROGATES[name].build(
        X, Y, bounds=BOUNDS.to(X), seed=seed, config={"features": 60} | options, **arguments
    )
    assert isinstance(model, RandomFeatureSurrogate)
    return model


class FeatureGP(gpytorch.models.ExactGP):
    """A Gaussian process of given covariance over the rows of phi, by GPyTorch."""

    def __init__(self, phi: Tensor, y: Tensor, variance: Tensor, noise: Tensor) -> None:
        likelihood = gpytorch.likelihoods.FixedNoiseGaussianLikelihood(noise)
        super().__init__(phi, y, likelihood)
        self.mean_module = gpytorch.means.ZeroMean()
        self.covar_module = gpytorch.kernels.LinearKernel().double()
        self.covar_module.variance = variance
        self.double().eval()

    def forward(self, phi: Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(
            self.mean_module(phi), self.covar_module(phi)
        )


@pytest.mark.parametrize("n", [10, 80])
@pytest.mark.parametrize(("name", "config"), FEATURES[:1] + FEATURES[-1:])
def test_the_prediction_is_that_of_the_gaussian_process_of_the_features(
    name: str, config: dict[str, Any], n: int
) -> None:
    """Fewer observations than features, and more; two outcomes."""
    X, Y = measurements(n, m=2)
    model, new = build(name, X, Y, steps=3, **config), points(4)
    posterior = model.posterior(new)
    for c in range(2):
        y = (Y[:, c] - Y[:, c].mean()) / Y[:, c].std()
        noise = model.noise_variance[c].expand(n)
        gp = FeatureGP(model.features(X), y, model.variance[c], noise)
        with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
            expected = gp(model.features(new))
        mean = Y[:, c].mean() + Y[:, c].std() * expected.mean
        torch.testing.assert_close(posterior.mean[:, c], mean, rtol=1e-6, atol=1e-8)
        covariance = posterior.distribution.covariance_matrix.reshape(4, 2, 4, 2)[:, c, :, c]
        torch.testing.assert_close(
            covariance, Y[:, c].var() * expected.covariance_matrix, rtol=1e-5, atol=1e-8
        )


@pytest.mark.parametrize(("name", "config"), FEATURES)
def test_a_wide_model_is_the_gaussian_process_of_the_kernel(
    name: str, config: dict[str, Any]
) -> None:
    X, Y = measurements(20)
    model = build(name, X, Y, features=4000, steps=2, **config)
    unit = (X - BOUNDS[0]) / (BOUNDS[1] - BOUNDS[0])
    new = points(6)
    at = (new - BOUNDS[0]) / (BOUNDS[1] - BOUNDS[0])
    scales = model.log_scales.exp()
    if model.map.kernel(unit, unit, scales) is None:
        assert name == "bandlimited"
        assert config["activation"] != "cos"
        return
    s2, v = model.variance[0], model.noise_variance[0]
    S = s2 * (model.map.kernel(unit, unit, scales) + 1) + v * torch.eye(20)
    cross = s2 * (model.map.kernel(at, unit, scales) + 1)
    y = (Y - Y.mean()) / Y.std()
    mean = Y.mean() + Y.std() * cross @ torch.linalg.solve(S, y)
    # 4000 features: products off by about 0.01.
    assert (model.posterior(new).mean - mean).abs().max() < 0.25 * Y.std()


@pytest.mark.parametrize("name", ["rff", "bandlimited"])
@pytest.mark.parametrize("ridge", ["evidence", "loo", "gcv"])
def test_every_criterion_gives_a_usable_fit(name: str, ridge: str) -> None:
    X, Y = measurements(40, m=2)
    model = build(name, X, Y, ridge=ridge)
    new = points(200)
    truth = torch.stack(
        [
            torch.sin(5 * (new[:, 0] + 5) / 15) + new[:, 1] / 15,
            3 * ((new[:, 0] + 5) / 15 - new[:, 1] / 15).square() - 20,
        ],
        dim=-1,
    )
    error = (model.posterior(new).mean - truth).square().mean(dim=0).sqrt()
    assert (error < 0.4 * truth.std(dim=0)).all()


@pytest.mark.parametrize("ridge", ["loo", "gcv"])
def test_leave_one_out_errors_are_calibrated_by_construction(ridge: str) -> None:
    model = build("rff", *measurements(40), ridge=ridge)
    values = model.diagnostics.values
    assert values["calibration"] == pytest.approx(1.0)
    # The ratio v / s^2 is the criterion's, unless the noise is at its bound.
    assert values["ridge"] == pytest.approx(
        (model.noise_variance / model.variance).item(), rel=1e-12
    )


@pytest.mark.parametrize("known", [False, True])
def test_the_fit_is_a_maximum_of_the_evidence(known: bool) -> None:
    """In s^2 and v, or in s^2 where v is known; scales as they are."""
    X, Y = measurements(30)
    variances = torch.linspace(0.002, 0.01, 30).double().unsqueeze(-1)
    model = build("rff", X, Y, steps=200, **({"train_Yvar": variances} if known else {}))
    y, phi = ((Y - Y.mean()) / Y.std()).squeeze(-1), model.features(X)
    noise = variances.squeeze(-1) / Y.var() if known else None

    def objective(log_variance: Tensor, log_noise: Tensor) -> Tensor:
        v = noise if noise is not None else log_noise.exp().expand(30)
        S = log_variance.exp() * phi @ phi.T + torch.diag(v)
        value = torch.distributions.MultivariateNormal(torch.zeros(30).double(), S).log_prob(y)
        return value - 0.5 * log_variance.square() - 0.5 * (log_noise + 5).square()

    best = [model.variance[0].log(), model.noise_variance[0].log()]
    value = objective(*best)
    for i in range(1 if known else 2):
        for step in (-0.1, 0.1):
            moved = [b + step * (j == i) for j, b in enumerate(best)]
            assert objective(*moved) < value


def test_scales_tell_inputs_that_matter_from_those_that_do_not() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(60, 2, generator=generator, dtype=torch.float64)
    Y = (6 * X[:, :1]).sin()
    for name in ("rff", "bandlimited"):
        model = SURROGATES[name].build(X, Y, seed=0, config={"features": 200})
        assert model.log_scales[0] > model.log_scales[1] + 1.0
        shared = SURROGATES[name].build(X, Y, seed=0, config={"features": 200, "ard": False})
        assert shared.log_scales[0] == shared.log_scales[1]


def test_the_bandwidth_follows_the_complexity_of_the_function() -> None:
    x = torch.rand(80, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t, bandwidths = 2 * x - 1, []
    for w in (4.0, 16.0, 64.0):
        Y = (w * t).sin() + 0.5 * (0.7 * w * t.square()).cos()
        model = SURROGATES["bandlimited"].build(x, Y, seed=0, config={"features": 400})
        bandwidths.append(model.log_scales.exp().item())
    assert bandwidths[1] > 2 * bandwidths[0]
    assert bandwidths[2] > 2 * bandwidths[1]
    # Each is of the order of the highest frequency, w (1 + 0.7).
    assert 0.5 * 16 < bandwidths[1] < 4 * 16


def test_a_warm_start_goes_on_from_the_earlier_scales() -> None:
    X, Y = measurements(30)
    first = build("rff", X, Y)
    again = build("rff", X, Y, warm_start=first, steps=1)
    cold = build("rff", X, Y, steps=1)
    distance = (again.log_scales - first.log_scales).abs().max()
    assert distance < 0.1
    assert distance < (cold.log_scales - first.log_scales).abs().max()


@pytest.mark.parametrize("name", ["rff", "bandlimited"])
def test_a_learning_curve_predicts_the_error_at_other_numbers_of_points(name: str) -> None:
    """From 300 observations, the errors after 20 and 40: means over training sets."""
    X, Y = measurements(400, m=2)
    model = build(name, X[:300], Y[:300], features=200)
    sizes = [20, 40]
    curve = model.learning_curve(sizes)
    assert curve.shape == (2, 2)
    assert (curve[1] < curve[0]).all()
    phi, test = model.features(X[:300]), model.features(X[300:])
    y = (Y - Y[:300].mean(dim=0)) / Y[:300].std(dim=0)
    for row, n in enumerate(sizes):
        for c in range(2):
            ridge = (model.noise_variance[c] / model.variance[c]) * torch.eye(n)
            errors = []
            for seed in range(60):
                generator = torch.Generator().manual_seed(seed)
                chosen = torch.randperm(300, generator=generator)[:n]
                P = phi[chosen]
                fit = test @ P.T @ torch.linalg.solve(P @ P.T + ridge, y[chosen, c])
                errors.append((fit - y[300:, c]).square().mean())
            simulated = torch.stack(errors).mean() * Y[:300, c].var()
            # The theory is that of many, Gaussian features: within a factor here.
            assert 1 / 3 < (curve[row, c] / simulated).item() < 3.0


def test_a_learning_curve_is_the_eigenframework_on_the_gram_matrix() -> None:
    X, Y = measurements(30)
    model = build("rff", X, Y)
    unit = (X - BOUNDS[0]) / (BOUNDS[1] - BOUNDS[0])
    K = model.map.kernel(unit, unit, model.log_scales.exp()) + 1
    v, y = model.noise_variance.item(), ((Y - Y.mean()) / Y.std()).squeeze(-1)
    structure = Eigenstructure.of_gram(K, y, v)
    ridge = v / model.variance.item()
    expected = Y.var().item() * structure.test_error(5, math.inf, ridge)
    assert model.learning_curve([5], math.inf).item() == pytest.approx(expected, rel=1e-9)


def test_more_points_than_are_fitted_to_are_still_conditioned_on() -> None:
    X, Y = measurements(120)
    model = build("rff", X, Y, fit_points=20)
    residual = model.posterior(X).mean - Y
    assert residual.std() < 0.15 * Y.std()
    assert model.diagnostics.values["effective_parameters"] <= 61


@pytest.mark.parametrize("n", [20, 90])
def test_conditioning_is_regression_on_all_observations(n: int) -> None:
    X, Y = measurements(n, m=2)
    model = build("rff", X, Y)
    new, values = points(3, seed=7), Y[:3] + 0.1
    conditioned = model.condition_on_observations(new, values)
    both = model.features(torch.cat([X, new]))
    y = (torch.cat([Y, values]) - Y.mean(dim=0)) / Y.std(dim=0)
    at, posterior = points(4), conditioned.posterior(points(4))
    for c in range(2):
        ridge = model.noise_variance[c] / model.variance[c] * torch.eye(both.shape[-1])
        weights = torch.linalg.solve(both.T @ both + ridge, both.T @ y[:, c])
        mean = Y[:, c].mean() + Y[:, c].std() * (model.features(at) @ weights)
        torch.testing.assert_close(posterior.mean[:, c], mean, rtol=1e-6, atol=1e-7)
