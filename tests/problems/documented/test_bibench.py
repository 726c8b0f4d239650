"""BiBench's networks, costs and scores, and its tuning problem."""

import copy
import math

import pytest
import torch
from torch import nn

from bo_surrogates.errors import InputError
from problems import PROBLEMS
from problems.documented.bibench import (
    ResNet18,
    SmallBinaryNet,
    binary_conv,
    float_conv,
    periodic_conv,
)
from problems.documented.bibench_metrics import (
    accuracy_score,
    compression,
    inference_score,
    quadratic_mean,
    robustness_score,
    training_score,
)
from problems.documented.binarization import (
    OPERATORS,
    BinaryConv2d,
    PackedLayer,
    convert,
    pack,
    set_stage,
)
from problems.documented.corruptions import corrupted_errors
from problems.documented.cost import count_cost
from problems.documented.tuning_problem import TuningProblem


# ---- cost ---------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def resnet_cost():
    with torch.device("meta"):
        return count_cost(ResNet18(binary_conv("bnn")), (3, 224, 224))


def test_resnet18_costs_what_is_published(resnet_cost):
    assert resnet_cost.bops == 1_676_279_808
    assert resnet_cost.flops == 137_793_536
    assert resnet_cost.ops == 163_985_408
    assert compression(resnet_cost).speed == pytest.approx(11.062, abs=5e-4)


def test_the_twin_has_the_same_macs_and_no_saving(resnet_cost):
    with torch.device("meta"):
        twin = count_cost(ResNet18(float_conv, skip="each"), (3, 224, 224))
    assert twin.total_macs == resnet_cost.total_macs
    saved = compression(twin)
    assert (saved.speed, saved.storage, saved.score) == (1, 1, 1)


@pytest.mark.parametrize("operator", ["bnn", "xnor++", "recu", "biper", "reactnet", "fda"])
def test_a_packed_layer_is_as_large_as_the_cost_says(operator):
    layer = BinaryConv2d(6, 5, 3, operator, bias=True, output_size=(8, 8))
    bits = count_cost(nn.Sequential(layer), (6, 10, 10)).bits
    packed = pack(layer)
    # The weights' mean is a number that a layer in floating point need not store.
    means = 32 * 5 if layer.config.weight_scale == "channel" else 0
    # A rank-1 scale is stored multiplied out.
    scale = 32 * (5 * 64 - (5 + 8 + 8)) if operator == "xnor++" else 0
    assert packed.stored_bits() == bits + means + scale


# ---- networks -----------------------------------------------------------------------------------
@pytest.mark.parametrize("skip", ["each", "pair", "none"])
@pytest.mark.parametrize("activation", ["hardtanh", "rprelu"])
def test_a_small_network_is_stem_blocks_and_head(skip, activation):
    torch.manual_seed(0)
    network = SmallBinaryNet((1, 8, 6), 7, 8, 4, float_conv, skip=skip, activation=activation)
    network.eval()
    images = torch.randn(3, 1, 8, 6)
    x = shortcut = network.stem(images)
    for number, block in enumerate(network.blocks):
        if number == 2:
            x, shortcut = (nn.functional.avg_pool2d(t, 2) for t in (x, shortcut))
        x = block.norm(nn.functional.conv2d(x, block.conv.weight, padding=1))
        if skip == "each" or (skip == "pair" and number in (1, 3)):
            x = x + shortcut
        x = block.activation(x)
        if skip == "each" or number in (1, 3):
            shortcut = x
    expected = x.mean(dim=(2, 3)) @ network.head.weight.T + network.head.bias
    torch.testing.assert_close(network(images), expected)


def test_layers_in_full_precision_are_those_asked_for():
    network = SmallBinaryNet((1, 8, 8), 10, 8, 3, binary_conv("bnn"), float_layers=(0, 2))
    assert [isinstance(b.conv, BinaryConv2d) for b in network.blocks] == [False, True, False]
    with pytest.raises(InputError, match="1 x 8 pixels are too small"):
        SmallBinaryNet((1, 1, 8), 10, 8, 3, float_conv)


