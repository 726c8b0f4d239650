import numpy as np
import pytest
import torch

from problems import PROBLEMS
from problems.physical.brusselator import (
    CELLS,
    PERTURBATION,
    _coefficients,
    _laplacian,
    integrate,
)


def euler(parameters, perturbation, end, steps):
    """The same equations by Euler's method, cell by neighbour."""
    a, b, D0, D1 = parameters
    u, v = np.full((CELLS, CELLS), a), b / a + perturbation
    dt = end / steps
    for _ in range(steps):
        p, q = (np.pad(w, 1, mode="edge") for w in (u, v))
        lu, lv = (
            w[2:, 1:-1] + w[:-2, 1:-1] + w[1:-1, 2:] + w[1:-1, :-2] - 4 * w[1:-1, 1:-1]
            for w in (p, q)
        )
        reaction = u * u * v
        u, v = (
            u + dt * (D0 * lu + a - (b + 1) * u + reaction),
            v + dt * (D1 * lv + b * u - reaction),
        )
    return np.stack([u, v])


@pytest.mark.parametrize(
    ("point", "expected", "tolerance"),
    [
        ((1.0, 1.0, 1.0, 1.0), 0.08622, 1e-5),
        ((2.5, 2.5, 1.0, 1.0), 0.33711, 1e-5),
        ((0.5, 0.5, 0.5, 0.5), 0.05662, 1e-5),
        ((1.0, 3.0, 1.0, 0.1), 0.65, 0.2),  # oscillates: depends on the start
    ],
)
def test_the_reference_study_s_values_are_met(point, expected, tolerance):
    problem = PROBLEMS["brusselator"].make()
    X = torch.tensor([point], dtype=torch.float64)
    assert problem(X, seed=1).item() == pytest.approx(expected, abs=tolerance)


def test_the_integrator_agrees_with_euler_s_method_in_small_steps(monkeypatch):
    monkeypatch.setattr("problems.physical.brusselator.END", 1.0)
    start = PERTURBATION * np.random.default_rng(0).standard_normal((CELLS, CELLS))
    parameters = np.array([[1.0, 3.0, 0.5, 0.2]])
    ours = integrate(parameters, start[None], 1e-8)[0]
    coarse, fine = (euler(parameters[0], start, 1.0, steps) for steps in (500, 1000))
    error = np.abs(coarse - ours).max()
    assert 1e-5 < error < 5e-3
    # Euler's error is of order one in the step: extrapolation takes most of it away.
    assert np.abs(2 * fine - coarse - ours).max() < 0.05 * error


@pytest.mark.parametrize("stages", [2, 5, 20, 100])
def test_the_chebyshev_method_is_of_order_two_and_stable_as_far_as_its_stages_promise(stages):
    def amplification(z):
        first, rows = _coefficients(stages)
        before, now = 1.0, 1.0 + first * z
        for j in range(2, stages + 1):
            fixed, mu, nu, mu_slope, gamma = rows[j]
            before, now = now, mu_slope * z * now + mu * now + nu * before + fixed + gamma * z
        return now

    for z in (-1e-2, 1e-2):
        assert amplification(z) == pytest.approx(1 + z + z * z / 2, abs=abs(z) ** 3)
    reach = 0.653 * (stages**2 - 1)
    assert all(abs(amplification(-z)) <= 1 + 1e-9 for z in np.linspace(0, reach, 500))


def test_the_laplacian_lets_nothing_out_and_is_that_of_a_cosine():
    W = np.random.default_rng(0).standard_normal((2, 2, CELLS, CELLS))
    np.testing.assert_allclose(_laplacian(W).sum(axis=(-1, -2)), 0, atol=1e-10)
    k = np.pi * 3 / CELLS
    mode = np.cos(k * (np.arange(CELLS) + 0.5))[:, None] * np.ones(CELLS)
    eigenvalue = 2 * np.cos(k) - 2
    np.testing.assert_allclose(_laplacian(mode[None, None])[0, 0], eigenvalue * mode, atol=1e-13)


def test_a_batch_gives_what_its_points_give_one_by_one():
    problem = PROBLEMS["brusselator"].make()
    X = torch.tensor([[1, 1, 1, 1], [2, 1, 0.5, 3], [1, 2.5, 1, 1]], dtype=torch.float64)
    batch = problem(X, noise=False)
    torch.testing.assert_close(batch, torch.cat([problem(x[None], noise=False) for x in X]))


def test_each_observation_has_a_start_of_its_own_unless_told_otherwise():
    X = torch.tensor([[1.0, 1.0, 1.0, 1.0]] * 2, dtype=torch.float64)
    one, two = PROBLEMS["brusselator"].make()(X, seed=3).tolist()
    assert one != two
    assert one == PROBLEMS["brusselator"].make()(X, seed=3)[0].item()
    fixed = PROBLEMS["brusselator"].make(random_start=False)
    assert torch.equal(fixed(X, seed=3), fixed(X, noise=False))
