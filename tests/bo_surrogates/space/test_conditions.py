"""Conditional and fixed parameters: one representation a point, whatever is inactive."""

import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bo_surrogates.errors import InputError
from bo_surrogates.space import Choice, Fixed, Float, Int, LinearConstraint, Ordered, Space

SPACE = Space(
    [
        Ordered("grade", (1, 2, 4), when={"solvent": ["ethanol", "dmso"]}),  # before its parent
        Choice("solvent", ("water", "ethanol", "dmso")),
        Choice("dry", (True, False), when={"solvent": "dmso", "grade": [1, 2]}),
        Float("T", 20.0, 80.0),
        Fixed("operator", "Ann"),
        Float("base", 1e-4, 1.0, log=True, when={"solvent": ["water"]}, default=0.5),
    ]
)


@st.composite
def discrete_spaces(draw):
    """Up to five small parameters, each dependent on up to two before it."""
    parameters = []
    for i in range(draw(st.integers(1, 5))):
        when = {}
        for parent in draw(st.lists(st.sampled_from(parameters), max_size=2) if i else st.just([])):
            values = [parent.decode(k) for k in range(parent.cardinality)]
            when[parent.name] = draw(st.lists(st.sampled_from(values), min_size=1, unique=True))
        kind = draw(st.integers(0, 2))
        if kind == 0:
            parameters.append(Int(f"p{i}", 0, draw(st.integers(1, 3)), when=when))
        elif kind == 1:
            parameters.append(
                Choice(f"p{i}", ("a", "b", "c")[: draw(st.integers(2, 3))], when=when)
            )
        else:
            parameters.append(Ordered(f"p{i}", (1, 10, 100), when=when))
    ints = [p.name for p in parameters if isinstance(p, Int)]
    constraints = []
    if ints and draw(st.booleans()):
        coefficients = {n: draw(st.sampled_from([-1.0, 1.0, 2.0])) for n in ints}
        constraints.append(LinearConstraint(coefficients, draw(st.integers(0, 3))))
    order = draw(st.permutations(parameters))
    try:
        return Space(order, constraints)
    except InputError as error:  # two conditions that contradict each other
        assume("never active" not in str(error))
        raise


def by_brute_force(space):
    """The distinct valid points, from the product of all values and the meaning of `when`."""
    names = [p.name for p in space.varied]
    by_name = {p.name: p for p in space.varied}

    def active(name, values):
        when = by_name[name].when
        return all(active(q, values) and values[q] in wanted for q, wanted in when.items())

    found = set()
    for values in itertools.product(
        *([p.decode(k) for k in range(p.cardinality)] for p in space.varied)
    ):
        whole = dict(zip(names, values, strict=True))
        point = {n: v for n, v in whole.items() if active(n, whole)}
        if all(
            c.slack(point) >= 0
            for c in space.constraints
            if all(n in point for n in c.coefficients)
        ):
            found.add(tuple(point.items()))
    return found


@settings(max_examples=150)
@given(discrete_spaces())
def test_points_and_their_number_are_those_of_brute_force(space):
    expected = by_brute_force(space)
    assert space.size == len(expected)
    points = space.points(10_000)
    assert {tuple(space.decode(x).items()) for x in points} == expected
    assert len(points) == len(points.unique(dim=0)) == len(expected)
    # Each point is in one branch, and branches hold nothing else.
    branches = list(space.branches())
    for x in points.tolist():
        assert sum(x in b and b.holds(x) for b in branches) == 1
    assert sum(b.count for b in branches) == len(expected)


@settings(max_examples=60)
@given(discrete_spaces(), st.integers(0, 2**30))
def test_fixing_a_parameter_keeps_the_points_that_have_its_value(space, pick):
    expected = by_brute_force(space)
    assume(expected)
    name, value = (pairs := list(next(iter(sorted(expected, key=str)))))[pick % len(pairs)]
    held = space.check_fixed({name: value})
    points = space.points(10_000, held)
    assert {tuple(space.decode(x).items()) for x in points} == {
        p for p in expected if (name, value) in p
    }
    assert space.count(held) == len(points)


@settings(max_examples=60)
@given(discrete_spaces(), st.integers(0, 2**30))
def test_coordinates_are_imputed_where_parameters_are_inactive(space, seed):
    unit = torch.rand(20, space.dim, generator=torch.Generator().manual_seed(seed)).double()
    low, high = space.model_bounds
    X = space.from_model(low + unit * (high - low))
    for x in X:
        values = space.decode(x)
        assert torch.equal(space.encode(values), x)
        for i, p in enumerate(space.varied):
            if p.name not in values:
                assert p.decode(float(x[i])) == p.imputed
    assert torch.equal(space.impute(X), X)
    whole = space.nearest(low + unit * (high - low))
    assert torch.equal(space.impute(whole), X)