@pytest.mark.parametrize("operator", OPERATORS)
def test_networks_with_every_operator_run_on_bits(operator):
    torch.manual_seed(0)
    network = SmallBinaryNet((1, 8, 8), 10, 8, 4, binary_conv(operator), activation="rprelu")
    x = torch.randn(20, 1, 8, 8)
    with torch.no_grad():
        network.train()(x)  # statistics of the normalizations
    assert torch.equal(convert(network, x[:5])(x), network.eval()(x))


def test_periodic_convolutions_take_their_gradient_from_the_caller():
    conv = periodic_conv(7.0, 1.0, "clip", 0.5)(4, 4, 1, (8, 8))
    assert conv.weights.frequency == 7
    assert conv.inputs.estimator.bound == 0.5


# ---- scores -------------------------------------------------------------------------------------
def test_the_twin_s_scores_are_exactly_one():
    accuracies = [[0.91, 0.93], [0.7, 0.72, 0.69]]
    seconds = [3.0, 4.0]
    assert accuracy_score(accuracies, accuracies) == 1
    assert robustness_score(accuracies, accuracies) == 1
    assert training_score(seconds, seconds, accuracies[1], accuracies[1]) == 1
    assert inference_score(seconds, seconds, 100.0, 100.0) == 1


def test_the_scores_are_the_published_formulas():
    binary, full = [[0.5, 0.6], [0.8]], [[1.0, 0.9], [0.9]]
    tasks = [(0.5 + 0.6 / 0.9) / 2, 0.8 / 0.9]
    assert accuracy_score(binary, full) == pytest.approx(
        math.sqrt((tasks[0] ** 2 + tasks[1] ** 2) / 2)
    )
    gaps = [(2.0 + 1.5) / 2, 0.9 / 0.8]
    assert robustness_score(binary, full) == pytest.approx(
        math.sqrt((gaps[0] ** 2 + gaps[1] ** 2) / 2)
    )
    # Half the time at three times the spread.
    found = training_score([2.0], [1.0], [0.2, 0.5, 0.8], [0.4, 0.5, 0.6])
    assert found == pytest.approx(math.sqrt((0.5**2 + (1 / 3) ** 2) / 2))
    assert inference_score([1.0], [4.0], 1.0, 3.0) == pytest.approx(math.sqrt((16 + 9) / 2))
    with pytest.raises(InputError, match="at least one"):
        quadratic_mean([])


# ---- tuning -------------------------------------------------------------------------------------
SHORT = {"epochs": 2, "train_fraction": 0.1, "batch_size": 32}
OWN = {
    "recu": {"first_tau": 0.7, "last_tau": 0.95},
    "fda": {"omega": 0.2, "first_terms": 4, "last_terms": 12},
    "biper": {"frequency": 33.0},
    **{name: {"input_bound": 0.5} for name in ("bnn", "xnor", "dorefa", "xnor++", "poke")},
}


@pytest.fixture(scope="module")
def problem():
    return PROBLEMS["bibench"].make(**SHORT)


@pytest.mark.parametrize("operator", OPERATORS)
def test_each_operator_s_own_parameters_reach_its_layers(problem, operator):
    point = {**problem.published_default, "operator": operator, **OWN.get(operator, {}), "width": 8}
    assert problem.space.contains(point)
    config = problem.network(point).blocks[0].conv.config
    for name, value in OWN.get(operator, {}).items():
        assert getattr(config, name) == value
        assert not problem.space.contains({k: v for k, v in point.items() if k != name})
    expected = OPERATORS[operator].replace(**OWN.get(operator, {}))
    assert config == expected


