"""`nngp` beyond the contract: exact inference, fitting, drawn functions, conditioning."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from botorch.models.utils.gpytorch_modules import get_gaussian_likelihood_with_lognormal_prior
from torch import Tensor
from torch.distributions import LogNormal, MultivariateNormal, Normal

from bo_surrogates.errors import FitError, InputError
from bo_surrogates.kernels.dual_activations import DUAL_ACTIVATIONS
from bo_surrogates.kernels.infinite_width import NNGPKernel
from bo_surrogates.kernels.random_network import HIDDEN_WIDTH
from bo_surrogates.surrogates import SURROGATES
from bo_surrogates.surrogates.base import load_surrogate
from bo_surrogates.surrogates.infinite_width import NNGP, NNGPConfig

ENTRY = SURROGATES["nngp"]
BOUNDS = torch.tensor([[-1.0, 10.0, 0.0], [1.0, 30.0, 5.0]], dtype=torch.float64)


def data(n: int = 20, m: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    U = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    first = 40 + 5 * torch.sin(4 * U[:, 0]) * U[:, 1]
    second = -0.01 * (U[:, 0] - U[:, 2]).abs()
    Y = torch.stack([first, second], dim=-1)[:, :m]
    noise = torch.randn(n, m, generator=generator, dtype=torch.float64)
    return BOUNDS[0] + U * (BOUNDS[1] - BOUNDS[0]), Y + 0.05 * Y.std(dim=0) * noise


def inputs(n: int = 4, seed: int = 1) -> Tensor:
    return data(n, seed=seed)[0]


def build(X: Tensor, Y: Tensor, **options: object) -> NNGP:
    model = ENTRY.build(X, Y, **{"bounds": BOUNDS.to(X), "seed": 0, **options})  # type: ignore[arg-type]
    assert isinstance(model, NNGP)
    return model


@pytest.fixture(scope="module")
def fitted() -> NNGP:
    return build(*data())


@pytest.fixture(scope="module")
def shallow() -> NNGP:
    """One hidden layer, where the features of random networks are unbiased."""
    return build(*data(10), config={"depth": 1, "activation": "relu"})


@pytest.fixture(scope="module")
def two_outputs() -> NNGP:
    return build(*data(m=2), config={"depth": 2, "activation": "erf"})


def unit(X: Tensor) -> Tensor:
    return (X - BOUNDS[0]) / (BOUNDS[1] - BOUNDS[0])


def log_evidence(model: NNGP, X: Tensor, Y: Tensor) -> Tensor:
    """Log marginal likelihood plus log priors, written out with torch's distributions."""
    kernel: NNGPKernel = model.covar_module
    y = (Y[:, 0] - Y.mean()) / Y.std()
    noise = model.likelihood.noise.squeeze()
    K = kernel(unit(X)).to_dense() + noise * torch.eye(len(y), dtype=torch.float64)
    mean = model.mean_module.constant.expand(len(y))
    priors = (
        Normal(0.0, 1.0).log_prob(kernel.log_input_scale).sum()
        + Normal(0.0, 1.0).log_prob(kernel.log_output_variance).sum()
        + LogNormal(-4.0, 1.0).log_prob(noise)
    )
    return MultivariateNormal(mean, K).log_prob(y) + priors


