"""The tuning of networks along their trees; see test_tuning_contract.py for what all must do."""

import math

import pytest
import torch

from bo_surrogates.errors import InputError
from problems import PROBLEMS
from problems.documented.mst import TreeConfig, compress, tree_cost

SHORT = {"epochs": 3, "train_fraction": 0.15, "batch_size": 32}
ALL = ["error", "log_xnors", "xnor_ratio", "mean_tree_depth", "tree_depth", "log_hardware_bits"]


@pytest.fixture(scope="module")
def problem():
    return PROBLEMS["mst"].make(**SHORT, objectives=ALL, depth_limit=None)


def point(problem, **changes):
    """The published default at a small width, changed; parameters that are then without use go."""
    values = {**problem.published_default, "width": 8, "depth": 2, **changes}
    if values["penalty"] == "none":
        del values["strength"], values["start"]
    if values["penalty"] in ("none", "centre"):
        values.pop("refresh")
    return problem.space.validate(values)


def test_metrics_are_what_the_trees_of_the_trained_weights_cost(problem):
    values = point(problem, inversions=True)
    network = problem.train_best(values, seed=0)
    found = problem.scores(network, values, "validation")
    cost = tree_cost(network, (1, 8, 8), TreeConfig(inversions=True))
    assert found["xnor_ratio"] == cost.ratio
    assert found["log_xnors"] == pytest.approx(math.log10(cost.ratio * problem.cost(values).bops))
    assert found["tree_depth"] == max(layer.depth for layer in cost.layers)
    assert found["mean_tree_depth"] == cost.mean_depth <= cost.depth
    assert found["log_hardware_bits"] == math.log10(cost.hardware_bits)


@pytest.mark.parametrize(
    "config", [TreeConfig(), TreeConfig(max_depth=2, inversions=True)], ids=str
)
def test_a_trained_network_runs_along_its_trees(problem, config):
    network = problem.train_best(point(problem, penalty="mix", tree_share=0.5), seed=1)
    x, _ = problem.data().part("validation")
    assert torch.equal(compress(network, x[:5], config)(x), network(x))


def test_strong_penalties_make_filters_alike(problem):
    ratios = {}
    for penalty in ("none", "tree", "centre"):
        network = problem.train_best(
            point(problem, penalty=penalty, strength=100.0, start=0.0, refresh=10), seed=0
        )
        ratios[penalty] = tree_cost(network, problem.shape).ratio
    assert ratios["tree"] < ratios["none"] - 0.05
    assert ratios["centre"] < ratios["none"] - 0.05


def test_a_depth_is_held(problem):
    found = problem.evaluate(point(problem, limited=True, max_depth=1), seed=0)
    assert found["tree_depth"] == found["mean_tree_depth"] == 1


def test_the_depth_is_a_constraint_that_may_be_taken_away():
    problem = PROBLEMS["mst"].make(**SHORT)
    assert problem.metrics == ("error", "log_xnors", "mean_tree_depth", "tree_depth")
    (limit,) = problem.constraints
    assert (limit.metric, limit.op, limit.bound) == ("tree_depth", "<=", 8.0)
    assert PROBLEMS["mst"].make(**SHORT, depth_limit=None).constraints == ()
    with pytest.raises(InputError, match="'tree_depth' has a budget already"):
        PROBLEMS["mst"].make(**SHORT, objectives=["error", "tree_depth"])
    with pytest.raises(InputError, match="depth_limit must be in"):
        PROBLEMS["mst"].make(depth_limit=0)


def test_no_point_is_beyond_the_reference_of_its_xnors(problem):
    references = {o.name: o.reference for o in problem.objectives}
    largest = point(problem, width=64, depth=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cost = tree_cost(problem.network(largest), problem.shape)
    assert math.log10(cost.full_xnors) < references["log_xnors"]
    assert math.log10(cost.plain_bits) < references["log_hardware_bits"]


def test_parameters_have_values_where_they_matter(problem):
    values = point(problem, penalty="centre")
    for name in ("refresh", "tree_share", "max_depth", "input_bound"):
        assert name not in values
        with pytest.raises(InputError, match=name):
            problem.space.validate({**values, name: 10})
    clipped = point(problem, operator="dorefa", input_bound=0.5, kernel_size=1)
    conv = problem.network(clipped).blocks[0].conv
    assert (conv.config.input_bound, conv.kernel_size, conv.padding) == (0.5, (1, 1), (0, 0))
