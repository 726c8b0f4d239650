"""Noise, constraints, mixed directions and mixed parameters of `Problem`."""

import math

import numpy as np
import pytest
import torch

from bo_surrogates.errors import InputError
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.space import Choice, Float, Int, Ordered, Space
from problems.base import Problem


class Mixed(Problem):
    """Yield to maximize, price to minimize, heat to hold below a bound; x float, k int, o ordered,
    c choice."""

    def __init__(self, noise_std=None, negate=False, objectives=None):
        super().__init__(
            Space(
                [
                    Float("x", 0.1, 10.0, log=True),
                    Int("k", 2, 5),
                    Ordered("o", (1, 10, 100)),
                    Choice("c", ("a", "b")),
                ]
            ),
            objectives
            or [Objective("yield", "maximize", reference=0.0), Objective("price", reference=20.0)],
            constraints=[
                OutcomeConstraint("heat", "<=", 7.0),
                OutcomeConstraint("yield", ">=", 1.0),
            ],
            noise_std=noise_std,
            negate=negate,
        )

    def _true_metrics(self, X):
        x, k, o, c = X.unbind(-1)
        return torch.stack([x * k, x + o, x + c], dim=-1)


POINT = {"x": 2.5, "k": 4, "o": 100, "c": "b"}
X = torch.tensor([[2.5, 4.0, 2.0, 1.0], [9.0, 2.0, 0.0, 0.0]], dtype=torch.float64)


def test_named_values_reach_the_function_in_problem_coordinates():
    assert Mixed().evaluate(POINT) == {"yield": 10.0, "price": 4.5, "heat": 3.5}


def test_the_tensor_face_holds_the_objectives_in_the_user_s_signs():
    assert Mixed()(X).tolist() == [[10.0, 4.5], [18.0, 9.0]]
    assert Mixed(negate=True)(X).tolist() == [[-10.0, -4.5], [-18.0, -9.0]]


@pytest.mark.parametrize("negate", [False, True])
def test_signs_turn_every_objective_into_one_to_maximize(negate):
    problem = Mixed(negate=negate)
    assert (problem(X) * problem.signs).tolist() == [[10.0, -4.5], [18.0, -9.0]]
    assert (problem.ref_point * problem.signs).tolist() == [0.0, -20.0]


def test_slack_is_not_negative_exactly_where_a_constraint_holds():
    problem = Mixed(negate=True)
    assert problem.evaluate_slack(X).tolist() == [[3.5, 9.0], [-2.0, 17.0]]
    assert problem.is_feasible(X).tolist() == [True, False]


def test_slack_and_objectives_of_one_seed_belong_to_one_observation():
    problem = Mixed(noise_std=1.0)
    values, slack = problem(X, seed=5), problem.evaluate_slack(X, seed=5)
    torch.testing.assert_close(slack[:, 1], values[:, 0] - 1.0)


def test_a_single_objective_s_direction_decides_what_botorch_calls_minimization():
    assert not Mixed(objectives=[Objective("yield", "maximize")]).is_minimization_problem
    assert Mixed(objectives=[Objective("yield", "maximize")], negate=True).is_minimization_problem


def test_noise_has_the_stated_standard_deviation_per_metric():
    stds = [0.5, 2.0, 0.1]
    problem = Mixed(noise_std=stds)
    n = 20_000
    residual = (
        problem._observed_metrics(X[:1].expand(n, -1), 0) - problem._true_metrics(X[:1])
    ).numpy()
    # Five standard errors of a mean, s/sqrt(n), and of a standard deviation, s/sqrt(2n): each
    # fails once in 1.7 million under the truth.
    assert (np.abs(residual.mean(0)) < 5 * np.array(stds) / math.sqrt(n)).all()
    assert (np.abs(residual.std(0) / stds - 1) < 5 / math.sqrt(2 * n)).all()


@pytest.mark.parametrize("noise_std", [-1.0, math.nan, math.inf, "much", True, [1.0, -1.0, 0.0]])
def test_a_bad_noise_level_is_refused(noise_std):
    with pytest.raises(InputError, match="noise_std must be a number >= 0"):
        Mixed(noise_std=noise_std)


def test_noise_levels_must_match_the_metrics_in_number():
    with pytest.raises(InputError, match=r"one number or 3 \(for yield, price, heat\), got 2"):
        Mixed(noise_std=[1.0, 1.0])


def test_several_objectives_need_reference_values():
    with pytest.raises(InputError, match="'price' needs a reference value"):
        Mixed(objectives=[Objective("yield", reference=0.0), Objective("price")])


def test_a_fractional_coordinate_of_a_discrete_parameter_is_refused():
    with pytest.raises(InputError, match="integer values"):
        Mixed()(torch.tensor([1.0, 2.5, 0.0, 0.0]))
