"""TinyNets: published counts, rounding rules, blocks, and the change of resolution."""

import dataclasses
import math

import pytest
import torch

from bo_surrogates.errors import InputError
from problems.documented.cost import count_cost
from problems.documented.inverted_residual import InvertedResidual, Resize, SqueezeExcite
from problems.documented.quantization import QuantizedConv2d
from problems.documented.tiny_formula import PUBLISHED_RATIOS
from problems.documented.tinynet import (
    EFFICIENTNET_B0,
    SMALL,
    TINYNETS,
    ScaledNet,
    Scaling,
    round_channels,
    tinynet,
)


# ---- published counts ----------------------------------------------------------------------------
@pytest.fixture(scope="module")
def base_cost():
    with torch.device("meta"):
        return count_cost(ScaledNet(EFFICIENTNET_B0), (3, 224, 224))


def test_efficientnet_b0_has_its_published_parameters_and_macs(base_cost):
    assert base_cost.parameters == 5_288_548
    assert round(base_cost.total_macs / 1e6, 1) == 385.8


@pytest.mark.parametrize(
    ("name", "pixels", "parameters", "macs", "published_flops", "nominal"),
    [
        ("A", 192, 6.188, 336.9, 339, 0.888),
        ("B", 188, 3.731, 200.7, 202, 0.437),
        ("C", 184, 2.457, 99.5, 100, 0.169),
        ("D", 152, 2.338, 51.6, 52, 0.094),
        ("E", 106, 2.043, 24.4, 24, 0.035),
    ],
)
def test_tinynets_have_their_published_size(
    name, pixels, parameters, macs, published_flops, nominal, base_cost
):
    with torch.device("meta"):
        network = tinynet(name)
    assert network.architecture.side == pixels
    cost = count_cost(network, (3, pixels, pixels))
    assert round(cost.parameters / 1e6, 3) == parameters
    assert round(cost.total_macs / 1e6, 1) == macs
    assert cost.total_macs / 1e6 == pytest.approx(published_flops, rel=0.02)
    assert TINYNETS[name].nominal_ratio == pytest.approx(nominal, abs=6e-4)
    assert round(cost.total_macs / base_cost.total_macs, 4) == PUBLISHED_RATIOS[name]


def test_an_unknown_tinynet_is_refused():
    with pytest.raises(InputError, match="unknown TinyNet 'F'; known: A, B, C, D, E"):
        tinynet("F")


def test_the_small_base_counted_by_hand():
    macs, before, side = 32 * 32 * 9 * 8, 8, 32
    for repeats, channels in ((2, 12), (2, 20), (3, 32)):
        for number in range(repeats):
            macs += side**2 * before * 4 * before
            side //= 2 if number == 0 else 1
            macs += side**2 * 4 * before * (9 + channels)
            before = channels
    macs += 32 * 8
    assert macs == 1_854_976
    assert count_cost(ScaledNet(SMALL, channels=1, classes=8), (1, 32, 32)).total_macs == macs


# ---- rounding rules ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("channels", "step", "expected"),
    [
        (8.64, 8, 8),  # 16 at w = 0.54: within a tenth
        (16.0, 8, 16),
        (12.0, 8, 16),  # halves go up
        (11.9, 8, 16),  # 8 would lose a third
        (17.7, 8, 16),  # just above nine tenths
        (18.0, 8, 24),  # just below
        (43.2, 8, 40),  # 80 at w = 0.54
        (3.0, 8, 8),
        (0.2, 1, 1),
        (10.5, 4, 12),
        (9.5, 1, 10),
    ],
)
def test_channels_are_rounded_to_a_step_and_lose_at_most_a_tenth(channels, step, expected):
    assert round_channels(channels, step) == expected


@pytest.mark.parametrize("step", [1, 4, 8])
def test_rounding_is_monotone_and_leaves_multiples_alone(step):
    rounded = [round_channels(c / 10, step) for c in range(1, 2000)]
    assert rounded == sorted(rounded)
    assert all(r >= 0.9 * c / 10 and r % step == 0 for c, r in enumerate(rounded, 1))
    assert [round_channels(k * step, step) for k in range(1, 20)] == [
        k * step for k in range(1, 20)
    ]


def test_stages_stem_and_head_follow_the_rules():
    scaled = EFFICIENTNET_B0.scaled(Scaling(0.5, 0.5, 0.5))
    assert [s.repeats for s in scaled.stages] == [1, 1, 1, 2, 2, 2, 1]
    assert [s.channels for s in scaled.stages] == [8, 16, 24, 40, 56, 96, 160]
    assert (scaled.side, scaled.stem, scaled.head) == (112, 32, 1280)
    assert EFFICIENTNET_B0.scaled(Scaling(width=1.5)).head == 1920
    free = dataclasses.replace(EFFICIENTNET_B0, scale_stem=True, scale_head=True)
    assert (free.scaled(Scaling(width=0.5)).stem, free.scaled(Scaling(width=0.5)).head) == (16, 640)
    assert EFFICIENTNET_B0.scaled(Scaling()) == EFFICIENTNET_B0


