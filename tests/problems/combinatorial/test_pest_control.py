import numpy as np
import pytest
import torch

from problems import PROBLEMS


def simulate(plan):
    """One plan, drawing everything anew as it goes."""

    def draw(beta):
        return np.random.RandomState(1).beta(1.0, beta, size=100)

    price, discount = [1.0, 0.8, 0.7, 0.5], [0.2, 0.3, 0.3, 0.0]
    tolerance, beta = [1 / 7, 2.5 / 7, 2 / 7, 0.5 / 7], [2 / 7, 3 / 7, 3 / 7, 5 / 7]
    pests, score = draw(30.0), 0.0
    for kind in plan:
        score += np.mean(pests > 0.1)
        if kind == 0:
            pests = pests + draw(17 / 3) * (1 - pests)
        else:
            k = kind - 1
            pests = (1 - draw(beta[k])) * pests
            beta[k] += tolerance[k] / 25
            score += price[k] * (1 - discount[k] / 25 * list(plan).count(kind))
    return score


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ([0] * 25, 21.95),
        ([1] * 25, 20.02),
        ([2] * 25, 14.03),
        ([3] * 25, 12.28),
        ([4] * 25, 12.52),
        ([0, 1, 2, 3, 4] * 5, 18.72),
        ([3] * 10 + [0] * 15, 18.27),
    ],
)
def test_plans_have_the_values_of_the_reference_study(plan, expected):
    problem = PROBLEMS["pest_control"].make()
    assert problem(torch.tensor([plan], dtype=torch.float64)).item() == pytest.approx(expected)


def test_random_plans_agree_with_a_simulation_that_draws_as_it_goes():
    problem = PROBLEMS["pest_control"].make()
    plans = np.random.default_rng(0).integers(0, 5, (20, 25))
    expected = [simulate(plan) for plan in plans]
    assert problem(torch.tensor(plans).double()).tolist() == pytest.approx(expected, rel=1e-12)


def test_no_single_change_improves_the_best_known_plan():
    problem = PROBLEMS["pest_control"].make()
    (best,) = problem.optimizers
    changed = best.repeat(125, 1)
    changed[torch.arange(125), torch.arange(25).repeat_interleave(5)] = (
        torch.arange(5.0).repeat(25).double()
    )
    assert problem(changed).min().item() == pytest.approx(problem.optimal_value)
    assert PROBLEMS["pest_control"].make(farm_seed=2).optimum is None


def test_a_category_between_two_is_refused():
    problem = PROBLEMS["pest_control"].make()
    with pytest.raises(ValueError, match="integer"):
        problem(torch.full((1, 25), 0.5, dtype=torch.float64))
