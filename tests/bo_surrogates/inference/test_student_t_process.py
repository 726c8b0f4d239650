"""Student-t process regression against SciPy's multivariate t and quadrature over the scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import invgamma, multivariate_normal, multivariate_t
from torch import Tensor

from bo_surrogates.inference.student_t_process import (
    leave_one_out,
    log_marginal_likelihood,
    scale_factor,
)

N = 6
DFS = [2.2, 5.0, 40.0]


def data(*batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Residuals `batch x n` and positive definite S `batch x n x n`."""
    generator = torch.Generator().manual_seed(seed)
    residual = torch.randn(*batch, N, generator=generator, dtype=torch.float64)
    root = torch.randn(*batch, N, N, generator=generator, dtype=torch.float64)
    return 1.7 * residual, root @ root.mT / N + 0.3 * torch.eye(N, dtype=torch.float64)


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
    ours = log_marginal_likelihood(residual, S, df)
    for i, v in enumerate(DFS):
        reference = multivariate_t(np.zeros(N), (v - 2) / v * S[i].numpy(), df=v)
        assert ours[i].item() == pytest.approx(reference.logpdf(residual[i].numpy()), rel=1e-10)


@pytest.mark.parametrize("df", DFS)
def test_marginal_likelihood_integrates_the_scale_out(df: float) -> None:
    residual, S = data()
    integral, _ = quad(  # over log s2
        lambda u: of_scale(residual, S, df, np.exp(u)) * np.exp(u), -12, 14, epsabs=0, limit=200
    )
    ours = log_marginal_likelihood(residual, S, torch.tensor(df, dtype=torch.float64))
    assert ours.exp().item() == pytest.approx(integral, rel=1e-7)


def test_marginal_likelihood_becomes_the_gaussian_one_as_df_grows() -> None:
    residual, S = data()
    ours = log_marginal_likelihood(residual, S, torch.tensor(1e8, dtype=torch.float64))
    gaussian = multivariate_normal(np.zeros(N), S.numpy()).logpdf(residual.numpy())
    assert ours.item() == pytest.approx(gaussian, abs=1e-4)


@pytest.mark.parametrize("df", [2.5, 1e3, 1e6])
def test_marginal_likelihood_in_float32_keeps_its_digits(df: float) -> None:
    residual, S = data()
    v = torch.tensor(df, dtype=torch.float64)
    double = log_marginal_likelihood(residual, S, v)
    single = log_marginal_likelihood(residual.float(), S.float(), v.float())
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(double.item(), abs=1e-3)


def test_marginal_likelihood_with_a_free_amplitude_only_grows_with_df() -> None:
    """Why df is never chosen by it: with the best amplitude, v r / (n (v - 2)), more is better."""
    residual, S = data()
    r = quadratic_form(residual, S)
    values = [
        log_marginal_likelihood(
            residual, v * r / (N * (v - 2)) * S, torch.tensor(v, dtype=torch.float64)
        ).item()
        for v in (2.2, 3.0, 5.0, 10.0, 100.0, 1e4)
    ]
    gaussian = multivariate_normal(np.zeros(N), r / N * S.numpy()).logpdf(residual.numpy())
    assert (np.diff([*values, gaussian]) > 0).all()


def test_gradients_of_the_marginal_likelihood_equal_finite_differences() -> None:
    residual, S = data(2)
    df = torch.tensor([2.5, 7.0], dtype=torch.float64)

    def value(residual: Tensor, root: Tensor, df: Tensor) -> Tensor:
        return log_marginal_likelihood(residual, root @ root.mT, df)

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

    factor = scale_factor(torch.tensor(quadratic_form(residual, S)), N, torch.tensor(df))
    expected = moment(1) / moment(0)
    assert factor.item() * (df + N) / (df + N - 2) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("df", DFS)
def test_leave_one_out_density_is_the_ratio_of_joint_densities(df: float) -> None:
    """p(y_i | y_-i) = p(y) / p(y_-i), each by SciPy: a model without point i, not a formula."""
    residual, S = data()
    ours = leave_one_out(residual, S, torch.tensor(df, dtype=torch.float64)).log_prob(residual)
    shape, y = (df - 2) / df * S.numpy(), residual.numpy()
    joint = multivariate_t(np.zeros(N), shape, df=df).logpdf(y)
    for i in range(N):
        rest = [j for j in range(N) if j != i]
        without = multivariate_t(np.zeros(N - 1), shape[np.ix_(rest, rest)], df=df)
        assert ours[i].item() == pytest.approx(joint - without.logpdf(y[rest]), rel=1e-9)


def test_leave_one_out_of_one_point_is_its_prior_predictive() -> None:
    residual, S = torch.tensor([1.5]).double(), torch.tensor([[0.75]]).double()
    ours = leave_one_out(residual, S, torch.tensor(3.0).double())
    reference = multivariate_t([0.0], [[0.25]], df=3.0)
    assert ours.log_prob(residual).item() == pytest.approx(reference.logpdf([1.5]), rel=1e-12)


def test_leave_one_out_works_in_batches() -> None:
    residual, S = data(3)
    df = torch.tensor(DFS, dtype=torch.float64)
    together = leave_one_out(residual, S, df)
    for i in range(3):
        alone = leave_one_out(residual[i], S[i], df[i])
        torch.testing.assert_close(together.loc[i], alone.loc)
        torch.testing.assert_close(together.scale[i], alone.scale)
        torch.testing.assert_close(together.df[i], alone.df)
