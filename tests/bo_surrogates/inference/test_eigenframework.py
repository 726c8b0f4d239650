"""Predicted errors of ridge regression against simulations in the theory's own setting: Gaussian
inputs, so that the eigenfunctions are the coordinates."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.inference.eigenframework import Eigenstructure, optimal_fitting_ratio
from bo_surrogates.inference.ridge import RidgePath
from bo_surrogates.kernels.dual_activations import ReLU
from bo_surrogates.kernels.recursion import Network, propagate

INDEX = torch.arange(1, 401, dtype=torch.float64)
VALUES, POWER = INDEX**-1.5, INDEX**-2.0
DRAWS = 100


class Digits:
    """Scikit-learn's digits: |x| = 8, classes as 0.9 and -0.1, the kernel of one ReLU layer."""

    def __init__(self) -> None:
        data = load_digits()
        X = torch.from_numpy(data.data).double()
        self.X = 8.0 * X / X.norm(dim=-1, keepdim=True)
        self.Y = torch.eye(10, dtype=torch.float64)[torch.from_numpy(data.target)] - 0.1
        q, zero = self.X.square().mean(dim=-1, keepdim=True), torch.zeros(1, 1).double()
        network = Network(ReLU(), 1, 2.0)
        self.K = propagate(network, q, q.mT, self.X @ self.X.T / 64, zero, tangent=False).K
        values, self.vectors = torch.linalg.eigh(self.K)
        self.values = values.clamp_min(0) / len(values)

    def structure(self, y: Tensor) -> Eigenstructure:
        """`Eigenstructure.of_gram`, with one decomposition for all classes."""
        return Eigenstructure(self.values, (self.vectors.mT @ y).square() / len(y))


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def simulate(n: int, k: int | None, ridge: float, noise: float) -> Tensor:
    """`DRAWS x 4` test, training, leave-one-out and cross-validation errors.

    The test error is exact given the weights: inputs are standard normal and uncorrelated.
    """
    rows = []
    for seed in range(DRAWS):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        x, coefficients = normal(n, len(INDEX)), POWER.sqrt()
        y = (x @ coefficients + noise**0.5 * normal(n)).unsqueeze(-1)
        A = VALUES.sqrt().diag() if k is None else VALUES.sqrt().unsqueeze(-1) * normal(400, k)
        A = A if k is None else A / k**0.5
        phi = x @ A
        eye = torch.eye(n, dtype=torch.float64)
        fit = A @ (phi.T @ torch.linalg.solve(phi @ phi.T + ridge * eye, y))
        test = (fit.squeeze(-1) - coefficients).square().sum() + noise
        path, at = RidgePath.of(phi, y), torch.tensor([ridge]).double()
        rows.append([test, path.training_error(at)[0, 0],
                     path.leave_one_out(at).square().mean(),
                     path.generalized_cross_validation(at)[0, 0]])  # fmt: skip
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(
    ("n", "k", "ridge", "noise"),
    [(60, 180, 0.01, 0.1), (60, 40, 0.01, 0.1), (120, 60, 0.3, 0.0), (60, None, 0.05, 0.1)],
)
def test_predicted_errors_are_those_of_simulations(
    n: int, k: int | None, ridge: float, noise: float
) -> None:
    structure, width = Eigenstructure(VALUES, POWER, noise), math.inf if k is None else k
    errors = simulate(n, k, ridge, noise)
    mean, standard_error = errors.mean(dim=0), errors.std(dim=0) / DRAWS**0.5
    test = structure.test_error(n, width, ridge)
    # The theory is exact for large n only: 4 % besides six standard errors.
    for column, expected in ((0, test), (1, structure.train_error(n, width, ridge)),
                             (2, test), (3, test)):  # fmt: skip
        assert abs(mean[column] - expected) < 0.04 * expected + 6 * standard_error[column]
        assert standard_error[column] < 0.05 * expected  # a test that can fail


@pytest.mark.parametrize(("n", "k", "ridge"), [(100, 300, 0.01), (100, 60, 1e-6), (5, math.inf, 3)])
def test_the_two_equations_are_solved(n: float, k: float, ridge: float) -> None:
    kappa, gamma = Eigenstructure(VALUES, POWER).solve(n, k, ridge)
    z = (VALUES / (VALUES + gamma)).sum().item()
    assert z + ridge / kappa == pytest.approx(n, rel=1e-9)
    if math.isfinite(k):
        assert z + k * kappa / gamma == pytest.approx(k, rel=1e-9)
    else:
        assert kappa == gamma


def test_a_kernel_is_the_limit_of_many_features() -> None:
    structure = Eigenstructure(VALUES, POWER, 0.1)
    limit = structure.test_error(100, math.inf, 0.05)
    assert structure.test_error(100, 1e9, 0.05) == pytest.approx(limit, rel=1e-6)


def test_one_eigenvalue_has_a_closed_form() -> None:
    """lambda = 1: kappa solves n = 1 / (1 + kappa) + delta / kappa."""
    n, ridge = 3.0, 0.5
    kappa, _ = Eigenstructure(torch.ones(1).double(), torch.ones(1).double()).solve(
        n, math.inf, ridge
    )
    b = n - 1 - ridge
    assert kappa == pytest.approx((-b + (b * b + 4 * n * ridge) ** 0.5) / (2 * n), rel=1e-9)


