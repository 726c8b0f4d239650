"""The tuning of bits and rounding of a network that is trained already."""

import pytest
import torch

from bo_surrogates.errors import InputError
from problems import PROBLEMS
from problems.documented.nupes_tuning import NupesTuning, logit_mse
from problems.documented.power_quantization import PowerLinear, on_tables

SMALL = {**NupesTuning.reduced, "train_fraction": 0.2}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Trained networks are kept in a folder of the test's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def make(**options):
    return PROBLEMS["nupes"].make(**{**SMALL, **options})


def test_every_search_and_network_has_its_default_and_cost():
    for network, layers in (("mlp", 3), ("convnet", 5)):
        for search, extra in (("bits", 1), ("method", 11), ("all", 14 + 2 * layers)):
            problem = make(network=network, search=search, width=4)
            assert problem.space.contains(problem.published_default)
            assert len(problem.space.parameters) == layers + extra
            assert problem.cost(problem.published_default).bits > 0


def test_each_layer_has_its_own_bits_and_one_bit_more_costs_one_a_weight():
    problem = make(search="bits")
    point = {"weight_bits_1": 2, "weight_bits_2": 5, "weight_bits_3": 8, "input_bits": 4}
    network = problem.train_best(point, 0)
    layers = [m for m in network.modules() if isinstance(m, PowerLinear)]
    assert [(m.weight_bits, m.input_bits) for m in layers] == [(2, 4), (5, 4), (8, 4)]
    more = problem.cost({**point, "weight_bits_2": 6}).bits - problem.cost(point).bits
    assert more == layers[1].codes.numel()


def test_the_network_is_trained_once_and_its_calibration_follows_the_seed():
    problem = make(search="method", objectives=["logit_mse", "log_table_entries"])
    original = problem.original()
    x, _ = problem.data().part("validation")
    assert torch.equal(original(x), problem.original()(x))
    point = {**problem.published_default, "calibration_size": 40}
    a, b = (problem.calibration_inputs(point, seed) for seed in (0, 1))
    assert a.shape == b.shape == (40, 1, 8, 8)
    assert not torch.equal(a, b)
    assert torch.equal(a, problem.calibration_inputs(point, 0))
    train, _ = problem.data().part("train")
    assert all((row == train).flatten(1).all(dim=1).any() for row in a)


def test_metrics_are_against_the_network_in_full_precision():
    names = ["error", "logit_mse", "log_table_entries"]  # and what has a limit
    problem = make(search="bits", method="rtn", objectives=names, error_increase_limit=0.01)
    (limit,) = problem.constraints
    assert (limit.metric, limit.op, limit.bound) == ("error_increase", "<=", 0.01)
    fine = {f"weight_bits_{i}": 8 for i in (1, 2, 3)} | {"input_bits": 8}
    coarse = {f"weight_bits_{i}": 2 for i in (1, 2, 3)} | {"input_bits": 8}
    found = {name: problem.evaluate(p, seed=0) for name, p in (("8", fine), ("2", coarse))}
    assert found["8"]["logit_mse"] < 0.01 < found["2"]["logit_mse"]
    assert abs(found["8"]["error_increase"]) < 0.03
    assert found["8"]["log_table_entries"] > found["2"]["log_table_entries"]
    original, (x, y) = problem.original(), problem.data().part("validation")
    wrong = (original(x).argmax(dim=1) != y).float().mean().item()
    assert found["2"]["error_increase"] == pytest.approx(found["2"]["error"] - wrong)
    assert logit_mse(original, original, x) == 0


def test_the_limit_of_the_error_is_a_constraint_of_the_default_problem():
    problem = make(error_increase_limit=0.02)
    assert problem.metrics == ("error", "log_bits", "error_increase")


def test_a_tuned_network_runs_on_integer_codes():
    problem = make(search="bits")
    network = problem.train_best(problem.published_default, seed=0).double()
    x, _ = problem.data().part("validation")
    integer = on_tables(network)
    torch.testing.assert_close(integer(x.double()), network(x.double()), rtol=1e-10, atol=1e-10)


def test_every_method_and_grid_can_be_evaluated():
    problem = make(search="all", epochs=1)
    point = problem.published_default
    shared = {p.name: point[p.name] for p in problem.space.parameters if not p.when}
    adaround = {"method": "adaround", "lr_rounding": 1e-2, "rounding_penalty": 0.1, "epochs": 5}
    given = {"grid": "given", **{f"exponent_{i}": 0.5 + 0.1 * i for i in (1, 2, 3)}}
    network = problem.train_best({**shared, **adaround, **given}, seed=0)
    layers = [m for m in network.modules() if isinstance(m, PowerLinear)]
    assert [round(float(m.exponent), 5) for m in layers] == [0.6, 0.7, 0.8]
    rtn = {"method": "rtn", "grid": "uniform", "input_bits_2": 16, "granularity": "group16"}
    network = problem.train_best({**shared, **rtn}, seed=0)
    assert [m.inputs is None for m in network.modules() if isinstance(m, PowerLinear)] == [
        False, True, False,
    ]  # fmt: skip


def test_tables_and_images_are_taken_and_a_convolution_refuses_a_table():
    problem = make(data="wine", train_fraction=0.6)
    assert problem.shape == (13,)
    assert problem.evaluate(problem.published_default, seed=0)["error"] < 1
    with pytest.raises(InputError, match="network = 'convnet' takes images"):
        make(data="wine", train_fraction=0.6, network="convnet")
