from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bo_surrogates.errors import InputError
from bo_surrogates.networks import ACTIVATIONS, BatchedMLP, tanh

REFERENCE = {"tanh": torch.tanh, "relu": torch.relu, "silu": nn.SiLU(), "sine": torch.sin}
networks = st.builds(
    BatchedMLP,
    inputs=st.integers(1, 4),
    outputs=st.integers(1, 3),
    width=st.integers(1, 7),
    depth=st.integers(1, 4),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
)


def parameters(network: BatchedMLP, k: int = 3, seed: int = 0) -> Tensor:
    return network.draw(k, network.scales(), torch.Generator().manual_seed(seed))


def reference(network: BatchedMLP, theta: Tensor, X: Tensor) -> Tensor:
    """One network by `torch.nn.functional.linear`, whose weights are out x in."""
    start, h = 0, X
    for layer, (fan_in, fan_out) in enumerate(network.fan):
        weight = theta[start : start + fan_in * fan_out].reshape(fan_in, fan_out)
        start += fan_in * fan_out
        bias = theta[start : start + fan_out]
        start += fan_out
        h = nn.functional.linear(h, weight.T, bias)
        if layer < network.depth:
            h = REFERENCE[network.activation](h)
    assert start == network.num_parameters
    return h


@settings(max_examples=40)
@given(networks, st.integers(1, 4), st.lists(st.integers(1, 3), max_size=3))
def test_every_network_equals_a_plain_one(
    network: BatchedMLP, k: int, batch_and_n: list[int]
) -> None:
    theta = parameters(network, k)
    shape = [*batch_and_n, 2]
    X = torch.randn(
        *shape, network.inputs, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    values = network.forward(theta, X)
    assert values.shape == (k, *shape, network.outputs)
    for i in range(k):
        torch.testing.assert_close(values[i], reference(network, theta[i], X))


@settings(max_examples=20)
@given(networks)
def test_each_network_at_its_own_inputs_equals_a_plain_one(network: BatchedMLP) -> None:
    theta = parameters(network)
    X = torch.randn(
        3, 5, network.inputs, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    values = network.forward_each(theta, X)
    for i in range(3):
        torch.testing.assert_close(values[i], reference(network, theta[i], X[i]))


@settings(max_examples=30)
@given(networks, st.integers(1, 4))
def test_packing_undoes_unpacking(network: BatchedMLP, k: int) -> None:
    theta = parameters(network, k)
    layers = network.unpack(theta)
    assert [layer.weight.shape for layer in layers] == [(k, i, o) for i, o in network.fan]
    assert [layer.bias.shape for layer in layers] == [(k, 1, o) for _, o in network.fan]
    assert torch.equal(network.pack(layers), theta)


def test_unpacked_layers_are_views_of_the_parameters() -> None:
    network = BatchedMLP(2, 1, width=3, depth=2)
    theta = parameters(network)
    for layer in network.unpack(theta):
        layer.weight.fill_(2.0)
        layer.bias.fill_(2.0)
    assert torch.equal(theta, torch.full_like(theta, 2.0))


@pytest.mark.parametrize("activation", ["tanh", "silu", "sine"])
def test_gradients_in_parameters_and_inputs_equal_finite_differences(activation: str) -> None:
    network = BatchedMLP(2, 2, width=3, depth=2, activation=activation)
    theta = parameters(network, 2).requires_grad_()
    X = torch.randn(4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(network.forward, (theta, X.requires_grad_()))


@given(st.floats(-1e6, 1e6))
def test_tanh_is_the_hyperbolic_tangent_to_one_rounding_of_one(x: float) -> None:
    argument = torch.tensor(x, dtype=torch.float64)
    assert (tanh(argument) - torch.tanh(argument)).abs() <= 2 * torch.finfo(torch.float64).eps


def test_drawn_parameters_are_determined_by_the_generator_and_follow_the_scales() -> None:
    network = BatchedMLP(3, 2, width=4, depth=2)
    scales = network.scales(input_scale=2.0, weight_scale=0.5, bias_scale=3.0, output_scale=0.1)
    theta = network.draw(4000, scales, torch.Generator().manual_seed(0))
    assert torch.equal(theta, network.draw(4000, scales, torch.Generator().manual_seed(0)))
    standard = theta / scales
    n = standard.numel()  # 164 000: standard errors are 1 / sqrt(n) and sqrt(2 / n)
    assert standard.mean().abs() < 6 / n**0.5
    assert (standard.square().mean() - 1).abs() < 6 * (2 / n) ** 0.5
    # Column by column: the variance of 4000 draws has standard error 0.022.
    assert ((standard.square().mean(dim=0) - 1).abs() < 7 * (2 / 4000) ** 0.5).all()


def test_every_layer_may_have_scales_of_its_own() -> None:
    network = BatchedMLP(3, 2, width=4, depth=2)
    scales = network.layer_scales([3.0, 2.0, 5.0], [0.1, 0.2, 0.3])
    layers = network.unpack(scales.unsqueeze(0))
    for layer, weight, bias in zip(layers, (3.0 / 3**0.5, 1.0, 2.5), (0.1, 0.2, 0.3), strict=True):
        torch.testing.assert_close(layer.weight, torch.full_like(layer.weight, weight))
        torch.testing.assert_close(layer.bias, torch.full_like(layer.bias, bias))
    for bad in ([1.0, 1.0], [1.0, 1.0, 0.0], [1.0, math.nan, 1.0]):
        with pytest.raises(InputError, match="3 positive scales of weights"):
            network.layer_scales(bad, [1.0] * 3)
        with pytest.raises(InputError, match="3 positive scales of biases"):
            network.layer_scales([1.0] * 3, bad)


def test_draws_in_float32_are_the_rounded_draws_in_float64() -> None:
    network = BatchedMLP(3, 2)
    scales = network.scales()
    double = network.draw(2, scales, torch.Generator().manual_seed(0))
    single = network.draw(2, scales, torch.Generator().manual_seed(0), torch.float32)
    assert torch.equal(single, double.float())


@pytest.mark.parametrize("width", [1, 32])
def test_the_prior_variance_of_a_function_does_not_depend_on_the_width(width: int) -> None:
    # z = x w + b ~ N(0, v), v = a^2 |x|^2 / d + c^2, and E relu(z)^2 = v / 2; the output's
    # weights have variance o^2 / width and its bias o^2: E f(x)^2 = o^2 (v / 2 + 1).
    a, c, o = 1.5, 0.7, 2.0
    network = BatchedMLP(2, 1, width=width, depth=1, activation="relu")
    scales = network.scales(input_scale=a, bias_scale=c, output_scale=o)
    theta = network.draw(40_000, scales, torch.Generator().manual_seed(0))
    x = torch.tensor([[0.8, -1.3]], dtype=torch.float64)
    squares = network.forward(theta, x).flatten().square()
    v = a**2 * x.square().sum() / 2 + c**2
    error = squares.std() / 40_000**0.5
    assert (squares.mean() - o**2 * (v / 2 + 1)).abs() < 6 * error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": 0}, "inputs"),
        ({"outputs": 0}, "outputs"),
        ({"width": 0}, "width"),
        ({"width": 2.5}, "width"),
        ({"depth": 0}, "depth must be an integer from 1 to 4"),
        ({"depth": 5}, "depth"),
        ({"activation": "Tanh"}, "did you mean 'tanh'"),
    ],
)
def test_impossible_networks_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BatchedMLP(**({"inputs": 2, "outputs": 1} | arguments))  # type: ignore[arg-type]


def test_parameters_and_inputs_of_the_wrong_shape_are_refused() -> None:
    network = BatchedMLP(2, 1, width=3)
    theta = parameters(network)
    with pytest.raises(InputError, match="K x"):
        network.unpack(theta[:, :-1])
    with pytest.raises(InputError, match="3 x n x 2"):
        network.forward_each(theta, torch.zeros(2, 5, 2))
    with pytest.raises(InputError, match="3 x n x 2"):
        network.forward(theta, torch.zeros(5, 3))
