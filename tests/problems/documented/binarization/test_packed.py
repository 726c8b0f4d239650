"""Packed layers against the binary layers in floating point: equal, not close."""

from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from bo_surrogates.errors import InputError
from problems.documented.binarization import (
    OPERATORS,
    BinaryConv1d,
    BinaryConv2d,
    BinaryLinear,
    BiPerConv2d,
    bits,
    pack,
    set_stage,
)
from problems.documented.binarization.bits import (
    PackedBits,
    as_words,
    count_differing,
    pack_bytes,
    unpack_bytes,
)


def disturb(layer, seed=0):
    """Learnt scales, shifts and biases away from where they start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name != "weight":
                parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    return layer.eval()


def inputs(*shape, seed=0):
    """Normal, with zeros of either sign among them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator)
    return x * (torch.rand(x.shape, generator=generator) > 0.1)


@pytest.mark.parametrize("length", [1, 3, 8, 63, 64, 65, 200, 576])
def test_a_product_of_signs_is_a_popcount_for_any_length(length):
    rng = np.random.default_rng(length)
    a, w = rng.random((7, length)) < 0.5, rng.random((5, length)) < 0.5
    packed = as_words(pack_bytes(a)), as_words(pack_bytes(w))
    assert packed[0].shape == (7, -(-length // 64))
    dots = length - 2 * count_differing(*packed)
    np.testing.assert_array_equal(dots, np.where(a, 1, -1) @ np.where(w, 1, -1).T)
    np.testing.assert_array_equal(unpack_bytes(pack_bytes(a), length), a)


def test_products_are_the_same_whatever_the_number_of_rows_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 2**64, (9000, 2), dtype=np.uint64)
    w = rng.integers(0, 2**64, (33, 2), dtype=np.uint64)
    monkeypatch.setattr(bits, "compiled", lambda: None)
    whole = count_differing(a, w)
    rows = [0, 1985, 1986, 8999]
    np.testing.assert_array_equal(
        whole[rows], np.concatenate([count_differing(a[[r]], w) for r in rows])
    )


@pytest.mark.skipif(bits.compiled() is None, reason="no compiled kernel on this machine")
@pytest.mark.parametrize("rows", [1, 4, 6, 9])
@pytest.mark.parametrize("outputs", [1, 4, 7])
@pytest.mark.parametrize("words", [0, 1, 5])
def test_the_compiled_counting_is_that_of_numpy(rows, outputs, words):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 2**64, (rows, 2 * words), dtype=np.uint64)[:, ::2]
    w = rng.integers(0, 2**64, (outputs, words), dtype=np.uint64)
    with mock.patch.object(bits, "compiled", return_value=None):
        expected = count_differing(a, w)
    found = count_differing(a, w)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    different = a[:, None] ^ w[None]
    np.testing.assert_array_equal(found, np.bitwise_count(different).sum(axis=-1))


def test_bits_keep_the_order_of_channels_and_of_flattening():
    x = inputs(3, 12, 2, 5)
    for groups in (1, 2, 3):
        packed = PackedBits.of((x >= 0).movedim(1, -1).numpy(), groups)
        assert torch.equal(packed.signs() > 0, x >= 0)
        assert torch.equal(packed.flat().signs()[:, :, 0, 0] > 0, (x >= 0).flatten(1))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(
    ("channels", "size", "options"),
    [
        (3, 6, {"padding": 1}),
        (70, 5, {"padding": 2, "stride": 2}),
        (8, 7, {"padding": (0, 1), "stride": (1, 2), "groups": 2}),
        (6, 8, {"padding": 2, "dilation": 2, "groups": 3, "bias": True}),
        (5, 7, {"padding": "same", "stride": 2, "bias": True}),
        (4, 5, {}),
    ],
)
def test_convolutions(operator, channels, size, options):
    shape = BinaryConv2d(channels, 6, 3, "bnn", **options)(
        torch.zeros(1, channels, size, size)
    ).shape
    layer = disturb(BinaryConv2d(channels, 6, 3, operator, output_size=shape[2:], **options))
    x = inputs(2, channels, size, size, seed=1)
    packed = pack(layer)
    integers = packed.integers(x)
    assert integers.dtype == torch.int32
    assert torch.equal(integers.float(), layer.integers(x))
    assert torch.equal(packed(x), layer(x))


@pytest.mark.parametrize("operator", OPERATORS)
def test_linear_layers_and_convolutions_of_sequences(operator):
    layer = disturb(BinaryLinear(67, 9, operator, bias=True))
    for shape in ((67,), (4, 67), (2, 3, 67)):
        x = inputs(*shape, seed=2)
        assert torch.equal(pack(layer).integers(x).float(), layer.integers(x))
        assert torch.equal(pack(layer)(x), layer(x))
    layer = disturb(
        BinaryConv1d(6, 8, 5, operator, padding=2, stride=2, groups=2, output_size=(5,))
    )
    x = inputs(3, 6, 10, seed=3)
    assert torch.equal(pack(layer).integers(x).float(), layer.integers(x))
    assert torch.equal(pack(layer)(x), layer(x))


def test_the_spatial_scale_and_double_precision():
    config = OPERATORS["xnor"].replace(input_scale="map")
    for layer in (
        BinaryConv2d(4, 3, 3, config, padding=1, stride=2),
        BinaryConv2d(4, 3, 3, config, padding=1).double(),
    ):
        x = inputs(2, 4, 6, 6).to(layer.weight.dtype)
        assert torch.equal(pack(layer)(x), layer.eval()(x))


def test_a_packed_layer_takes_images_of_any_size_one_after_the_other():
    layer = BinaryConv2d(5, 4, 3, "bireal", padding=1).eval()
    packed = pack(layer)
    for size in (4, 7, 4):
        x = inputs(1, 5, size, size + 1)
        assert torch.equal(packed(x), layer(x))


def test_packing_leaves_the_layer_as_it_was():
    layer = BinaryConv2d(5, 4, 3, "fda", padding=1).train()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    pack(layer)
    assert layer.training
    assert layer.inputs.noise is not None
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_the_size_of_a_packed_layer():
    assert pack(BinaryConv2d(5, 4, 3, "bnn")).stored_bits() == 5 * 4 * 9
    assert pack(BinaryConv2d(5, 4, 3, "bireal", bias=True)).stored_bits() == 180 + 32 * (4 + 4)
    assert pack(BinaryConv2d(5, 4, 3, "reactnet")).stored_bits() == 180 + 32 * (4 + 5)


def test_what_cannot_be_packed_is_refused():
    layer = BiPerConv2d(2, 3, 3)
    set_stage(layer, 1)
    with pytest.raises(InputError, match="first stage"):
        pack(layer)
    with pytest.raises(InputError, match="only binary layers"):
        pack(nn.Linear(2, 2))
    packed = pack(BinaryConv2d(2, 3, 3, "xnor"))
    with pytest.raises(InputError, match="nan"):
        packed(torch.full((1, 2, 4, 4), torch.nan))
    with pytest.raises(InputError, match="takes numbers"):
        packed(packed.bits(torch.ones(1, 2, 4, 4)))
