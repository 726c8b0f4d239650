"""The tuning problems of FBNet: what a point's network is, its latency, and what is refused."""

import pytest
import torch

from bo_surrogates.errors import InputError
from problems import PROBLEMS
from problems.documented.fbnet import FBNet, LatencyTable, counted_table, small_space
from problems.documented.fbnet_tuning import FBNetArchitectureTuning

SHORT = {"epochs": 1, "limit": 60, "batch_size": 32}
SLOW = {f"layer_{i}": "k5_e3" for i in range(1, 5)}
SKIPPING = {"layer_1": "k3_e1", "layer_2": "skip", "layer_3": "k3_e1", "layer_4": "skip"}


def test_all_points_are_the_architectures_and_their_latencies_the_table_s():
    problem = PROBLEMS["fbnet_architecture"].make(**SHORT)
    space = small_space()
    points = [dict(zip(problem.space.names, a, strict=True)) for a in space.architectures()]
    assert len(points) == 400
    assert all(problem.space.contains(point) for point in points[::23])
    for values, expected in ((SLOW, 62.656), (SKIPPING, 12.096)):
        measured = problem.evaluate(values, seed=0)
        assert measured["table_latency"] == pytest.approx(expected)
    assert [o.reference for o in problem.objectives] == [0.5, 63.0]
    network = problem.network(SKIPPING)
    assert network.architecture == tuple(SKIPPING.values())


def test_the_latency_has_a_budget():
    problem = PROBLEMS["fbnet_architecture"].make(table_latency_budget=20, **SHORT)
    assert [o.name for o in problem.objectives] == ["error"]
    X = torch.stack([problem.space.encode(v) for v in (SLOW, SKIPPING)]).to(problem.bounds)
    assert problem.evaluate_slack(X, seed=0).flatten().tolist() == pytest.approx(
        [20 - 62.656, 20 - 12.096]
    )
    with pytest.raises(InputError, match="'table_latency' has a budget already"):
        PROBLEMS["fbnet_search"].make(
            objectives=["error", "table_latency"], table_latency_budget=20
        )


def test_bits_channels_and_resolution_change_the_network_and_its_latency():
    problem = PROBLEMS["fbnet_architecture"].make(search="all", **SHORT)
    point = {**problem.published_default, "bits_1": 4, "resolution": 12}
    assert problem.network(point).architecture[:2] == ("k3_e3_b4", "k3_e3")
    assert problem.network(point).space.resolution == (12, 12)
    at_8 = problem.evaluate({**problem.published_default, "bits_1": 4}, seed=0)
    table = counted_table(small_space()).rows(small_space())
    expected = 1 + (table[0][1] - 1) / 16 + table[1][1] + table[2][1] + table[3][1]
    assert at_8["table_latency"] == pytest.approx(expected)
    names = {c.name for c in problem.space.varied}
    assert {"bits_4", "channel_multiplier", "resolution", "learning_rate"} <= names
    skipping = {k: v for k, v in problem.published_default.items() if k != "bits_2"}
    assert problem.space.contains({**skipping, "layer_2": "skip"})


def test_a_table_from_a_file_replaces_the_counted_one(tmp_path):
    counted = counted_table(small_space())
    LatencyTable(dict.fromkeys(counted.entries, 7.0), "microseconds", 0.0).save(tmp_path / "t.json")
    problem = PROBLEMS["fbnet_architecture"].make(latency_table=str(tmp_path / "t.json"), **SHORT)
    assert problem.evaluate(SKIPPING, seed=0)["table_latency"] == 28.0
    with pytest.raises(InputError, match="cannot be read"):
        PROBLEMS["fbnet_search"].make(latency_table=str(tmp_path / "other.json"))


def test_a_search_s_point_is_its_configuration():
    problem = PROBLEMS["fbnet_search"].make(search_epochs=3, samples=4, **SHORT)
    config = problem.search_config(problem.published_default)
    assert (config.epochs, config.samples, config.beta, config.loss) == (3, 4, 0.6, "product")
    point = {**problem.published_default, "pressed": False}
    del point["beta"]
    assert problem.search_config(problem.space.validate(point)).beta == 0.0
    additive = {**problem.published_default, "loss": "additive", "penalty": 0.3}
    for name in ("alpha", "pressed", "beta"):
        del additive[name]
    config = problem.search_config(problem.space.validate(additive))
    assert (config.loss, config.penalty) == ("additive", 0.3)


def test_a_search_s_result_is_the_architecture_it_found():
    problem = PROBLEMS["fbnet_search"].make(
        search_epochs=1, objectives=["error", "log_macs"], **SHORT
    )
    network = problem.train_best(problem.published_default, seed=0)
    assert isinstance(network, FBNet)
    details = problem.details(network)
    assert tuple(details["architecture"]) == network.architecture
    assert problem.rebuild(problem.published_default, details).architecture == network.architecture


def test_candidates_of_several_bits_are_searched():
    problem = PROBLEMS["fbnet_search"].make(search_epochs=1, mixed_precision=True, **SHORT)
    space = problem.macro({})
    assert len(space.layers[0].candidates) == 4 * len(small_space().layers[0].candidates)
    assert 0 <= problem.evaluate(problem.published_default, seed=0)["error"] <= 1


@pytest.mark.parametrize("network", ["three_stages", "paper"])
def test_larger_spaces_are_tuned_by_the_same_problems(network):
    problem: FBNetArchitectureTuning = PROBLEMS["fbnet_architecture"].make(network=network, **SHORT)
    assert len(problem.space.names) == {"three_stages": 9, "paper": 22}[network]
    assert problem.published_default["layer_2"] == "k3_e6"
    assert problem.cost(problem.published_default).total_macs > 0
