"""Linear constraints: read as written."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bo_surrogates.errors import InputError
from bo_surrogates.space import Float, LinearConstraint, Space, parse_constraints


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
    ["`a b` <= `c", "``*`a` <= 2", "a b <= 2", "`a`*`b c` <= 2",
     "x1 + x2", "x1 < 3", "x1 <= x2 <= 3", "x1*x2 <= 3", "x1**2 <= 3", "1/x1 <= 3", "sin(x1) <= 1",
     "x1 + <= 3", "x1 == 3", "", "x1/0 <= 1", "'a' <= 3", "True*x1 <= 3", "x1 <= 1e999"],
)  # fmt: skip
def test_what_is_not_one_linear_inequality_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="constraint"):
        LinearConstraint.parse(text)


@given(st.lists(st.text("aé °(<=>)*+-`µ".replace("`", ""), min_size=1), min_size=2, max_size=3))
def test_any_name_between_backticks_is_that_parameter(names: list[str]) -> None:
    assume(len(set(names)) == len(names) and all(n.strip() for n in names))
    text = " + ".join(f"{k}*`{name}`" for k, name in enumerate(names, start=1))
    expected = {name: float(k) for k, name in enumerate(names, start=1)}
    (constraint,) = parse_constraints(f"{text} <= 7")
    assert constraint == LinearConstraint(expected, 7.0)
    assert LinearConstraint.parse(str(constraint)) == constraint
    assert [c.coefficients == expected for c in parse_constraints(f"{text} == 7")] == [True, False]
    Space([Float(name, 0.0, 1.0) for name in names], [constraint])


def test_words_and_keywords_and_quoted_names_stand_side_by_side() -> None:
    constraint = LinearConstraint.parse("2*`lambda` - x >= `bath temp (°C)`/4")
    assert constraint.coefficients == {"lambda": -2.0, "x": 1.0, "bath temp (°C)": 0.25}
    with pytest.raises(InputError, match=r"'`bath temp` \* x' is not linear"):
        LinearConstraint.parse("`bath temp`*x <= 1")
