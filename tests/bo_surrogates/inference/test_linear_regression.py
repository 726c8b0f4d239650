"""Weight space is function space, and an update is the regression on all observations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bo_surrogates.inference.linear_regression import (
    FunctionSpace,
    WeightSpace,
    condition,
    gram,
    lower_times,
    products,
    times,
)

KINDS = [FunctionSpace, WeightSpace]
M, K = 2, 9
VARIANCE = torch.tensor([1.5, 0.4], dtype=torch.float64)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def observations(n: int, constant: bool) -> tuple[Tensor, Tensor, Tensor]:
    noise = numbers(M, seed=3).exp().expand(n, M) if constant else numbers(n, M, seed=3).exp()
    return numbers(n, K), numbers(n, M, seed=1), noise


def process(phi: Tensor, y: Tensor, noise: Tensor, at: Tensor, c: int) -> tuple[Tensor, Tensor]:
    """Mean and covariance of an outcome of the Gaussian process, by its textbook formulas."""
    S = VARIANCE[c] * phi @ phi.T + torch.diag(noise[:, c])
    cross = VARIANCE[c] * at @ phi.T
    mean = cross @ torch.linalg.solve(S, y[:, c])
    return mean, VARIANCE[c] * at @ at.T - cross @ torch.linalg.solve(S, cross.T)


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("n", [5, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_both_spaces_are_the_gaussian_process_of_the_features(
    kind: type[FunctionSpace] | type[WeightSpace], n: int, constant: bool
) -> None:
    phi, y, noise = observations(n, constant)
    at = numbers(4, K, seed=2)
    mean, covariance = kind.of(phi, VARIANCE, y, noise).joint(at)
    for c in range(M):
        expected = process(phi, y, noise, at, c)
        torch.testing.assert_close(mean[c], expected[0], rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(covariance[c], expected[1], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_one_observation_after_another_is_all_at_once(
    kind: type[FunctionSpace] | type[WeightSpace],
) -> None:
    phi, y, noise = observations(12, constant=False)
    at = numbers(4, K, seed=2)
    online: FunctionSpace | WeightSpace = kind.of(phi[:3], VARIANCE, y[:3], noise[:3])
    for i in range(3, 12):
        online = online.extend(phi[i : i + 1], y[i : i + 1], noise[i : i + 1])
    for one, all_at_once in zip(
        online.joint(at), kind.of(phi, VARIANCE, y, noise).joint(at), strict=True
    ):
        torch.testing.assert_close(one, all_at_once, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_observations_are_conditioned_on_separately(
    kind: type[FunctionSpace] | type[WeightSpace],
) -> None:
    phi, y, noise = observations(6, constant=True)
    new, values = numbers(3, 2, K, seed=4), numbers(5, 3, 2, M, seed=5)
    start = kind.of(phi, VARIANCE, y, noise)
    batched = start.extend(new, values, noise[0])
    assert batched.batch_shape == (5, 3)
    at = numbers(4, K, seed=2)
    mean, covariance = batched.joint(at)
    one = start.extend(new[1], values[2, 1], noise[0]).joint(at)
    torch.testing.assert_close(mean[2, 1], one[0])
    torch.testing.assert_close(covariance[2, 1], one[1])


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_weights_have_the_posteriors_mean_and_covariance(
    kind: type[FunctionSpace] | type[WeightSpace],
) -> None:
    phi, y, noise = observations(7, constant=False)
    posterior, count = kind.of(phi, VARIANCE, y, noise), 20_000
    weights = posterior.draw(count, torch.Generator().manual_seed(0))
    mean, covariance = posterior.joint(torch.eye(K, dtype=torch.float64))
    for c in range(M):
        white = torch.linalg.solve(
            torch.linalg.cholesky(covariance[c]), (weights[:, c] - mean[c]).T
        )
        # Means of standard normal numbers, and their products: beyond 6.5 standard errors with
        # probability below 1e-10 each.
        assert white.mean(dim=1).abs().max() < 6.5 * count**-0.5
        products = white @ white.T / count - torch.eye(K)
        assert products.abs().max() < 6.5 * (2 / count) ** 0.5


def test_the_space_of_the_cheaper_prediction_is_taken() -> None:
    for n, kind in ((3, FunctionSpace), (8, WeightSpace), (30, WeightSpace)):
        assert isinstance(condition(numbers(n, K), VARIANCE, *observations(n, True)[1:]), kind)


def test_the_gram_matrix_and_its_gradient_are_those_of_the_product() -> None:
    phi, weights = numbers(5, 3).requires_grad_(), numbers(5, 5, seed=1)
    torch.testing.assert_close(gram(phi), phi @ phi.T)
    (ours,) = torch.autograd.grad((weights * gram(phi)).sum(), phi)
    (theirs,) = torch.autograd.grad((weights * (phi @ phi.T)).sum(), phi)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rows", [(2, 5, 3), (4, 2, 5, 3), (4, 1, 5, 3), (6, 4, 2, 5, 3)], ids=str)
@pytest.mark.parametrize("matrices", [(2, 3, 7), (1, 3, 7), (4, 2, 3, 7)], ids=str)
def test_products_with_many_batches_of_rows_are_products(
    rows: tuple[int, ...], matrices: tuple[int, ...]
) -> None:
    a, b = numbers(*rows), numbers(*matrices, seed=1)
    torch.testing.assert_close(times(a, b), a @ b)


@pytest.mark.parametrize("n", [5, 300])
def test_products_by_blocks_are_the_products(n):
    generator = torch.Generator().manual_seed(n)
    phi = torch.randn(n, 7, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(products(phi), phi @ phi.mT)
    lower = torch.randn(n, n, generator=generator, dtype=torch.float64).tril()
    torch.testing.assert_close(lower_times(lower, phi), lower @ phi)
