"""The Student-t process against the scale mixture by quadrature, and against Gaussian processes.

What every surrogate owes (shapes, samples, units, conditioning, saving) is in the contract suite.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from botorch.models import SingleTaskGP
from scipy.integrate import quad
from scipy.stats import gamma, invgamma, multivariate_normal, multivariate_t, norm, t
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.inference.scale_laws import InverseGamma
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates import SURROGATES
from bo_surrogates.surrogates.student_t import StudentTProcess
from bo_surrogates.surrogates.unit_scale_gp import DF_GRID, TPConfig

ENTRY = SURROGATES["tp"]
KERNELS = ["rbf", "matern", "nngp"]
D, N, DF = 2, 7, 3.0


def data(n: int = N, m: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    X = torch.rand(n, D, generator=generator, dtype=torch.float64)
    Y = torch.stack([20 + 4 * torch.sin(5 * X[:, 0]), X.sum(dim=-1) ** 2], dim=-1)[:, :m]
    return X, Y + 0.3 * torch.randn(n, m, generator=generator, dtype=torch.float64)


def inputs(n: int, seed: int = 5) -> Tensor:
    return torch.rand(n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(
    X: Tensor, Y: Tensor, train_Yvar: Tensor | None = None, **config: object
) -> StudentTProcess:
    model = ENTRY.build(X, Y, train_Yvar, config=config, seed=0)
    assert isinstance(model, StudentTProcess)
    return model


@pytest.fixture(scope="module", params=[*KERNELS, "known noise"])
def model(request: pytest.FixtureRequest) -> StudentTProcess:
    X, Y = data()
    if request.param == "known noise":
        return build(X, Y, torch.linspace(0.01, 2.0, N, dtype=torch.float64).unsqueeze(-1), df=DF)
    return build(X, Y, kernel=request.param, df=DF)


@pytest.fixture(scope="module")
def two_outputs() -> StudentTProcess:
    return build(*data(m=2))


def data_scale(model: StudentTProcess) -> tuple[Tensor, Tensor]:
    """Factor of covariances and degrees of freedom that the data leave of each output's scale."""
    r, n = model.gp.quadratic_form()
    law = model.gp.scale_law()
    assert isinstance(law, InverseGamma)
    return law.posterior(n, r)


