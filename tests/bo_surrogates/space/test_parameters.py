"""Parameters: values, coordinates and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bo_surrogates.errors import InputError
from bo_surrogates.space import Choice, Float, Int, Ordered, Parameter
from tests.bo_surrogates.space.strategies import a_value, parameters


@given(parameters, st.floats(0, 1))
def test_decoding_undoes_encoding(parameter: Parameter, unit: float) -> None:
    value = a_value(parameter, unit)
    assert parameter.validate(value) == value
    low, high = parameter.bounds
    coordinate = parameter.encode(value)
    assert low <= coordinate <= high
    assert parameter.decode(coordinate) == value


@given(parameters, st.floats(-1e9, 1e9))
def test_every_coordinate_decodes_to_a_valid_value(parameter: Parameter, x: float) -> None:
    value = parameter.decode(x)
    assert parameter.validate(value) == value
    # ... the nearest: no value's coordinate is nearer.
    low, high = parameter.bounds
    assert abs(parameter.encode(value) - x) <= abs(min(max(x, low), high) - x) + 0.5


@given(parameters)
def test_cardinality_counts_the_values(parameter: Parameter) -> None:
    low, high = parameter.bounds
    if parameter.cardinality is None:
        assert isinstance(parameter, Float)
        return
    assert high - low + 1 == parameter.cardinality
    values = {parameter.decode(low + i) for i in range(parameter.cardinality)}
    assert len(values) == parameter.cardinality


def test_values_are_returned_in_their_canonical_type() -> None:
    assert isinstance(Float("x", 0, 1).validate(1), float)
    assert isinstance(Int("x", 0, 3).validate(2.0), int)
    assert Choice("x", [1, 2]).validate(2.0) == 2
    assert Choice("x", [False, True]).validate(True) is True


def test_a_rounding_error_beyond_the_bounds_is_snapped_back() -> None:
    parameter = Float("x", 1e-3, 10.0, log=True)
    assert parameter.validate(10.0 * (1 + 1e-12)) == 10.0
    assert parameter.validate(10.0 ** math.log10(1e-3)) == 1e-3
    with pytest.raises(InputError, match="must be in"):
        parameter.validate(10.001)


def test_on_a_logarithmic_scale_zero_is_no_rounding_error_of_a_small_bound() -> None:
    with pytest.raises(InputError, match="must be in"):
        Float("lr", 1e-12, 1e6, log=True).validate(-1.0)
    with pytest.raises(InputError, match="must be in"):
        Float("lr", 1e-8, 1e3, log=True).validate(0.0)


BAD_VALUES: list[tuple[Parameter, Any, str]] = [
    (Float("x", 0, 1), 1.5, r"parameter 'x' must be in \[0.0, 1.0\], got 1.5"),
    (Float("x", 0, 1), math.nan, "finite"),
    (Float("x", 0, 1), "0.5", "must be a number"),
    (Float("x", 0, 1), True, "must be a number"),
    (Float("x", 0, 1), None, "must be a number"),
    (Int("x", 0, 3), 4, r"must be in \[0, 3\]"),
    (Int("x", 0, 3), 1.5, "must be an integer"),
    (Int("x", 0, 3), math.inf, "finite"),
    (Int("x", 0, 3), False, "must be a number"),
    (Ordered("x", [1, 2, 4]), 3, "must be one of"),
    (Choice("x", ["adam", "sgd"]), "adm", "did you mean 'adam'"),
    (Choice("x", [0, 1]), True, "must be one of"),
    (Choice("x", [False, True]), 1, "must be one of"),
]


@pytest.mark.parametrize(("parameter", "value", "message"), BAD_VALUES)
def test_invalid_values_are_refused(parameter: Parameter, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parameter.validate(value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Float("", 0, 1), "name"),
        (lambda: Float(3, 0, 1), "name"),  # type: ignore[arg-type]
        (lambda: Float("x", 1, 0), "reversed"),
        (lambda: Float("x", 1, 1), "equal"),
        (lambda: Float("x", 0, 1, log=True), "low > 0"),
        (lambda: Float("x", 0, math.inf), "high must be finite"),
        (lambda: Float("x", "0", 1), "low must be a number"),  # type: ignore[arg-type]
        (lambda: Float("x", 0, 1, log=1), "log must be true or false"),  # type: ignore[arg-type]
        (lambda: Int("x", 0.5, 3), "low must be an integer"),  # type: ignore[arg-type]
        (lambda: Int("x", 3, 0), "reversed"),
        (lambda: Int("x", 0, 3, log=True), "low > 0"),
        (lambda: Ordered("x", [1]), "at least two"),
        (lambda: Ordered("x", [2, 1]), "ascend"),
        (lambda: Ordered("x", [True, False]), "no order"),
        (lambda: Ordered("x", [1, "a"]), "all numbers"),
        (lambda: Choice("x", "ab"), "list"),  # type: ignore[arg-type]
        (lambda: Choice("x", ["a", "a"]), "distinct"),
        (lambda: Choice("x", [1, 1.0]), "distinct"),
        (lambda: Choice("x", [True, 1]), "all booleans"),
        (lambda: Choice("x", ["a", None]), "a number, a string or a boolean"),  # type: ignore[list-item]
        (lambda: Choice("x", [1.0, math.nan]), "finite"),
    ],
)
def test_impossible_parameters_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
