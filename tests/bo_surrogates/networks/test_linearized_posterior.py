"""The posterior of the linearized network against Bayesian linear regression in plain NumPy, and
its forms against each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from botorch.exceptions.errors import UnsupportedError
from scipy.stats import norm
from torch import Tensor

from bo_surrogates.networks import BatchedMLP
from bo_surrogates.networks.kronecker_posterior import Kronecker, LastLayer
from bo_surrogates.networks.linearization import Linearization, linearize
from bo_surrogates.networks.linearized_posterior import (
    FunctionSpace,
    LinearizedPosterior,
    WeightPrior,
    WeightSpace,
    condition,
)

N, M = 7, 2
FORMS = {"function": FunctionSpace, "weight": WeightSpace, "last": LastLayer}


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Case:
    """A random network, prior and data, and the answers of linear regression."""

    def __init__(self, last_layer: bool = False, m: int = M) -> None:
        network = BatchedMLP(2, m, 4, 2)
        self.theta = normal(network.num_parameters, seed=0)
        self.prior = WeightPrior(
            network,
            0.3 * normal(network.num_parameters, seed=1),
            torch.tensor([0.5, 1.0, 0.3, 2.0, 0.7, 0.4], dtype=torch.float64),
        )
        self.last_layer = last_layer
        self.at = self.linearize(normal(N, 2, seed=2))
        self.new = self.linearize(normal(5, 2, seed=3))
        self.Y, self.noise = normal(N, m, seed=4), normal(N, m, seed=5).square() + 0.1

    def linearize(self, X: Tensor) -> Linearization:
        at = linearize(self.prior.network, self.theta, X)
        return at.last_layer() if self.last_layer else at

    def regression(
        self, at: Linearization, Y: Tensor, noise: Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of the weights: normal equations, nothing shared with the code."""
        J = at.jacobian().reshape(-1, len(self.theta)).numpy()
        offset = at.values.flatten().numpy() - J @ self.theta.numpy()
        weight = np.diag(1 / noise.flatten().numpy())
        S_inverse = np.diag(1 / self.prior.diagonal.numpy())
        covariance = np.linalg.inv(S_inverse + J.T @ weight @ J)
        pulled = J.T @ weight @ (Y.flatten().numpy() - offset)
        return covariance @ (pulled + S_inverse @ self.prior.mean.numpy()), covariance

    def predictions(
        self, weights: tuple[np.ndarray, np.ndarray], at: Linearization
    ) -> tuple[Tensor, Tensor]:
        mean, covariance = weights
        J = at.jacobian().reshape(-1, len(self.theta)).numpy()
        values = at.values.flatten().numpy() + J @ (mean - self.theta.numpy())
        return torch.from_numpy(values), torch.from_numpy(J @ covariance @ J.T)


@pytest.fixture(params=list(FORMS))
def form(request: pytest.FixtureRequest) -> tuple[Case, LinearizedPosterior]:
    case = Case(last_layer=request.param == "last")
    return case, FORMS[request.param].of(case.at, case.prior, case.Y, case.noise)


def test_every_form_is_bayesian_linear_regression(form: tuple[Case, LinearizedPosterior]) -> None:
    case, posterior = form
    weights = case.regression(case.at, case.Y, case.noise)
    mean, covariance = posterior.joint(case.new)
    expected = case.predictions(weights, case.new)
    torch.testing.assert_close(mean, expected[0])
    torch.testing.assert_close(covariance, expected[1])
    count = (4 + 1) * M if case.last_layer else len(case.theta)
    torch.testing.assert_close(
        posterior.mean_weights[-count:], torch.from_numpy(weights[0])[-count:]
    )


def test_the_smaller_space_is_taken() -> None:
    case = Case()
    assert isinstance(condition(case.at, case.prior, case.Y, case.noise), FunctionSpace)
    many = case.linearize(normal(60, 2, seed=7))
    Y = normal(60, M, seed=8)
    assert isinstance(condition(many, case.prior, Y, torch.ones_like(Y)), WeightSpace)


def test_new_observations_one_block_after_the_other_are_all_at_once(
    form: tuple[Case, LinearizedPosterior],
) -> None:
    case, posterior = form
    X, Y, noise = normal(4, 2, seed=7), normal(4, M, seed=8), normal(4, M, seed=9).square() + 0.1
    for i in (slice(0, 1), slice(1, 4)):
        posterior = posterior.extend(case.linearize(X[i]), Y[i], noise[i])
    everything = case.at.cat(case.linearize(X))
    weights = case.regression(everything, torch.cat([case.Y, Y]), torch.cat([case.noise, noise]))
    mean, covariance = posterior.joint(case.new)
    expected = case.predictions(weights, case.new)
    torch.testing.assert_close(mean, expected[0])
    torch.testing.assert_close(covariance, expected[1])


