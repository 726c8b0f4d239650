"""What is the Laplace approximation's own: its identities with linear regression and Gaussian
processes, its structures, its noise and prior. The contract is tested elsewhere."""

from __future__ import annotations

from typing import Any

import gpytorch
import pytest
import torch
from botorch.exceptions.errors import UnsupportedError
from botorch.sampling.normal import IIDNormalSampler
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.networks.gauss_newton import negative_log_posterior
from bo_surrogates.surrogates import SURROGATES
from bo_surrogates.surrogates.laplace import LinearizedLaplace

from .conftest import BOUNDS, measurements, points

SMALL: dict[str, Any] = {"width": 12, "depth": 2, "steps": 8}
SCALE = 12**0.5


def build(X: Tensor, Y: Tensor, *, Yvar: Tensor | None = None, **config: Any) -> LinearizedLaplace:
    model = SURROGATES["laplace"].build(X, Y, Yvar, bounds=BOUNDS, seed=0, config=SMALL | config)
    assert isinstance(model, LinearizedLaplace)
    return model


def network_inputs(X: Tensor) -> Tensor:
    return ((X - BOUNDS[0]) / (BOUNDS[1] - BOUNDS[0]) - 0.5) * SCALE


def standardized(Y: Tensor) -> Tensor:
    return (Y - Y.mean(dim=0)) / Y.std(dim=0)


@pytest.fixture(scope="module")
def full() -> LinearizedLaplace:
    return build(*measurements())


def test_the_full_posterior_is_a_gaussian_process_with_the_tangent_kernel(
    full: LinearizedLaplace,
) -> None:
    """GPyTorch's exact prediction, with a kernel and a mean made from automatic derivatives."""

    def jacobian(X: Tensor) -> Tensor:
        rows = []
        for x in network_inputs(X):
            theta = full.theta.clone().requires_grad_()
            with torch.enable_grad():
                value = full.network.forward(theta.unsqueeze(0), x.unsqueeze(0)).squeeze()
            rows.append(torch.autograd.grad(value, theta)[0])
        return torch.stack(rows)

    class Process(gpytorch.models.ExactGP):
        def forward(self, X: Tensor) -> gpytorch.distributions.MultivariateNormal:
            J = jacobian(X)
            values = full.network.forward(full.theta.unsqueeze(0), network_inputs(X)).flatten()
            mean = values.detach() + J @ (full.prior_mean - full.theta)
            return gpytorch.distributions.MultivariateNormal(mean, (J * full.prior.diagonal) @ J.T)

    X, Y = measurements()
    likelihood = gpytorch.likelihoods.GaussianLikelihood(
        noise_constraint=gpytorch.constraints.GreaterThan(1e-8)
    ).double()
    likelihood.noise = full.noise_variance
    process = Process(X, standardized(Y).flatten(), likelihood).eval()
    new = points(6)
    with torch.no_grad():
        expected = process(new)
        actual = full.posterior(new).distribution  # type: ignore[attr-defined]
    torch.testing.assert_close(actual.mean, Y.mean() + Y.std() * expected.mean)
    torch.testing.assert_close(
        actual.covariance_matrix, Y.var() * expected.covariance_matrix, rtol=1e-5, atol=1e-8
    )


def test_a_last_layer_posterior_is_linear_regression_on_the_last_hidden_units() -> None:
    X, Y = measurements(m=2)
    model = build(X, Y, structure="last-layer", noise="fixed", noise_variance=0.02)
    *hidden, _ = model.network.unpack(model.theta.unsqueeze(0))

    def features(X: Tensor) -> Tensor:
        h = network_inputs(X)
        for weight, bias in hidden:
            h = torch.tanh(h @ weight.squeeze(0) + bias.squeeze(0))
        return torch.cat([h, torch.ones(len(h), 1).double()], dim=-1)

    phi, new = features(X), points(6)
    variances = model.prior_variances[-2].repeat(13)
    variances[-1] = model.prior_variances[-1]
    covariance = torch.linalg.inv(torch.diag(1 / variances) + phi.T @ phi / 0.02)
    weights = covariance @ phi.T @ standardized(Y) / 0.02
    posterior = model.posterior(new)
    mean = Y.mean(dim=0) + Y.std(dim=0) * (features(new) @ weights)
    torch.testing.assert_close(posterior.mean, mean)  # type: ignore[attr-defined]
    variance = ((features(new) @ covariance) * features(new)).sum(dim=-1, keepdim=True)
    torch.testing.assert_close(
        posterior.variance,  # type: ignore[attr-defined]
        Y.var(dim=0) * variance, rtol=1e-5, atol=1e-9,
    )  # fmt: skip


@pytest.mark.parametrize("structure", ["full", "kronecker", "last-layer"])
def test_drawn_functions_have_the_posteriors_covariance_between_points_and_outcomes(
    structure: str,
) -> None:
    model = build(*measurements(m=2), structure=structure)
    X, k = points(3), 4000
    posterior: Any = model.posterior(X)
    with torch.no_grad():
        draws = model.sample_functions(k, seed=0)(X).flatten(start_dim=1)
    mean, covariance = posterior.mean.flatten(), posterior.distribution.covariance_matrix
    scale = covariance.diagonal().sqrt()
    standard = (draws - mean) / scale
    assert (standard.mean(dim=0).abs() < 6.5 / k**0.5).all()
    expected = covariance / scale.unsqueeze(-1) / scale
    # A product of two standard normal variables has a variance of at most 2: 6.5 such errors.
    assert ((standard.T @ standard / k - expected).abs() < 6.5 * (2 / k) ** 0.5).all()


