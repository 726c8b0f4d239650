"""Scale mixtures of Gaussian processes against SciPy's multivariate t and quadrature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.linalg import block_diag
from scipy.stats import invgamma, multivariate_normal, multivariate_t
from torch import Tensor

from bo_surrogates.inference.marginal_likelihood import (
    QuadraticFormAndLogDeterminant,
    log_density,
)
from bo_surrogates.inference.scale_laws import BurrXII, InverseGamma, LogNormal, ScaleLaw
from bo_surrogates.inference.scale_mixture import (
    leave_one_out_log_density,
    log_marginal_likelihood,
)

N = 6
DFS = [2.2, 5.0, 40.0]


def data(*batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Residuals `batch x n` and positive definite S `batch x n x n`."""
    generator = torch.Generator().manual_seed(seed)
    residual = torch.randn(*batch, N, generator=generator, dtype=torch.float64)
    root = torch.randn(*batch, N, N, generator=generator, dtype=torch.float64)
    return 1.7 * residual, root @ root.mT / N + 0.3 * torch.eye(N, dtype=torch.float64)


def marginal(residual: Tensor, S: Tensor, law: ScaleLaw, shared: bool = False) -> Tensor:
    """Of S = K + diag(noise) taken apart."""
    noise = torch.linspace(0.1, 0.4, residual.shape[-1]).to(S).expand(residual.shape)
    return log_marginal_likelihood(residual, S - torch.diag_embed(noise), noise, law, shared)


def quadratic_form(residual: Tensor, S: Tensor) -> float:
    return float(residual @ torch.linalg.solve(S, residual))


def of_scale(residual: Tensor, S: Tensor, df: float, s2: float) -> float:
    """p(s2) p(y | s2), up to no constant at all."""
    prior = invgamma(df / 2, scale=(df - 2) / 2)
    normal = multivariate_normal(np.zeros(len(residual)), s2 * S.numpy())
    return float(prior.pdf(s2) * normal.pdf(residual.numpy()))


def test_marginal_likelihood_is_scipys_multivariate_t_with_covariance_S() -> None:
    residual, S = data(3)
    df = torch.tensor(DFS, dtype=torch.float64)
    ours = marginal(residual, S, InverseGamma(df))
    for i, v in enumerate(DFS):
        reference = multivariate_t(np.zeros(N), (v - 2) / v * S[i].numpy(), df=v)
        assert ours[i].item() == pytest.approx(reference.logpdf(residual[i].numpy()), rel=1e-10)


@pytest.mark.parametrize("df", DFS)
def test_marginal_likelihood_integrates_the_scale_out(df: float) -> None:
    residual, S = data()
    integral, _ = quad(  # over log s2
        lambda u: of_scale(residual, S, df, np.exp(u)) * np.exp(u), -12, 14, epsabs=0, limit=200
    )
    ours = marginal(residual, S, InverseGamma(torch.tensor(df, dtype=torch.float64)))
    assert ours.exp().item() == pytest.approx(integral, rel=1e-7)


def test_marginal_likelihood_becomes_the_gaussian_one_as_df_grows() -> None:
    residual, S = data()
    ours = marginal(residual, S, InverseGamma(torch.tensor(1e8, dtype=torch.float64)))
    gaussian = multivariate_normal(np.zeros(N), S.numpy()).logpdf(residual.numpy())
    assert ours.item() == pytest.approx(gaussian, abs=1e-4)


@pytest.mark.parametrize("df", [2.5, 1e3, 1e6])
def test_marginal_likelihood_in_float32_keeps_its_digits(df: float) -> None:
    residual, S = data()
    v = torch.tensor(df, dtype=torch.float64)
    double = marginal(residual, S, InverseGamma(v))
    single = marginal(residual.float(), S.float(), InverseGamma(v.float()))
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(double.item(), abs=1e-3)


def test_marginal_likelihood_with_a_free_amplitude_only_grows_with_df() -> None:
    """Why df is never chosen by it: with the best amplitude, v r / (n (v - 2)), more is better."""
    residual, S = data()
    r = quadratic_form(residual, S)
    values = [
        marginal(
            residual, v * r / (N * (v - 2)) * S, InverseGamma(torch.tensor(v, dtype=torch.float64))
        ).item()
        for v in (2.2, 3.0, 5.0, 10.0, 100.0, 1e4)
    ]
    gaussian = multivariate_normal(np.zeros(N), r / N * S.numpy()).logpdf(residual.numpy())
    assert (np.diff([*values, gaussian]) > 0).all()


