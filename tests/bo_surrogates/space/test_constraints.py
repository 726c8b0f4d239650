"""Linear constraints: read as written."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bo_surrogates.errors import InputError
from bo_surrogates.space import LinearConstraint


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
