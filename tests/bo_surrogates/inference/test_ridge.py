"""Every figure of the ridge path against the regressions it stands for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bo_surrogates.inference.ridge import RidgePath, TridiagonalEvidence, best_evidence

RIDGES = torch.tensor([1e-3, 0.1, 5.0], dtype=torch.float64)
WIDE, TALL = (12, 30), (40, 7)  # n x k: decomposed in function space, in weight space


def problem(n: int, k: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    phi = torch.randn(n, k, generator=generator, dtype=torch.float64) / k**0.5
    return phi, torch.randn(n, 2, generator=generator, dtype=torch.float64)


def fitted(phi: Tensor, y: Tensor, ridge: float, at: Tensor) -> Tensor:
    """Predictions of ridge regression, by the normal equations."""
    eye = torch.eye(phi.shape[-1], dtype=torch.float64)
    return at @ torch.linalg.solve(phi.T @ phi + ridge * eye, phi.T @ y)


@pytest.mark.parametrize("shape", [WIDE, TALL], ids=str)
def test_leave_one_out_errors_are_those_of_refits(shape: tuple[int, int]) -> None:
    phi, y = problem(*shape)
    errors = RidgePath.of(phi, y).leave_one_out(RIDGES)
    for g, ridge in enumerate(RIDGES.tolist()):
        for i in range(len(phi)):
            rest = torch.arange(len(phi)) != i
            expected = y[i] - fitted(phi[rest], y[rest], ridge, phi[i])
            torch.testing.assert_close(errors[g, i], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [WIDE, TALL], ids=str)
def test_training_error_and_cross_validation_follow_their_definitions(
    shape: tuple[int, int],
) -> None:
    phi, y = problem(*shape)
    path, n = RidgePath.of(phi, y), len(phi)
    for g, ridge in enumerate(RIDGES.tolist()):
        residual = y - fitted(phi, y, ridge, phi)
        training = residual.square().mean(dim=0)
        torch.testing.assert_close(path.training_error(RIDGES)[g], training)
        P = torch.linalg.inv(phi @ phi.T + ridge * torch.eye(n).double())
        expected = training / (ridge * P.trace() / n).square()
        torch.testing.assert_close(path.generalized_cross_validation(RIDGES)[g], expected)
        smoother = torch.eye(n).double() - ridge * P
        torch.testing.assert_close(path.effective_parameters(RIDGES)[g], smoother.trace())


@pytest.mark.parametrize("shape", [WIDE, TALL], ids=str)
def test_standardized_leave_one_out_errors_are_those_of_the_predictive_variances(
    shape: tuple[int, int],
) -> None:
    phi, y = problem(*shape)
    squares = RidgePath.of(phi, y).standardized_leave_one_out(RIDGES)
    n, ridge = len(phi), RIDGES[1].item()
    total = torch.zeros(2, dtype=torch.float64)
    for i in range(n):
        rest = torch.arange(n) != i
        S = phi[rest] @ phi[rest].T + ridge * torch.eye(n - 1).double()
        cross = phi[i] @ phi[rest].T
        variance = phi[i] @ phi[i] + ridge - cross @ torch.linalg.solve(S, cross)
        total += (y[i] - cross @ torch.linalg.solve(S, y[rest])).square() / variance
    torch.testing.assert_close(squares[1], total / n)


@pytest.mark.parametrize("shape", [WIDE, TALL], ids=str)
@pytest.mark.parametrize("kind", [RidgePath, TridiagonalEvidence])
@pytest.mark.parametrize("outcome", [0, 1])
def test_the_evidence_is_the_density_of_the_outcomes(
    shape: tuple[int, int], kind: type[RidgePath | TridiagonalEvidence], outcome: int
) -> None:
    phi, y = problem(*shape)
    variance, noise = 1.7, 0.3
    S = variance * phi @ phi.T + noise * torch.eye(len(phi)).double()
    normal = torch.distributions.MultivariateNormal(torch.zeros(len(phi)).double(), S)
    value = kind.of(phi, y).evidence(outcome)(variance, noise)[0]
    assert value == pytest.approx(normal.log_prob(y[:, outcome]).item(), rel=1e-10)


@pytest.mark.parametrize("shape", [WIDE, TALL], ids=str)
@pytest.mark.parametrize("kind", [RidgePath, TridiagonalEvidence])
def test_the_slopes_of_the_evidence_are_its_finite_differences(
    shape: tuple[int, int], kind: type[RidgePath | TridiagonalEvidence]
) -> None:
    evidence = kind.of(*problem(*shape)).evidence(0)
    _, of_variance, of_noise = evidence(1.7, 0.3)
    up, h = evidence, 1e-5
    factor = torch.tensor(h).double().exp().item()
    assert of_variance == pytest.approx(
        (up(1.7 * factor, 0.3)[0] - up(1.7 / factor, 0.3)[0]) / (2 * h), rel=1e-5
    )
    assert of_noise == pytest.approx(
        (up(1.7, 0.3 * factor)[0] - up(1.7, 0.3 / factor)[0]) / (2 * h), rel=1e-5
    )


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("repeated", [False, True])
def test_the_evidence_of_few_and_of_repeated_observations(n: int, repeated: bool) -> None:
    phi, y = problem(n, 5)
    if repeated:
        phi, y = phi[:1].expand(4, -1), y[:1].expand(4, -1)
    expected = RidgePath.of(phi, y).evidence(1)(0.8, 1e-4)
    assert TridiagonalEvidence.of(phi, y).evidence(1)(0.8, 1e-4) == pytest.approx(
        expected, rel=1e-7, abs=1e-9
    )


@pytest.mark.parametrize("criterion", ["loo", "gcv"])
def test_the_best_ridge_has_the_smallest_error_of_a_fine_grid(criterion: str) -> None:
    generator = torch.Generator().manual_seed(3)
    phi = torch.randn(60, 20, generator=generator, dtype=torch.float64) / 20**0.5
    weights = torch.randn(20, 1, generator=generator, dtype=torch.float64)
    y = phi @ weights + 0.5 * torch.randn(60, 1, generator=generator, dtype=torch.float64)
    path = RidgePath.of(phi, y)

    def error(ridges: Tensor) -> Tensor:
        if criterion == "gcv":
            return path.generalized_cross_validation(ridges)[:, 0]
        return path.leave_one_out(ridges).square().mean(dim=1)[:, 0]

    best = torch.tensor([path.best_ridge(criterion)], dtype=torch.float64)
    fine = torch.logspace(-5, 3, 2000, dtype=torch.float64)
    assert error(best).item() <= error(fine).min().item() * (1 + 1e-5)


def test_the_best_evidence_has_the_largest_of_a_fine_grid() -> None:
    phi, y = problem(*TALL)
    path, prior = RidgePath.of(phi, y), ((0.0, 1.0), (-2.0, 1.0))
    bounds = ((-7.0, 7.0), (-9.0, 2.0))
    variance, noise = best_evidence(path.evidence(), *prior, (0.0, -2.0), bounds)

    def value(log_variance: float, log_noise: float) -> float:
        shift = (log_noise + 2.0) ** 2
        evidence = path.evidence(0)(torch.tensor(log_variance).exp().item(),
                                     torch.tensor(log_noise).exp().item())[0]  # fmt: skip
        return evidence - 0.5 * (log_variance**2 + shift)

    best = value(torch.tensor(variance).log().item(), torch.tensor(noise).log().item())
    grid = torch.linspace(-5, 2, 40).tolist()
    assert best >= max(value(a, b) for a in grid for b in grid) - 1e-6
