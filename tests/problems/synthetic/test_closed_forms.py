"""Values of the synthetic problems against their formulas written again in NumPy."""

import numpy as np
import pytest
import torch
from botorch.test_functions.multi_objective import BraninCurrin
from botorch.utils.multi_objective.box_decompositions.dominated import DominatedPartitioning
from botorch.utils.multi_objective.pareto import is_non_dominated
from scipy.optimize import brentq

from bo_surrogates.errors import InputError
from problems import PROBLEMS


def branin(x1, x2):
    square = (x2 - 5.1 * x1**2 / (4 * np.pi**2) + 5 * x1 / np.pi - 6) ** 2
    return square + 10 * (1 - 1 / (8 * np.pi)) * np.cos(x1) + 10


def currin(x1, x2):
    ratio = (2300 * x1**3 + 1900 * x1**2 + 2092 * x1 + 60) / (
        100 * x1**3 + 500 * x1**2 + 4 * x1 + 20
    )
    return (1 - np.exp(-1 / (2 * x2))) * ratio


def hartmann6(x):
    rows = (
        (1.0, "10 3 17 3.5 1.7 8", "1312 1696 5569 124 8283 5886"),
        (1.2, "0.05 10 17 0.1 8 14", "2329 4135 8307 3736 1004 9991"),
        (3.0, "3 3.5 1.7 10 17 8", "2348 1451 3522 2883 3047 6650"),
        (3.2, "17 8 0.05 10 0.1 14", "4047 8828 8732 5743 1091 381"),
    )
    total = 0.0
    for alpha, a, p in rows:
        a, p = (np.array([float(w) for w in words.split()]) for words in (a, p))
        total -= alpha * np.exp(-(a * (x - p * 1e-4) ** 2).sum(axis=-1))
    return total


def ackley(z):
    rms = np.sqrt((z**2).mean(axis=-1))
    return 20 + np.e - 20 * np.exp(-0.2 * rms) - np.exp(np.cos(2 * np.pi * z).mean(axis=-1))


@pytest.fixture(scope="module")
def unit():
    return torch.rand(200, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_branin_agrees_with_its_formula(unit):
    X = unit[:, :2] * torch.tensor([15.0, 15.0]) - torch.tensor([5.0, 0.0])
    np.testing.assert_allclose(PROBLEMS["branin"].make()(X), branin(*X.T.numpy()), rtol=1e-12)


def test_hartmann6_agrees_with_its_formula_in_double_precision(unit):
    np.testing.assert_allclose(
        PROBLEMS["hartmann6"].make()(unit), hartmann6(unit.numpy()), rtol=1e-12, atol=1e-15
    )


def test_branin_currin_agrees_with_its_formulas(unit):
    x1, x2 = unit[:, :2].T.numpy()
    expected = np.stack([branin(15 * x1 - 5, 15 * x2), currin(x1, x2)], axis=-1)
    np.testing.assert_allclose(PROBLEMS["branin_currin"].make()(unit[:, :2]), expected, rtol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 6])
def test_ackley_agrees_with_its_formula_about_the_shifted_optimum(unit, dim):
    problem = PROBLEMS["ackley"].make(dim=dim, shift_seed=3)
    X = (2 * unit[:, :dim] - 1) * 32.768
    expected = ackley((X - problem.optimizers).numpy())
    np.testing.assert_allclose(problem(X), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["branin", "hartmann6"])
def test_the_gradient_vanishes_and_the_curvature_is_positive_at_the_optima(name):
    problem = PROBLEMS[name].make()
    for x in problem.optimizers:
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(problem(x), x)
        assert gradient.abs().max() < 1e-12
        hessian = torch.autograd.functional.hessian(problem, x.detach())
        assert torch.linalg.eigvalsh(hessian).min() > 1e-3


def test_ackley_grows_in_every_direction_from_its_optimum():
    problem = PROBLEMS["ackley"].make(dim=4)
    (x,) = problem.optimizers
    for direction in torch.eye(4, dtype=torch.float64):
        for step in (-1e-3, 1e-3):
            assert problem(x + step * direction) > 1e-4


def test_ackley_s_optimum_is_off_the_centre_inside_the_box_and_set_by_its_seed():
    first, again, other = (PROBLEMS["ackley"].make(shift_seed=s).optimizers for s in (0, 0, 1))
    assert first.shape == (1, 10)
    assert (first.abs() <= 0.8 * 32.768).all()
    assert first.norm() > 0.8 * 32.768 / 2
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not PROBLEMS["ackley"].make(shifted=False).optimizers.any()


def test_ackley_options_out_of_range_are_refused_by_name():
    with pytest.raises(InputError, match=r"ShiftedConfig.dim must be in \[1, 10000\]"):
        PROBLEMS["ackley"].make(dim=0)


def least_branin(c):
    """min f1 subject to f2 <= c: f2 falls with x2, so the constraint is x2 >= `needed`, above which
    f1 is a parabola in x2. The edge x2 = 1 is added exactly, for the minimum may lie on it."""
    # The front lies at small x1.
    grid = np.concatenate([np.linspace(0, 0.2, 10_000), np.linspace(0.2, 1, 1000)[1:]])

    def slack(x1):  # of f2 <= c at x2 = 1
        return c - currin(x1, 1.0)

    signs = np.sign(slack(grid))
    crossings = [
        brentq(slack, grid[i], grid[i + 1], xtol=1e-15)
        for i in np.flatnonzero(signs[1:] != signs[:-1])
    ]
    # The factor is 1 as x2 -> 0, so currin(x1, 1e-9) is the ratio r(x1).
    x1 = np.concatenate([grid, crossings])
    ratio = currin(x1, 1e-9)
    share = np.minimum(c / ratio, 1 - 1e-15)
    needed = np.where(c >= ratio, 0.0, -0.5 / np.log1p(-share))
    u = 15 * x1 - 5
    valley = (5.1 * u**2 / (4 * np.pi**2) - 5 * u / np.pi + 6) / 15
    x2 = np.clip(np.maximum(valley, needed), None, 1.0)
    return np.where(needed <= 1 + 1e-12, branin(u, 15 * x2), np.inf).min()


def test_the_largest_hypervolume_of_branin_currin_is_the_area_above_the_front_by_quadrature():
    nodes, weights = np.polynomial.legendre.leggauss(150)
    lowest = currin(0.0, 1.0)  # no point has a smaller f2
    c = lowest + (6 - lowest) * (nodes + 1) / 2
    area = (weights * (18 - np.array([least_branin(ci) for ci in c]))).sum() * (6 - lowest) / 2
    problem = PROBLEMS["branin_currin"].make()
    # 1e-4: the inner minimum is on a grid.
    assert problem.max_hv == pytest.approx(area, abs=1e-4)
    assert BraninCurrin().max_hv < problem.max_hv


def test_no_front_of_sampled_points_exceeds_the_largest_hypervolume_of_branin_currin():
    problem = PROBLEMS["branin_currin"].make(negate=True)
    ticks = torch.linspace(0, 1, 250, dtype=torch.float64)
    Y = problem(torch.cartesian_prod(ticks.square(), ticks))
    Y = Y[(problem.ref_point < Y).all(dim=-1)]
    front = Y[is_non_dominated(Y)]
    reached = DominatedPartitioning(problem.ref_point, front).compute_hypervolume().item()
    assert problem.max_hv - 1.0 < reached < problem.max_hv
