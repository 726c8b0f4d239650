from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bo_surrogates.errors import InputError
from bo_surrogates.objective import Objective, OutcomeConstraint, feasible, metric_names

numbers = st.floats(-1e9, 1e9)


@given(numbers, numbers)
def test_the_signed_value_is_larger_where_the_objective_is_better(a: float, b: float) -> None:
    for direction, better in (("maximize", a > b), ("minimize", a < b)):
        sign = Objective("loss", direction).sign  # type: ignore[arg-type]
        assert (sign * a > sign * b) == better


@given(numbers, numbers)
def test_slack_is_not_negative_exactly_where_a_constraint_holds(value: float, bound: float) -> None:
    assert (OutcomeConstraint("cost", "<=", bound).slack(value) >= 0) == (value <= bound)
    assert (OutcomeConstraint("cost", ">=", bound).slack(value) >= 0) == (value >= bound)


@given(numbers, numbers, numbers)
def test_a_point_is_feasible_where_all_constraints_hold(
    value: float, low: float, high: float
) -> None:
    constraints = [OutcomeConstraint("cost", ">=", low), OutcomeConstraint("cost", "<=", high)]
    assert feasible({"cost": value}, constraints) == (low <= value <= high)
    assert feasible({"cost": value}, [])


def test_a_measurement_that_is_not_a_number_is_not_feasible() -> None:
    for op in ("<=", ">="):
        assert not feasible({"cost": math.nan}, [OutcomeConstraint("cost", op, 1.0)])  # type: ignore[arg-type]


def test_metrics_are_named_once_objectives_first() -> None:
    objectives = [Objective("loss"), Objective("size")]
    constraints = [OutcomeConstraint("time", "<=", 1), OutcomeConstraint("loss", "<=", 2)]
    assert metric_names(objectives, constraints) == ("loss", "size", "time")
    assert metric_names(objectives) == ("loss", "size")


def test_a_constraint_reads_as_it_is_written() -> None:
    assert str(OutcomeConstraint("time", "<=", 1.5)) == "time <= 1.5"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Objective(""), "name"),
        (lambda: Objective("  "), "name"),
        (lambda: Objective(3), "name"),  # type: ignore[arg-type]
        (lambda: Objective("a", "minimise"), "did you mean 'minimize'"),  # type: ignore[arg-type]
        (lambda: Objective("a", None), "direction"),  # type: ignore[arg-type]
        (lambda: Objective("a", reference=math.inf), "reference"),
        (lambda: Objective("a", reference="1"), "reference"),  # type: ignore[arg-type]
        (lambda: Objective("a", reference=True), "reference"),
        (lambda: OutcomeConstraint("", "<=", 1), "name"),
        (lambda: OutcomeConstraint("a", "<", 1), "op"),  # type: ignore[arg-type]
        (lambda: OutcomeConstraint("a", "<=", math.nan), "bound"),
        (lambda: OutcomeConstraint("a", "<=", "1"), "bound"),  # type: ignore[arg-type]
    ],
)
def test_mistakes_are_named(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]
