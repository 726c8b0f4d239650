from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bo_surrogates.errors import InputError
from bo_surrogates.space import Choice, Float, Int, LinearConstraint, Ordered, Parameter, Space

finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-6, 1e6)


@st.composite
def floats(draw: Any) -> Float:
    log = draw(st.booleans())
    low, high = sorted(draw(st.tuples(*[positive if log else finite] * 2)))
    assume(high > low * (1 + 1e-6) if log else high > low + 1e-6)
    return Float("x", low, high, log=log)


@st.composite
def ints(draw: Any) -> Int:
    log = draw(st.booleans())
    low = draw(st.integers(1 if log else -1000, 1000))
    return Int("x", low, low + draw(st.integers(1, 1000)), log=log)


ordered = st.one_of(
    st.lists(st.integers(-50, 50), min_size=2, max_size=6, unique=True).map(sorted),
    st.lists(st.floats(-5, 5), min_size=2, max_size=6, unique=True)
    .map(sorted)
    .filter(lambda v: all(b - a > 1e-6 for a, b in pairwise(v))),
    st.lists(st.text(min_size=1, max_size=3), min_size=2, max_size=6, unique=True),
).map(lambda values: Ordered("x", values))
choices = st.one_of(
    st.lists(st.text(max_size=3), min_size=2, max_size=6, unique=True),
    st.just([False, True]),
    st.lists(st.integers(-50, 50), min_size=2, max_size=6, unique=True),
).map(lambda values: Choice("x", values))
parameters = st.one_of(floats(), ints(), ordered, choices)


def a_value(parameter: Parameter, unit: float) -> Any:
    """A valid value at a fraction of the parameter's range."""
    low, high = parameter.bounds
    return parameter.decode(low + (high - low) * unit)


def renamed(parameters: list[Parameter]) -> list[Parameter]:
    return [replace(p, name=f"p{i}") for i, p in enumerate(parameters)]


# ---- parameters --------------------------------------------------------------------------------
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


# ---- constraints ---------------------------------------------------------------------------------
@given(st.dictionaries(st.sampled_from("abc"), st.integers(-9, 9), min_size=1), st.integers(-9, 9))
def test_a_parsed_constraint_is_the_inequality_that_was_written(
    coefficients: dict[str, int], upper: int
) -> None:
    assume(any(coefficients.values()))
    left = " + ".join(f"({c})*{n}" for n, c in coefficients.items())
    expected = {n: float(c) for n, c in coefficients.items() if c}
    for text in (f"{left} <= {upper}", f"{upper} >= {left}", f"-({left}) >= -({upper})",
                 f"{left} - ({upper}) <= 0", f"2*({left})/2 <= {upper}"):  # fmt: skip
        constraint = LinearConstraint.parse(text)
        assert constraint.coefficients == expected
        assert constraint.upper == upper
    point = {"a": 0.5, "b": -2.0, "c": 3.0}
    slack = upper - sum(c * point[n] for n, c in coefficients.items())
    assert constraint.slack(point) == pytest.approx(slack)
    again = LinearConstraint.parse(str(constraint))
    assert again == constraint


@pytest.mark.parametrize(
    "text",
    ["x1 + x2", "x1 < 3", "x1 <= x2 <= 3", "x1*x2 <= 3", "x1**2 <= 3", "1/x1 <= 3", "sin(x1) <= 1",
     "x1 + <= 3", "x1 == 3", "", "x1/0 <= 1", "'a' <= 3", "True*x1 <= 3", "x1 <= 1e999"],
)  # fmt: skip
def test_what_is_not_one_linear_inequality_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="constraint"):
        LinearConstraint.parse(text)


# ---- spaces --------------------------------------------------------------------------------------
spaces = st.lists(parameters, min_size=1, max_size=5).map(lambda ps: Space(renamed(ps)))
units = st.lists(st.floats(0, 1), min_size=5, max_size=5)


@settings(max_examples=60, deadline=None)
@given(spaces, units)
def test_points_survive_all_three_sets_of_coordinates(space: Space, unit: list[float]) -> None:
    values = {p.name: a_value(p, u) for p, u in zip(space.parameters, unit, strict=False)}
    X = space.encode(values)
    assert space.decode(X) == values
    Z = space.to_model(X)
    back = space.decode(space.from_model(Z))
    for parameter in space.parameters:
        if isinstance(parameter, Float):
            assert back[parameter.name] == pytest.approx(values[parameter.name], rel=1e-9, abs=1e-9)
        else:
            assert back[parameter.name] == values[parameter.name]
    low, high = space.model_bounds
    assert ((low - 1e-9 <= Z) & (high + 1e-9 >= Z)).all()


@settings(max_examples=60, deadline=None)
@given(spaces, units, st.floats(-0.5, 1.5))
def test_every_model_coordinate_leads_to_a_valid_point(
    space: Space, unit: list[float], stretch: float
) -> None:
    low, high = space.model_bounds
    Z = low + (high - low) * stretch * torch.tensor(unit[: space.dim], dtype=torch.float64)
    values = space.decode(space.from_model(Z))
    assert space.validate(values) == values
    batch = space.from_model(Z.expand(2, 3, -1))
    assert batch.shape == (2, 3, space.dim)
    assert torch.equal(batch[1, 2], space.from_model(Z))


