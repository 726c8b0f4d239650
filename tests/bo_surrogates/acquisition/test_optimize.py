"""Maximizing over spaces: right against brute force, valid to the last digit, never twice."""

import itertools
import math

import pytest
import torch
from botorch.acquisition import AcquisitionFunction

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.acquisition.optimize import maximize
from bo_surrogates.design import sobol_design
from bo_surrogates.errors import SpaceExhausted
from bo_surrogates.seeding import fixed_seed
from bo_surrogates.space import (
    Choice,
    Fixed,
    Float,
    Int,
    LinearConstraint,
    Ordered,
    Space,
    parse_constraints,
)

FAST = AcquisitionConfig(num_restarts=3, raw_samples=64, maxiter=100)


class Bowl(AcquisitionFunction):
    """Highest at a point; lower near pending points, as acquisition functions are."""

    def __init__(self, space, **target):
        torch.nn.Module.__init__(self)
        self.X_pending = None
        goal = {p.name: p.middle for p in space.varied} | target
        X = torch.tensor([p.encode(goal[p.name]) for p in space.varied], dtype=torch.float64)
        self.target = space.to_model(X)
        low, high = space.model_bounds
        self.span = high - low
        self.seen = []

    def set_X_pending(self, X_pending=None):
        self.X_pending = X_pending

    def forward(self, X):
        self.seen.append(X.detach())
        value = -(((X - self.target) / self.span) ** 2).sum(-1).squeeze(-1)
        for z in () if self.X_pending is None else self.X_pending:
            value = value - 0.1 * torch.exp(-(((X - z) / self.span) ** 2).sum(-1).squeeze(-1) * 99)
        return value


def found(space, function, q=1, avoid=(), **fixed):
    X = torch.stack([space.encode(v) for v in avoid]) if avoid else torch.empty(0, space.dim)
    with fixed_seed(0):
        X, values = maximize(function, space, q, FAST, X.double(), space.check_fixed(fixed))
    assert len(values) == len(X)
    points = [space.decode(x) for x in X]
    for x, point in zip(X, points, strict=True):
        assert space.validate(point) == point
        assert torch.equal(space.encode(point), x)
        assert point not in avoid
    assert len({tuple(p.items()) for p in points}) == len(points)
    return points


CONDITIONAL = Space(
    [
        Choice("solvent", ("water", "ethanol", "dmso")),
        Ordered("grade", (1, 2, 4), when={"solvent": ["ethanol", "dmso"]}),
        Int("n", 0, 3, when={"grade": [2, 4]}),
        Fixed("lab", "north"),
    ],
    [LinearConstraint.parse("n <= 2")],
)


def test_the_best_untried_point_of_a_finite_space_is_found_until_none_is_left():
    space, tried = CONDITIONAL, []
    function = Bowl(space, solvent="ethanol", grade=4, n=1)
    for left in range(space.size, 0, -1):
        (point,) = found(space, function, avoid=tried)
        X = [x for x in space.points(100) if space.decode(x) not in tried]
        assert len(X) == left
        best = max(X, key=lambda x: float(function(space.to_model(x).unsqueeze(0))))
        assert point == space.decode(best)
        tried.append(point)
    with pytest.raises(SpaceExhausted, match="all 15 points of the space have been tried"):
        found(space, function, avoid=tried)


def test_a_batch_takes_what_is_left_and_restores_the_pending_points():
    function = Bowl(CONDITIONAL)
    tried = [CONDITIONAL.decode(x) for x in CONDITIONAL.points(100)[:-2]]
    assert len(found(CONDITIONAL, function, q=5, avoid=tried)) == 2
    assert function.X_pending is None
    with pytest.raises(SpaceExhausted, match="all 1 points of the space with solvent = 'water'"):
        found(CONDITIONAL, function, avoid=[CONDITIONAL.validate({"solvent": "water"})],
              solvent="water")  # fmt: skip


def test_fixed_values_are_kept_and_the_rest_is_optimal():
    function = Bowl(CONDITIONAL, solvent="ethanol", grade=4, n=1)
    (point,) = found(CONDITIONAL, function, solvent="dmso")
    assert point == {"solvent": "dmso", "grade": 4, "n": 1, "lab": "north"}
    (point,) = found(CONDITIONAL, function, n=2)  # where it is active
    assert point == {"solvent": "ethanol", "grade": 4, "n": 2, "lab": "north"}


def test_an_inactive_parameter_is_seen_at_its_imputed_value_only():
    space = Space(
        [
            Choice("mode", ("plain", "rich")),
            Float("x", 0.0, 1.0),
            Float("y", 0.0, 1.0, when={"mode": "rich"}, default=0.25),
            Int("n", 0, 30, when={"mode": "rich"}),
        ]
    )
    function = Bowl(space, mode="plain", x=0.7)
    (point,) = found(space, function)
    assert point["mode"] == "plain"
    assert point["x"] == pytest.approx(0.7, abs=1e-3)
    assert set(point) == {"mode", "x"}
    Z = torch.cat([z.reshape(-1, space.dim) for z in function.seen])
    plain = Z[:, 0] == 0
    assert plain.any()
    assert (Z[plain][:, 2] == 0.25).all()
    assert (Z[plain][:, 3] == 15).all()
    (point,) = found(space, Bowl(space, mode="rich", x=0.2, y=0.9, n=27))
    assert point["mode"] == "rich"
    assert point["n"] == 27
    assert (point["x"], point["y"]) == (
        pytest.approx(0.2, abs=1e-3), pytest.approx(0.9, abs=1e-3),
    )  # fmt: skip


