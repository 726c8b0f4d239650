"""Whole networks on bits: thresholds against exhaustion and exact arithmetic, outputs equal."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bo_surrogates.errors import InputError, RunError
from problems.documented.binarization import (
    OPERATORS,
    BinaryConv1d,
    BinaryConv2d,
    BinaryLinear,
    PackedLayer,
    RPReLU,
    convert,
)
from problems.documented.binarization.conversion import find_thresholds, is_monotone
from problems.documented.pokebnn import PokeConfig, small_pokebnn


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def norm(channels, seed, kind=nn.BatchNorm2d, spread=5.0):
    """A normalization with negative and zero gains, as after some training."""
    generator = torch.Generator().manual_seed(seed)
    module = kind(channels)
    with torch.no_grad():
        module.weight.normal_(generator=generator)
        module.weight[::5] = 0
        module.bias.normal_(generator=generator)
        module.running_mean.normal_(0, spread, generator=generator)
        module.running_var.uniform_(0.5, 3 * spread, generator=generator)
    return module.eval()


def disturb(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "shift" in name or "output_scale" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator))
    return network.eval()


def block(channels, outputs, operator, size, stride=1, seed=0):
    conv = BinaryConv2d(
        channels, outputs, 3, operator, padding=1, stride=stride, output_size=(size, size)
    )
    return nn.Sequential(conv, norm(outputs, seed), nn.Hardtanh())


def sequential(operator, seed=0):
    torch.manual_seed(seed)
    return disturb(
        nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Hardtanh()),
            block(8, 12, operator, 8, seed=seed),
            block(12, 16, operator, 4, stride=2, seed=seed + 1),
            nn.Flatten(),
            BinaryLinear(256, 24, operator),
            norm(24, seed + 2, nn.BatchNorm1d),
            RPReLU(24, spatial_dims=0),
            BinaryLinear(24, 10, operator),
        )
    )


class Residual(nn.Module):
    """A shortcut around each convolution, as in Bi-Real networks."""

    def __init__(self, operator):
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.convs = nn.ModuleList(
            BinaryConv2d(6, 6, 3, operator, padding=1, output_size=(8, 8)) for _ in range(2)
        )
        self.norms = nn.ModuleList(norm(6, seed) for seed in range(2))
        self.head = nn.Linear(6, 10)

    def forward(self, x):
        x = self.stem(x)
        for conv, normalization in zip(self.convs, self.norms, strict=True):
            x = nn.functional.hardtanh(normalization(conv(x)) + x)
        return self.head(x.mean(dim=(2, 3)))


def packed_layers(network):
    return [module for module in network.modules() if isinstance(module, PackedLayer)]


@pytest.mark.parametrize("operator", OPERATORS)
def test_sequential_networks(operator):
    for seed in range(3):
        network = sequential(operator, seed)
        x = normal(64, 1, 8, 8, seed=seed)
        packed = convert(network, x[:4])
        assert torch.equal(packed(x), network(x))
        to_bits = [layer.threshold is not None for layer in packed_layers(packed)]
        # XNOR-Net's K needs the values of the inputs of every layer.
        assert to_bits == [operator != "xnor"] * 3 + [False]
        assert network(x).std() > 0


@pytest.mark.parametrize("operator", OPERATORS)
def test_networks_with_shortcuts_keep_numbers_between_packed_layers(operator):
    torch.manual_seed(0)
    network = disturb(Residual(operator))
    x = normal(16, 1, 8, 8)
    packed = convert(network, x[:2])
    assert len(packed_layers(packed)) == 2
    assert torch.equal(packed(x), network(x))
    assert isinstance(network.convs[0], BinaryConv2d)


def test_pokebnn_and_sequences():
    torch.manual_seed(0)
    network = small_pokebnn(6, 2, PokeConfig()).eval()
    x = normal(8, 1, 8, 8)
    packed = convert(network, x)
    assert len(packed_layers(packed)) == 6
    sequence = nn.Sequential(
        BinaryConv1d(4, 8, 3, padding=1),
        norm(8, 0, nn.BatchNorm1d),
        BinaryConv1d(8, 3, 3, "reactnet"),
    ).eval()
    x = normal(5, 4, 9)
    packed = convert(sequence, x)
    assert packed[0].threshold is not None
    assert torch.equal(packed(x), sequence(x))


# ---- thresholds ---------------------------------------------------------------------------------
@pytest.mark.parametrize("operator", [name for name in OPERATORS if name != "xnor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_thresholds_agree_with_the_network_on_every_integer(operator, dtype):
    channels, terms = 40, 27
    torch.manual_seed(1)
    layer = disturb(
        BinaryConv2d(3, channels, 3, operator, bias=True, output_size=(2, 2)), seed=1
    ).to(dtype)
    following = disturb(BinaryConv2d(channels, 2, 1, "reactnet"), seed=2).to(dtype)
    with torch.no_grad():
        following.inputs.shift.mul_(0.3)
    between = [norm(channels, 3, spread=0.3).to(dtype), nn.Hardtanh()]
    threshold, flip = find_thresholds(layer, between, following.inputs, (channels, 2, 2))
    scale = layer.fixed_scale(layer.weights(layer.weight).scale)
    decisions = []
    for integer in range(-terms, terms + 1):
        y = torch.full((1, channels, 2, 2), float(integer), dtype=dtype)
        y = y if scale is None else y * scale
        if operator == "poke":
            y = y * 1.5
        y = between[1](between[0](y + layer.bias[:, None, None]))
        expected = y + following.inputs.shift >= 0
        decided = (torch.tensor(integer) >= threshold) ^ flip
        assert torch.equal(decided.expand(channels, 2, 2), expected[0])
        decisions.append(expected)
    varied = torch.stack(decisions).any(dim=0) & ~torch.stack(decisions).all(dim=0)
    assert varied.double().mean() > 0.3  # many channels do have a threshold
    assert flip.any()


def test_thresholds_are_those_of_exact_arithmetic():
    channels, terms = 500, 64
    torch.manual_seed(0)
    layer = BinaryLinear(terms, channels, OPERATORS["bnn"].replace(output_scale="channel")).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        layer.output_scale.channel.normal_(generator=generator)
    normalization = norm(channels, 1, nn.BatchNorm1d).double()
    following = BinaryLinear(channels, 1, "bnn").double()
    threshold, flip = find_thresholds(layer.eval(), [normalization], following.inputs, (channels,))
    n = normalization
    sigma = torch.sqrt(n.running_var + n.eps)
    slope = n.weight * layer.output_scale.channel / sigma
    shift = n.weight * n.running_mean / sigma - n.bias
    for c in range(channels):
        s, t = slope[c].item(), shift[c].item()
        if s == 0:
            expected = (-terms if -t >= 0 else terms + 1, False)
        elif s > 0:
            expected = (math.ceil(t / s), False)
        else:  # +1 up to floor(t / s)
            expected = (math.floor(t / s) + 1, True)
        found = (threshold[c].item(), flip[c].item())
        if -terms < expected[0] <= terms:
            assert found == expected
        else:  # no integer that can occur is on the other side
            everywhere = (expected[0] <= -terms) != expected[1]
            assert ((-terms >= found[0]) ^ found[1]) == everywhere
            assert ((terms >= found[0]) ^ found[1]) == everywhere


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_integer_exactly_at_its_threshold_is_positive(sign):
    terms = 9
    first, second = BinaryLinear(terms, 19, "bnn"), BinaryLinear(19, 19, "bnn")
    normalization = nn.BatchNorm1d(19, eps=0.0)
    with torch.no_grad():
        first.weight.fill_(1.0)
        normalization.weight.fill_(sign)
        normalization.running_mean.copy_(torch.arange(-9, 10))  # 0 at each integer in turn
        second.weight.copy_(2 * torch.eye(19) - 1)
    network = nn.Sequential(first, normalization, second).eval()
    x = torch.ones(terms + 1, terms).tril(-1) * 2 - 1  # sums -9, -7, ..., 9
    packed = convert(network, x)
    bits = packed[0](x).signs()[:, :, 0, 0]
    sums, means = x.sum(dim=1), torch.arange(-9, 10)
    assert torch.equal(bits > 0, sign * (sums[:, None] - means) >= 0)


def test_positions_may_have_thresholds_of_their_own():
    network = sequential("xnor++")
    packed = convert(network, normal(2, 1, 8, 8))
    first, second = packed_layers(packed)[:2]
    assert first.threshold.shape == (12, 8, 8)
    assert second.threshold.shape == (16, 4, 4)
    plain = packed_layers(convert(sequential("bireal"), normal(2, 1, 8, 8)))
    assert plain[0].threshold.shape == (12, 1, 1)


# ---- what folds ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("module", "monotone"),
    [
        (nn.BatchNorm2d(3), True),
        (nn.BatchNorm2d(3, track_running_stats=False), False),
        (nn.Hardtanh(), True),
        (nn.PReLU(3), True),
        (nn.PReLU(3, init=-0.1), False),
        (RPReLU(3, slope=-0.1), False),
        (nn.LeakyReLU(-0.1), False),
        (nn.GELU(), False),
        (nn.Softmax(dim=1), False),
        (nn.Flatten(), True),
        (nn.Flatten(2), False),
    ],
)
def test_only_monotone_functions_of_one_input_are_folded(module, monotone):
    assert is_monotone(module) is monotone


def test_what_does_not_fold_is_left_as_it_is():
    torch.manual_seed(0)
    network = nn.Sequential(
        BinaryConv2d(3, 8, 3, padding=1),
        nn.PReLU(8, init=-0.5),
        BinaryConv2d(8, 8, 3, padding=1),
        nn.MaxPool2d(2),
        norm(8, 0),
        BinaryConv2d(8, 4, 3, groups=4, padding=1),
        nn.Identity(),
        BinaryConv2d(4, 4, 1, groups=2),
    ).eval()
    x = normal(6, 3, 8, 8)
    packed = convert(network, x)
    assert [layer.threshold is not None for layer in packed_layers(packed)] == [0, 0, 1, 0]
    assert torch.equal(packed(x), network(x))


# ---- files --------------------------------------------------------------------------------------
@pytest.mark.parametrize("operator", ["reactnet", "xnor++", "recu"])
def test_a_packed_network_is_saved_and_loaded_without_pickle(operator, tmp_path):
    trained, x = sequential(operator, seed=1), normal(32, 1, 8, 8)
    packed = convert(trained, x)
    save_file(packed.state_dict(), tmp_path / "packed.safetensors")
    other = convert(sequential(operator, seed=5), x)
    assert not torch.equal(other(x), packed(x))
    other.load_state_dict(load_file(tmp_path / "packed.safetensors"))
    assert torch.equal(other(x), packed(x))


# ---- errors -------------------------------------------------------------------------------------
class Unsteady(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = BinaryConv2d(1, 2, 3)
        self.calls = torch.zeros(())

    def forward(self, x):
        self.calls += 1
        return self.conv(x) * self.calls


def test_networks_that_cannot_be_converted_are_refused():
    with pytest.raises(InputError, match="no binary layer"):
        convert(nn.Linear(3, 3), torch.zeros(1, 3))
    with pytest.raises(InputError, match=r"does not take a sample of shape \(1, 3, 8, 8\)"):
        convert(sequential("bnn"), torch.zeros(1, 3, 8, 8))
    with pytest.raises(RunError, match="differ from the network's on 3 of 3"):
        convert(Unsteady(), normal(3, 1, 5, 5))
