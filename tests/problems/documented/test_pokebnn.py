"""PokeBNN's parts against their definitions, and the published costs of the ImageNet networks."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from bo_surrogates.errors import InputError
from problems.documented.cost import count_cost
from problems.documented.pokebnn import (
    Bottleneck,
    DPReLU,
    MeanBound,
    PokeConfig,
    PokeConv,
    SqueezeExcite,
    imagenet_pokebnn,
    reshape_add,
    set_binary_weights,
    small_pokebnn,
)


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---- cost ---------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def imagenet_cost():
    def cost(multiplier, config=None):
        with torch.device("meta"):
            network = imagenet_pokebnn(multiplier, config)
        return count_cost(network, (3, 224, 224))

    return cost


def test_the_full_network_s_cost_is_the_published_one_to_the_last_unit(imagenet_cost):
    cost = imagenet_cost(1.0)
    dense = [layer for layer in cost.layers if layer.name == "head"]
    assert [layer.ace for layer in dense] == [131_072_000]
    assert cost.ace - dense[0].ace == 4_091_469_824
    assert cost.macs == {(1, 1): 3_609_460_736, (4, 4): 3_632_640, (8, 8): 8_671_232}


@pytest.mark.parametrize(
    ("multiplier", "published"),
    [(0.5, 1.410), (1.4, 7.758), (2.0, 15.331)],  # of seven: the smallest, the largest, an odd one
)
def test_the_other_widths_cost_what_is_published(imagenet_cost, multiplier, published):
    assert round(imagenet_cost(multiplier).ace / 1e9, 3) == published


def test_four_bit_instead_of_binary_convolutions_cost_sixteen_times_as_much():
    binary = count_cost(PokeConv(8, 12, 3, PokeConfig()), (8, 6, 6)).layers
    four = count_cost(PokeConv(8, 12, 3, PokeConfig(bits=4)), (8, 6, 6)).layers
    (binary_ace,), (four_ace,) = ([l.ace for l in ls if l.name == "conv"] for ls in (binary, four))
    assert binary_ace == 6 * 6 * 9 * 8 * 12
    assert four_ace == 16 * binary_ace


def test_the_elementwise_work_of_a_block_s_last_convolution_counted_by_hand():
    conv = PokeConv(8, 12, 1, PokeConfig(), last=True)
    elements = 12 * 4 * 4
    # Two normalizations, DPReLU, two shortcuts, the gate.
    assert count_cost(conv, (8, 4, 4)).elementwise_ops == (2 * 2 + 3 + 2 + 1) * elements


# ---- layers -------------------------------------------------------------------------------------
def test_dprelu_starts_as_prelu_with_slope_a_quarter():
    x = normal(3, 5, 4, 4)
    torch.testing.assert_close(DPReLU(5)(x), functional.prelu(x, torch.tensor([0.25])))


def test_dprelu_is_its_piecewise_definition_channel_by_channel():
    layer = DPReLU(5).double()
    with torch.no_grad():
        for seed, parameter in enumerate(layer.parameters()):
            parameter.copy_(normal(5, 1, 1, seed=seed))
    x = normal(3, 5, 4, 4, dtype=torch.float64)
    p, n, bx, by = (t.detach().numpy() for t in layer.parameters())
    z = x.numpy() - bx
    np.testing.assert_allclose(
        layer(x).detach().numpy(), np.where(z >= 0, p * z, n * z) - by, rtol=1e-12, atol=1e-14
    )
    assert torch.autograd.gradcheck(layer, x.requires_grad_())


def test_squeeze_excite_gates_by_a_hard_sigmoid_of_two_layers_on_the_mean():
    layer = SqueezeExcite(16, 6, bits=16).double()
    r = 5 * normal(4, 16, 3, 3, dtype=torch.float64)
    w1, b1, w2, b2 = (
        t.detach().squeeze((-1, -2)) if t.ndim == 4 else t.detach() for t in layer.parameters()
    )
    hidden = (r.mean(dim=(2, 3)) @ w1.T + b1).clamp_min(0)
    assert hidden.shape == (4, 2)  # one hidden channel for eight of the input
    gate = ((hidden @ w2.T + b2 + 3).clamp(0, 6) / 6)[:, :, None, None]
    torch.testing.assert_close(layer(r), gate)


def test_four_bit_squeeze_excite_is_near_the_unquantized_one():
    torch.manual_seed(0)
    four, full = SqueezeExcite(64, 6, bits=4), SqueezeExcite(64, 6, bits=16)
    full.load_state_dict(four.state_dict(), strict=False)
    r = normal(32, 64, 3, 3)
    difference = (four.eval()(r) - full.eval()(r)).abs()
    assert 0 < difference.max() < 0.1


@pytest.mark.parametrize("mode", ["zeropad", "tile"])
def test_a_shortcut_with_more_channels_adds_means_of_consecutive_groups(mode):
    y, r = normal(2, 3, 4, 4), normal(2, 7, 4, 4, seed=1)  # groups of 2, the seventh dropped
    groups = torch.stack([(r[:, 2 * c] + r[:, 2 * c + 1]) / 2 for c in range(3)], dim=1)
    torch.testing.assert_close(reshape_add(y, r, mode), y + groups)


def test_a_shortcut_with_fewer_channels_is_tiled_or_padded_with_zeros():
    y, r = normal(2, 7, 4, 4), normal(2, 3, 4, 4, seed=1)
    zeros = torch.zeros(2, 1, 4, 4)
    torch.testing.assert_close(reshape_add(y, r, "tile"), y + torch.cat([r, r, zeros], dim=1))
    torch.testing.assert_close(
        reshape_add(y, r, "zeropad"), y + torch.cat([r, torch.zeros(2, 4, 4, 4)], dim=1)
    )
    assert torch.equal(reshape_add(y, r, "none"), y)


@pytest.mark.parametrize("size", [5, 8])
def test_a_larger_shortcut_is_pooled_over_the_positions_inside_the_image(size):
    r = normal(1, 2, size, size)
    half = -(-size // 2)
    before = ((half - 1) * 2 + 3 - size) // 2
    expected = torch.zeros(1, 2, half, half)
    for i in range(half):
        for j in range(half):
            rows = [k for k in range(2 * i - before, 2 * i - before + 3) if 0 <= k < size]
            columns = [k for k in range(2 * j - before, 2 * j - before + 3) if 0 <= k < size]
            expected[:, :, i, j] = r[:, :, rows][:, :, :, columns].mean(dim=(2, 3))
    torch.testing.assert_close(reshape_add(torch.zeros(1, 2, half, half), r, "tile"), expected)


def test_a_shortcut_that_cannot_fit_is_refused():
    with pytest.raises(InputError, match="shortcut"):
        reshape_add(torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 4), "tile")


@pytest.mark.parametrize(("out_channels", "stride"), [(8, 2), (4, 1)])
def test_a_pokeconv_is_its_definition_step_by_step(out_channels, stride):
    config = PokeConfig(local_shortcut="tile", block_shortcut="zeropad")
    layer = PokeConv(4, out_channels, 3, config, stride=stride, last=True).eval()
    with torch.no_grad():
        layer.norm1.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
    r, r1 = normal(3, 4, 6, 6), normal(3, 6, 6, 6, seed=1)
    y = layer.norm1(layer.conv(r))
    y = reshape_add(y, r, "tile")
    y = reshape_add(y, r1, "zeropad")
    y = layer.norm2(layer.activation(y) * layer.squeeze_excite(r))
    torch.testing.assert_close(layer(r, r1), y)


def test_a_block_s_last_convolution_starts_as_its_shortcuts_whatever_its_weights():
    layer = PokeConv(4, 16, 1, PokeConfig(), last=True)
    r, r1 = normal(3, 4, 6, 6), normal(3, 4, 6, 6, seed=1)
    first = layer(r, r1)
    with torch.no_grad():
        layer.conv.weight.neg_()
    assert torch.equal(layer(r, r1), first)
    assert not torch.equal(layer(r, r1 + 1), first)
    # Once BN1 has a scale the weights matter.
    nn.init.ones_(layer.norm1.weight)
    assert not torch.equal(layer(r, r1), first)


def test_a_last_convolution_without_shortcuts_does_not_start_at_zero():
    config = PokeConfig(local_shortcut="none", block_shortcut="none")
    assert PokeConv(4, 16, 1, config, last=True)(normal(3, 4, 6, 6)).std() > 0.5


def test_bottlenecks_expand_channels_and_halve_positions_by_their_stride():
    assert Bottleneck(5, 3, PokeConfig(expansion=2), stride=2)(normal(2, 5, 7, 7)).shape == (
        2,
        6,
        4,
        4,
    )


@pytest.mark.parametrize("activation", ["dprelu", "prelu", "relu", "none"])
@pytest.mark.parametrize("squeeze_excite", [False, True])
def test_every_variant_gives_logits_and_every_weight_a_gradient(activation, squeeze_excite):
    torch.manual_seed(0)
    config = PokeConfig(activation=activation, squeeze_excite=squeeze_excite)
    network = small_pokebnn(4, 2, config)
    for name, parameter in network.named_parameters():
        if name.endswith("norm1.weight"):
            nn.init.ones_(parameter)  # else what comes before it starts without a gradient
    functional.cross_entropy(network(normal(16, 1, 8, 8)), torch.arange(16) % 10).backward()
    assert network(normal(3, 1, 8, 8)).shape == (3, 10)
    missing = [n for n, p in network.named_parameters() if p.grad is None]
    assert missing == []
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_the_bound_matters_to_the_gradient_and_not_to_the_binary_values():
    def output_and_gradient(bound):
        torch.manual_seed(0)
        conv = PokeConv(4, 4, 3, PokeConfig(activation_bound=bound, local_shortcut="none"))
        x = normal(8, 4, 6, 6).requires_grad_()
        y = conv(x)
        (gradient,) = torch.autograd.grad((y * normal(8, 4, 6, 6, seed=2)).sum(), x)
        return y, gradient

    (y_small, g_small), (y_large, g_large) = output_and_gradient(0.5), output_and_gradient(3.0)
    # BN1 takes the scale B/2 out again, up to its epsilon.
    torch.testing.assert_close(y_small, y_large, rtol=1e-3, atol=1e-3)
    assert (g_small - g_large).abs().max() > 0.1 * g_large.abs().max()


@pytest.mark.parametrize(
    ("field", "value"),
    [("activation_bound", 0.0), ("bits", 9), ("local_shortcut", "zero"), ("se_bits", 1)],
)
def test_options_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(InputError, match=f"PokeConfig.{field} must be"):
        PokeConfig(**{field: value})


def test_a_multiplier_without_channels_is_refused():
    with pytest.raises(InputError, match="multiplier"):
        imagenet_pokebnn(0.0)


# ---- weights -------------------------------------------------------------------------------------
def gradient_of_weights(bound):
    conv = PokeConv(3, 2, 1, PokeConfig(weight_bound=bound, local_shortcut="none")).conv
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[0.1, -0.2, 2.0], [1.2, -1.1, 0.9]])[:, :, None, None])
    conv(torch.ones(1, 3, 1, 1)).sum().backward()
    return (conv.weight.grad != 0).flatten(1).tolist()


def test_the_weights_bound_says_which_of_them_learn():
    assert gradient_of_weights("max") == [[True, True, False], [False, True, True]]
    assert gradient_of_weights("mean") == [[True, True, True], [True, True, True]]
    assert gradient_of_weights("fixed") == [[True, True, False], [False, False, True]]


def test_three_times_the_mean_cuts_off_an_outlier():
    weight = torch.ones(1, 9)
    weight[0, 4] = 20.0  # the mean is 28 / 9
    assert MeanBound().derivative(weight).tolist() == [[1.0] * 4 + [0.0] + [1.0] * 4]


def test_in_the_first_phase_weights_are_real_and_inputs_binary():
    torch.manual_seed(0)
    network = small_pokebnn(4, 1, PokeConfig()).eval()
    conv, x = network.blocks[0].conv2.conv, normal(2, 4, 6, 6)
    set_binary_weights(network, False)
    binary = torch.where(x >= 0, 1.5, -1.5)
    torch.testing.assert_close(conv(x), functional.conv2d(binary, conv.weight, padding=1))
    assert "blocks.0.conv2.conv.weights.binary" in network.state_dict()  # a resumed training knows
    set_binary_weights(network, True)
    bound = conv.weight.abs().amax(dim=(1, 2, 3), keepdim=True)
    weight = torch.where(conv.weight >= 0, bound, -bound) / 2
    torch.testing.assert_close(conv(x), functional.conv2d(binary, weight, padding=1))