def test_more_features_and_more_data_never_hurt_at_the_best_ridge() -> None:
    structure = Eigenstructure(VALUES, POWER, 0.1)

    def best(n: float, k: float) -> float:
        return structure.test_error(n, k, structure.best_ridge(n, k))

    over_k = [best(100, k) for k in (20, 50, 100, 200, 1000, math.inf)]
    over_n = [best(n, 100) for n in (20, 50, 100, 200, 1000)]
    assert over_k == sorted(over_k, reverse=True)
    assert over_n == sorted(over_n, reverse=True)


def test_without_a_ridge_the_error_peaks_where_features_equal_observations() -> None:
    structure = Eigenstructure(VALUES, POWER, 0.1)
    peak, few, many = (structure.test_error(100, k, 1e-6) for k in (99, 20, 1000))
    assert peak > 10 * max(few, many)


@pytest.mark.parametrize(
    ("alpha", "beta", "noise"), [(1.5, 2.0, 0.0), (1.5, 2.0, 2.0), (2.0, 1.5, 0.0)]
)
def test_the_optimal_fitting_ratio_is_that_of_the_best_ridge(
    alpha: float, beta: float, noise: float
) -> None:
    index = torch.arange(1, 100_001, dtype=torch.float64)
    clean, n = Eigenstructure(index**-alpha, index**-beta), 200
    sigma2 = noise * clean.test_error(n, math.inf, 1e-8)
    structure = Eigenstructure(index**-alpha, index**-beta, sigma2)
    ridge = structure.best_ridge(n, math.inf)
    ratio = structure.train_error(n, math.inf, ridge) / structure.test_error(n, math.inf, ridge)
    # The closed form is that of n to infinity.
    assert ratio**0.5 == pytest.approx(optimal_fitting_ratio(alpha, beta, noise) ** 0.5, abs=0.03)


def test_the_empirical_structure_is_that_of_the_law_of_the_inputs() -> None:
    """A kernel of few eigenvalues and many inputs: the two agree to the inputs' sampling error."""
    generator = torch.Generator().manual_seed(0)
    N, values, power = 4000, torch.tensor([1.0, 0.3, 0.05]), torch.tensor([0.5, 1.0, 2.0])
    x = torch.randn(N, 3, generator=generator, dtype=torch.float64)
    y = x @ power.sqrt().double()
    phi = x * values.sqrt()
    # Of 3 features, by their covariance: the other N - 3 eigenvalues are 0.
    empirical = Eigenstructure.of_gram((phi @ phi.T)[:600, :600], y[:600])
    order = empirical.eigenvalues.argsort(descending=True)[:3]
    torch.testing.assert_close(empirical.eigenvalues[order], values.double(), rtol=0.35, atol=0)
    predicted = empirical.test_error(20, math.inf, 0.1)
    exact = Eigenstructure(values.double(), power.double()).test_error(20, math.inf, 0.1)
    assert predicted == pytest.approx(exact, rel=0.3)


@pytest.mark.parametrize("n", [50, 100])
def test_the_errors_on_digits_are_predicted_from_the_kernel_alone(digits: Digits, n: int) -> None:
    """No Gaussian inputs: 1797 images, their classes, and the kernel of one ReLU layer.

    The law of the inputs is that of the 1797 images, training ones included: the error over all of
    them is what is predicted, test and training errors weighted.
    """
    K, Y, ridge = digits.K, digits.Y, 0.05
    predicted = 0.0
    for column in Y.T:
        predicted += digits.structure(column).test_error(n, math.inf, ridge)
    errors = []
    for seed in range(12):
        at = torch.randperm(len(K), generator=torch.Generator().manual_seed(seed))[:n]
        fit = torch.linalg.solve(K[at][:, at] + ridge * torch.eye(n), Y[at])
        errors.append((K[:, at] @ fit - Y).square().sum(dim=-1).mean())
    assert predicted == pytest.approx(torch.stack(errors).mean().item(), rel=0.06)


def test_more_features_lower_the_error_on_digits_at_the_best_ridge(digits: Digits) -> None:
    """Of ReLU features, 5 draws and training sets; the ridge is chosen by leave-one-out errors."""
    means = []
    for k in (30, 100, 1000):
        errors = []
        for seed in range(5):
            generator = torch.Generator().manual_seed(seed)
            weights = torch.randn(64, k, generator=generator, dtype=torch.float64)
            phi = torch.relu(digits.X @ weights) / k**0.5
            at = torch.randperm(len(phi), generator=generator)
            train, test = at[:200], at[200:]
            path = RidgePath.of(phi[train], digits.Y[train])
            ridges = torch.logspace(-5, 1, 25, dtype=torch.float64)
            scores = torch.stack([path.leave_one_out(r[None]).square().mean() for r in ridges])
            ridge = ridges[int(scores.argmin())]
            G = phi[train].T @ phi[train] + ridge * torch.eye(k)
            fit = phi[test] @ torch.linalg.solve(G, phi[train].T @ digits.Y[train])
            errors.append((fit - digits.Y[test]).square().sum(dim=-1).mean())
        means.append(torch.stack(errors).mean().item())
    assert means[0] > 1.2 * means[1] > 1.2 * 1.1 * means[2]


def test_bad_arguments_are_named() -> None:
    structure = Eigenstructure(VALUES, POWER)
    with pytest.raises(InputError, match="ridge"):
        structure.solve(10, 10, 0.0)
    with pytest.raises(InputError, match="eigenvalues"):
        Eigenstructure(VALUES, POWER[:3])
    with pytest.raises(InputError, match="power and noise"):
        Eigenstructure(VALUES, POWER, -1.0)
    with pytest.raises(InputError, match="beta"):
        optimal_fitting_ratio(1.5, 9.0, 0.0)
