"""Initial designs: nested, valid, uniform in model coordinates, and honest about small spaces."""

import pytest
import torch

from bo_surrogates.design import sobol_design
from bo_surrogates.errors import RunError, SpaceExhausted
from bo_surrogates.space import (
    Choice,
    Float,
    Int,
    LinearConstraint,
    Ordered,
    Space,
    parse_constraints,
)

MIXED = Space(
    [
        Float("a", -2.0, 6.0),
        Float("b", 1e-4, 1.0, log=True),
        Int("c", 1, 4),
        Ordered("d", (1, 10, 100)),
        Choice("e", ("u", "v")),
    ]
)


def test_the_design_of_n_points_begins_with_that_of_fewer():
    assert torch.equal(sobol_design(MIXED, 100, seed=3)[:7], sobol_design(MIXED, 7, seed=3))
    assert not torch.equal(sobol_design(MIXED, 7, seed=3), sobol_design(MIXED, 7, seed=4))


def test_points_are_valid_and_read_back_as_they_are():
    for x in sobol_design(MIXED, 50, seed=0):
        assert torch.equal(MIXED.encode(MIXED.validate(MIXED.decode(x))), x)


def test_points_are_uniform_in_model_coordinates_and_over_levels():
    # A scrambled Sobol sequence of 512 = 2^9 points has exactly 128 in each quarter of a margin.
    X = sobol_design(MIXED, 512, seed=1)
    for column in ((X[:, 0] + 2) / 8, (X[:, 1].log10() + 4) / 4):
        counts = torch.histc(column, bins=4, min=0, max=1)
        assert counts.tolist() == [128] * 4
    assert torch.bincount(X[:, 2].long()).tolist() == [0] + [128] * 4
    assert torch.bincount(X[:, 4].long()).tolist() == [256, 256]
    # Three levels cannot be exactly equal; each is within one of a third of each 2^k block.
    assert (torch.bincount(X[:, 3].long()) - 512 / 3).abs().max() < 2


def test_constraints_hold():
    space = Space([Float("a", 0, 1), Int("n", 0, 5)], [LinearConstraint.parse("a + n <= 2.5")])
    X = sobol_design(space, 40, seed=0)
    assert (X.sum(dim=1) <= 2.5).all()
    assert len(X) == 40


def test_points_to_avoid_are_not_drawn_again():
    space = Space([Int("n", 1, 4), Choice("c", ("u", "v"))])
    first = sobol_design(space, 5, seed=0)
    rest = sobol_design(space, 3, seed=0, avoid=first)
    assert len(torch.cat([first, rest]).unique(dim=0)) == 8


def test_an_exhausted_or_impossible_space_is_reported():
    space = Space([Int("n", 1, 4), Choice("c", ("u", "v"))])
    everything = sobol_design(space, 9, seed=0)
    assert len(everything.unique(dim=0)) == len(everything) == 8
    with pytest.raises(SpaceExhausted, match="all 8 points of the space have been tried"):
        sobol_design(space, 1, seed=0, avoid=everything)
    nowhere = Space([Float("a", 0, 1)], [LinearConstraint.parse("a >= 2")])
    with pytest.raises(RunError, match="no point .* satisfies '-1\\*a <= -2'"):
        sobol_design(nowhere, 1, seed=0)


def test_a_space_that_constraints_make_finite_is_exhausted_too():
    # The float is what the integer leaves: six points, though a float varies.
    space = Space([Float("a", 0, 1), Int("n", 0, 5)], parse_constraints("a + 0.2*n == 1"))
    X = sobol_design(space, 10, seed=0)
    assert sorted(X[:, 1].tolist()) == [0, 1, 2, 3, 4, 5]
    assert (X[:, 0] + 0.2 * X[:, 1] - 1).abs().max() < 1e-11
    with pytest.raises(SpaceExhausted, match="no new point is left to try: the last 1000"):
        sobol_design(space, 1, seed=0, avoid=X)


def test_fixed_values_are_kept_by_the_design():
    values = {"b": 0.01, "d": 10}
    X = sobol_design(MIXED, 16, seed=0, fixed=values)
    assert (X[:, 1] == 0.01).all()
    assert (X[:, 3] == 1).all()
    assert X[:, 0].std() > 1
    space = Space([Float("a", 0, 1), Float("b", 0, 1)], [LinearConstraint.parse("a + b <= 1")])
    X = sobol_design(space, 16, seed=0, fixed={"a": 0.999})  # a thousandth of the box is left
    assert (X[:, 0] == 0.999).all()
    assert (X[:, 1] <= 0.001).all()
    assert len(X) == 16


def test_points_of_a_simplex_are_uniform_and_nested():
    """Against the Dirichlet distribution of ones: mean 1/4, variance 3/80, covariance -1/80."""
    space = Space([Float(n, 0, 1) for n in "abcd"], parse_constraints("a + b + c + d == 1"))
    n = 1024
    X = sobol_design(space, n, seed=0)
    assert (X.sum(dim=1) - 1).abs().max() < 1e-11
    assert (X >= 0).all()
    # Five and a half standard errors of a mean, twice for the variances' own spread.
    bound = 5.5 / n**0.5
    assert ((X.mean(0) - 0.25).abs() < bound * (3 / 80) ** 0.5).all()
    covariance = X.T.cov()
    expected = torch.full((4, 4), -1 / 80).double().fill_diagonal_(3 / 80)
    assert ((covariance - expected).abs() < 2 * bound * 3 / 80).all()
    assert torch.equal(sobol_design(space, 40, seed=0), X[:40])


def test_points_of_a_sliver_are_drawn_not_waited_for():
    # A millionth of the box, across an integer and a choice.
    space = Space(
        [Float("a", 0, 1), Float("b", 0, 1), Int("n", 0, 3), Choice("c", ("u", "v"))],
        [LinearConstraint.parse(t) for t in ("a + b + n <= 2.000001", "a + b + n >= 2")],
    )
    X = sobol_design(space, 32, seed=0)
    for x in X:
        space.validate(space.decode(x))
    assert set(X[:, 2].tolist()) == {0, 1, 2}
    assert set(X[:, 3].tolist()) == {0, 1}
    assert len(X.unique(dim=0)) >= 31


def test_inactive_parameters_do_not_make_points_differ():
    space = Space(
        [
            Choice("solvent", ("water", "ethanol")),
            Float("grade", 0, 1, when={"solvent": "ethanol"}),
            Int("n", 1, 2),
        ]
    )
    X = sobol_design(space, 40, seed=0)
    points = [tuple(space.decode(x).items()) for x in X]
    assert len(set(points)) == 40
    assert sum(dict(p)["solvent"] == "water" for p in points) == 2  # n alone varies there
