"""Spaces: three sets of coordinates, sizes, storage and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bo_surrogates.errors import InputError
from bo_surrogates.space import Choice, Float, Int, LinearConstraint, Ordered, Parameter, Space
from tests.bo_surrogates.space.strategies import a_value, parameters


def renamed(parameters: list[Parameter]) -> list[Parameter]:
    return [replace(p, name=f"p{i}") for i, p in enumerate(parameters)]


spaces = st.lists(parameters, min_size=1, max_size=5).map(lambda ps: Space(renamed(ps)))
units = st.lists(st.floats(0, 1), min_size=5, max_size=5)


@settings(max_examples=60)
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


@settings(max_examples=60)
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


@settings(max_examples=40)
@given(spaces)
def test_plain_data_make_an_equal_space(space: Space) -> None:
    again = Space.from_dict(space.to_dict())
    assert again == space
    assert hash(again) == hash(space)
    assert again.parameters == space.parameters


@settings(max_examples=40)
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