@pytest.mark.parametrize("activation", list(DUAL_ACTIVATIONS))
def test_posterior_is_the_conditional_of_a_joint_gaussian(activation: str) -> None:
    X, Y = data()
    model = build(X, Y, config={"activation": activation, "normalize": activation == "erf"})
    Xs = torch.cat([X[:1], inputs(3)])
    with torch.no_grad():
        posterior = model.posterior(Xs)
        K = model.covar_module(unit(torch.cat([X, Xs]))).to_dense()
        n, s, c = len(X), Y.std(), model.mean_module.constant
        S = K[:n, :n] + model.likelihood.noise * torch.eye(n, dtype=torch.float64)
        solved = torch.linalg.solve(S, K[:n, n:])
        mean = Y.mean() + s * (c + solved.mT @ ((Y[:, 0] - Y.mean()) / s - c))
        covariance = s**2 * (K[n:, n:] - K[n:, :n] @ solved)
        torch.testing.assert_close(posterior.mean[:, 0], mean, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(
            posterior.distribution.covariance_matrix, covariance, rtol=1e-6, atol=1e-9
        )


def test_fit_reports_the_evidence_and_no_neighbour_has_more(fitted: NNGP) -> None:
    X, Y = data()
    parameters = list(fitted.parameters())
    with torch.no_grad():
        best = log_evidence(fitted, X, Y).item()
        per_point = fitted.diagnostics.values["log_marginal_likelihood_per_point"]
        assert per_point == pytest.approx(best / len(X), abs=1e-8)
        state = {k: v.clone() for k, v in fitted.state_dict().items()}
        generator = torch.Generator().manual_seed(0)
        for _ in range(60):
            for name, p in fitted.named_parameters():
                shift = 0.02 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
                p.copy_(p + shift)
                constraint = fitted.constraint_for_parameter_name(name)
                if constraint is not None and not constraint.enforced:
                    p.clamp_(constraint.lower_bound, constraint.upper_bound)
            assert log_evidence(fitted, X, Y).item() <= best + 1e-3
            fitted.load_state_dict(state)
    assert len(parameters) == 5  # scales, output variance, bias variance, noise, mean


def test_more_starting_points_never_lower_the_evidence_and_can_leave_a_poor_optimum() -> None:
    U = torch.rand(24, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    Y = torch.sin(25 * U[:, :1])  # too many periods for the optimum next to the priors' centre
    values = []
    for restarts in (1, 2, 4):
        model = build(U, Y, bounds=None, config={"activation": "sin", "restarts": restarts})
        values.append(model.diagnostics.values["log_marginal_likelihood_per_point"])
    # The first starting point and the seed are the same, so each set contains the one before.
    assert all(after >= before - 1e-9 for before, after in pairwise(values))
    assert values[-1] > values[0] + 0.5


def test_warm_start_begins_at_the_previous_models_parameters(
    fitted: NNGP, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Tensor]] = []

    def record(mll: object, **options: object) -> None:
        seen.append({k: v.clone() for k, v in mll.model.named_parameters()})  # type: ignore[attr-defined]

    monkeypatch.setattr("bo_surrogates.surrogates.exact_gp.fit_gpytorch_mll", record)
    build(*data(21), warm_start=fitted)
    assert seen[0].keys() == dict(fitted.named_parameters()).keys()
    for name, value in fitted.named_parameters():
        assert torch.equal(seen[0][name], value)


def test_warm_start_on_the_same_data_keeps_the_evidence(fitted: NNGP) -> None:
    again = build(*data(), warm_start=fitted)
    before, after = (
        m.diagnostics.values["log_marginal_likelihood_per_point"] for m in (fitted, again)
    )
    assert after >= before - 1e-9


@pytest.mark.parametrize(
    "case", ["one point", "constant", "duplicates", "huge", "tiny", "outlier", "step"]
)
def test_parameters_stay_within_bounds_and_predictions_finite_on_hard_data(case: str) -> None:
    X, Y = data(12)
    if case == "one point":
        X, Y = X[:1], Y[:1]
    elif case == "constant":
        Y = torch.full_like(Y, 3.0)
    elif case == "duplicates":
        X = X[:3].repeat(4, 1)
    elif case == "outlier":
        Y[0] += 1e9
    elif case == "step":
        Y = (X[:, :1] > 0).double()
    else:
        Y = Y * (1e6 if case == "huge" else 1e-6)
    model = build(X, Y)
    for name, parameter, constraint in model.named_parameters_and_constraints():
        assert constraint is not None, f"{name} is unbounded"
        assert constraint.check_raw(parameter), name
    for value, (low, high) in (
        (model.covar_module.input_scale, (1e-3, 1e2)),
        (model.covar_module.output_variance, (1e-3, 1e3)),
        (model.covar_module.bias_variance, (1e-3, 3.0)),
        (model.likelihood.noise, (1e-4, 10.0)),
    ):
        assert (value >= low * (1 - 1e-6)).all()
        assert (value <= high * (1 + 1e-6)).all()
    posterior = model.posterior(inputs())
    assert torch.isfinite(posterior.mean).all()
    assert torch.isfinite(posterior.variance).all()
    assert (posterior.variance >= 0).all()


def test_matrix_that_is_not_positive_definite_is_a_fit_error_that_names_the_surrogate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = NNGPKernel.forward

    def negative(self: NNGPKernel, *args: Tensor, **options: object) -> Tensor:
        return -5.0 * original(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(NNGPKernel, "forward", negative)
    with pytest.raises(FitError, match=r"nngp surrogate could not be fitted to 8 points"):
        build(*data(8))


@pytest.mark.parametrize("activation", list(DUAL_ACTIVATIONS))
def test_float32_predictions_agree_with_float64(activation: str) -> None:
    X, Y = data()
    single = build(X.float(), Y.float(), config={"activation": activation, "depth": 8})
    double = NNGP(
        X,
        Y,
        config=single.config,
        seed=0,
        input_transform=ENTRY.build(X[:1], Y[:1], bounds=BOUNDS).input_transform,
        outcome_transform=type(single.outcome_transform)(m=1),
    )
    double.load_state_dict(single.state_dict(), strict=False)
    double.eval()
    Xs = inputs()
    ours, exact = single.posterior(Xs.float()), double.posterior(Xs)
    assert ours.mean.dtype == ours.variance.dtype == torch.float32
    scale = Y.std()
    torch.testing.assert_close(ours.mean.double() / scale, exact.mean / scale, rtol=0, atol=2e-3)
    torch.testing.assert_close(
        ours.variance.double() / scale**2, exact.variance / scale**2, rtol=0, atol=2e-3
    )


def check_moments(model: NNGP, Xs: Tensor, bias: float) -> None:
    """Second moments of drawn functions around the posterior mean, against the posterior.

    Functions of one call share their random features, so that calls are the independent units:
    S = 30 means of 600 functions each. With unbiased features each has the posterior's mean and
    covariance in expectation. 9 standard errors of 30 units (Student-t with 29 degrees of
    freedom) are exceeded with probability 7e-10; there are fewer than 100 comparisons.
    """
    S, k = 30, 600
    with torch.no_grad():
        posterior = model.posterior(Xs)
        mean = posterior.mean.T.flatten()  # output by output, as the joint covariance below
        parts = [model.posterior(Xs, output_indices=[i]) for i in range(model.num_outputs)]
        covariance = torch.block_diag(*(p.distribution.covariance_matrix for p in parts))
        draws = torch.stack([model.sample_functions(k, seed=s)(Xs) for s in range(S)])
    deviations = draws.mT.flatten(-2) - mean  # S x k x (m n)
    means = deviations.mean(dim=1)
    assert (means.mean(0).abs() <= 9 * means.std(0) / S**0.5).all()
    moments = deviations.mT @ deviations / k
    scale = (covariance.diagonal()[:, None] * covariance.diagonal()[None, :]).sqrt()
    tolerance = 9 * moments.std(0) / S**0.5 + bias * scale
    assert ((moments.mean(0) - covariance).abs() <= tolerance).all()
    # The test has teeth: the tolerance is a small part of the variances it is about.
    assert (tolerance.diagonal() < 0.2 * covariance.diagonal()).all()


def test_drawn_functions_have_the_posteriors_mean_and_covariance(shallow: NNGP) -> None:
    check_moments(shallow, torch.cat([data(10)[0][:1], inputs(3)]), bias=0.0)


def test_drawn_functions_of_several_outputs_have_the_posteriors_moments(two_outputs: NNGP) -> None:
    # Two hidden layers: a bias of order 1 / width.
    check_moments(two_outputs, inputs(3), bias=10 / HIDDEN_WIDTH)


def test_a_drawn_function_returns_to_the_data_where_noise_is_known_to_be_small() -> None:
    X, Y = data(12)
    scale = Y.std()
    model = build(X, Y, train_Yvar=torch.full_like(Y, 1e-6) * scale**2)
    with torch.no_grad():
        values = model.sample_functions(16, seed=0)(X)
    # Noise sd is 1e-3 of scale; 7 sd of 16 * 12 normal values: probability 5e-10.
    assert ((values - Y).abs() < 7e-3 * scale).all()


@pytest.mark.parametrize("outputs", [1, 2])
def test_conditioning_equals_a_model_rebuilt_with_the_same_parameters(
    outputs: int, fitted: NNGP, two_outputs: NNGP
) -> None:
    model = copy.deepcopy(fitted if outputs == 1 else two_outputs)
    (X, Y), (X_new, Y_new) = data(m=outputs), data(5, m=outputs, seed=7)
    Xs = inputs(6, seed=9)
    model._clear_cache()  # no prediction has been asked for before
    conditioned = model.condition_on_observations(X_new, Y_new).posterior(Xs)
    # The outcomes' scaling is a parameter too: that of the first data.
    mean, std = Y.mean(dim=0), Y.std(dim=0)
    rebuilt = NNGP(
        unit(torch.cat([X, X_new])), (torch.cat([Y, Y_new]) - mean) / std, config=model.config
    )
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in rebuilt.named_parameters():
            parameter.copy_(own[name])
    rebuilt.eval()
    standardized = rebuilt.posterior(unit(Xs))
    torch.testing.assert_close(conditioned.mean, mean + std * standardized.mean)
    torch.testing.assert_close(conditioned.variance, std**2 * standardized.variance)


def test_depth_and_activation_are_what_the_configuration_says() -> None:
    X, Y = data(6)
    model = build(X, Y, config=NNGPConfig("gelu", depth=4, weight_variance=0.7, normalize=True))
    kernel = model.covar_module
    assert kernel.network.activation.name == "gelu"
    assert (kernel.network.depth, kernel.network.weight_variance, kernel.normalize) == (
        4,
        0.7,
        True,
    )


def test_auto_keeps_the_activation_with_the_larger_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.linspace(0, 1, 14, dtype=torch.float64).unsqueeze(-1)
    smooth, kinked = torch.sin(7 * x), (x - 0.4).clamp_min(0)
    for Y, expected in ((smooth, "sin"), (kinked, "relu")):
        options: dict[str, Any] = {"bounds": None, "config": {"depth": 1}}
        model = build(x, Y, **options)
        value = model.diagnostics.values["log_marginal_likelihood_per_point"]
        alone = {
            name: build(x, Y, bounds=None, config={"depth": 1, "activation": name})
            for name in ("relu", "sin")
        }
        values = {
            name: one.diagnostics.values["log_marginal_likelihood_per_point"]
            for name, one in alone.items()
        }
        assert model.activation == expected == max(values, key=lambda name: values[name])
        assert value == pytest.approx(values[expected], abs=1e-4)  # one search, or two
        X = torch.rand(5, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        means = [m.posterior(X).mean for m in (model, alone[expected])]
        torch.testing.assert_close(*means, atol=1e-3, rtol=1e-3)
        model.save(tmp_path / "model")
        loaded = load_surrogate(tmp_path / "model")
        assert isinstance(loaded, NNGP)
        assert loaded.activation == expected
        torch.testing.assert_close(loaded.posterior(X).mean, model.posterior(X).mean)
        assert build(x, Y, warm_start=model, **options).activation == expected
    # Of many points, a few choose.
    monkeypatch.setattr("bo_surrogates.surrogates.infinite_width.MANY", 14)
    monkeypatch.setattr("bo_surrogates.inference.subset_of_data.FEW", 10)
    assert build(x, smooth, **options).activation == "sin"


def test_mistakes_in_the_configuration_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"activation must be one of .* did you mean 'relu'"):
        NNGPConfig(activation="reluu")
    with pytest.raises(InputError, match=r"depth must be in \[1, 16\], got 17"):
        NNGPConfig(depth=17)


def test_noise_prior_is_botorchs() -> None:
    ours = NNGP.make_likelihood(NNGPConfig(), torch.Size())
    prior = get_gaussian_likelihood_with_lognormal_prior().noise_covar.noise_prior
    x = torch.logspace(-5, 0, 20)
    assert ours is not None
    torch.testing.assert_close(ours.noise_covar.noise_prior.log_prob(x), prior.log_prob(x))
    assert ours.noise.item() == pytest.approx(math.exp(-5.0), rel=1e-4)
