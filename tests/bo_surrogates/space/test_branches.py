"""Branches: counting under constraints, and putting right what rounding broke."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bo_surrogates.space import Float, Int, LinearConstraint, Space, parse_constraints


def only_branch(space):
    (branch,) = space.branches()
    return branch


def test_points_of_a_tight_constraint_are_counted_among_many():
    # Ten digits that sum to two at most: C(12, 2) of 10^10.
    names = [f"n{i}" for i in range(10)]
    space = Space([Int(n, 0, 9) for n in names], [LinearConstraint(dict.fromkeys(names, 1.0), 2)])
    assert space.size == math.comb(12, 2) == len(space.points(100))
    assert space.points(65) is None


def test_what_is_infinite_or_too_large_to_list_has_no_points():
    assert Space([Float("x", 0, 1), Int("n", 0, 1)]).size is None
    large = Space([Int("n", 0, 10**9), Int("m", 0, 1)])
    assert large.size == 2 * (10**9 + 1)
    assert large.points(10_000) is None
    # Too many combinations to look at: not counted, and not claimed to be finite.
    names = [f"n{i}" for i in range(20)]
    vast = Space([Int(n, 0, 9) for n in names], [LinearConstraint(dict.fromkeys(names, 1.0), 90)])
    assert vast.size is None


def test_rounding_in_coefficients_loses_no_point():
    # 0.1*3 + 0.2*3 is 0.9000000000000001 to a computer.
    space = Space(
        [Int("a", 0, 3), Int("b", 0, 3)], [LinearConstraint.parse("0.1*a + 0.2*b <= 0.9")]
    )
    assert space.size == 16
    assert space.contains({"a": 3, "b": 3})


def test_a_small_constraint_is_not_lost_in_the_tolerance():
    space = Space([Float("a", 0, 1e-6)], [LinearConstraint.parse("a <= 2e-7")])
    assert space.contains({"a": 2e-7})
    assert not space.contains({"a": 2.01e-7})


@settings(max_examples=100)
@given(
    st.lists(st.floats(0.05, 5), min_size=2, max_size=4),
    st.floats(0.2, 0.8),
    st.data(),
)
def test_a_point_put_right_satisfies_the_inequality_as_it_stands(weights, share, data):
    names = [f"x{i}" for i in range(len(weights))]
    upper = share * sum(weights)
    space = Space(
        [Float(n, 0, 1) for n in names],
        [LinearConstraint(dict(zip(names, weights, strict=True)), upper)],
    )
    x = [data.draw(st.floats(0, 1)) for _ in names]
    settled = only_branch(space).settle(x)
    values = dict(zip(names, settled, strict=True))
    assert space.validate(values) == values
    assert upper - sum(w * v for w, v in zip(weights, settled, strict=True)) >= 0
    if sum(w * v for w, v in zip(weights, x, strict=True)) <= upper:
        assert settled == x  # nothing to put right


def test_an_equation_is_met_to_the_last_digits():
    space = Space([Float(n, 0, 1) for n in "abc"], parse_constraints("a + b + c == 1"))
    settled = only_branch(space).settle([0.3, 0.3, 0.3])
    assert sum(settled) == pytest.approx(1, abs=1e-11)
    inequalities, equations = only_branch(space).inequalities_and_equations
    assert (len(inequalities), len(equations)) == (0, 1)


def test_what_cannot_be_put_right_is_no_point():
    space = Space([Int("n", 0, 9), Int("m", 0, 9)], [LinearConstraint.parse("n + m <= 9")])
    assert only_branch(space).settle([5, 5]) is None
    assert only_branch(space).settle([5, 4]) == [5, 4]


def test_contradicting_constraints_leave_no_branch():
    floats = [Float("a", 0, 1), Float("b", 0, 1)]
    both = [LinearConstraint.parse(t) for t in ("a + b <= 0.5", "a - b <= -0.2", "b - a <= 0.1")]
    assert list(Space(floats, both).branches()) == []  # together only
    assert len(list(Space(floats, both[:2]).branches())) == 1
    ints = [Int("n", 0, 5), Int("m", 0, 5)]
    # Reals between the integers would do; integers do not.
    between = parse_constraints("2*n + 2*m == 3")
    assert list(Space(ints, between).branches()) == []
    assert Space(ints, between).size == 0