def test_gradients_of_the_marginal_likelihood_equal_finite_differences() -> None:
    residual, S = data(2)
    df = torch.tensor([2.5, 7.0], dtype=torch.float64)

    def value(residual: Tensor, root: Tensor, df: Tensor) -> Tensor:
        return marginal(residual, root @ root.mT, InverseGamma(df))

    arguments = [t.requires_grad_() for t in (residual, torch.linalg.cholesky(S), df)]
    torch.autograd.gradcheck(value, arguments)


@pytest.mark.parametrize("df", DFS)
def test_scale_factor_is_the_scale_of_the_inverse_gamma_posterior(df: float) -> None:
    """E[s2 | y] = factor (v + n) / (v + n - 2), with the expectation by quadrature."""
    residual, S = data()

    def moment(power: int) -> float:
        return quad(
            lambda u: np.exp(u) ** (power + 1) * of_scale(residual, S, df, np.exp(u)),
            -12, 14, epsabs=0, limit=200,
        )[0]  # fmt: skip

    law = InverseGamma(torch.tensor(df))
    factor, _ = law.posterior(N, torch.tensor(quadratic_form(residual, S)))
    expected = moment(1) / moment(0)
    assert factor.item() * (df + N) / (df + N - 2) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("df", DFS)
def test_leave_one_out_density_is_the_ratio_of_joint_densities(df: float) -> None:
    """p(y_i | y_-i) = p(y) / p(y_-i), each by SciPy: a model without point i, not a formula."""
    residual, S = data()
    law = InverseGamma(torch.tensor(df, dtype=torch.float64))
    ours = leave_one_out_log_density(residual, S, law)
    shape, y = (df - 2) / df * S.numpy(), residual.numpy()
    joint = multivariate_t(np.zeros(N), shape, df=df).logpdf(y)
    for i in range(N):
        rest = [j for j in range(N) if j != i]
        without = multivariate_t(np.zeros(N - 1), shape[np.ix_(rest, rest)], df=df)
        assert ours[i].item() == pytest.approx(joint - without.logpdf(y[rest]), rel=1e-9)


def test_leave_one_out_of_one_point_is_its_prior_predictive() -> None:
    residual, S = torch.tensor([1.5]).double(), torch.tensor([[0.75]]).double()
    ours = leave_one_out_log_density(residual, S, InverseGamma(torch.tensor(3.0).double()))
    reference = multivariate_t([0.0], [[0.25]], df=3.0)
    assert ours.item() == pytest.approx(reference.logpdf([1.5]), rel=1e-12)


def test_leave_one_out_works_in_batches() -> None:
    residual, S = data(3)
    df = torch.tensor(DFS, dtype=torch.float64)
    together = leave_one_out_log_density(residual, S, InverseGamma(df))
    for i in range(3):
        alone = leave_one_out_log_density(residual[i], S[i], InverseGamma(df[i]))
        torch.testing.assert_close(together[i], alone)


# ---- other laws, shared scales -------------------------------------------------------------------
LAWS = {
    "burr": BurrXII.of_spread(torch.tensor(3.0).double(), 1.5),
    "log-normal": LogNormal.of_spread(torch.tensor(3.0).double()),
}


def by_quadrature(residual: Tensor, S: Tensor, law: ScaleLaw) -> float:
    """log of the normal density averaged over s2."""
    y, matrix = residual.numpy(), S.numpy()

    def integrand(u: float) -> float:
        prior = law.log_density(torch.tensor(u, dtype=torch.float64)).item()
        return float(
            np.exp(prior + multivariate_normal(np.zeros(len(y)), np.exp(u) * matrix).logpdf(y))
        )

    return float(np.log(quad(integrand, -12, 14, epsabs=0, epsrel=1e-10, limit=300)[0]))