def test_outcomes_are_correlated_through_the_shared_weights() -> None:
    """An observation of a point informs about the other outcome: not so for the last layer."""
    X, Y = measurements(m=2)
    between = {}
    for structure in ("full", "last-layer"):
        posterior: Any = build(X, Y, structure=structure).posterior(points(4))
        covariance = posterior.distribution.covariance_matrix.reshape(4, 2, 4, 2)
        between[structure] = covariance[:, 0, :, 1].abs().max().item()
    assert between["full"] > 1e-6
    assert between["last-layer"] == 0.0


def test_a_kronecker_factored_model_says_that_it_cannot_be_conditioned() -> None:
    X, Y = measurements()
    model = build(X, Y, structure="kronecker")
    with pytest.raises(UnsupportedError, match="warm_start"):
        model.condition_on_observations(points(2), Y[:2])


def test_fixed_noise_is_kept_and_known_variances_are_used() -> None:
    X, Y = measurements()
    fixed = build(X, Y, noise="fixed", noise_variance=0.05)
    torch.testing.assert_close(fixed.noise_variance, torch.tensor([0.05]).double())
    Yvar = torch.linspace(0.001, 0.1, len(Y), dtype=torch.float64).unsqueeze(-1)
    known = build(X, Y, Yvar=Yvar)
    new = points(3)
    noisy: Any = known.posterior(new, observation_noise=True)
    quiet: Any = known.posterior(new)
    torch.testing.assert_close(
        noisy.variance - quiet.variance, Yvar.mean().expand(3, 1), rtol=1e-6, atol=1e-9
    )


def test_the_noise_that_was_added_is_found() -> None:
    """Of 60 observations of a plane; the LogNormal prior, a factor of e, is far from deciding."""
    X, _ = measurements(60)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(60, 1, generator=generator, dtype=torch.float64)
    Z = network_inputs(X)
    for level in (0.1, 0.4):
        model = build(X, Z.sum(dim=-1, keepdim=True) + level * noise)
        variance = (model.noise_variance * model.outcome_transform.stdvs**2).item()  # type: ignore[operator]
        # 60 squares of normal variables: between half and twice their mean but for 1 in a million.
        assert 0.4 * level**2 < variance < 2.2 * level**2


def test_training_raises_the_posterior_density_of_the_weights() -> None:
    X, Y = measurements()
    fixed = {"prior": "fixed", "noise": "fixed", "noise_variance": 0.02}
    short, long = build(X, Y, steps=1, **fixed), build(X, Y, steps=20, **fixed)
    noise = torch.full_like(Y, 0.02)
    values = [
        negative_log_posterior(m.theta, m.prior, network_inputs(X), standardized(Y), noise)
        for m in (short, long)
    ]
    assert values[1] < values[0]


def test_with_a_fixed_prior_its_variances_are_those_of_the_configuration() -> None:
    X, Y = measurements()
    config = {"input_scale": 2.0, "weight_scale": 3.0, "output_scale": 0.5}
    model = build(X, Y, prior="fixed", **config)
    expected = torch.tensor([4.0 / 2, 1.0, 9.0 / 12, 1.0, 0.25 / 12, 0.25]).double()
    torch.testing.assert_close(model.prior_variances, expected)
    shared = build(X, Y, prior="shared", **config).prior_variances / expected
    torch.testing.assert_close(shared, shared[0].expand(6))


def test_a_prior_around_zero_is_centred_there() -> None:
    X, Y = measurements()
    model = build(X, Y, prior_mean="zero")
    assert (model.prior_mean == 0).all()
    started = build(X, Y)
    *hidden, last = started.network.unpack(started.prior_mean.unsqueeze(0))
    assert all((weight != 0).all() for weight, _ in hidden)
    assert (last.weight == 0).all()


def test_an_unfinished_model_and_bad_requests_are_refused(full: LinearizedLaplace) -> None:
    X, Y = measurements()
    with pytest.raises(InputError, match="k must be at least 1"):
        full.sample_functions(0)
    part = build(X, torch.cat([Y, Y.square()], dim=-1)).subset_output([0])
    with pytest.raises(UnsupportedError, match="whole model"):
        part.condition_on_observations(points(2), Y[:2])
    batches = full.fantasize(points(2), IIDNormalSampler(torch.Size([3]), seed=0))
    assert batches.batch_shape == (3,)
    with pytest.raises(UnsupportedError, match="batches"):
        batches.sample_functions(2)


def test_drawn_functions_of_a_conditioned_model_pass_the_new_observations(
    full: LinearizedLaplace,
) -> None:
    X = points(1, seed=5)
    Y = full.posterior(X).mean + 1.0  # type: ignore[attr-defined]
    exact = full.condition_on_observations(X, Y, noise=torch.tensor([1e-8]))
    with torch.no_grad():
        values = exact.sample_functions(8, seed=0)(X)
    assert ((values - Y).abs() < 1e-2).all()