def test_batches_of_new_observations_are_separate(form: tuple[Case, LinearizedPosterior]) -> None:
    case, posterior = form
    X, Y = normal(3, 2, 2, seed=7), normal(4, 3, 2, M, seed=8)  # 4 fantasies at 3 batches of 2
    noise = torch.full((M,), 0.2, dtype=torch.float64)
    together = posterior.extend(case.linearize(X), Y, noise)
    assert together.batch_shape == (4, 3)
    test = normal(3, 5, 2, seed=9)
    mean, covariance = together.joint(case.linearize(test))
    assert mean.shape == (4, 3, 5 * M)
    for i, j in ((0, 0), (3, 1)):
        alone = posterior.extend(case.linearize(X[j]), Y[i, j], noise)
        expected = alone.joint(case.linearize(test[j]))
        torch.testing.assert_close(mean[i, j], expected[0])
        torch.testing.assert_close(covariance.expand(4, 3, -1, -1)[i, j], expected[1])


def assert_draws_follow(draws: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Means and variances of k draws along fixed directions; each bound fails at most at 1e-9."""
    k = len(draws)
    directions = normal(len(mean), 8, seed=11)
    along = (draws - mean) @ directions
    variance = (directions * (covariance @ directions)).sum(dim=0)
    z = norm.isf(1e-10)
    assert (along.mean(dim=0).abs() < z * (variance / k).sqrt()).all()
    # The variance of a Gaussian's sample variance is 2 v^2 / k.
    assert ((along.square().mean(dim=0) / variance - 1).abs() < z * (2 / k) ** 0.5).all()


def test_drawn_weights_have_the_posteriors_mean_and_covariance(
    form: tuple[Case, LinearizedPosterior],
) -> None:
    case, posterior = form
    mean, covariance = map(torch.from_numpy, case.regression(case.at, case.Y, case.noise))
    draws = posterior.draw(20_000, torch.Generator().manual_seed(0))
    if case.last_layer:
        count = (4 + 1) * M
        torch.testing.assert_close(
            draws[:, :-count], case.theta[:-count].expand(len(draws), -1), rtol=0, atol=0
        )
        draws, mean, covariance = draws[:, -count:], mean[-count:], covariance[-count:, -count:]
    assert_draws_follow(draws, mean, covariance)


# ---- Kronecker factors -----------------------------------------------------------------------
def block_diagonal(case: Case, matrix: np.ndarray) -> np.ndarray:
    """A `P x P` matrix without its products between layers."""
    sizes = [i * o + o for i, o in case.prior.network.fan]
    keep, start = np.zeros_like(matrix), 0
    for size in sizes:
        block = slice(start, start + size)
        keep[block, block] = matrix[block, block]
        start += size
    return keep


def test_one_observation_of_one_outcome_has_exact_kronecker_factors() -> None:
    """One h and one delta: the sum of products is a product of sums."""
    case = Case(m=1)
    at = case.linearize(normal(1, 2, seed=2))
    noise = torch.full((1, 1), 0.3, dtype=torch.float64)
    J = at.jacobian().reshape(-1, len(case.theta)).numpy()
    precision = np.diag(1 / case.prior.diagonal.numpy()) + block_diagonal(case, J.T @ J / 0.3)
    covariance = np.linalg.inv(precision)
    posterior = Kronecker.of(at, case.prior, torch.zeros(1, 1).double(), noise)
    mean, actual = posterior.joint(case.new)
    expected = case.predictions((case.theta.numpy(), covariance), case.new)
    torch.testing.assert_close(mean, expected[0])
    torch.testing.assert_close(actual, expected[1])
    draws = posterior.draw(20_000, torch.Generator().manual_seed(0))
    assert_draws_follow(draws, case.theta, torch.from_numpy(covariance))


def test_kronecker_factors_are_products_of_sums_layer_by_layer() -> None:
    """Against explicit Kronecker products, several observations of several outcomes."""
    case = Case()
    total = np.zeros((len(case.theta), len(case.theta)))
    start, eye = 0, torch.eye(M).double().expand(N, M, M)
    for h, delta in zip(case.at.inputs, (*case.at.deltas, eye), strict=True):
        one = torch.cat([h, torch.ones(N, 1).double()], dim=-1)
        A = one.T @ one
        B = torch.einsum("nma,nmb,nm->ab", delta, delta, 1 / case.noise) / N
        size = one.shape[-1] * delta.shape[-1]
        block = slice(start, start + size)
        total[block, block] = torch.kron(A, B).numpy()
        start += size
    precision = np.diag(1 / case.prior.diagonal.numpy()) + total
    posterior = Kronecker.of(case.at, case.prior, case.Y, case.noise)
    expected = case.predictions((case.theta.numpy(), np.linalg.inv(precision)), case.new)
    torch.testing.assert_close(posterior.joint(case.new)[1], expected[1])


def test_a_kronecker_posterior_cannot_be_conditioned() -> None:
    case = Case()
    posterior = Kronecker.of(case.at, case.prior, case.Y, case.noise)
    with pytest.raises(UnsupportedError, match="warm_start"):
        posterior.extend(case.new, case.Y, case.noise)