@pytest.mark.parametrize("name", LAWS)
def test_marginal_likelihood_of_other_laws_integrates_the_scale_out(name: str) -> None:
    residual, S = data()
    ours = marginal(residual, S, LAWS[name])
    assert ours.item() == pytest.approx(by_quadrature(residual, S, LAWS[name]), abs=1e-8)


@pytest.mark.parametrize("name", LAWS)
def test_leave_one_out_density_of_other_laws_is_the_ratio_of_joint_densities(name: str) -> None:
    residual, S = data()
    ours = leave_one_out_log_density(residual, S, LAWS[name])
    joint = by_quadrature(residual, S, LAWS[name])
    for i in (0, 3):
        rest = [j for j in range(N) if j != i]
        without = by_quadrature(residual[rest], S[rest][:, rest], LAWS[name])
        assert ours[i].item() == pytest.approx(joint - without, abs=1e-8)


@pytest.mark.parametrize("name", LAWS)
def test_gradients_of_the_marginal_likelihood_of_other_laws(name: str) -> None:
    residual, S = data(2)

    def value(residual: Tensor, root: Tensor, shared: bool) -> Tensor:
        return marginal(residual, root @ root.mT, LAWS[name], shared)

    arguments = [t.requires_grad_() for t in (residual, torch.linalg.cholesky(S))]
    for shared in (False, True):
        torch.autograd.gradcheck(lambda r, L, s=shared: value(r, L, s), arguments)


def test_outputs_that_share_a_scale_are_one_multivariate_t() -> None:
    """SciPy's, with a block-diagonal shape matrix: density, and that of each point given others."""
    residual, S = data(2)
    df = torch.full((2,), 5.0, dtype=torch.float64)
    shape = 3 / 5 * block_diag(*S.numpy())
    y = residual.reshape(-1).numpy()
    reference = multivariate_t(np.zeros(2 * N), shape, df=5.0).logpdf(y)
    ours = marginal(residual, S, InverseGamma(df), shared=True)
    assert ours.sum().item() == pytest.approx(reference, rel=1e-10)
    single = leave_one_out_log_density(residual, S, InverseGamma(df), shared=True).reshape(-1)
    for i in (0, 5, 9):
        rest = [j for j in range(2 * N) if j != i]
        without = multivariate_t(np.zeros(2 * N - 1), shape[np.ix_(rest, rest)], df=5.0)
        assert single[i].item() == pytest.approx(reference - without.logpdf(y[rest]), rel=1e-9)


def test_data_of_random_scale_are_predicted_best_by_the_mixture() -> None:
    """Six points whose scale was drawn from InvGamma(2, 2): the density at three new points beside
    Gaussian processes whose amplitude is the prior's mean, or the maximum-likelihood estimate."""
    tasks, n, new = 4000, 6, 3
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(tasks, n + new, 1, generator=generator, dtype=torch.float64)
    S = torch.exp(-0.5 * ((X - X.mT) / 0.3) ** 2) + 0.01 * torch.eye(n + new, dtype=torch.float64)
    normal = torch.randn(tasks, n + new, 1, generator=generator, dtype=torch.float64)
    gamma = torch._standard_gamma(torch.full((tasks,), 2.0).double(), generator=generator)
    # The law of mean 1 is InvGamma(2, 1), so that S is twice as large here.
    y = (2 / gamma).sqrt()[:, None] * (torch.linalg.cholesky(S) @ normal).squeeze(-1)
    law = InverseGamma(torch.full((tasks,), 4.0, dtype=torch.float64))

    def joint(k: int) -> Tensor:
        return marginal(y[:, :k], 2 * S[:, :k, :k], law)

    mixture = joint(n + new) - joint(n)
    zero = torch.zeros_like(y)
    form, _ = QuadraticFormAndLogDeterminant.apply(S[:, :n, :n], zero[:, :n], y[:, :n])

    def gaussian(amplitude: Tensor) -> Tensor:
        S_all = amplitude[:, None, None] * S
        return log_density(y, S_all, zero) - log_density(y[:, :n], S_all[:, :n, :n], zero[:, :n])

    for other in (gaussian(torch.full((tasks,), 2.0).double()), gaussian(form / n)):
        gain = mixture - other
        # Positive by theory; that the sample shows it is beyond doubt at this number of tasks.
        assert gain.mean() > 6 * gain.std() / tasks**0.5