def test_every_side_is_reached_by_its_share_of_the_base_s():
    assert [SMALL.pixels(p / 32) for p in range(1, 100)] == list(range(1, 100))
    assert [EFFICIENTNET_B0.pixels(p / 224) for p in range(1, 500)] == list(range(1, 500))
    with pytest.raises(InputError, match="leaves no pixel of 32"):
        SMALL.pixels(0.03)


# ---- blocks --------------------------------------------------------------------------------------
def test_a_block_is_its_formula():
    torch.manual_seed(0)
    block = InvertedResidual(4, 4, 5, expansion=3, se_ratio=0.5).eval().double()
    x = torch.randn(2, 4, 7, 6, dtype=torch.float64)
    expand, norm1, _, depthwise, norm2, _, gate, project, norm3 = block.layers
    silu = torch.nn.functional.silu
    with torch.no_grad():
        h = silu(norm1(torch.einsum("oi,nihw->nohw", expand.weight[:, :, 0, 0], x)))
        padded = torch.nn.functional.pad(h, (2, 2, 2, 2))
        h = sum(
            depthwise.weight[:, 0, i, j][:, None, None] * padded[:, :, i : i + 7, j : j + 6]
            for i in range(5)
            for j in range(5)
        )
        h = silu(norm2(h))
        small = silu(h.mean((2, 3)) @ gate.squeeze.weight[:, :, 0, 0].T + gate.squeeze.bias)
        weights = torch.sigmoid(small @ gate.excite.weight[:, :, 0, 0].T + gate.excite.bias)
        h = h * weights[:, :, None, None]
        expected = x + norm3(torch.einsum("oi,nihw->nohw", project.weight[:, :, 0, 0], h))
        torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)
    assert gate.squeeze.out_channels == 2  # half of the block's inputs, not of its inner channels


def test_blocks_have_a_shortcut_where_shapes_agree_and_halve_as_they_should():
    assert InvertedResidual(8, 8).has_shortcut
    assert not InvertedResidual(8, 8, stride=2).has_shortcut
    assert not InvertedResidual(8, 16).has_shortcut
    for side in (5, 6, 7):
        halved = InvertedResidual(8, 16, 5, stride=2)(torch.randn(2, 8, side, side))
        assert halved.shape == (2, 16, math.ceil(side / 2), math.ceil(side / 2))
    assert not any(
        isinstance(m, SqueezeExcite) for m in InvertedResidual(8, 8, se_ratio=0).modules()
    )


def test_a_quantized_network_has_the_same_macs_at_fewer_bits_and_trains():
    architecture = dataclasses.replace(SMALL, bits=4, se_ratio=0.25)
    scaling = Scaling(0.5, 0.5, 0.5)
    network = ScaledNet(architecture, scaling, channels=1, classes=8)
    cost = count_cost(network, (1, 32, 32))
    plain = ScaledNet(dataclasses.replace(architecture, bits=16), scaling, channels=1, classes=8)
    assert cost.macs == {(4, 4): count_cost(plain, (1, 32, 32)).total_macs}
    network(torch.randn(4, 1, 32, 32)).square().sum().backward()
    quantized = [m for m in network.modules() if isinstance(m, QuantizedConv2d)]
    assert len(quantized) > 10
    assert all(m.weight.grad.isfinite().all() for m in quantized)
    assert quantized[0].weight.grad.abs().sum() > 0


# ---- resolution ----------------------------------------------------------------------------------
def stripes(period, side=32):
    x = torch.arange(side) + 0.5
    return (2 * math.pi * x / period).cos().expand(1, 1, side, side)


def test_fine_stripes_vanish_where_coarse_ones_stay():
    small = Resize(16)
    fine, coarse = small(stripes(32 / 15)), small(stripes(16.0))
    assert fine.std() < 0.15 * stripes(32 / 15).std()
    assert coarse.std() > 0.9 * stripes(16.0).std()
    # Every other pixel, as without the mean, is as strong as before: an alias of long period.
    assert stripes(32 / 15)[..., ::2].std() > 0.9 * stripes(32 / 15).std()


def test_the_mean_and_the_ratio_of_sides_stay_and_a_known_size_passes():
    x = torch.rand(2, 3, 20, 30)
    small = Resize(10)(x)
    assert small.shape == (2, 3, 10, 15)
    torch.testing.assert_close(small.mean(), x.mean(), rtol=0.02, atol=0)
    torch.testing.assert_close(Resize(7)(torch.ones(1, 1, 13, 13)), torch.ones(1, 1, 7, 7))
    assert Resize(20)(x) is x
    assert Resize(40)(x).shape == (2, 3, 40, 60)


def test_halving_weighs_pixels_by_a_triangle_over_both_neighbours():
    row = torch.zeros(1, 1, 8, 8)
    row[0, 0, :, 3] = 1.0
    found = Resize(4)(row)[0, 0, 1]
    # Outputs have their centres at 1, 3, 5, 7, pixel 3 at 3.5; the triangle reaches 2 pixels far.
    assert found.tolist() == pytest.approx([0.0, 0.375, 0.125, 0.0])