def test_a_point_holds_active_parameters_only_and_fixed_ones():
    water = {"solvent": "water", "T": 50.0, "operator": "Ann", "base": 0.1}
    assert SPACE.validate({"T": 50, "solvent": "water", "base": 0.1}) == water
    dmso = {"grade": 4, "solvent": "dmso", "T": 50.0, "operator": "Ann"}
    assert SPACE.validate(dmso) == dmso
    assert list(SPACE.validate(dmso)) == ["grade", "solvent", "T", "operator"]
    assert SPACE.decode(SPACE.encode(dmso)) == dmso
    assert SPACE.names == ("grade", "solvent", "dry", "T", "operator", "base")
    assert SPACE.dim == 5
    assert [p.name for p in SPACE.varied] == ["grade", "solvent", "dry", "T", "base"]


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"solvent": "water", "T": 50}, "'base' is missing"),
        ({"T": 50}, "'solvent' is missing"),
        (
            {"solvent": "water", "T": 50, "base": 0.1, "grade": 1},
            r"'grade' is inactive where solvent = 'water' \(it needs solvent = 'ethanol' or",
        ),
        (
            {"solvent": "dmso", "T": 50, "grade": 4, "dry": True},
            r"'dry' is inactive where grade = 4 \(it needs grade = 1 or 2\)",
        ),
        ({"solvent": "ethanol", "T": 5, "grade": 4, "operator": "Bob"}, "'T' must be in"),
        (
            {"solvent": "ethanol", "T": 50, "grade": 4, "operator": "Bob"},
            "'operator' is fixed at 'Ann', got 'Bob'",
        ),
    ],
)  # fmt: skip
def test_points_that_do_not_fit_the_conditions_are_refused(point, message):
    with pytest.raises(InputError, match=message):
        SPACE.validate(point)


def test_inactive_parameters_stand_at_their_default_or_in_the_middle():
    x = SPACE.encode({"solvent": "dmso", "T": 50, "grade": 4})
    assert x.tolist() == [2.0, 2.0, 0.0, 50.0, 0.5]  # dry: its first value; base: its default
    x = SPACE.encode({"solvent": "water", "T": 50, "base": 1e-3})
    assert x.tolist() == [1.0, 0.0, 0.0, 50.0, 1e-3]  # grade: the middle one
    when = {"solvent": "water"}
    assert Float("x", 1e-4, 1.0, log=True, when=when).imputed == pytest.approx(1e-2)
    assert Float("x", -2.0, 4.0, when=when).imputed == 1.0
    assert Int("x", 1, 100, log=True, when=when).imputed == 10
    assert Int("x", 1, 9, when=when, default=2.0).imputed == 2
    assert Ordered("x", (1, 2, 3, 9), when=when).imputed == 2


def choice(name, **options):
    return Choice(name, ("u", "v"), **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: [choice("a", when={"bb": "u"}), choice("b")], "unknown parameter 'bb'; did you"),
        (lambda: [choice("a", when={"a": "u"})], "circle: 'a' -> 'a'"),
        (
            lambda: [
                choice("a", when={"b": "u"}),
                choice("b", when={"c": "u"}),
                choice("c", when={"a": "u"}),
            ],
            "round in a circle: .* -> ",
        ),
        (lambda: [choice("a", when={"x": 0.5}), Float("x", 0, 1)], "'x', a float"),
        (lambda: [choice("a", when={"n": 5}), Int("n", 1, 10**6)], "1000000 values"),
        (lambda: [choice("a", when={"b": "w"}), choice("b")], "'a': when: parameter 'b' must be"),
        (lambda: [choice("a", when={"b": []}), choice("b")], "list at least one value of 'b'"),
        (lambda: [choice("a", when="b"), choice("b")], "when must map another parameter"),
        (lambda: [choice("a", when={"b": True}), choice("b")], "must be one of"),
        (
            lambda: [
                choice("a", when={"b": "u", "c": "u"}),
                choice("b"),
                choice("c", when={"b": "v"}),
            ],
            "'a' is never active: no value of 'b' meets all conditions",
        ),
        (lambda: [choice("a", when={"b": "u"}), Fixed("b", "v"), choice("c")], "'a' is never"),
        (lambda: [Fixed("a", 1)], "at least one parameter that is not fixed"),
    ],
)
def test_conditions_that_cannot_be_met_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        Space(make())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Float("x", 0, 1, default=0.5), "without 'when' it is always active"),
        (lambda: Float("x", 0, 1, when={"a": 1}, default=2), r"must be in \[0.0, 1.0\]"),
        (lambda: choice("x", when={"a": 1}, default="w"), "must be one of"),
        (lambda: choice("x", when={3: 1}), "when must name a parameter, got 3"),
        (lambda: Fixed("x", math.nan), "value must be finite"),
        (lambda: Fixed("x", None), "value must be a number, a string or a boolean"),
        (lambda: Fixed("", 1), "name"),
    ],
)
def test_impossible_parameters_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"solvnt": "water"}, "unknown parameter 'solvnt'; did you mean 'solvent'"),
        ({"solvent": "wine"}, "'solvent' must be one of"),
        ({"solvent": "water", "grade": 1}, "'grade' cannot be fixed: it is inactive where solvent"),
        ({"grade": 4, "dry": True}, "'dry' cannot be fixed: it is inactive where grade = 4"),
        ({"dry": True, "solvent": "ethanol"}, "inactive where solvent = 'ethanol'"),
        ({"operator": "Bob"}, "fixed at 'Ann'"),
        ("solvent=water", "fixed must map"),
    ],
)
def test_values_that_no_point_has_cannot_be_fixed(fixed, message):
    with pytest.raises(InputError, match=message):
        SPACE.check_fixed(fixed)


