"""Optima against outcome constraints: found again by other means, and formulas written again."""

import itertools
import math

import numpy as np
import pytest
import torch
from botorch.test_functions.synthetic import WeldedBeamSO
from scipy.optimize import minimize

from problems import PROBLEMS


def welded_beam(h, weld, t, b):
    load, length = 6000.0, 14.0
    tau1 = load / (math.sqrt(2) * h * weld)
    moment = load * (length + weld / 2)
    radius = math.sqrt(weld**2 / 4 + ((h + t) / 2) ** 2)
    polar = 2 * (math.sqrt(2) * h * weld * (weld**2 / 12 + ((h + t) / 2) ** 2))
    tau2 = moment * radius / polar
    buckling = (
        4.013 * 30e6 * math.sqrt(t**2 * b**6 / 36) / length**2
        * (1 - t / (2 * length) * math.sqrt(30e6 / (4 * 12e6)))
    )  # fmt: skip
    return {
        "cost": 1.10471 * h * h * weld + 0.04811 * t * b * (14 + weld),
        "shear_stress": math.sqrt(tau1**2 + 2 * tau1 * tau2 * weld / (2 * radius) + tau2**2),
        "bending_stress": 6 * load * length / (b * t * t),
        "deflection": 4 * load * length**3 / (30e6 * t**3 * b),
        "buckling_load": buckling,
        "weld_excess": h - b,
        "material_cost": 0.10471 * h * h + 0.04811 * t * b * (14 + weld),
    }


@pytest.mark.parametrize("seed", range(5))
def test_the_welded_beam_agrees_with_its_formulas(seed):
    problem = PROBLEMS["welded_beam"].make()
    point = [float(v) for v in np.random.default_rng(seed).uniform(0.2, 9.9, 4)]
    values = problem.evaluate(dict(zip(problem.space.names, point, strict=True)))
    point = problem.space.validate(dict(zip(problem.space.names, point, strict=True)))
    assert values == pytest.approx(welded_beam(*point.values()), rel=1e-12)


def test_the_welded_beam_is_botorch_s_but_for_the_buckling_load():
    problem, other = PROBLEMS["welded_beam"].make(), WeldedBeamSO()
    X = torch.rand(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1.0
    torch.testing.assert_close(problem(X), other._evaluate_true(X))
    slack, theirs = problem.evaluate_slack(X), other._evaluate_slack_true(X)
    mine = slack[:, [0, 1, 4, 5, 2]]
    torch.testing.assert_close(mine, theirs[:, :5], rtol=1e-10, atol=1e-8)
    torch.testing.assert_close(36 * (slack[:, 3] + 6000.0), theirs[:, 5] + 6000.0)


@pytest.mark.parametrize(
    "name", ["welded_beam", "tension_compression_string", "gramacy", "keane_bump", "speed_reducer"]
)
def test_sequential_quadratic_programming_from_near_the_optimum_finds_nothing_better(name):
    problem = PROBLEMS[name].make()
    low, high = problem.bounds.numpy()
    best = problem.optimizers[0].numpy()
    free = problem.continuous_inds

    def metrics(z):
        x = torch.tensor(best).index_put((torch.tensor(free),), torch.tensor(z))
        return problem._true_metrics(x)

    def slack(z):
        x = torch.tensor(best).index_put((torch.tensor(free),), torch.tensor(z))
        return (problem.evaluate_slack(x.clamp(*problem.bounds)) / scale).numpy()

    middle = (problem.bounds[0] + problem.bounds[1]) / 2
    middle[problem.discrete_inds] = middle[problem.discrete_inds].floor()
    scale = problem.evaluate_slack(middle).abs().clamp_min(1e-3)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(4):
        start = np.clip(best + 0.05 * (high - low) * rng.standard_normal(len(best)), low, high)
        result = minimize(
            lambda z: metrics(z)[0].item(),
            start[free],
            bounds=list(zip(low[free], high[free], strict=True)),
            constraints=[{"type": "ineq", "fun": slack}],
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 300},
        )
        if slack(result.x).min() > -1e-7:
            found.append(result.fun)
    assert found
    # Finite differences leave a constraint violated by 1e-7, which buys a little.
    assert min(found) == pytest.approx(problem.optimal_value, rel=2e-6)


def test_the_pressure_vessel_s_optimum_is_the_best_of_all_plates_and_shapes():
    problem = PROBLEMS["pressure_vessel"].make()
    shell, head = np.meshgrid(np.arange(1, 161) / 16, np.arange(1, 161) / 16, indexing="ij")
    # Cost rises with radius and length: on the volume's constraint the radius decides.
    most = np.minimum(np.minimum(shell / 0.0193, head / 0.00954), 50.0)
    best = np.inf
    for share in np.linspace(0, 1, 400):
        radius = 10 + share * (most - 10)
        length = (1_296_000 - 4 / 3 * np.pi * radius**3) / (np.pi * radius**2)
        allowed = (most >= 10) & (length <= 200)
        length = np.maximum(length, 150.0)
        cost = (
            0.6224 * shell * radius * length + 1.7781 * head * radius**2
            + 3.1661 * shell**2 * length + 19.84 * shell**2 * radius
        )  # fmt: skip
        best = min(best, np.where(allowed, cost, np.inf).min())
    assert best == pytest.approx(problem.optimal_value, rel=1e-9)


def test_ordered_plates_enter_by_their_thickness():
    problem = PROBLEMS["pressure_vessel"].make()
    values = problem.evaluate(
        {"shell_thickness": 0.8125, "head_thickness": 0.4375, "radius": 42.0, "length": 176.0}
    )
    expected = (
        0.6224 * 0.8125 * 42 * 176 + 1.7781 * 0.4375 * 42**2
        + 3.1661 * 0.8125**2 * 176 + 19.84 * 0.8125**2 * 42
    )  # fmt: skip
    assert values["cost"] == pytest.approx(expected, rel=1e-12)
    assert values["shell_slack"] == pytest.approx(0.8125 - 0.0193 * 42)


def test_keane_s_bump_is_symmetric_but_for_the_weights_and_active_at_the_optimum():
    problem = PROBLEMS["keane_bump"].make(dim=3)
    for x in itertools.permutations((1.3, 2.1, 0.7)):
        j = np.arange(1, 4)
        c = np.cos(x)
        expected = -abs((c**4).sum() - 2 * (c**2).prod()) / np.sqrt((j * np.square(x)).sum())
        assert problem(torch.tensor([x], dtype=torch.float64)).item() == pytest.approx(expected)
    two = PROBLEMS["keane_bump"].make()
    assert two.optimizers[0].prod().item() == pytest.approx(0.75, rel=1e-14)
    assert PROBLEMS["keane_bump"].make(dim=4).optimum is None
