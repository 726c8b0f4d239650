"""`ntk` beyond the contract: kernel regression, and the law of trained networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from botorch.exceptions.errors import UnsupportedError
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from bo_surrogates.surrogates import SURROGATES, load_surrogate
from bo_surrogates.surrogates.tangent_kernel import NTK

ENTRY = SURROGATES["ntk"]
TRAINED = {"law": "trained_network", "activation": "erf", "depth": 2}


def data(n: int = 12, m: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    X = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    Y = torch.stack([torch.sin(5 * X[:, 0]) + X[:, 1], 1e3 * X.prod(dim=-1)], dim=-1)[:, :m]
    noise = torch.randn(Y.shape, generator=generator, dtype=torch.float64)
    return X, Y + 0.05 * Y.std(dim=0) * noise


def build(X: Tensor, Y: Tensor, config: dict[str, object], **options: object) -> NTK:
    model = ENTRY.build(X, Y, config=config, seed=0, **options)  # type: ignore[arg-type]
    assert isinstance(model, NTK)
    return model


def with_time(model: NTK, time: float | None) -> NTK:
    """The model with its parameters, trained for another time."""
    data = model.training_data
    assert data is not None
    other = ENTRY._construct(data, model.config.replace(training_time=time), 0)
    other.load_state_dict(model.state_dict())
    assert isinstance(other.eval(), NTK)
    return other


@pytest.fixture(scope="module")
def trained() -> NTK:
    return build(*data(), config=TRAINED)


def parts(model: NTK, Xs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """K and T over training points and Xs, noise, residuals, and the prior mean: standardized."""
    X = model.train_inputs[0]
    K, T = model.covar_module.matrices(torch.cat([X, Xs]), torch.cat([X, Xs]), "both")
    c = model.mean_module.constant
    noise = model.likelihood.noise.expand(len(X))
    return K, T, noise, model.train_targets - c, c


# ---- kernel regression ---------------------------------------------------------------------------
@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_kernel_regression_is_the_conditional_of_a_joint_gaussian(activation: str) -> None:
    X, Y = data()
    model = build(X, Y, config={"activation": activation, "skip": 0.2})
    Xs = torch.cat([X[:1], data(3, seed=1)[0]])
    with torch.no_grad():
        _, T, noise, r, c = parts(model, Xs)
        n, s = len(X), Y.std()
        A = torch.linalg.solve(T[:n, :n] + torch.diag(noise), T[:n, n:]).mT
        posterior = model.posterior(Xs)
        torch.testing.assert_close(posterior.mean[:, 0], Y.mean() + s * (c + A @ r))
        torch.testing.assert_close(
            posterior.distribution.covariance_matrix,
            s**2 * (T[n:, n:] - A @ T[:n, n:]),
            rtol=1e-5,
            atol=1e-6,
        )


def test_functions_drawn_by_kernel_regression_have_the_posteriors_moments() -> None:
    model = build(*data(8), config={"depth": 1, "activation": "erf"})
    check_moments(model, data(3, seed=3)[0])


def check_moments(model: NTK, Xs: Tensor) -> None:
    """Functions of one call share their features: 25 calls are the independent units. With one
    hidden layer features are unbiased; 10 standard errors of 25 units (Student-t with 24 degrees
    of freedom) are exceeded with probability 5e-10."""
    S, k = 25, 300
    with torch.no_grad():
        posterior = model.posterior(Xs)
        draws = torch.stack([model.sample_functions(k, seed=s)(Xs) for s in range(S)])
    deviations = draws.squeeze(-1) - posterior.mean.squeeze(-1)
    means = deviations.mean(dim=1)
    assert (means.mean(0).abs() <= 10 * means.std(0) / S**0.5).all()
    moments = deviations.mT @ deviations / k
    covariance = posterior.distribution.covariance_matrix
    tolerance = 10 * moments.std(0) / S**0.5
    assert ((moments.mean(0) - covariance).abs() <= tolerance + 1e-12).all()
    assert (tolerance.diagonal() < 0.5 * covariance.diagonal()).all()


# ---- the law of trained networks -----------------------------------------------------------------
def test_law_is_that_of_the_start_moved_along_the_tangent_kernel(trained: NTK) -> None:
    X, Y = data()
    Xs = torch.cat([X[:1], data(4, seed=1)[0]])
    with torch.no_grad():
        K, T, noise, r, c = parts(trained, Xs)
        n, s = len(X), Y.std()
        for time in (None, 0.0, 3.0, 200.0):
            model = with_time(trained, time)
            # The flow db/dt = r / sd - M b of the residual's weights, by its matrix exponential.
            M = T[:n, :n] / (noise.sqrt()[:, None] * noise.sqrt()[None, :]) + torch.eye(n)
            if time is None:
                gain = torch.linalg.inv(T[:n, :n] + torch.diag(noise))
            else:
                flow = torch.eye(n) - torch.matrix_exp(-M * time / torch.linalg.eigvalsh(M)[-1])
                gain = torch.linalg.solve(M, flow) / noise.sqrt()[:, None] / noise.sqrt()[None, :]
            A = T[n:, :n] @ gain
            B = torch.cat([-A, torch.eye(len(Xs), dtype=A.dtype)], dim=1)
            posterior = model.posterior(Xs)
            torch.testing.assert_close(
                posterior.mean[:, 0], Y.mean() + s * (c + A @ r), rtol=1e-6, atol=1e-6
            )
            torch.testing.assert_close(
                posterior.distribution.covariance_matrix, s**2 * B @ K @ B.mT, rtol=1e-6, atol=1e-8
            )


def test_law_goes_from_the_prior_to_convergence(trained: NTK) -> None:
    Xs = data(4, seed=1)[0]
    with torch.no_grad():
        start, end = with_time(trained, 0.0).posterior(Xs), with_time(trained, 1e12).posterior(Xs)
        K, *_ = parts(trained, Xs)
        scale = trained.outcome_transform.stdvs.squeeze()
        torch.testing.assert_close(
            start.distribution.covariance_matrix, scale**2 * K[12:, 12:], rtol=1e-9, atol=1e-9
        )
        converged = trained.posterior(Xs)
        torch.testing.assert_close(end.mean, converged.mean, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(end.variance, converged.variance, rtol=1e-6, atol=1e-6)


def test_mean_of_converged_networks_is_that_of_kernel_regression(trained: NTK) -> None:
    data_ = trained.training_data
    assert data_ is not None
    regression = ENTRY._construct(data_, trained.config.replace(law="kernel_regression"), 0)
    regression.load_state_dict(trained.state_dict())
    Xs = data(5, seed=1)[0]
    with torch.no_grad():
        torch.testing.assert_close(
            regression.eval().posterior(Xs).mean, trained.posterior(Xs).mean, rtol=1e-6, atol=1e-6
        )


def test_wide_networks_trained_by_gradient_descent_follow_the_law() -> None:
    """100 networks of width 1000, each from its own start, by full-batch gradient descent."""
    config = TRAINED | {"depth": 1}
    X, Y = data(5)
    model = with_time(build(X, Y, config=config), 15.0)
    Xs = data(3, seed=1)[0]
    kernel = model.covar_module
    width, networks, sb = 1000, 100, kernel.bias_variance.squeeze()
    sw = kernel.network.weight_variance
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        output_scale = kernel._factor().squeeze().sqrt()
        z, zs = kernel.scaled_inputs(X), kernel.scaled_inputs(Xs)
        noise = model.likelihood.noise.item()
        target = (model.train_targets - model.mean_module.constant).unsqueeze(-1)
        start = [
            normal(networks, 2, width), normal(networks, 1, width),
            normal(networks, width, 1), normal(networks, 1, 1),
        ]  # fmt: skip
        _, T, *_ = parts(model, Xs)
        fastest = torch.linalg.eigvalsh(T[:5, :5])[-1] / noise + 1.0
        rate, steps = 0.1 / fastest, 150

    def f(theta: list[Tensor], z: Tensor) -> Tensor:
        W, b, V, a = theta
        hidden = torch.erf((sw / 2) ** 0.5 * z @ W + sb.sqrt() * b)
        return output_scale * ((sw / width) ** 0.5 * hidden @ V + sb.sqrt() * a)

    sb, output_scale = sb.detach(), output_scale.detach()
    theta = [t.clone().requires_grad_() for t in start]
    for _ in range(steps):
        loss = (f(theta, z) - target).square().sum() / (2 * noise)
        loss = loss + sum((t - s).square().sum() for t, s in zip(theta, start, strict=True)) / 2
        gradients = torch.autograd.grad(loss, theta)
        with torch.no_grad():
            for t, g in zip(theta, gradients, strict=True):
                t -= rate * g
    with torch.no_grad():
        values = f(theta, zs).squeeze(-1) + model.mean_module.constant
        values = Y.mean() + Y.std() * values
        posterior = model.posterior(Xs)
        sd = posterior.variance.sqrt().squeeze(-1)
        # Seven standard errors of 100 networks (3e-10), and what is left: the width (T is off by
        # order 1 / 1000, which training magnifies), steps of a tenth of the fastest time scale.
        allowed = 0.05 * sd
        error = values.mean(0) - posterior.mean.squeeze(-1)
        assert (error.abs() <= 7 * values.std(0) / networks**0.5 + allowed).all()
        variance = posterior.variance.squeeze(-1)
        # A sample variance of 100 normal variables is a chi-squared with 99 degrees of freedom
        # over 99: outside of these limits with probability 1e-8.
        ratio = values.var(0) / variance
        assert ((ratio > 0.37) & (ratio < 2.1)).all()
        before = kernel.matrices(Xs, Xs, "nngp")[0].diagonal() * Y.var()
        assert (variance < 0.5 * before).any()  # training does change the law


def test_leave_one_out_density_is_that_of_networks_trained_without_each_point(
    trained: NTK,
) -> None:
    X, _ = data()
    with torch.no_grad():
        K, T, noise, r, _ = parts(trained, X[:0])
        total = torch.zeros((), dtype=torch.float64)
        for i in range(len(X)):
            others = [j for j in range(len(X)) if j != i]
            A = torch.linalg.solve(T[others][:, others] + torch.diag(noise[others]), T[others, i])
            variance = K[i, i] - 2 * A @ K[others, i] + A @ K[others][:, others] @ A + noise[i]
            total += Normal(A @ r[others], variance.sqrt()).log_prob(r[i])
        kernel = trained.covar_module
        prior = Normal(0.0, 1.0).log_prob(kernel.log_input_scale).sum()
        prior += Normal(0.0, 1.0).log_prob(kernel.log_output_variance).sum()
        noise_prior = trained.likelihood.noise_covar.noise_prior
        prior += noise_prior.log_prob(trained.likelihood.noise).sum()
    reported = trained.diagnostics.values["log_marginal_likelihood_per_point"]
    assert reported == pytest.approx(((total + prior) / len(X)).item(), abs=1e-8)


def test_known_variances_weight_the_points() -> None:
    X, Y = data()
    Yvar = torch.full_like(Y, 1e-4) * Y.var()
    Yvar[0] = 1e4 * Y.var()
    weighted = build(X, Y, config=TRAINED, train_Yvar=Yvar)
    without = build(X[1:], Y[1:], config=TRAINED, train_Yvar=Yvar[1:])
    with torch.no_grad():
        residual = (weighted.posterior(X).mean - Y).abs() / Y.std()
        assert residual[1:].max() < 0.1
        other = (without.posterior(X).mean - Y).abs() / Y.std()
        assert residual[0] > 0.3 * other[0]


@pytest.mark.parametrize("m", [1, 2])
def test_law_is_one_joint_distribution_in_any_batch(m: int) -> None:
    X, Y = data(m=m)
    model = build(X, Y, config=TRAINED | {"training_time": 50.0})
    Xs = torch.rand(3, 2, 4, 2, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        together = model.posterior(Xs)
        alone = model.posterior(Xs[2, 1])
        torch.testing.assert_close(together.mean[2, 1], alone.mean)
        torch.testing.assert_close(together.variance[2, 1], alone.variance)
        covariance = together.distribution.covariance_matrix
        torch.testing.assert_close(covariance[2, 1], alone.distribution.covariance_matrix)
        relative = torch.linalg.eigvalsh(covariance) / Y.var(dim=0).max()
        assert (relative > -1e-10).all()
        for i in range(m):
            single = model.subset_output([i]).posterior(Xs)
            torch.testing.assert_close(single.mean[..., 0], together.mean[..., i])


def test_law_is_differentiable_at_training_points_too(trained: NTK) -> None:
    X, _ = data()
    Xs = torch.cat([X[:2], data(1, seed=1)[0]]).requires_grad_()
    weights = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def f(Xs: Tensor) -> Tensor:
        posterior = trained.posterior(Xs)
        return posterior.mean.sum() + (weights * posterior.distribution.covariance_matrix).sum()

    assert torch.autograd.gradcheck(f, [Xs], atol=1e-4, rtol=1e-4)


def test_drawn_functions_are_trained_wide_networks() -> None:
    model = build(*data(8), config=TRAINED | {"depth": 1, "training_time": 40.0})
    check_moments(model, data(3, seed=3)[0])


def test_drawn_functions_have_the_units_and_outputs_of_the_data() -> None:
    X, Y = data(m=2)
    model = build(X, Y, config=TRAINED)
    functions = model.sample_functions(64, seed=0)
    values = functions(X.reshape(3, 4, 2))
    assert values.shape == (64, 3, 4, 2)
    with torch.no_grad():
        posterior = model.posterior(X)
        # 24 means of 64 functions: 6 standard errors have probability 2e-9 each.
        error = (values.reshape(64, 12, 2).mean(0) - posterior.mean).abs()
        assert (error <= 6 * posterior.variance.sqrt() / 8 * 1.2).all()
    assert torch.equal(values, functions(X.reshape(3, 4, 2)))


def test_trained_law_survives_a_round_trip(trained: NTK, tmp_path: Path) -> None:
    trained.save(tmp_path / "model")
    loaded = load_surrogate(tmp_path / "model")
    Xs = data(4, seed=1)[0]
    first, second = trained.posterior(Xs), loaded.posterior(Xs)
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.variance, second.variance)
    assert torch.equal(
        trained.sample_functions(2, seed=1)(Xs), loaded.sample_functions(2, seed=1)(Xs)
    )


def test_a_refit_forgets_what_was_trained_before() -> None:
    model = build(*data(), config=TRAINED)
    Xs = data(4, seed=1)[0]
    before = model.posterior(Xs).mean
    with torch.no_grad():
        model.train()
        model.covar_module.log_input_scale += 0.5
        model.eval()
        assert not torch.allclose(model.posterior(Xs).mean, before)


def test_a_trained_network_is_not_conditioned(trained: NTK) -> None:
    X, Y = data(2, seed=4)
    with pytest.raises(UnsupportedError, match="warm_start"):
        trained.condition_on_observations(X, Y)
    with pytest.raises(UnsupportedError, match="kernel_regression"):
        trained.fantasize(X, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_law_follows_the_dtype_of_the_data(dtype: torch.dtype) -> None:
    X, Y = data()
    model = build(X.to(dtype), Y.to(dtype), config=TRAINED)
    posterior = model.posterior(X.to(dtype))
    assert posterior.mean.dtype == posterior.variance.dtype == dtype
    assert torch.isfinite(posterior.rsample(torch.Size([3]))).all()
    assert model.sample_functions(2, seed=0)(X.to(dtype)).dtype == dtype


def test_large_eigenvalues_are_learnt_first(trained: NTK) -> None:
    """What is left of the residual along eigenvector i decays as exp(-mu_i t) towards the end."""
    with torch.no_grad():
        _, T, noise, _, c = parts(trained, data(2)[0][:0])
        values, Q = torch.linalg.eigh(T)
        s, m = trained.outcome_transform.stdvs.squeeze(), trained.outcome_transform.means.squeeze()
        left = []
        for time in (20.0, None):
            fit = with_time(trained, time).posterior(trained.train_inputs[0]).mean.squeeze(-1)
            left.append(Q.mT @ ((fit - m) / s - c))
        share = (left[0] / left[1]).abs()  # of the final change, along each eigenvector
        rates = values / noise[0] + 1
        expected = -torch.expm1(-rates * 20.0 / rates[-1])
        torch.testing.assert_close(share, expected, rtol=1e-4, atol=1e-6)
        assert share[-1] > 0.99 > share[0]


def test_hyper_parameters_of_the_trained_law_maximize_its_leave_one_out_density(
    trained: NTK,
) -> None:
    regression = build(*data(), config=TRAINED | {"law": "kernel_regression"})
    start = ENTRY._construct(trained.training_data, trained.config, 0)  # type: ignore[arg-type]
    assert isinstance(start, NTK)
    values = []
    for parameters in (regression, start, trained):
        start.load_state_dict(parameters.state_dict())
        start.train()
        with torch.no_grad():
            mll = start.marginal_likelihood()
            values.append(mll(start(*start.train_inputs), start.train_targets).item())
    assert values[2] >= max(values[:2]) - 1e-9


def test_kernel_regression_is_fitted_by_the_marginal_likelihood() -> None:
    X, Y = data()
    model = build(X, Y, config={})
    with torch.no_grad():
        _, T, noise, _, c = parts(model, X[:0])
        value = MultivariateNormal(c.expand(12), T + torch.diag(noise)).log_prob(
            model.train_targets
        )
        kernel = model.covar_module
        value += Normal(0.0, 1.0).log_prob(kernel.log_input_scale).sum()
        value += Normal(0.0, 1.0).log_prob(kernel.log_output_variance).sum()
        value += model.likelihood.noise_covar.noise_prior.log_prob(model.likelihood.noise).sum()
    reported = model.diagnostics.values["log_marginal_likelihood_per_point"]
    assert reported == pytest.approx(value.item() / 12, abs=1e-8)