@pytest.fixture(scope="module")
def short():
    """Errors and networks of one short training an operator."""
    problem = PROBLEMS["bibench"].make(**SHORT)
    default = {**problem.published_default, "width": 8, "learning_rate": 2e-2}
    found = {}
    for operator in (*OPERATORS, "float"):
        point = {**default, "operator": operator, **OWN.get(operator, {})}
        found[operator] = problem, point, problem.train_best(point, seed=0)
    return found


@pytest.mark.parametrize("operator", [*OPERATORS, "float"])
def test_every_operator_is_trained_and_scored(short, operator):
    problem, point, network = short[operator]
    scores = problem.scores(network, point, "validation")
    assert 0 <= scores["error"] < 0.9
    if operator != "float":
        x, _ = problem.data().part("validation")
        assert torch.equal(convert(network, x[:8])(x), network(x))


def test_the_corruption_gap_is_a_metric_on_demand(short):
    problem = PROBLEMS["bibench"].make(**SHORT, objectives=["error", "corruption_gap"])
    _, point, network = short["bireal"]
    scores = problem.scores(network, point, "validation")
    x, y = problem.data().part("validation")
    errors = corrupted_errors(network, x, y)
    assert scores["corruption_gap"] == pytest.approx(
        sum(errors.values()) / len(errors) - scores["error"]
    )


@pytest.mark.parametrize("operator", ["bireal", "biper", "float"])
def test_the_latency_is_that_of_the_network_on_bits(short, monkeypatch, operator):
    problem, _, network = short[operator]
    timed = []
    monkeypatch.setattr(
        TuningProblem, "latency", lambda self, network: timed.append(network) or 1.0
    )
    if operator == "biper":
        network = copy.deepcopy(network)
        set_stage(network, 1)  # as in the middle of a training
    assert problem.latency(network) == 1
    packed = sum(isinstance(module, PackedLayer) for module in timed[0].modules())
    assert packed == (0 if operator == "float" else 4)


def test_a_binary_network_costs_less_than_its_twin(short):
    ops = {name: p.cost(point).ops for name, (p, point, _) in short.items()}
    assert len({value for name, value in ops.items() if name != "float"}) == 1
    assert ops["float"] > 5 * ops["bnn"]


def test_convolutions_in_high_precision_are_counted(problem):
    ace = {
        where: problem.cost({**problem.published_default, "high_precision": where}).ace
        for where in ("none", "first", "last", "ends")
    }
    macs = 9 * 16 * 16
    assert ace["first"] - ace["none"] == 255 * 64 * macs
    assert ace["last"] - ace["none"] == 255 * 16 * macs
    assert ace["ends"] == ace["first"] + ace["last"] - ace["none"]


def test_the_wider_search_pretrains_in_full_precision_and_takes_sgd():
    problem = PROBLEMS["bibench"].make(**SHORT, search="all", clamp_weights=True)
    point = {**problem.published_default, "pretrained": True, "optimizer": "sgd", "width": 8}
    kinds, largest = [], []

    def look(epoch):
        kinds.append(type(epoch.network.blocks[0].conv))
        largest.append(epoch.network.blocks[0].conv.weight.abs().max().item())

    problem.measure(point, 0, look)
    assert kinds == [nn.Conv2d, BinaryConv2d]
    assert largest[1] <= 1


@pytest.fixture(scope="module")
def compared():
    """Mean errors over three seeds."""
    problem = PROBLEMS["bibench"].make(epochs=4, batch_size=32, limit=500)
    errors = {}
    for operator in ("bnn", "float"):
        point = {**problem.published_default, "operator": operator, "learning_rate": 1e-2}
        point |= {"width": 8, "depth": 3} | ({"input_bound": 1.0} if operator == "bnn" else {})
        errors[operator] = [problem.evaluate(point, seed=s)["error"] for s in range(3)]
    return {operator: sum(found) / 3 for operator, found in errors.items()}


def test_full_precision_beats_binary_networks_by_far(compared):
    assert compared["float"] + 0.03 < compared["bnn"]
