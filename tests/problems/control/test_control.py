import pickle
import sys

import numpy as np
import pytest
import torch

from bo_surrogates.errors import RunError
from problems import PROBLEMS
from problems.control.lunar_lander import HAND_SET


@pytest.fixture(scope="module")
def lander():
    pytest.importorskip("gymnasium")
    return PROBLEMS["lunar_lander"].make(episodes=2)


def test_the_lander_s_controller_with_hand_set_weights_is_gymnasium_s_heuristic(lander):
    from gymnasium.envs.box2d.lunar_lander import heuristic

    rng = np.random.default_rng(0)
    weights, seen = np.array(HAND_SET), set()
    for _ in range(500):
        state = rng.normal(0, 0.6, 8)
        state[6:] = rng.integers(0, 2, 2)
        action = lander.act(weights, state)
        assert action == heuristic(lander._made(), state)
        seen.add(action)
    assert seen == {0, 1, 2, 3}


def test_hand_set_weights_land_and_no_engines_crash(lander):
    weights = torch.tensor([HAND_SET, [0.0] * 10 + [2.0, 2.0]], dtype=torch.float64)
    landed, crashed = lander(weights).tolist()
    assert landed > 100
    assert crashed < 0


def test_the_mean_is_over_the_worlds_of_seeds_from_zero(lander):
    weights = torch.tensor([HAND_SET], dtype=torch.float64)
    returns = [lander.episode(np.array(HAND_SET), seed) for seed in (0, 1)]
    assert lander(weights, noise=False).item() == pytest.approx(np.mean(returns))
    assert lander(weights, seed=7).item() == lander(weights, noise=False).item()


@pytest.mark.parametrize(("name", "dim"), [("swimmer", 16), ("hopper", 33), ("half_cheetah", 102)])
def test_walkers_have_linear_policies_and_starts_of_their_own(name, dim):
    pytest.importorskip("mujoco")
    problem = PROBLEMS[name].make(episodes=1, max_steps=20)
    assert problem.dim == dim
    x = torch.full((1, dim), 0.3, dtype=torch.float64)
    one, again, other = (problem(x, seed=s).item() for s in (1, 1, 2))
    assert one == again != other
    state = np.linspace(-1, 1, problem.states)
    weights = np.linspace(-0.1, 0.1, dim)
    expected = np.clip(weights.reshape(-1, problem.states) @ state, -1, 1)
    np.testing.assert_allclose(problem.act(weights, state), expected)
    copy = pickle.loads(pickle.dumps(problem))
    assert copy(x, seed=1).item() == one


def test_a_missing_simulator_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(RunError, match=r"LunarLander-v3 cannot be made.*\[control\]"):
        PROBLEMS["lunar_lander"].make()


def test_the_rover_pays_for_obstacles_only():
    problem = PROBLEMS["rover"].make()
    assert problem.dim == 60
    X = torch.rand(20, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cost = problem(X)
    assert (cost > 0).any()
    assert (cost >= 0).all()
    torch.testing.assert_close(cost, problem._function(X))
