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


# ---- stored parameters ---------------------------------------------------------------------------
def test_parameters_are_stored_at_their_layer_s_width_and_shared_ones_once():
    layer = nn.Linear(5, 5)
    network = nn.Sequential(
        QuantizedConv2d(1, 4, 3, bits=8, bias=True), nn.BatchNorm2d(4), nn.Flatten(),
        nn.Linear(4, 5), layer, nn.ReLU(), layer,
    )  # fmt: skip
    cost = count_cost(network, (1, 1, 1))
    assert cost.parameters == 36 + 4 + 8 + 25 + 30
    assert cost.bits == 36 * 8 + (4 + 8 + 25 + 30) * 32


def test_a_depthwise_block_with_squeeze_and_excitation_counted_by_hand():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.reduce, self.expand = nn.Conv2d(12, 2, 1), nn.Conv2d(2, 12, 1)

        def forward(self, x):
            pooled = x.mean(dim=(2, 3), keepdim=True)
            return x * self.expand(self.reduce(pooled).relu()).sigmoid()

    block = nn.Sequential(
        nn.Conv2d(4, 12, 1, bias=False), nn.BatchNorm2d(12),
        nn.Conv2d(12, 12, 5, stride=2, padding=2, groups=12, bias=False), nn.BatchNorm2d(12),
        Gate(), nn.Conv2d(12, 6, 1, bias=False), nn.BatchNorm2d(6),
    )  # fmt: skip
    cost = count_cost(block, (4, 8, 6))
    assert cost.total_macs == 48 * 4 * 12 + 12 * 12 * 25 + 2 * 24 + 12 * 12 * 6
    assert cost.parameters == 48 + 24 + 300 + 24 + (24 + 2) + (24 + 12) + 72 + 12
    assert cost.flops == cost.total_macs
    assert cost.bops == 0


class Binary(nn.Conv2d):
    weight_bits = input_bits = 1


def resnet18():
    """Its 3 x 3 convolutions binary but for the stem, as benchmarks of binarization have it."""

    class Block(nn.Module):
        def __init__(self, before, after, stride):
            super().__init__()
            self.one = Binary(before, after, 3, stride, 1, bias=False)
            self.two = Binary(after, after, 3, 1, 1, bias=False)
            same = stride == 1 and before == after
            self.skip = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

        def forward(self, x):
            return self.two(self.one(x)) + self.skip(x)

    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.MaxPool2d(3, 2, 1)]
    before = 64
    for width in (64, 128, 256, 512):
        layers += [Block(before, width, 1 if width == 64 else 2), Block(width, width, 1)]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def test_the_operations_of_a_binary_resnet_18_are_the_published_ones():
    with torch.device("meta"):
        network = resnet18()
    cost = count_cost(network, (3, 224, 224))
    assert cost.bops == 1_676_279_808
    assert cost.flops == 137_793_536
    assert cost.ops == 163_985_408
    assert round(cost.total_macs / cost.ops, 3) == 11.062


def test_bit_operations_charge_the_accumulator():
    cost = count_cost(Binary(8, 4, 2, bias=False), (8, 2, 2))
    assert cost.bit_operations == 32 * 4 * (1 + 1 + 1 + 5)  # 32 products a sum
    assert LayerCost("x", macs=3).bit_operations == 3 * (256 + 32)


# ---- layers with rules of their own --------------------------------------------------------------
class Kronecker(nn.Module):
    """Executes a full matrix that is made of smaller ones."""

    def __init__(self):
        super().__init__()
        self.algebra = nn.Parameter(torch.randn(2, 2, 2))
        self.blocks = nn.Linear(4, 3)

    def forward(self, x):
        full = torch.kron(self.algebra[0], self.blocks.weight)
        return x @ full.T

    def layer_costs(self, inputs, output):
        return [LayerCost("product", macs=inputs[0].numel() * output.shape[-1], terms=8)]

    def stored_bits(self):
        return 4 * self.algebra.numel() + 8 * self.blocks.weight.numel()


def test_a_layer_s_own_rule_stands_for_it_and_what_is_in_it():
    cost = count_cost(nn.Sequential(Kronecker(), nn.Linear(6, 2)), (8,))
    assert [(layer.name, layer.macs) for layer in cost.layers] == [("0.product", 48), ("1", 12)]
    assert cost.bits == 4 * 8 + 8 * 12 + 14 * 32
    assert cost.parameters == 8 + 15 + 14
