"""What changes in the course of a training, at its ends and in between."""

import math

import pytest

from problems.documented import schedules


@pytest.mark.parametrize("form", ["linear", "geometric", "cosine", "exponential"])
def test_every_form_leads_from_start_to_end_in_one_direction(form):
    value = getattr(schedules, form)
    path = [value(0.85, 0.99, t / 10) for t in range(11)]
    assert path[0] == pytest.approx(0.85, abs=1e-12)
    assert path[-1] == pytest.approx(0.99, abs=1e-12)
    assert path == sorted(path)


def test_each_form_is_its_formula_at_the_middle():
    assert schedules.linear(5.0, 1.0, 0.5) == 3.0
    assert schedules.geometric(4.0, 1.0, 0.5) == pytest.approx(2.0)
    assert schedules.cosine(4.0, 1.0, 0.5) == pytest.approx(2.5)
    a = 0.14 / (math.e - 1)
    assert schedules.exponential(0.85, 0.99, 0.5) == pytest.approx(a * math.exp(0.5) + 0.85 - a)
    assert schedules.steps(0.1, (0.25, 0.5), 0.5) == pytest.approx(0.01)
