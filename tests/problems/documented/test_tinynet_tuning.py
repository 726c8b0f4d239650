"""The tuning problem of TinyNets: its space, its budget, and its published default."""

import math

import pytest

from bo_surrogates.errors import InputError
from problems import PROBLEMS
from problems.documented.tinynet import EFFICIENTNET_B0, SMALL
from problems.documented.tinynet_tuning import depth_levels

SHORT = {"epochs": 1, "limit": 64, "data": "digits", "batch_size": 32}


@pytest.fixture(scope="module")
def problem():
    return PROBLEMS["tinynet"].make(ratio=0.25)


def test_no_two_depths_are_one_network_and_none_is_left_out():
    for base in (SMALL, EFFICIENTNET_B0):
        blocks = [base.repeats(d) for d in depth_levels(base)]
        assert len(set(blocks)) == len(blocks)
        fine = {base.repeats(0.4 + 1.1 * (k + 0.5) / 5000) for k in range(5000)}
        assert fine == set(blocks)


def test_the_budget_is_a_share_of_the_base_s_macs(problem):
    assert problem.base_macs == 1_854_976
    (constraint,) = problem.constraints
    assert (constraint.metric, constraint.op) == ("log_macs", "<=")
    assert constraint.bound == pytest.approx(math.log10(0.25 * 1_854_976))
    assert [o.name for o in problem.objectives] == ["error"]
    given = PROBLEMS["tinynet"].make(macs_budget=3e5)
    assert given.constraints[0].bound == pytest.approx(math.log10(3e5))
    free = PROBLEMS["tinynet"].make()
    assert (free.constraints, free.metrics) == ((), ("error", "log_macs"))


def test_the_published_default_is_the_tiny_formula_within_the_budget(problem):
    # TinyNet-C has 0.258 of its base: resolution 0.825, depth 0.85.
    point = problem.published_default
    assert abs(point["pixels"] - 0.825 * 32) <= 1
    assert SMALL.repeats(point["depth"]) == SMALL.repeats(0.85)
    assert 0.24 < problem.cost(point).total_macs / problem.base_macs <= 0.25
    wider = {**point, "width": point["width"] * 1.05}
    assert problem.cost(wider).total_macs > 0.25 * problem.base_macs


def test_a_solved_width_spends_the_budget_at_every_resolution_and_depth():
    problem = PROBLEMS["tinynet"].make(solve_width=True, ratio=0.25)
    assert problem.space.names == ("pixels", "depth")
    for pixels, depth in ((16, 0.45), (28, 0.625)):
        macs = problem.cost({"pixels": pixels, "depth": depth}).total_macs
        assert 0.23 * problem.base_macs < macs <= 0.25 * problem.base_macs
    tiny = PROBLEMS["tinynet"].make(solve_width=True, macs_budget=2e3)
    point = {"pixels": 38, "depth": 1.375}
    assert set(tiny.network(point).architecture.channels(1.0)) == {1, 2}  # the narrowest
    assert tiny.cost(point).total_macs > 2e3  # a constraint that is not met, not a failure


def test_the_share_of_macs_may_be_the_parameter():
    problem = PROBLEMS["tinynet"].make(solve_width=True)
    assert problem.space.names == ("pixels", "depth", "ratio")
    point = {**problem.published_default, "pixels": 16, "ratio": 0.15}
    macs = problem.cost(point).total_macs
    assert 0.13 * problem.base_macs < macs <= 0.15 * problem.base_macs
    # The stem is not scaled: below its cost the narrowest network is meant, and its MACs are told.
    narrowest = problem.cost({**point, "pixels": 32, "ratio": 0.03}).total_macs
    assert narrowest > 0.1 * problem.base_macs


@pytest.mark.parametrize("base", ["small", "efficientnet_b0"])
def test_blocks_and_training_may_be_tuned_too(base):
    problem = PROBLEMS["tinynet"].make(search="all", base=base, side=16, **SHORT)
    added = {"expansion", "kernel", "se_ratio", "channel_step", "bits", "learning_rate"}
    assert added < set(problem.space.names)
    assert ("scale_head" in problem.space.names) == (base == "efficientnet_b0")
    point = {
        **problem.published_default, "expansion": 3, "kernel": 5, "se_ratio": 0.25,
        "channel_step": 4, "scale_stem": True, "bits": 8, "pixels": 7, "width": 0.3,
        "learning_rate": 2e-3,
    }  # fmt: skip
    network = problem.network(point)
    blocks = network.architecture.stages
    assert {s.kernel for s in blocks} == {5}
    assert {s.expansion for s in blocks} == ({3} if base == "small" else {1, 3})
    assert all(s.channels % 4 == 0 for s in blocks)
    assert network.architecture.stem == (4 if base == "small" else 12)
    assert set(problem.cost(point).macs) == {(8, 8)}
    assert problem.recipe(point).learning_rate == 2e-3
    if base == "small":
        assert 0 <= problem.evaluate(point, seed=0)["error"] <= 1


def test_options_reach_network_and_training():
    problem = PROBLEMS["tinynet"].make(
        **SHORT, shift=1, learning_rate=3e-3, kernel=5, se_ratio=0.5, side=20
    )
    recipe = problem.recipe(problem.published_default)
    assert (recipe.crop, recipe.learning_rate) == (1, 3e-3)
    architecture = problem.network({**problem.published_default, "pixels": 15}).architecture
    assert (architecture.side, architecture.se_ratio) == (15, 0.5)
    assert {s.kernel for s in architecture.stages} == {5}
    assert [problem.space.bounds[i, 0].item() for i in (0, 1)] == [8, 24]


def test_resolution_may_be_the_fidelity():
    problem = PROBLEMS["tinynet"].make(**SHORT, fidelity="pixels")
    assert problem.fidelity is not None
    assert problem.space.fidelity.name == "pixels"


def test_bad_options_are_refused_by_name():
    with pytest.raises(InputError, match="kernel must be odd, got 4"):
        PROBLEMS["tinynet"].make(kernel=4)
    with pytest.raises(InputError, match="ratio and macs_budget both limit the MACs"):
        PROBLEMS["tinynet"].make(ratio=0.5, macs_budget=1e5)
    with pytest.raises(InputError, match="data = 'wine': these networks take images"):
        PROBLEMS["tinynet"].make(data="wine")
    with pytest.raises(InputError, match="base must be one of"):
        PROBLEMS["tinynet"].make(base="efficientnet")