@settings(max_examples=40, deadline=None)
@given(spaces)
def test_plain_data_make_an_equal_space(space: Space) -> None:
    again = Space.from_dict(space.to_dict())
    assert again == space
    assert hash(again) == hash(space)
    assert again.parameters == space.parameters


@settings(max_examples=40, deadline=None)
@given(spaces)
def test_the_size_is_the_number_of_points(space: Space) -> None:
    counts = [p.cardinality for p in space.parameters]
    if None in counts:
        assert space.size is None
    else:
        assert space.size == math.prod(c for c in counts if c)


MIXED = Space(
    [Float("lr", 1e-4, 1e-1, log=True), Float("a", 0, 1), Int("n", 1, 8),
     Int("m", 1, 100, log=True), Ordered("w", [1, 2, 4, 8]),
     Ordered("grade", ["low", "mid", "high"]),
     Choice("opt", ["adam", "sgd", "lion"])],
    [LinearConstraint.parse("a + 0.1*n <= 1")],
)  # fmt: skip
POINT: dict[str, Any] = {
    "lr": 1e-2, "a": 0.25, "n": 2, "m": 10, "w": 4, "grade": "mid", "opt": "lion",
}  # fmt: skip


def test_coordinates_are_those_of_the_modules_docstring() -> None:
    X = MIXED.encode(POINT)
    assert X.tolist() == [1e-2, 0.25, 2, 10, 2, 1, 2]
    expected = torch.tensor([-2, 0.25, 2, 1, 2, 1, 2], dtype=torch.float64)
    torch.testing.assert_close(MIXED.to_model(X), expected)
    assert MIXED.continuous_inds == [0, 1]
    assert MIXED.discrete_inds == [2, 3, 4, 5]
    assert MIXED.categorical_inds == [6]
    assert MIXED.categories == {6: 3}
    levels = MIXED.discrete_levels
    assert sorted(levels) == [2, 3, 4, 5]
    assert levels[2] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert levels[3] == pytest.approx([math.log10(i) for i in range(1, 101)])
    assert levels[4] == [0, 1, 2, 3]
    assert levels[5] == [0, 1, 2]


def test_a_model_coordinate_between_levels_goes_to_the_nearest() -> None:
    Z = MIXED.to_model(MIXED.encode(POINT))
    for coordinate, level in ((1.4, 2), (1.6, 4), (2.4, 4), (2.6, 8), (-5.0, 1), (99.0, 8)):
        Z[4] = coordinate
        assert MIXED.decode(MIXED.from_model(Z))["w"] == level


def test_validated_points_are_in_order_and_canonical() -> None:
    shuffled = dict(reversed(POINT.items())) | {"n": 2.0}
    valid = MIXED.validate(shuffled)
    assert list(valid) == list(MIXED.names)
    assert valid == POINT
    assert isinstance(valid["n"], int)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lrr": 1}, "unknown parameter 'lrr'; did you mean 'lr'"),
        ({"lr": 1.0}, "parameter 'lr' must be in"),
        ({"a": 0.95}, r"violates the parameter constraint '1\*a \+ 0.1\*n <= 1'"),
        ({"grade": "hihg"}, "did you mean 'high'"),
    ],
)
def test_invalid_points_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MIXED.validate(POINT | change)


def test_incomplete_points_and_wrong_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="'opt' is missing"):
        MIXED.validate({k: v for k, v in POINT.items() if k != "opt"})
    with pytest.raises(InputError, match="map parameter names"):
        MIXED.validate([1, 2])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="shape"):
        MIXED.decode(torch.zeros(3))
    with pytest.raises(InputError, match="'opt' is missing"):
        MIXED.encode({k: v for k, v in POINT.items() if k != "opt"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Space([]), "at least one"),
        (lambda: Space([Float("x", 0, 1), Int("x", 0, 1)]), "'x' is defined twice"),
        (lambda: Space(["x"]), "expected a parameter"),  # type: ignore[list-item]
        (
            lambda: Space([Float("x", 0, 1)], [LinearConstraint.parse("y <= 1")]),
            "unknown parameter",
        ),
        (lambda: Space([Float("x", 0, 1)], [LinearConstraint.parse("x <= x")]), "no parameter"),
        (
            lambda: Space([Float("x", 1, 2, log=True)], [LinearConstraint.parse("x <= 1")]),
            "linear scale",
        ),
        (
            lambda: Space([Choice("x", ["a", "b"])], [LinearConstraint.parse("x <= 1")]),
            "float and int",
        ),
    ],
)
def test_impossible_spaces_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_spaces_differ_by_their_constraints() -> None:
    free = Space(MIXED.parameters)
    assert free != MIXED
    assert Space.from_dict(MIXED.to_dict()) == MIXED
    assert free != "not a space"
