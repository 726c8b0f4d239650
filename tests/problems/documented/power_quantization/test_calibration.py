"""Calibration of whole networks: order, learning, what it costs, and what it refuses."""

import pytest
import torch
from torch import nn

from bo_surrogates.errors import InputError, RunError
from problems.documented.convnet import ConvNet
from problems.documented.cost import count_cost
from problems.documented.data import load_data
from problems.documented.mlp import MLP
from problems.documented.power_quantization import (
    Calibration,
    CalibrationConfig,
    PowerConv2d,
    PowerLinear,
    fold_normalizations,
    layers_in_order,
    quantize,
)
from problems.documented.power_quantization.grid import real_codes
from problems.documented.power_quantization.observation import moments, observed
from problems.documented.training import Training, TrainingConfig, run

SEEDS = (0, 1, 2)
FEW = CalibrationConfig(epochs=4, lr_codes=0.15, lr_rounding=0.1, grid="uniform")


@pytest.fixture(scope="module")
def data():
    return load_data("digits", train_fraction=0.3)


@pytest.fixture(scope="module")
def networks(data):
    """Trained networks of three seeds."""
    found = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        network = MLP(data.shape, data.classes, (24, 24))
        config = TrainingConfig(epochs=8, batch_size=32)
        run(Training(network, data.train_x, data.train_y, config, seed))
        found.append(network)
    return found


def relative_mse(quantized, original, x):
    with torch.no_grad():
        y = original(x)
        return float((quantized(x) - y).square().sum() / y.square().sum())


@pytest.fixture(scope="module")
def compared(networks, data):
    """By method and bits, the networks of all seeds, on the calibration inputs."""
    return {
        (method, bits): [
            quantize(network, data.train_x, FEW.replace(method=method), bits)
            for network in networks
        ]
        for method in ("rtn", "adaround", "nupes-u")
        for bits in (2, 3)
    }


@pytest.mark.parametrize("bits", [2, 3])
def test_learnt_codes_are_better_than_the_nearest(compared, networks, data, bits):
    for number, network in enumerate(networks):
        error = {
            method: relative_mse(compared[method, bits][number], network, data.train_x)
            for method in ("rtn", "adaround", "nupes-u")
        }
        assert error["nupes-u"] < error["rtn"] / 1.5
        assert error["adaround"] < error["rtn"]


def moves(quantized, network):
    """By how much each code differs from the real code of its weight."""
    found = []
    for number in (1, 3, 5):
        layer = quantized[number]
        real = real_codes(network[number].weight, layer.spread_bound(), 1.0, layer.largest)
        found.append((layer.codes - real).abs().flatten())
    return torch.cat(found)


@pytest.mark.parametrize("bits", [2, 3])
def test_free_codes_go_further_than_the_next_where_adaround_cannot(compared, networks, bits):
    for number, network in enumerate(networks):
        assert (moves(compared["nupes-u", bits][number], network) > 1).any()
        assert moves(compared["adaround", bits][number], network).max() < 1
        assert moves(compared["rtn", bits][number], network).max() <= 0.5 + 1e-5


def test_the_error_by_moments_is_that_of_the_outputs(data):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 6, 2, padding=1, groups=2)
    )
    x = data.train_x[:300]
    quantized = quantize(network, x, CalibrationConfig(method="rtn"), 3, 4)
    layer, original = quantized[2], network[2]
    inputs = observed(quantized, "2", x, "inputs")
    with torch.no_grad():
        y = network[:2](x)
        y = nn.functional.conv2d(y, original.weight, padding=1, groups=2)
        found = moments(layer, inputs, y)
        outputs = layer(inputs) - layer.bias[:, None, None]
        expected = (outputs - y).square().sum(dim=1).mean()
        assert found.error(layer.rows().double()) == pytest.approx(float(expected), rel=1e-5)
        assert found.power == pytest.approx(float(y.square().sum(dim=1).mean()), rel=1e-5)
        torch.testing.assert_close(
            found.mean_output.flatten(), y.mean(dim=(0, 2, 3)).double(), rtol=1e-4, atol=1e-5
        )


def test_epochs_go_through_the_layers_and_resume_where_they_were(networks, data):
    network, x = networks[0], data.train_x[:100]
    config = CalibrationConfig(epochs=4)

    def begin():
        return Calibration(network, x, config, 2, 4)

    whole = begin()
    losses = run(whole)
    resumed = begin()
    for epoch in range(3):
        resumed.run_epoch()
        state = resumed.state()
        resumed = begin()
        resumed.restore(state)
        assert resumed.epoch == epoch + 1
    assert resumed.run_epoch().loss == losses[-1]
    expected = whole.network.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in resumed.network.state_dict().items())
    start = begin()
    nearest = [layer.codes.clone() for layer in start.layers.values()]
    start.run_epoch()  # three of twelve parts, of which the first layer has four
    same = [torch.equal(a.codes, b) for a, b in zip(start.layers.values(), nearest, strict=True)]
    assert same == [False, True, True]


