"""The tuning of hypercomplex networks: every point has a network, and n has its price."""

import pytest
import torch

from problems import PROBLEMS
from problems.documented.hypercomplex import hypercomplex_layers, unit_matrices
from problems.documented.hypercomplex_networks import small_phnn
from problems.documented.phnn_tuning import COMPONENTS

SHORT = {"epochs": 2, "train_fraction": 0.1}


def at(problem, **changes):
    """The published default with changes, without what is inactive there."""
    point = {**problem.published_default, **changes}
    if not all(point.get(stage, 4) in (2, 4) for stage in ("n", "n_1", "n_2")):
        del point["algebra"]
    return problem.space.validate(point)


@pytest.mark.parametrize("per_stage", [False, True])
def test_every_point_has_a_network_and_n_divides_its_channels(per_stage):
    problem = PROBLEMS["phnn"].make(search="all", per_stage=per_stage)
    draws = torch.quasirandom.SobolEngine(problem.dim, scramble=True, seed=0).draw(60).double()
    low, high = problem.space.bounds
    seen = set()
    for x in low + (high - low) * draws:
        values = problem.space.decode(x)
        network = problem.network(values)
        layers = list(hypercomplex_layers(network))
        assert len(layers) == values["depth"]
        assert all(c % layer.config.n == 0 for layer in layers for c in (
            layer.in_channels, layer.out_channels,
        ))  # fmt: skip
        assert 0 <= layers[0].in_channels - values["width"] < 24
        seen.add(tuple(layer.config.n for layer in (layers[0], layers[-1])))
    assert {n for pair in seen for n in pair} == set(COMPONENTS)
    assert any(a != b for a, b in seen) == per_stage


def test_n_divides_parameters_and_leaves_macs_as_they_are():
    problem = PROBLEMS["phnn"].make(data="digits", macs_budget=1e6)
    costs = {n: problem.cost(at(problem, n=n, width=24)) for n in COMPONENTS}
    assert len({cost.total_macs for cost in costs.values()}) == 1
    weights = 9 * (24 * 24 + 24 * 48 + 48 * 48)
    rest = costs[1].parameters - weights - 3
    for n, cost in costs.items():
        assert cost.parameters == rest + 3 * n**3 + weights // n
        assert cost.bits == 32 * cost.parameters


def test_what_is_not_searched_is_an_option():
    problem = PROBLEMS["phnn"].make(filter_bits=4, algebra_bits=8, terms_share=0.5, init="xavier")
    (config,) = {layer.config for layer in hypercomplex_layers(problem.network(at(problem)))}
    assert (config.filter_bits, config.algebra_bits, config.terms, config.init) == (
        4, 8, 2, "xavier",
    )  # fmt: skip
    plain = PROBLEMS["phnn"].make()
    saved = plain.cost(at(plain)).bits - problem.cost(at(problem)).bits
    assert saved > 0.7 * plain.cost(at(plain)).bits


def test_a_freed_algebra_has_moved_at_the_end_and_a_fixed_one_has_not():
    problem = PROBLEMS["phnn"].make(**SHORT)
    moved = {}
    for algebra, more in (("fixed", {}), ("freed", {"free_after": 0.5})):
        network = problem.train_best(at(problem, width=12, algebra=algebra, **more), seed=0)
        moved[algebra] = [
            (layer.algebra - unit_matrices(4)).abs().max().item()
            for layer in hypercomplex_layers(network)
        ]
    assert max(moved["fixed"]) == 0
    assert min(moved["freed"]) > 0


def test_colour_images_need_no_filling_for_three_components():
    problem = PROBLEMS["phnn"].make(data="colour_shifts", stem="mean", **SHORT)
    network = problem.network(at(problem, n=3))
    stem, *_ = hypercomplex_layers(network)
    assert (stem.config.n, stem.in_channels) == (3, 3)
    metrics = problem.evaluate(at(problem, n=3, width=12, depth=2), seed=0)
    assert 0 <= metrics["error"] <= 1


def test_training_is_that_of_a_network_made_and_trained_by_hand():
    problem = PROBLEMS["phnn"].make(**SHORT)
    values = at(problem, width=12)
    (recipe, hooks) = problem.recipe(values), problem.hooks(values, None, 0)
    assert (recipe.batch_size, recipe.learning_rate) == (32, 5e-3)
    rules = hooks.rules
    network = small_phnn(1, 10, 12, 3, problem.factors(values))
    decays = {name.rpartition(".")[2]: rules(name, p) for name, p in network.named_parameters()}
    assert decays["algebra"].weight_decay == 0.0
    assert decays["filters"].weight_decay == 5e-4
    assert decays["bias"].weight_decay is None
