from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bo_surrogates.errors import InputError
from bo_surrogates.objective import (
    Objective,
    OutcomeConstraint,
    feasible,
    metric_names,
    resolve,
)

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


def test_a_weighted_sum_measures_its_metrics_and_is_their_sum() -> None:
    profit = Objective("profit", "maximize", weights={"yield": 12.0, "cost": -1.5})
    assert metric_names([profit], [OutcomeConstraint("cost", "<=", 3.0)]) == ("yield", "cost")
    assert profit.value({"yield": 2.0, "cost": 4.0}) == 12.0 * 2.0 - 1.5 * 4.0
    assert Objective("y").value({"y": 0.1}) == 0.1


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"a": 0.0}, "weight of 'a' must be a finite number other than 0"),
        ({"a": math.nan}, "finite"),
        ({"a": True}, "finite"),
        ({"": 1.0}, "non-empty"),
        ({"profit": 1.0}, "name that is none of its metrics'"),
        ([1.0], "table of metrics"),
    ],
)
def test_bad_weights_are_named(weights, said) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=said):
        Objective("profit", weights=weights)


@pytest.mark.parametrize("baseline", [200.0, -200.0])
@pytest.mark.parametrize(("percent", "expected"), [(5.0, 10.0), (-5.0, -10.0), (0.0, 0.0)])
def test_a_relative_bound_lies_so_many_percent_above_or_below_the_baseline(
    baseline: float, percent: float, expected: float
) -> None:
    constraint = OutcomeConstraint("impurity", "<=", percent, relative=True)
    other = OutcomeConstraint("cost", ">=", 1.0)
    first, second = resolve([constraint, other], {"impurity": baseline})
    assert first == OutcomeConstraint("impurity", "<=", baseline + expected)
    assert second == other


def test_a_relative_constraint_without_its_baseline_is_refused() -> None:
    constraint = OutcomeConstraint("impurity", "<=", 5.0, relative=True)
    assert str(constraint) == "impurity <= baseline + 5 %"
    for baseline in (None, {"cost": 1.0}):
        with pytest.raises(InputError, match="'impurity', which has not been measured"):
            resolve([constraint], baseline)
    with pytest.raises(InputError, match="is 0 at the baseline"):
        resolve([constraint], {"impurity": 0.0})
    with pytest.raises(InputError, match="only once its baseline is known"):
        feasible({"impurity": 1.0}, [constraint])
