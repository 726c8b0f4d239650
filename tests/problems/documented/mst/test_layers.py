"""Layers along their trees against the binary layers: equal integers, from as many products as
counted; costs of layers and networks."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from bo_surrogates.errors import InputError
from problems.documented.bibench import SmallBinaryNet, binary_conv
from problems.documented.binarization import (
    BinaryConv1d,
    BinaryConv2d,
    BinaryLinear,
    BiPerConv2d,
    pack,
    set_stage,
)
from problems.documented.binarization.bits import as_words, count_differing, pack_bytes
from problems.documented.cost import count_cost
from problems.documented.mst import (
    MSTLayer,
    TreeConfig,
    compress,
    contract_along,
    filter_tree,
    layer_signs,
    layer_trees,
    tree_cost,
)
from problems.documented.mst.evaluation import count_differing_along

CONFIGS = [
    TreeConfig(),
    TreeConfig(inversions=True),
    TreeConfig(max_depth=1),
    TreeConfig(max_depth=2, inversions=True),
]
LAYERS = {
    "3x3": (lambda: BinaryConv2d(5, 16, 3, padding=1), (5, 6, 7)),
    "strided": (lambda: BinaryConv2d(5, 9, 3, stride=2, padding=(0, 2), bias=True), (5, 8, 7)),
    "same": (lambda: BinaryConv2d(4, 9, 3, "reactnet", stride=2, padding="same"), (4, 7, 7)),
    "grouped": (lambda: BinaryConv2d(6, 12, 3, padding=1, groups=3), (6, 5, 5)),
    "dilated": (lambda: BinaryConv2d(70, 7, 2, dilation=2, padding=2), (70, 5, 5)),
    "sequence": (lambda: BinaryConv1d(3, 8, 5, "xnor", padding=2), (3, 20)),
    "linear": (lambda: BinaryLinear(130, 11, "fda"), (130,)),
    "rectified": (lambda: BinaryConv2d(5, 6, 3, "recu", padding=1), (5, 4, 4)),
    "one filter": (lambda: BinaryConv2d(5, 1, 3, padding=1), (5, 4, 4)),
}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(name):
    build, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = build().eval()
    with torch.no_grad():  # equal, complementary and zero weights
        if len(layer.weight) > 3:
            layer.weight[1], layer.weight[2] = layer.weight[0], -layer.weight[0]
            layer.weight[3] = 0
    return layer, normal(3, *shape)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_sums_along_a_tree_are_the_sums_from_the_counted_products(config):
    rng = np.random.default_rng(0)
    for filters, terms in ((1, 5), (16, 144), (20, 65)):
        signs = rng.choice([-1, 1], (filters, terms))
        signs[-1] = -signs[0]
        tree = filter_tree(signs, config)
        patches = rng.choice([-1, 0, 1], (13, terms))
        y, products = contract_along(tree, signs, patches)
        np.testing.assert_array_equal(y, patches @ signs.T)
        assert products == 13 * tree.xnors

        a, w, filled = (
            as_words(pack_bytes(positive))
            for positive in (patches > 0, signs > 0, np.ones((1, terms), bool))
        )
        counts, products = count_differing_along(tree, a, w, filled[0])
        np.testing.assert_array_equal(counts, count_differing(a, w))
        assert products == 13 * tree.xnors


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_along_its_tree_is_the_layer(name, config):
    layer, x = make(name)
    mst = MSTLayer(layer, config)
    assert torch.equal(mst.integers(x), layer.integers(x).int())
    with torch.no_grad():
        y = mst(x)
        assert torch.equal(y, layer(x))
    positions = y.numel() // len(layer.weight)
    assert mst.xnors == positions * sum(tree.xnors for tree in mst.trees)
    (cost,) = mst.layer_costs((x[:1],), y[:1])
    assert len(x) * cost.macs == mst.xnors


def test_the_integer_form_on_patches_with_zero_padding_is_the_convolution():
    layer, x = make("3x3")
    (tree,), (signs,) = layer_trees(layer), layer_signs(layer)
    inputs = torch.where(x >= 0, 1.0, -1.0)
    patches = functional.unfold(inputs, 3, padding=1).mT.reshape(-1, tree.terms)
    assert (patches == 0).any()
    y, _ = contract_along(tree, signs, patches.numpy().astype(int))
    expected = layer.integers(x).movedim(1, -1).reshape(-1, 16)
    np.testing.assert_array_equal(y, expected)


def test_each_group_has_its_tree():
    layer, _ = make("grouped")
    signs = torch.where(layer.weight >= 0, 1, -1).reshape(3, 4, -1).numpy()
    np.testing.assert_array_equal(layer_signs(layer), signs)
    trees = MSTLayer(layer).trees
    assert [t.flips.sum() for t in trees] == [filter_tree(s).flips.sum() for s in signs]


@pytest.mark.parametrize("name", ["3x3", "grouped", "linear"])
def test_a_saved_layer_is_loaded_with_its_tree(name):
    layer, x = make(name)
    mst = MSTLayer(layer, TreeConfig(inversions=True))
    torch.manual_seed(9)
    other = MSTLayer(LAYERS[name][0]().eval())
    other.load_state_dict(mst.state_dict())
    assert torch.equal(other.integers(x), mst.integers(x))
    for loaded, saved in zip(other.trees, mst.trees, strict=True):
        assert (loaded.terms, loaded.encoded_bits) == (saved.terms, saved.encoded_bits)
        np.testing.assert_array_equal(loaded.flips, saved.flips)


def test_a_layer_stores_the_shorter_of_signs_and_tree():
    layer, _ = make("3x3")
    (tree,) = layer_trees(layer)
    assert tree.encoded_bits > 16 * 45
    assert MSTLayer(layer).stored_bits() == pack(layer).stored_bits()
    with torch.no_grad():
        layer.weight.fill_(1)
    (tree,) = layer_trees(layer)
    mst = MSTLayer(layer)
    assert mst.stored_bits() == pack(layer).stored_bits() - 16 * 45 + tree.encoded_bits
    assert tree.encoded_bits == 16 * 4 + 1 + 45 + 15 * 6


def test_what_has_no_signs_has_no_tree():
    with pytest.raises(InputError, match="only binary layers have trees, got Conv2d"):
        MSTLayer(nn.Conv2d(3, 4, 3))
    layer = BiPerConv2d(3, 4, 3)
    set_stage(layer, 1)
    for call in (MSTLayer, layer_trees):
        with pytest.raises(InputError, match="first stage of BiPer"):
            call(layer)
    layer = BinaryConv2d(3, 4, 3)
    with torch.no_grad():
        layer.weight[0, 0] = torch.nan
    with pytest.raises(InputError, match="weights must be numbers"):
        layer_trees(layer)


# ---- networks -----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SmallBinaryNet((1, 8, 8), 10, 12, 4, binary_conv("bireal")).eval()


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_network_along_its_trees_is_the_network(network, config):
    x = normal(20, 1, 8, 8)
    compressed = compress(network, x[:2], config)
    with torch.no_grad():
        assert torch.equal(compressed(x), network(x))
    layers = [m for m in compressed.modules() if isinstance(m, MSTLayer)]
    cost = tree_cost(network, (1, 8, 8), config)
    assert sum(layer.xnors for layer in layers) == 20 * cost.xnors
    counted = count_cost(compressed, (1, 8, 8))
    assert counted.bops == cost.xnors
    assert counted.flops == count_cost(network, (1, 8, 8)).flops


def test_layers_that_exchange_bits_go_along_their_trees():
    torch.manual_seed(0)
    network = nn.Sequential(
        BinaryConv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Hardtanh(),
        BinaryConv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Hardtanh(), nn.Flatten(),
        BinaryLinear(8 * 25, 6),
    ).eval()  # fmt: skip
    x = normal(4, 3, 5, 5)
    compressed = compress(network, x)
    assert [type(m) for m in compressed] == [MSTLayer] * 3
    with torch.no_grad():
        assert torch.equal(compressed(x), network(x))
    assert count_cost(compressed, (3, 5, 5)).bops == tree_cost(network, (3, 5, 5)).xnors


def test_the_cost_of_a_network_is_the_sum_over_layers_and_positions(network):
    cost = tree_cost(network, (1, 8, 8))
    trees = [layer_trees(block.conv)[0] for block in network.blocks]
    assert [layer.positions for layer in cost.layers] == [64, 64, 16, 16]
    assert cost.xnors == 64 * (trees[0].xnors + trees[1].xnors) + 16 * (
        trees[2].xnors + trees[3].xnors
    )
    assert cost.full_xnors == count_cost(network, (1, 8, 8)).bops == 160 * 12 * 108
    assert cost.ratio == cost.xnors / cost.full_xnors
    assert cost.depth == max(t.depth for t in trees)
    assert cost.mean_depth == sum(t.depth for t in trees) / 4
    assert cost.plain_bits == 4 * 12 * 108
    assert cost.hardware_bits == sum(t.xnors for t in trees)
    assert cost.encoded_bits == sum(t.encoded_bits for t in trees)
    assert cost.latency == sum(
        p * t.level_latency for p, t in zip((64, 64, 16, 16), trees, strict=True)
    )


def test_a_layer_that_is_called_twice_computes_twice_and_is_stored_once():
    torch.manual_seed(0)
    conv = BinaryConv2d(6, 6, 3, padding=1)
    cost = tree_cost(nn.Sequential(conv, conv), (6, 4, 4))
    assert cost.xnors == 2 * 16 * layer_trees(conv)[0].xnors
    assert cost.plain_bits == 6 * 54


def test_a_network_without_binary_layers_has_no_trees():
    with pytest.raises(InputError, match="no binary layer"):
        tree_cost(nn.Linear(3, 4), (3,))