def test_learnt_exponents_are_those_of_weights_and_inputs(networks, data):
    config = CalibrationConfig(epochs=4, lr_exponent=2e-2)
    quantized = quantize(networks[0], data.train_x[:200], config, 3, 4)
    layers = [m for m in quantized.modules() if isinstance(m, PowerLinear)]
    exponents = [float(layer.exponent) for layer in layers]
    assert len(set(exponents)) == 3  # began as one
    for layer in layers:
        assert float(layer.exponent) == float(layer.inputs.exponent)


def test_exponents_are_searched_given_or_one(networks, data):
    def exponents(given=None, **options):
        config = CalibrationConfig(method="rtn", **options)
        layers = Calibration(networks[0], data.train_x, config, 4, exponents=given).layers
        return [round(float(layer.exponent), 6) for layer in layers.values()]

    assert exponents(grid="uniform") == [1.0, 1.0, 1.0]
    assert len(set(exponents(grid="net"))) == 1
    assert len(set(exponents(grid="layers"))) == 3
    assert exponents(given=0.5) == [0.5, 0.5, 0.5]
    assert exponents(given=[0.4, 0.5, 1.2]) == [0.4, 0.5, 1.2]
    with pytest.raises(InputError, match=r"one for each of the 3 quantized layers, in \[0.2, 1.5"):
        exponents(given=[0.5, 0.1, 0.5])


def test_biases_are_corrected_to_the_mean_outputs(networks, data):
    network, x = networks[0], data.train_x
    config = CalibrationConfig(method="rtn", bias_correction=True)
    quantized = quantize(network, x, config, 2)
    with torch.no_grad():
        torch.testing.assert_close(
            quantized(x).mean(dim=0), network(x).mean(dim=0), rtol=1e-4, atol=1e-4
        )
        plain = quantize(network, x, config.replace(bias_correction=False), 2)
        assert (plain(x).mean(dim=0) - network(x).mean(dim=0)).abs().max() > 1e-2


def test_normalizations_become_part_of_the_weights(data):
    torch.manual_seed(1)
    network = ConvNet(1, 10, 4)
    for _ in range(3):
        network(data.train_x[:64])
    folded = fold_normalizations(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert network.training
    with torch.no_grad():
        expected = network.eval()(data.train_x[:50])
        torch.testing.assert_close(folded(data.train_x[:50]), expected, rtol=1e-4, atol=1e-5)


def test_bits_are_those_of_codes_bounds_exponents_and_biases(networks, data):
    x = data.train_x[:50]
    config = CalibrationConfig(method="rtn", granularity="group16")
    cost = count_cost(quantize(networks[0], x, config, [2, 3, 16], [4, 8, 8]), data.shape)
    first = 2 * 64 * 24 + 32 * (24 * 4 + 1 + 1 + 24)  # bounds, inputs' bound, exponent, biases
    second = 3 * 24 * 24 + 32 * (24 * 2 + 1 + 1 + 24)
    last = 16 * 24 * 10 + 32 * 10
    assert cost.bits == first + second + last
    assert cost.macs == {(2, 4): 64 * 24, (3, 8): 24 * 24, (16, 16): 240}
    weight_only = quantize(networks[0], x, CalibrationConfig(method="rtn", granularity="tensor"), 4)
    numbers = 64 * 24 + 24 * 24 + 240
    assert count_cost(weight_only, data.shape).bits == 4 * numbers + 32 * (3 * 2 + 24 + 24 + 10)
    tables = [m.table_entries for m in weight_only.modules() if isinstance(m, PowerLinear)]
    assert tables == [8, 8, 8]


def test_layers_are_taken_in_the_order_of_the_pass(data):
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 3)
            self.unused = nn.Linear(4, 3)
            self.first = nn.Conv2d(1, 4, 8)

        def forward(self, x):
            return self.last(self.first(x).flatten(1))

    x = data.train_x[:20]
    assert layers_in_order(Backwards(), x) == ["first", "last"]
    quantized = quantize(Backwards(), x, CalibrationConfig(method="rtn"), 4)
    assert isinstance(quantized.first, PowerConv2d)
    assert isinstance(quantized.unused, nn.Linear)


def test_what_cannot_be_quantized_is_refused_by_name(networks, data):
    x = data.train_x[:20]
    shared = nn.Linear(64, 64)
    for network, inputs, bits, message in (
        (networks[0], x, 9, r"layer '1': weight_bits must be an integer in 2\.\.8, got 9"),
        (networks[0], x, [4, 4], r"one for each of the 3 layers \(1, 3, 5\); got 2"),
        (networks[0], x, 16, "nothing to quantize"),
        (networks[0], x[:0], 4, "at least 1 input"),
        (networks[0], x[:, :, :4], 4, "does not take inputs of shape"),
        (nn.Sequential(nn.ReLU()), x, 4, "no linear layer"),
        (nn.Linear(8, 2), x, 4, "Sequential"),
        (nn.Sequential(nn.Flatten(), shared, shared), x, 4, "used 2 times"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding="same")), x, 4, "padding='same'"),
    ):
        with pytest.raises(InputError, match=message):
            Calibration(network, inputs, None, bits)
    with pytest.raises(InputError, match="input_bits"):
        Calibration(networks[0], x, None, 4, 1)
    with pytest.raises(RunError, match="diverged"):
        run(Calibration(networks[0], torch.full_like(x, torch.nan), FEW.replace(epochs=1), 4))
