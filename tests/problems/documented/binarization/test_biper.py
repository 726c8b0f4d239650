"""BiPer's identities, gradients and quantization error."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from bo_surrogates.errors import InputError
from problems.documented.binarization import (
    BinaryConv2d,
    BiPerConv2d,
    BiPerLinear,
    amplitude_penalty,
    set_stage,
)
from problems.documented.binarization.biper import laplace_quantization_error, quantization_errors


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_sign_of_the_sine_is_the_parity_of_the_half_period():
    frequency = 20.0
    layer = BiPerLinear(1000, 100, frequency=frequency).double()
    w = layer.weight.detach()
    parity = torch.where(torch.floor(frequency * w / math.pi) % 2 == 0, 1.0, -1.0)
    clear = torch.sin(frequency * w).abs() > 1e-6
    assert clear.double().mean() > 0.999
    assert torch.equal(layer.weights(w).signs[clear], parity[clear].double())


@pytest.mark.parametrize("stage", [1, 2])
def test_the_gradient_of_the_weights_is_the_cosine_in_both_stages(stage):
    layer = BiPerConv2d(3, 4, 3, frequency=7.0).double()
    set_stage(layer, stage)
    upstream = normal(4, 3, 3, 3)
    signs = layer.weights(layer.weight).signs
    signs.backward(upstream)
    w = layer.weight.detach()
    torch.testing.assert_close(layer.weight.grad, upstream * 7 * torch.cos(7 * w))
    sine = torch.sin(7 * w)
    expected = sine if stage == 1 else torch.where(sine >= 0, 1.0, -1.0).double()
    assert torch.equal(signs.detach(), expected)


def test_inputs_are_normalized_in_training_with_a_gradient_through_their_deviation():
    layer = BiPerConv2d(3, 4, 3).double()
    x = normal(2, 3, 5, 5, seed=1).requires_grad_()
    upstream = normal(2, 3, 5, 5, seed=2)
    layer.inputs(x).signs.backward(upstream)
    reference = x.detach().clone().requires_grad_()
    a = reference / torch.sqrt(reference.flatten(1).var(dim=1)[:, None, None, None] + 1e-5)
    a.backward(upstream * torch.relu(2 - 2 * a.detach().abs()))
    torch.testing.assert_close(x.grad, reference.grad)


def test_a_constant_sample_stays_finite():
    layer = BiPerConv2d(3, 4, 3)
    x = torch.full((2, 3, 5, 5), 1e-3, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.isfinite().all()


def test_evaluation_does_not_see_the_normalization():
    layer = BiPerConv2d(3, 4, 3).double()
    x = normal(2, 3, 5, 5)
    torch.testing.assert_close(layer.train()(x), layer.eval()(x))


@pytest.mark.parametrize("s", [0.1, 0.5, 0.955, 3.0])
def test_the_quantization_error_of_laplace_weights(s):
    w = np.random.default_rng(0).laplace(size=1_000_000)
    sine = np.sin(s * w)
    gain = np.abs(sine).mean()
    samples = (sine - gain * np.sign(sine)) ** 2
    assert laplace_quantization_error(s).item() == pytest.approx(samples.mean(), abs=1e-3)
    layer = BiPerLinear(1000, 1000, frequency=s).double()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(w).reshape(1000, 1000))
    assert quantization_errors(layer) == pytest.approx([samples.mean()])


def test_the_quantization_error_is_bounded():
    grid = torch.linspace(0.01, 30, 300_001, dtype=torch.float64)
    errors = laplace_quantization_error(grid)
    assert grid[errors.argmax()].item() == pytest.approx(0.9549, abs=1e-3)
    assert errors.max().item() == pytest.approx(0.10283, abs=1e-4)
    assert laplace_quantization_error(1e6).item() == pytest.approx(0.5 - 4 / math.pi**2, abs=1e-6)
    assert laplace_quantization_error(1e-6).item() == pytest.approx(0, abs=1e-9)


def test_the_penalty_is_the_mean_squared_sine_of_every_layer():
    network = nn.Sequential(BiPerConv2d(2, 3, 3, frequency=5.0), BiPerLinear(7, 2, frequency=9.0))
    first, second = (layer.weight.detach() for layer in network)
    expected = (0.5 - 0.5 * torch.cos(10 * first)).mean() + (
        0.5 - 0.5 * torch.cos(18 * second)
    ).mean()
    penalty = amplitude_penalty(network)
    torch.testing.assert_close(penalty, expected)
    penalty.backward()
    torch.testing.assert_close(network[1].weight.grad, 9 * torch.sin(18 * second) / second.numel())
    assert amplitude_penalty(nn.Linear(2, 2)).item() == 0


def test_only_the_product_of_frequency_and_initial_deviation_matters():
    torch.manual_seed(3)
    one = BiPerConv2d(3, 4, 3, frequency=20.0)
    torch.manual_seed(3)
    other = BiPerConv2d(3, 4, 3, frequency=10.0, init_std_scale=2.0)
    torch.testing.assert_close(
        one.weights.threshold_input(one.weight), other.weights.threshold_input(other.weight)
    )


def test_the_stage_is_saved_with_the_weights():
    network = nn.Sequential(BiPerConv2d(2, 3, 3), nn.Flatten())
    set_stage(network, 1)
    copy = nn.Sequential(BiPerConv2d(2, 3, 3), nn.Flatten())
    assert copy[0].weights.stage == 2
    copy.load_state_dict(network.state_dict())
    assert copy[0].weights.stage == 1
    x = normal(1, 2, 4, 4).float()
    assert torch.equal(copy(x), network(x))


def test_the_first_stage_has_binary_inputs_and_real_weights():
    layer = BiPerConv2d(2, 3, 3).double().eval()
    set_stage(layer, 1)
    x = normal(1, 2, 4, 4)
    y = layer(x)
    assert torch.equal(layer(10 * x), y)
    assert not torch.equal(layer.integers(x), layer.integers(x).round())


def test_other_stages_are_refused():
    with pytest.raises(InputError, match="stages 1 and 2"):
        set_stage(BinaryConv2d(2, 2, 3, "biper"), 3)
