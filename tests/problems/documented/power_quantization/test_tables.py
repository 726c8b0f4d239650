"""Inference on integer codes against the quantized layers in floating point."""

import pytest
import torch
from torch import nn

from bo_surrogates.errors import InputError
from problems.documented.power_quantization import (
    CalibrationConfig,
    decode,
    levels,
    on_tables,
    quantize,
)
from problems.documented.power_quantization.tables import product_table, table_product


def codes_of(*shape, bits, signed=True, seed=0):
    q = levels(bits, signed)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-q if signed else 0, q + 1, shape, generator=generator)


@pytest.mark.parametrize("exponent", [0.2, 0.5, 0.8, 1.0, 1.5])
def test_a_power_keeps_products(exponent):
    qw, qx = levels(4), levels(8, signed=False)
    w, x = codes_of(500, bits=4), codes_of(500, bits=8, signed=False, seed=1)
    product = decode(w.double(), 1.7, exponent, qw) * decode(x.double(), 0.3, exponent, qx)
    table = product_table(qw, qx, exponent)
    found = 1.7 * 0.3 * table[(w * x).abs()] * (w * x).sign()
    torch.testing.assert_close(found, product, rtol=1e-12, atol=0)
    assert len(table) == qw * qx + 1


@pytest.mark.parametrize("group", [None, 16])
def test_a_table_product_is_the_matrix_product_and_a_power_of_the_sum_is_not(group):
    qw, qx, a = levels(4), levels(4), 0.5
    w, x = codes_of(7, 40, bits=4), codes_of(9, 40, bits=4, seed=1)
    expected = decode(x.double(), 1.0, a, qx) @ decode(w.double(), 1.0, a, qw).mT
    sums = table_product(w, x, product_table(qw, qx, a), group)
    assert sums.shape == (9, 7, 1 if group is None else 3)
    torch.testing.assert_close(sums.sum(dim=-1), expected, rtol=1e-10, atol=1e-13)
    total = (x @ w.mT).double()
    of_the_sum = total.sign() * (total.abs() / (qw * qx)).pow(1 / a)
    assert (of_the_sum - expected).abs().mean() > 0.5 * expected.abs().mean()


def test_in_fixed_point_sums_are_off_by_half_a_step_a_product():
    qw, qx = levels(4), levels(8)
    w, x = codes_of(5, 64, bits=4), codes_of(6, 64, bits=8, seed=1)
    exact = table_product(w, x, product_table(qw, qx, 0.6))
    fixed = table_product(w, x, product_table(qw, qx, 0.6, fraction_bits=12))
    assert fixed.dtype == torch.int64
    assert ((fixed / 2**12 - exact).abs() <= 64 / 2**13).all()


class Branching(nn.Module):
    """Strides, groups, dilation, a shortcut, signed and unsigned inputs."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, stride=2, padding=(2, 1), groups=4, dilation=(2, 1))
        self.shortcut = nn.Conv2d(8, 8, 1, stride=2, bias=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x).relu()
        x = self.grouped(x) + self.shortcut(x)
        return self.head(x.mean(dim=(-2, -1)))


@pytest.fixture(scope="module")
def branching():
    torch.manual_seed(0)
    return Branching().double(), torch.randn(20, 2, 7, 6).double()


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group16"])
@pytest.mark.parametrize("bits", [(4, 4), (8, 8)])
def test_a_network_on_codes_gives_what_it_gives_in_floating_point(branching, granularity, bits):
    network, x = branching
    config = CalibrationConfig(method="rtn", grid="layers", granularity=granularity)
    quantized = quantize(network, x, config, *bits)
    signs = [bool(layer.inputs.signed) for layer in quantized.children()]
    assert signs == [True, False, False, True]
    expected = quantized(x)
    assert not torch.allclose(expected, network(x))
    found = on_tables(quantized)(x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)


def test_in_fixed_point_a_network_comes_as_close_as_the_point_is_far(branching):
    network, x = branching
    quantized = quantize(network, x, CalibrationConfig(method="rtn"), 4, 8)
    first = nn.Sequential(quantized.first)
    expected = first(x)
    for bits in (8, 16, 24):
        found = on_tables(first, fraction_bits=bits)(x)
        scale = float(quantized.first.bound.max() * quantized.first.inputs.bound)
        assert (found - expected).abs().max() <= 1.001 * scale * 18 / 2 ** (bits + 1)


def test_only_layers_with_codes_on_both_sides_have_tables(branching):
    network, x = branching
    quantized = quantize(network, x, CalibrationConfig(method="rtn"), 4)
    with pytest.raises(InputError, match="no layer of which weights and inputs are quantized"):
        on_tables(quantized)
    with pytest.raises(InputError, match=r"fraction_bits must be in 1\.\.40, got 60"):
        on_tables(quantize(network, x, CalibrationConfig(method="rtn"), 4, 8), fraction_bits=60)
