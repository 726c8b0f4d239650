"""Parameters of every kind, for property tests."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from bo_surrogates.space import Choice, Float, Int, Ordered, Parameter

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