class Dense:
    """One output's matrices at s2 = 1 in standardized units, straight from kernel and noise."""

    def __init__(self, model: StudentTProcess, new: Tensor) -> None:
        X, Y = data()
        gp = model.gp
        with torch.no_grad():
            K = gp.covar_module(torch.cat([X, new])).to_dense().numpy()
            self.mean = gp.mean_module.constant.item()
            noise = gp.likelihood.noise.expand(N).numpy()
        self.S, self.cross, self.new = K[:N, :N] + np.diag(noise), K[N:, :N], K[N:, N:]
        self.noise = noise.mean()
        self.offset, self.unit = Y.mean().item(), Y.std().item()
        self.residual = ((Y - Y.mean()) / Y.std()).squeeze(-1).numpy() - self.mean
        self.prior = invgamma(DF / 2, scale=(DF - 2) / 2)
        self.at_unit_scale = multivariate_normal(np.zeros(N), self.S)
        self.evidence = self.integrate(lambda s2: 1.0)

    def scale_density(self, s2: float) -> float:
        """p(s2) p(y | s2); N(r; 0, s2 S) = s2^(-N / 2) N(r / s; 0, S)."""
        density = self.at_unit_scale.pdf(self.residual / s2**0.5) * s2 ** (-N / 2)
        return float(self.prior.pdf(s2) * density)

    def expect(self, value: object) -> float:
        """E[value(s2) | y] by quadrature over log s2."""
        return self.integrate(value) / self.evidence

    def integrate(self, g: object) -> float:
        """The integral of g(s2) p(s2) p(y | s2)."""
        return quad(
            lambda u: g(np.exp(u)) * self.scale_density(np.exp(u)) * np.exp(u),  # type: ignore[operator]
            -12, 14, epsabs=0, limit=400,
        )[0]  # fmt: skip

    def conditional(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance at s2 = 1 given the data."""
        gain = np.linalg.solve(self.S, self.cross.T).T
        return self.mean + gain @ self.residual, self.new - gain @ self.cross.T


# ---- prediction ----------------------------------------------------------------------------------
def test_prediction_is_the_mixture_over_the_scale(model: StudentTProcess) -> None:
    new = inputs(3)
    dense = Dense(model, new)
    mean, covariance = dense.conditional()
    posterior = model.posterior(new)
    np.testing.assert_allclose(
        posterior.mean.detach().squeeze(-1), dense.offset + dense.unit * mean, rtol=1e-6
    )
    # Covariance: E[s2 | y] times that of the Gaussian process.
    expected = dense.expect(lambda s2: s2) * covariance * dense.unit**2
    np.testing.assert_allclose(
        posterior.variance.detach().squeeze(-1), expected.diagonal(), rtol=1e-5
    )
    tril = posterior.scale_tril.detach().squeeze(-3)
    df = posterior.df.item()
    assert df == DF + N
    np.testing.assert_allclose(
        tril @ tril.mT * df / (df - 2), expected, rtol=1e-4, atol=1e-7 * expected.max()
    )
    # Density of an observation: the normal density, averaged over s2.
    Y = posterior.mean.detach() + 2.5
    density = model.log_predictive_density(new, Y).detach().exp().squeeze(-1)
    for i in range(3):
        y = (Y[i].item() - dense.offset) / dense.unit

        def normal(s2: float, i: int = i, y: float = y) -> float:
            return float(
                norm.pdf(y, mean[i], np.sqrt(s2 * (covariance[i, i] + dense.noise))) / dense.unit
            )

        assert density[i].item() == pytest.approx(dense.expect(normal), rel=1e-5)


def test_predictions_become_those_of_a_gaussian_process_as_df_grows() -> None:
    X, Y = data()
    model = build(X, Y, df=1e6)
    unit = (Y - Y.mean(dim=0)) / Y.std(dim=0)
    gp = SingleTaskGP(X, unit, outcome_transform=None)
    own = dict(model.gp.named_parameters())
    with torch.no_grad():
        for name, parameter in gp.named_parameters():
            if not name.startswith("likelihood."):  # whose constraints differ
                parameter.copy_(own[name])
        gp.likelihood.noise = model.gp.likelihood.noise
    gp.eval()
    ours, theirs = model.posterior(inputs(4)), gp.posterior(inputs(4))
    torch.testing.assert_close(ours.mean, Y.mean() + Y.std() * theirs.mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.variance, Y.var() * theirs.variance, rtol=1e-4, atol=0)
    levels = torch.tensor([0.025, 0.975], dtype=torch.float64)
    normal = ours.mean + ours.variance.sqrt() * torch.special.ndtri(levels)[:, None, None]
    torch.testing.assert_close(model.quantile(inputs(4), levels), normal, rtol=1e-5, atol=1e-5)


def test_the_fitted_scale_widens_where_data_are_wilder_than_the_kernel_expects() -> None:
    """Same inputs, same parameters: the variance grows by (v - 2 + r') / (v - 2 + r)."""
    X, Y = data()
    calm = build(X, Y, df=DF)
    unit = (Y - Y.mean()) / Y.std()
    variances, forms = [], []
    for factor in (1.0, 4.0):
        twin = StudentTProcess(X, factor * unit, config=calm.config, seed=0)
        twin.gp.load_state_dict(calm.gp.state_dict())
        twin.gp.mean_module.constant.data.mul_(factor)
        variances.append(twin.eval().posterior(inputs(3)).variance)
        dense = Dense(calm, inputs(1))
        forms.append(factor**2 * dense.residual @ np.linalg.solve(dense.S, dense.residual))
    ratio = (DF - 2 + forms[1]) / (DF - 2 + forms[0])
    assert ratio > 2
    torch.testing.assert_close(variances[1], ratio * variances[0])


# ---- fit -----------------------------------------------------------------------------------------
def test_the_objective_is_the_t_marginal_likelihood_plus_log_priors(model: StudentTProcess) -> None:
    gp = copy.deepcopy(model.gp)
    dense = Dense(model, inputs(1))
    expected = multivariate_t(np.zeros(N), (DF - 2) / DF * dense.S, df=DF).logpdf(dense.residual)
    for _, module, prior, closure, _ in gp.named_priors():
        expected += prior.log_prob(closure(module)).sum().item()
    value = model.diagnostics.values["log_marginal_likelihood_per_point"]
    assert value * N == pytest.approx(expected, rel=1e-6)


def test_the_parameters_maximize_the_objective(model: StudentTProcess) -> None:
    gp = copy.deepcopy(model.gp).train()
    mll = gp.marginal_likelihood()

    def value() -> float:
        with torch.no_grad():
            return mll(gp(*gp.train_inputs), gp.train_targets).item()

    best = value()
    free = [p for p in gp.parameters() if p.requires_grad]
    bounds = {id(p): c for _, p, c in gp.named_parameters_and_constraints() if c is not None}
    generator = torch.Generator().manual_seed(0)
    tried = 0
    for _ in range(20):
        before = [p.detach().clone() for p in free]
        with torch.no_grad():
            for p in free:
                p.add_(0.05 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
        inside = all(id(p) not in bounds or bounds[id(p)].check_raw(p) for p in free)
        if inside:
            tried += 1
            assert value() < best + 1e-6
        with torch.no_grad():
            for p, old in zip(free, before, strict=True):
                p.copy_(old)
    assert tried >= 5


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_amplitude_of_the_kernel_is_one_and_stays(kernel: str) -> None:
    """The scale is s2's: an amplitude beside it could not be told from it."""
    gp = build(*data(), kernel=kernel).gp
    names = [name for name, p in gp.named_parameters() if p.requires_grad]
    assert not any("outputscale" in n or "output_variance" in n for n in names)
    if kernel == "nngp":
        assert gp.covar_module.output_variance.item() == 1.0
        assert not any("output_variance" in name for name, *_ in gp.named_priors())
    else:
        x = inputs(2)
        with torch.no_grad():
            diagonal = gp.covar_module(x).to_dense().diagonal()
        torch.testing.assert_close(diagonal, torch.ones(2, dtype=torch.float64))


def test_df_has_the_best_leave_one_out_density_times_prior_of_the_grid(
    two_outputs: StudentTProcess,
) -> None:
    """With p(y_i | y_-i) = p(y) / p(y_-i) by SciPy, at several noise variances."""
    gp = copy.deepcopy(two_outputs.gp).eval()
    rests = [[j for j in range(N) if j != i] for i in range(N)]
    every_choice = set()
    for noise in (1e-3, 0.1, 1.0, 30.0):
        gp.likelihood.noise = noise
        with torch.no_grad():
            prior = gp.forward(*gp.train_inputs)
            S = gp.likelihood(prior).covariance_matrix.numpy()
            residual = (gp.train_targets - prior.mean).numpy()
        for output, chosen in enumerate(gp.best_df().tolist()):
            scores = []
            for df in DF_GRID:
                shape, y = (df - 2) / df * S[output], residual[output]
                joint = multivariate_t(np.zeros(N), shape, df=df).logpdf(y)
                parts = [
                    joint - multivariate_t(np.zeros(N - 1), shape[np.ix_(r, r)], df=df).logpdf(y[r])
                    for r in rests
                ]
                scores.append(sum(parts) + gamma(2.0, scale=2.0).logpdf(df / 2 - 1))
            assert chosen == DF_GRID[int(np.argmax(scores))]
            every_choice.add(chosen)
    assert len(every_choice) > 1  # the data decide, not the prior alone


def test_the_degrees_of_freedom_chosen_are_reported(two_outputs: StudentTProcess) -> None:
    for output, df in enumerate(two_outputs.gp.df.tolist()):
        assert df in DF_GRID
        assert two_outputs.diagnostics.values[f"degrees_of_freedom_{output}"] == df


def test_df_of_the_configuration_is_kept() -> None:
    assert build(*data(), df=4.5).gp.df.item() == 4.5


def test_outputs_are_independent_processes(two_outputs: StudentTProcess) -> None:
    """Each output of the joint model is a one-output model with that output's parameters."""
    X, Y = data(m=2)
    new = inputs(3)
    for output in range(2):
        alone = build(X, Y[:, [output]], df=two_outputs.gp.df[output].item())
        with torch.no_grad():
            for own, joint in zip(alone.gp.parameters(), two_outputs.gp.parameters(), strict=True):
                own.copy_(joint[output].reshape(own.shape))
        alone.gp._clear_cache()
        expected, part = alone.posterior(new), two_outputs.posterior(new, [output])
        torch.testing.assert_close(part.mean, expected.mean)
        torch.testing.assert_close(part.variance, expected.variance)
        torch.testing.assert_close(part.df, expected.df)


def test_outputs_that_share_a_scale_are_one_process() -> None:
    """Scale factor and degrees of freedom from the quadratic forms of both outputs together."""
    X, Y = data(m=2)
    model = build(X, Y, shared_scale=True, df=DF)
    gp = model.gp
    with torch.no_grad():
        prior = gp.forward(*gp.train_inputs)
        S = gp.likelihood(prior).covariance_matrix
        residual = gp.train_targets - prior.mean
        r = (residual * torch.linalg.solve(S, residual)).sum()
    factor, df = data_scale(model)
    torch.testing.assert_close(factor, ((DF - 2 + r) / (DF + 2 * N)).expand(2))
    posterior = model.posterior(inputs(2))
    assert df.tolist() == posterior.df.tolist() == [DF + 2 * N] * 2
    assert posterior.shared_scale


# ---- conditioning and draws ----------------------------------------------------------------------
@pytest.mark.parametrize("case", ["one", "two", "known noise"])
def test_conditioning_equals_a_model_rebuilt_with_the_same_parameters(case: str) -> None:
    m = 2 if case == "two" else 1
    (X, Y), (X_new, Y_new) = data(m=m), data(4, m=m, seed=7)
    variance = torch.full_like(Y, 0.2) if case == "known noise" else None
    model = build(X, Y, variance, kernel="nngp", df=DF)
    mean, std = Y.mean(dim=0), Y.std(dim=0)
    noise = None if variance is None else torch.full_like(Y_new, 0.5) / std**2
    conditioned = model.condition_on_observations(X_new, Y_new, noise=noise)
    both = None if variance is None or noise is None else torch.cat([variance / std**2, noise])
    # The outcomes' scaling is a parameter too: that of the first data.
    rebuilt = StudentTProcess(
        torch.cat([X, X_new]), (torch.cat([Y, Y_new]) - mean) / std, both, config=model.config
    )
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in rebuilt.named_parameters():
            parameter.copy_(own[name])
    ours, standard = conditioned.posterior(inputs(4)), rebuilt.eval().posterior(inputs(4))
    torch.testing.assert_close(ours.mean, mean + std * standard.mean)
    torch.testing.assert_close(ours.variance, std**2 * standard.variance)
    assert ours.df.tolist() == [DF + N + 4] * m


def test_a_conditioned_model_draws_functions_through_its_observations() -> None:
    X, Y = data()
    known = torch.full_like(Y, 1e-6) * Y.var()
    model = build(X, Y, known, df=DF)
    X_new, Y_new = inputs(2, seed=8), torch.tensor([[18.0], [22.0]], dtype=torch.float64)
    noise = torch.full_like(Y_new, 1e-6)
    conditioned = model.condition_on_observations(X_new, Y_new, noise=noise)
    with torch.no_grad():
        values = conditioned.sample_functions(16, seed=0)(torch.cat([X, X_new]))
        df, factor = conditioned.posterior(X).df.item(), data_scale(conditioned)[0].item()
    # A value misses by at most the noise: a t variable of scale sqrt(1e-6 factor) std. Nine df
    # and up, 16 * 9 values: the 1e-9 quantile is exceeded with probability below 1e-6.
    limit = t(df).isf(1e-9) * math.sqrt(1e-6 * factor) * Y.std()
    assert ((values - torch.cat([Y, Y_new])).abs() < limit).all()


def test_a_conditioned_model_is_not_saved_without_its_observations(
    two_outputs: StudentTProcess, tmp_path: Path
) -> None:
    conditioned = two_outputs.condition_on_observations(*data(2, m=2, seed=7))
    with pytest.raises(InputError, match="build"):
        conditioned.save(tmp_path / "model")
    two_outputs.save(tmp_path / "model")  # the old model is as it was


def test_a_drawn_function_has_one_scale_with_the_posterior_law(
    two_outputs: StudentTProcess,
) -> None:
    """Its deviation from the mean is the same multiple, everywhere, of a Gaussian process's."""
    k, seed, new = 4000, 3, inputs(3)
    _, Y = data(m=2)
    with torch.no_grad():
        mean = two_outputs.posterior(new).mean
        functions = two_outputs.sample_functions(k, seed=seed)(new) - mean
        paths = two_outputs.gp.sample_functions(k, seed=derive_seed(seed, "paths"))(new)
        gaussian = Y.std(dim=0) * (paths - (mean - Y.mean(dim=0)) / Y.std(dim=0))
        ratio = functions / gaussian  # k x 3 x m
        torch.testing.assert_close(
            ratio, ratio.median(dim=1, keepdim=True).values.expand_as(ratio), rtol=1e-3, atol=1e-3
        )
        factor, df = data_scale(two_outputs)
    s2 = ratio.median(dim=1).values.square().numpy()
    bound = math.sqrt(math.log(2e7) / (2 * k))  # exceeded with probability below 1e-7
    steps = np.arange(k + 1) / k
    for output in range(2):
        v, g = df[output].item(), factor[output].item()
        u = np.sort(invgamma(v / 2, scale=g * v / 2).cdf(s2[:, output]))
        assert max((u - steps[:-1]).max(), (steps[1:] - u).max()) < bound
    # Each output has a draw of its own: ranks are not the same.
    assert abs(np.corrcoef(np.log(s2).T)[0, 1]) < 6 / math.sqrt(k)


def test_drawn_functions_outlive_a_later_fit() -> None:
    X, Y = data()
    model = build(X, Y)
    functions = model.sample_functions(2, seed=0)
    before = functions(inputs(3))
    with torch.no_grad():
        for parameter in model.gp.parameters():
            parameter.add_(0.5)
    model.gp._clear_cache()
    torch.testing.assert_close(functions(inputs(3)), before)


# ---- configuration -------------------------------------------------------------------------------
def test_mistakes_in_the_configuration_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"kernel must be one of .* did you mean 'matern'"):
        TPConfig(kernel="mattern")
    with pytest.raises(InputError, match=r"df must be in \[2.01, 1e\+06\], got 2.0"):
        TPConfig(df=2.0)


def test_the_nngp_kernel_is_what_the_configuration_says() -> None:
    kernel = build(*data(), kernel="nngp", activation="gelu", depth=2).gp.covar_module
    assert (kernel.network.activation.name, kernel.network.depth) == ("gelu", 2)


def test_no_functions_cannot_be_drawn(two_outputs: StudentTProcess) -> None:
    with pytest.raises(InputError, match="k must be at least 1"):
        two_outputs.sample_functions(0)
