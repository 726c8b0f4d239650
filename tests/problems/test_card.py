import pytest

from problems import PROBLEMS
from problems.card import row
from problems.registry import ProblemEntry


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hartmann6", {"inputs": "6 float", "constraints": 0, "noise": "optional"}),
        ("pressure_vessel", {"inputs": "2 ordered, 2 float", "constraints": 4, "dimension": 4}),
        ("heavy_tailed", {"noise": "own"}),
        ("penicillin", {"objectives": ["maximize penicillin", "minimize carbon_dioxide",
                                       "minimize time"]}),
    ],
)  # fmt: skip
def test_a_row_says_what_the_problem_is(name, expected):
    found = row(PROBLEMS[name])
    assert {k: found[k] for k in expected} == expected
    problem = PROBLEMS[name].make()
    best = problem.max_hv if problem.optimum is None else problem.optimum.value
    assert found["optimum"] == best
    assert found["needs"] is None


def test_the_row_of_a_problem_that_cannot_be_made_says_what_it_needs():
    entry = ProblemEntry("mine", "no_such_package:Mine", "not there", "here", "< 1 s")
    found = row(entry)
    assert "no_such_package" in found["needs"]
    assert found["inputs"] is found["optimum"] is None
    assert found["summary"] == "not there"
