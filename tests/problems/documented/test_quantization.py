"""Quantizers: values, gradients, and quantized convolutions as integer arithmetic."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from problems.documented.quantization import (
    InputQuantizer,
    QuantizedConv2d,
    QuantizedLinear,
    channel_bound,
    pad_same,
    quantize_signed,
    quantize_unsigned,
)


def value_and_gradient(quantizer, points, dtype=torch.float64):
    x = torch.tensor(points, dtype=dtype, requires_grad=True)
    y = quantizer(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    return y.tolist(), gradient.tolist()


def test_a_channel_of_zero_weights_stays_finite():
    weight = torch.zeros(2, 3)
    assert (quantize_signed(weight, channel_bound(weight), 4).abs() < 1e-9).all()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_signed_quantization_takes_the_nearest_of_its_grid_points(bits):
    bound = torch.tensor(1.7, dtype=torch.float64)
    grid = np.linspace(-1.7, 1.7, 2**bits - 1)
    x = np.random.default_rng(0).uniform(-2.5, 2.5, 500)
    values, gradients = value_and_gradient(lambda t: quantize_signed(t, bound, bits), x)
    nearest = grid[np.abs(x[:, None] - grid).argmin(axis=1)]
    np.testing.assert_allclose(values, nearest, atol=1e-12)
    np.testing.assert_array_equal(gradients, np.abs(x) <= 1.7)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_unsigned_quantization_takes_the_grid_point_below(bits):
    bound = torch.tensor(1.7, dtype=torch.float64)
    grid = 1.7 * np.arange(2**bits) / 2**bits
    x = np.random.default_rng(1).uniform(-0.5, 2.5, 500)
    values, gradients = value_and_gradient(lambda t: quantize_unsigned(t, bound, bits), x)
    below = grid[np.clip(np.searchsorted(grid, x, side="right") - 1, 0, None)]
    np.testing.assert_allclose(values, below, atol=1e-12)
    np.testing.assert_array_equal(gradients, (x >= 0) & (x < 1.7))


def test_half_steps_round_up():
    bound = torch.tensor(3.0, dtype=torch.float64)  # 3 bits: step 1
    values, _ = value_and_gradient(lambda x: quantize_signed(x, bound, 3), [-1.5, -0.5, 0.5, 1.5])
    assert values == [-1.0, 0.0, 1.0, 2.0]


def test_the_input_bound_is_the_running_mean_of_batch_maxima_and_fixed_in_evaluation():
    quantizer = InputQuantizer(8, momentum=0.75).train()
    batches = [torch.tensor([1.0, -4.0]), torch.tensor([2.0]), torch.tensor([-8.0, 0.0])]
    expected = None
    for batch in batches:
        largest = batch.abs().max().item()
        expected = largest if expected is None else 0.75 * expected + 0.25 * largest
        quantizer(batch)
        assert quantizer.maximum.item() == pytest.approx(expected)
    quantizer.eval()
    assert quantizer(torch.tensor([100.0])).item() == pytest.approx(expected)
    assert quantizer.maximum.item() == pytest.approx(expected)


def test_an_input_quantizer_that_saw_no_training_uses_the_input_s_own_range():
    x = torch.tensor([-3.0, 3.0])
    assert torch.equal(InputQuantizer(8).eval()(x), x)


def test_a_quantized_convolution_is_a_scaled_integer_convolution():
    conv = QuantizedConv2d(3, 4, 3, bits=4, stride=2).double().eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 6, 6, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        output = conv(x)
    x_step = x.abs().max() / 7
    w_step = conv.weight.detach().abs().amax(dim=(1, 2, 3), keepdim=True) / 7
    x_int, w_int = torch.floor(x / x_step + 0.5), torch.floor(conv.weight.detach() / w_step + 0.5)
    assert x_int.abs().max() == 7
    # 6 positions, stride 2, 3 windows: one column of padding, at the end.
    integers = functional.conv2d(functional.pad(x_int, (0, 1, 0, 1)), w_int, stride=2)
    torch.testing.assert_close(output, integers * x_step * w_step.reshape(-1, 1, 1))


def test_sixteen_bits_leave_a_layer_as_it_is():
    x = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    conv = QuantizedConv2d(2, 4, 3, bits=16, bias=True)
    torch.testing.assert_close(conv(x), functional.conv2d(x, conv.weight, conv.bias, padding=1))
    linear = QuantizedLinear(5, 3, bits=16)
    torch.testing.assert_close(linear(x), functional.linear(x, linear.weight, linear.bias))


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_padding_gives_one_window_a_stride_and_is_least(size, stride):
    padded = pad_same(torch.ones(1, 1, size, size), 3, stride)
    windows = (padded.shape[-1] - 3) // stride + 1
    assert windows == -(-size // stride)
    assert padded.sum() == size**2
    assert padded.shape[-1] == max((windows - 1) * stride + 3, size)
