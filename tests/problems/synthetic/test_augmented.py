"""The functions with a fidelity: BoTorch's values, and the plain functions at the target."""

import pytest
import torch
from botorch.test_functions.multi_fidelity import AugmentedBranin, AugmentedHartmann

from bo_surrogates.loop import run
from problems import PROBLEMS

PEERS = {
    "augmented_branin": (AugmentedBranin, "branin"),
    "augmented_hartmann6": (AugmentedHartmann, "hartmann6"),
}


def points(problem, n=200):
    low, high = problem.bounds
    unit = torch.rand(n, problem.dim, generator=torch.Generator().manual_seed(0), dtype=low.dtype)
    return low + (high - low) * unit


@pytest.mark.parametrize("name", PEERS)
def test_values_are_botorchs_and_those_of_the_plain_function_at_the_target(name):
    problem = PROBLEMS[name].make()
    X = points(problem)
    peer, plain = PEERS[name]
    torch.testing.assert_close(problem(X), peer().double()(X), rtol=1e-6, atol=1e-6)
    at_target = problem.space.to_target(X)
    expected = PROBLEMS[plain].make()(X[:, :-1])
    torch.testing.assert_close(problem(at_target), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PEERS)
def test_the_optimum_is_at_the_target_and_evaluations_cost_what_is_asked(name):
    problem = PROBLEMS[name].make(fixed_cost=0.5)
    assert problem.space.at_target(problem.optimizers).all()
    torch.testing.assert_close(
        problem(problem.optimizers), torch.full((len(problem.optimizers),), problem.optimal_value,
                                                dtype=torch.float64),
    )  # fmt: skip
    fidelity = problem.space.fidelity
    assert [problem.fidelity.cost(fidelity, s) for s in (0.0, 0.5, 1.0)] == [0.5, 1.0, 1.5]


def test_a_runs_best_value_and_cost_are_those_of_its_fidelities():
    problem = PROBLEMS["augmented_branin"].make()
    result = run(problem, iterations=0, initial=7)
    s = result.X[:, 2]
    torch.testing.assert_close(result.cost, (0.1 + s).cumsum(0))
    assert result.at_target.tolist() == (s == 1).tolist()
    best = [min(y for y, at in zip(result.Y[:k, 0].tolist(), result.at_target.tolist(),
                                   strict=False) if at) for k in range(1, 8)]  # fmt: skip
    assert result.best.tolist() == best