def test_fixed_values_and_constraints_must_agree():
    space = Space(
        [Float("a", 0, 1), Float("b", 0, 1), choice("c")],
        [LinearConstraint.parse("a + b <= 1"), LinearConstraint.parse("a >= 0.2")],
    )
    assert space.check_fixed({"a": 0.5}) == {"a": 0.5}
    with pytest.raises(InputError, match=r"with a = 0.9, b = 0.2 satisfies '1\*a \+ 1\*b <= 1'"):
        space.check_fixed({"a": 0.9, "b": 0.2})
    with pytest.raises(InputError, match=r"a = 0.1 satisfies '-1\*a <= -0.2'"):
        space.check_fixed({"a": 0.1})


def test_a_constraint_applies_where_all_its_parameters_are_active():
    space = Space(
        [
            choice("with b"),
            Float("a", 0, 1),
            Float("b", 0, 1, when={"with b": "u"}),
            Fixed("c", 0.25),
        ],
        [LinearConstraint({"a": 1.0, "b": 1.0, "c": 1.0}, 1.0)],
    )
    assert space.contains({"with b": "v", "a": 1.0})
    assert space.contains({"with b": "u", "a": 0.5, "b": 0.25})
    assert not space.contains({"with b": "u", "a": 0.5, "b": 0.3})
    X = torch.stack(
        [space.encode({"with b": "v", "a": 1.0}), space.encode({"with b": "u", "a": 0.5, "b": 0.3})]
    )
    assert space.satisfied(X).tolist() == [True, False]
    with pytest.raises(InputError, match="fixed at 'x', which is no number"):
        Space([Float("a", 0, 1), Fixed("c", "x")], [LinearConstraint.parse("a + c <= 1")])


def test_plain_data_make_an_equal_space():
    data = SPACE.to_dict()
    again = Space.from_dict(data)
    assert again == SPACE
    assert again.to_dict() == data
    assert data["parameters"][4] == {
        "type": "fixed", "name": "operator", "value": "Ann", "unit": "",
    }  # fmt: skip
    # What has no condition is stored as ever, so that older databases are read alike.
    assert "when" not in data["parameters"][1]
    assert "default" not in data["parameters"][1]


@pytest.mark.parametrize(
    ("parameter", "text", "value"),
    [
        (Float("x", 0, 10), " 7 ", 7.0),
        (Int("x", 0, 10), "7", 7),
        (Choice("x", ("1", "2")), "1", "1"),
        (Choice("x", (1, 2.5)), "2.5", 2.5),
        (Choice("x", (True, False)), "true", True),
        (Ordered("x", (1, 10)), "10.0", 10),
        (Fixed("x", "Ann"), "Ann", "Ann"),
    ],
)
def test_texts_are_read_by_the_parameters_kind(parameter, text, value):
    found = parameter.parse(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("parameter", "text", "message"),
    [
        (Float("x", 0, 10), "warm", "must be a number, got 'warm'"),
        (Float("x", 0, 10), "nan", "must be finite"),
        (Int("x", 0, 10), "2.5", "must be an integer"),
        (Choice("x", ("water", "dmso")), "wter", "did you mean 'water'"),
        (Choice("x", (True, False)), "1", "must be one of"),
    ],
)
def test_texts_that_are_no_value_are_refused(parameter, text, message):
    with pytest.raises(InputError, match=message):
        parameter.parse(text)
