"""Trust regions: the paper's rules, replayed from measurements; the box and its volume."""

import math

import pytest
import torch

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.acquisition.trust_region import TrustRegion, merits, narrowed, replay
from bo_surrogates.errors import InputError
from bo_surrogates.loop import propose
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.space import Choice, Float, Int, LinearConstraint, Space

DESIGN = [0.0, 1.0, 2.0]


def course(values, dim=2, batch=1):
    """The region after three measurements of a design and these."""
    return replay([(0.0, v) for v in [*DESIGN, *values]], dim, batch, len(DESIGN))


def test_three_improvements_in_a_row_double_the_length():
    assert course([]) == TrustRegion(count=3, centre=2)
    assert course([3.0, 4.0]).length == 0.8
    grown = course([3.0, 4.0, 5.0])
    assert (grown.length, grown.centre, grown.successes) == (1.6, 5, 0)
    assert course([3.0, 4.0, 4.0, 5.0, 6.0]).length == 0.8  # one in between did not
    assert course([3.0 + k for k in range(9)]).length == 1.6  # the largest


def test_as_many_failures_as_parameters_but_four_at_least_halve_it():
    assert course([1.0] * 3).length == 0.8
    assert course([1.0] * 4).length == 0.4
    assert course([1.0] * 4, dim=5).length == 0.8
    assert course([1.0] * 5, dim=5).length == 0.4
    # A batch is judged by its best, once it is complete.
    assert course([1.0] * 3, dim=8, batch=4).failures == 0
    assert course([1.0] * 8, dim=8, batch=4).length == 0.4
    assert course([1.0, 1.0, 1.0, 3.0], dim=8, batch=4).successes == 1


def test_an_improvement_is_one_of_the_designs_deviation_whatever_the_zero():
    stdv = math.sqrt(2 / 3)
    for offset in (0.0, 1e6):
        for step, successes in ((0.5e-3, 0), (2e-3, 1)):
            values = [(0.0, v + offset) for v in [*DESIGN, 2.0 + step * stdv]]
            assert replay(values, 2, 1, 3).successes == successes


def test_a_region_that_has_become_too_small_starts_anew_with_a_design():
    # 0.8 falls below 2^-7 at the seventh halving, after 28 failures.
    assert course([1.0] * 27).length == pytest.approx(0.8 / 64)
    anew = course([1.0] * 28)
    assert anew == TrustRegion(start=31, restarts=1)
    # What was best before is forgotten; the new design is not judged.
    again = course([1.0] * 28 + [-3.0, -2.0, -1.0])
    assert (again.count, again.centre, again.failures, again.length) == (3, 33, 0, 0.8)
    assert course([1.0] * 28 + [-3.0, -2.0, -1.0, 0.0]).successes == 1


def test_the_centre_is_the_best_feasible_point_or_the_least_infeasible():
    objective = Objective("y", "maximize")
    constraints = [OutcomeConstraint("c", "<=", 2.0)]
    Y = torch.tensor([[9.0, 5.0], [1.0, 3.0], [2.0, 4.0]])
    measured = merits(objective, constraints, Y)
    assert replay(measured, 2, 1, 2).centre == 1
    measured += merits(objective, constraints, torch.tensor([[0.0, 1.5], [0.5, 2.0]]))
    assert replay(measured, 2, 1, 2).centre == 4
    # Less violation is a success while nothing is feasible, then the objective counts.
    assert replay(measured[:3], 2, 1, 2).failures == 1
    assert replay(measured[:4], 2, 1, 2).successes == 1
    assert replay(measured, 2, 1, 2).successes == 2


SPACE = Space(
    [
        Float("a", 0.0, 1.0),
        Float("b", 1e-3, 10.0, log=True),
        Int("n", 1, 9),
        Choice("c", ("u", "v", "w")),
        Float("d", 0.0, 1.0),
    ],
    [LinearConstraint.parse("a + d <= 1.5")],
)
CENTRE = torch.tensor([0.5, 0.1, 4.0, 1.0, 0.9], dtype=torch.float64)


def test_the_box_is_centred_and_leaves_discrete_parameters_whole():
    low, high = narrowed(SPACE, CENTRE, 0.4).model_bounds
    torch.testing.assert_close(low, torch.tensor([0.3, -1.8, 1, 0, 0.7]).double())
    torch.testing.assert_close(high, torch.tensor([0.7, -0.2, 9, 2, 1.0]).double())


def test_lengthscales_shape_the_box_at_the_same_volume():
    scales = torch.tensor([0.5, 2.0, 7.0, 7.0, 1.0])
    low, high = narrowed(SPACE, CENTRE, 0.1, scales).model_bounds
    sides = (high - low)[[0, 1, 4]] / torch.tensor([1.0, 4.0, 1.0])
    torch.testing.assert_close(sides, torch.tensor([0.05, 0.2, 0.1]).double())
    assert sides.prod() == pytest.approx(0.1**3)


def test_held_and_conditional_parameters_keep_their_range():
    space = Space([Float("a", 0, 1), Choice("c", ("u", "v")), Float("b", 0, 1, when={"c": ["u"]})])
    box = narrowed(space, torch.tensor([0.5, 0.0, 0.5]), 0.1)
    assert box.model_bounds[:, 2].tolist() == [0.0, 1.0]
    assert narrowed(space, torch.tensor([0.5, 0.0, 0.5]), 0.1, None, {"a"}) == space


@pytest.mark.parametrize("name", ["qlognei", "thompson"])
def test_the_loop_proposes_within_the_region(name):
    space = Space([Float("a", 0.0, 1.0), Float("b", 0.0, 1.0)])
    X = torch.rand(14, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    Y = ((X - 0.9) ** 2).sum(-1, keepdim=True)
    X[0], Y[0] = torch.tensor([0.2, 0.3]), -5.0  # the best, far from where the rest points to
    config = AcquisitionConfig(
        name=name, trust_region=True, mc_samples=16, num_restarts=2, raw_samples=32
    )
    found = propose(
        space, X, Y, objectives=[Objective("y")], acquisition=config, design=2, seed=0
    ).X
    region = replay([(0.0, -float(y)) for y in Y], 2, 1, 2)
    assert (region.centre, region.length) == (0, 0.1)
    box = narrowed(space, X[0], region.length, torch.tensor([1.0, 1.0]))
    assert (found - X[0]).abs().prod() < (box.bounds[1] - box.bounds[0]).prod()
    assert (found - X[0]).abs().max() < 0.5


def test_a_region_needs_one_objective():
    on, auto = AcquisitionConfig(trust_region=True), AcquisitionConfig(trust_region="auto")
    with pytest.raises(InputError, match="needs one objective"):
        on.resolve(2)
    assert auto.resolve(2) == "qlognehvi"
    assert [auto.uses_trust_region(1, d) for d in (20, 21)] == [False, True]
    assert not auto.uses_trust_region(2, 100)
    assert not AcquisitionConfig().uses_trust_region(1, 100)