CORNER = Space([Float("a", 0.0, 1.0), Float("b", 1e-3, 1.0, log=True), Int("k", 0, 4)])


def test_a_corner_is_not_proposed_twice():
    """Gradients lead to the same corner for ever."""
    for space in (CORNER, Space(CORNER.parameters[:2])):
        function, tried = Bowl(space, a=0.0, b=1.0), []
        for _ in range(4):
            tried += found(space, function, avoid=tried)
        assert (tried[0]["a"], tried[0]["b"]) == (0.0, 1.0)
        assert len({tuple(p.items()) for p in tried}) == 4


@pytest.mark.parametrize(
    ("space", "target", "expected"),
    [
        (  # the nearest point of a plane
            Space([Float("a", 0, 1), Float("b", 0, 1)], [LinearConstraint.parse("a + b <= 1")]),
            {"a": 0.9, "b": 0.7}, {"a": 0.6, "b": 0.4},
        ),
        (
            Space([Float(n, 0, 1) for n in "abc"], parse_constraints("a + b + c == 1")),
            {"a": 0.5, "b": 0.5, "c": 0.3}, {"a": 0.4, "b": 0.4, "c": 0.2},
        ),
        (  # thin, and tilted
            Space([Float(n, 0, 1) for n in "ab"], [
                LinearConstraint.parse("a - b <= 1e-5"), LinearConstraint.parse("b - a <= 1e-5"),
            ]),
            {"a": 0.8, "b": 0.2}, {"a": 0.5, "b": 0.5},
        ),
        (  # integers and floats under one constraint
            Space([Float("a", 0, 1), Int("n", 0, 4)], [LinearConstraint.parse("a + 0.25*n <= 1")]),
            {"a": 0.5, "n": 2}, {"a": 0.5, "n": 2},
        ),
        (
            Space([Float("a", 0, 1), Int("n", 0, 4), Choice("c", ("u", "v", "w"))],
                  parse_constraints("a + 0.25*n == 1")),
            {"a": 0.2, "n": 3, "c": "w"}, {"a": 0.25, "n": 3, "c": "w"},
        ),
    ],
    ids=["halfspace", "simplex", "thin", "mixed", "mixed equation"],
)  # fmt: skip
def test_constraints_hold_and_the_optimum_within_them_is_found(space, target, expected):
    (point,) = found(space, Bowl(space, **target))
    for name, value in expected.items():
        assert point[name] == (value if isinstance(value, str) else pytest.approx(value, abs=2e-3))
    for constraint in space.constraints:
        # As the inequality stands; an equation up to the twelfth digit.
        equation = any(
            c.coefficients == {n: -v for n, v in constraint.coefficients.items()}
            for c in space.constraints
        ) and "thin" not in str(constraint)
        assert constraint.slack(point) >= (-1e-11 if equation else 0)


def test_a_constraint_with_an_inactive_parameter_does_not_bind():
    space = Space(
        [
            Choice("cosolvent", ("none", "dmso")),
            Float("a", 0, 1),
            Float("b", 0.5, 1, when={"cosolvent": "dmso"}),
        ],
        [LinearConstraint.parse("a + b <= 1")],
    )
    (point,) = found(space, Bowl(space, cosolvent="none", a=0.9))
    assert point == {"cosolvent": "none", "a": pytest.approx(0.9, abs=1e-3)}
    (point,) = found(space, Bowl(space, a=0.9, b=0.5), cosolvent="dmso")
    assert point["a"] == pytest.approx(0.5, abs=1e-3)


def test_what_is_too_large_to_list_is_searched_without_repeating_a_point():
    space = Space([Int(f"n{i}", 0, 9) for i in range(6)], [LinearConstraint.parse("n0 + n1 <= 9")])
    target = dict(zip(space.names, (5, 5, 1, 9, 0, 3), strict=True))
    tried = []
    for _ in range(3):
        tried += found(space, Bowl(space, **target), avoid=tried)
    # The nearest to the target on the constraint: one of two.
    assert tried[0] in ({**target, "n0": 4}, {**target, "n1": 4})
    wide = Space([Int("n", 1, 10**9), Float("x", 0, 1)])
    (point,) = found(wide, Bowl(wide, n=123_456_789, x=0.5))
    assert point["n"] == pytest.approx(123_456_789, abs=10**7)


def test_many_branches_are_searched_where_they_are_promising():
    flags = [Choice(f"f{i}", (False, True)) for i in range(8)]
    leaves = [Float(f"x{i}", 0, 1, when={f"f{i}": True}) for i in range(8)]
    space = Space([*flags, *leaves])
    assert len(list(itertools.islice(space.branches(), 300))) == 256
    # One more branch than can be listed is no obstacle.
    (point,) = found(space, Bowl(space, f0=True, x0=0.9), **{f"f{i}": False for i in range(1, 8)})
    assert point["x0"] == pytest.approx(0.9, abs=1e-3)
    values = found(space, Bowl(space, f0=True, f1=True, x0=0.9, x1=0.1))[0]
    assert math.isclose(values.get("x0", 0.9), 0.9, abs_tol=0.02)


def test_starting_points_of_a_thin_space_are_valid():
    space = Space([Float(n, 0, 1) for n in "abcd"], parse_constraints("a + b + c + d == 2"))
    X = sobol_design(space, 20, seed=3)
    assert (X.sum(1) - 2).abs().max() < 1e-11
