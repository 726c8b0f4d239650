"""Cost counts against counts by hand and by PyTorch's own FLOP counter."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bo_surrogates.errors import InputError
from problems.documented.binarization import BinaryConv2d
from problems.documented.cost import LayerCost, NetworkCost, count_cost
from problems.documented.quantization import QuantizedConv2d, QuantizedLinear


def test_a_layer_s_ace_is_its_macs_times_both_widths():
    assert LayerCost("x", macs=7, weight_bits=2, input_bits=8).ace == 112
    assert LayerCost("x", macs=7).ace == 7 * 256


def test_the_published_effort_of_reactnet_follows_from_its_published_macs():
    binary = LayerCost("binary", macs=4_820_000_000, weight_bits=1, input_bits=1)
    rest = LayerCost("bfloat16", macs=12_000_000)
    assert round(NetworkCost((binary, rest)).ace / 1e9, 1) == 7.9


def test_a_network_counted_by_hand():
    network = nn.Sequential(
        QuantizedConv2d(3, 8, 3, bits=8, stride=2),  # 5 x 4 -> 3 x 2
        nn.BatchNorm2d(8),
        BinaryConv2d(8, 6, 3, "poke", padding="same"),
        nn.Flatten(),
        QuantizedLinear(36, 5, bits=4),
        nn.Linear(5, 2),
    )
    cost = count_cost(network, (3, 5, 4))
    assert cost.macs == {
        (8, 8): 3 * 2 * 8 * 9 * 3,
        (1, 1): 3 * 2 * 6 * 9 * 8,
        (4, 4): 36 * 5,
        (16, 16): 5 * 2,
    }
    assert cost.ace == 1296 * 64 + 2592 * 1 + 180 * 16 + 10 * 256
    assert cost.elementwise_ops == 2 * 3 * 2 * 8


def test_macs_are_half_of_pytorch_s_flops_grouped_convolutions_included():
    network = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1, groups=2),
        nn.Conv2d(8, 6, (1, 3), stride=2),
        nn.Flatten(),
        nn.LazyLinear(7),
    ).eval()
    x = torch.zeros(1, 4, 9, 9)
    network(x)
    with FlopCounterMode(display=False) as counter:
        network(x)
    (macs,) = count_cost(network, (4, 9, 9)).macs.values()
    assert 2 * macs == counter.get_total_flops()


def test_a_layer_used_twice_is_counted_twice():
    layer = nn.Linear(5, 5)
    assert count_cost(nn.Sequential(layer, nn.ReLU(), layer), (5,)).ace == 2 * 25 * 256


def test_counting_leaves_the_network_as_it_was():
    network = nn.Sequential(QuantizedConv2d(1, 2, 3, bits=8), nn.BatchNorm2d(2)).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    count_cost(network, (1, 4, 4))
    assert network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_weights_without_a_rule_are_refused_by_the_layer_s_name():
    network = nn.Sequential(nn.Linear(3, 4), nn.ConvTranspose1d(1, 1, 3))
    with pytest.raises(InputError, match=r"layer '1' \(ConvTranspose1d\).*no rule"):
        count_cost(network, (1, 3))


def test_an_input_of_the_wrong_shape_is_refused():
    with pytest.raises(InputError, match=r"does not take inputs of shape \(4,\)"):
        count_cost(nn.Linear(3, 4), (4,))
