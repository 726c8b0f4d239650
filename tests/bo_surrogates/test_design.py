"""Initial designs: nested, valid, uniform in model coordinates, and honest about small spaces."""

import pytest
import torch

from bo_surrogates.design import sobol_design
from bo_surrogates.errors import RunError, SpaceExhausted
from bo_surrogates.space import Choice, Float, Int, LinearConstraint, Ordered, Space

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
