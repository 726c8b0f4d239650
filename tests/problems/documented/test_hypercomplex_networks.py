"""PHResNet, PHVGG and the small network: sizes against those of the known real networks."""

import math

import pytest
import torch
from torch import nn

from bo_surrogates.errors import InputError
from bo_surrogates.seeding import fixed_seed
from problems.documented.cost import count_cost
from problems.documented.hypercomplex import PHConfig, hypercomplex_layers, merge_layers
from problems.documented.hypercomplex_networks import (
    LARGE_WIDTHS,
    FilledChannels,
    ph_resnet,
    ph_vgg,
    small_phnn,
    stem_conv,
)


@pytest.fixture(autouse=True)
def seeded():
    with fixed_seed(0):
        yield


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("make", "convolutions", "real"),
    [  # parameters of the real networks for 10 classes of 32 x 32 images, VGG without biases
        (lambda: ph_resnet(18, 1), 20, 11_173_962),
        (lambda: ph_resnet(50, 1), 53, 23_520_842),
        (lambda: ph_vgg(16, 1), 13, 14_728_266 - 4_224),
    ],
)
def test_with_one_component_the_sizes_are_those_of_the_real_networks(make, convolutions, real):
    with torch.device("meta"):
        network = make()
    assert len(list(hypercomplex_layers(network))) == convolutions
    assert parameters(network) == real + convolutions  # a 1 x 1 algebra each


@pytest.mark.parametrize("n", [2, 3, 4, 12])
def test_all_of_n_that_divide_the_large_widths_make_a_network_of_the_same_macs(n):
    with torch.device("meta"):
        network = ph_resnet(18, n, widths=LARGE_WIDTHS, stem="real")
        real = ph_resnet(18, 1, widths=LARGE_WIDTHS, stem="real")
    assert count_cost(network, (3, 32, 32)).macs == count_cost(real, (3, 32, 32)).macs
    weights = [layer.filters.numel() * layer.config.n for layer in hypercomplex_layers(network)]
    assert weights == [layer.filters.numel() for layer in hypercomplex_layers(real)]


@pytest.mark.parametrize(
    ("make", "side"),
    [
        (lambda: ph_resnet(18, (2, 4, 2, 8), widths=(8, 8, 16, 16)), 8),
        (lambda: ph_resnet(50, 4, widths=(4, 4, 8, 8), stem="mean"), 8),
        (lambda: ph_vgg(11, 3, widths=(6, 6, 6, 6, 12)), 32),
        (lambda: small_phnn(3, 10, 12, 4, (2, PHConfig(4, "fixed")), normalized=False), 6),
    ],
)
def test_networks_train_and_their_merged_copies_give_the_same(make, side):
    network = make()
    x = torch.randn(4, 3, side, side)
    network(x).logsumexp(dim=1).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    with torch.no_grad():
        outputs = network.eval()(x)
        assert outputs.shape == (4, 10)
        assert torch.equal(merge_layers(network)(x), outputs)


def test_a_stem_fills_channels_up_to_a_multiple_of_n():
    x = torch.randn(2, 3, 4, 4)
    filled = FilledChannels(2, mean=True)(x)
    assert torch.equal(filled[:, :3], x)
    assert torch.equal(filled[:, 3], x.mean(dim=1))
    assert torch.equal(filled[:, 4], x.mean(dim=1))
    assert not FilledChannels(1, mean=False)(x)[:, 3:].any()
    stem = stem_conv(3, 8, 4, "zeros", bias=False)
    assert stem[1].in_channels == 4
    assert stem(x).shape == (2, 8, 4, 4)
    assert stem_conv(3, 6, 3, "mean", bias=False).in_channels == 3  # nothing to fill
    assert isinstance(stem_conv(3, 8, 4, "real", bias=False), nn.Conv2d)


def test_the_small_network_halves_once_and_has_the_layers_asked_for():
    for depth in (2, 3, 5):
        layers = list(hypercomplex_layers(small_phnn(1, 10, 8, depth, 2)))
        assert len(layers) == depth
        assert [layer.stride for layer in layers].count((2, 2)) == 1
        assert math.prod(s for layer in layers for s in layer.stride) == 4
        assert (layers[0].in_channels, layers[-1].out_channels) == (8, 16)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ph_resnet(20), "depth must be one of 18, 34, 50, 101, 152, got 20"),
        (lambda: ph_resnet(18, 3), "n = 3 does not divide out_channels = 64"),
        (lambda: ph_resnet(18, (2, 2)), "one for all 4 stages or one each"),
        (lambda: ph_resnet(18, 2, widths=(8, 8)), "widths must hold 4 numbers"),
        (lambda: ph_vgg(12), "depth must be one of 11, 13, 16, 19"),
        (lambda: ph_vgg(11, 4, stem="grey"), "stem must be one of real, zeros, mean"),
        (lambda: small_phnn(1, 10, depth=1), "depth must be at least 2"),
    ],
)
def test_what_cannot_be_is_refused_by_name(make, message):
    with pytest.raises(InputError, match=message):
        make()
