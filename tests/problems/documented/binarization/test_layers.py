"""The operators' layers: values and gradients against each paper's formulas, written out."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from bo_surrogates.errors import InputError
from problems.documented.binarization import (
    BIBENCH,
    OPERATORS,
    BinaryConv1d,
    BinaryConv2d,
    BinaryLinear,
    anneal,
    clamp_latent_weights,
)
from problems.documented.binarization.weights import RectifiedWeights
from problems.documented.cost import count_cost


def normal(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def plain_sign(v):
    return torch.where(v >= 0, 1.0, -1.0).to(v)


def clip(v):
    return (v.abs() <= 1).to(v)


def poly(v):
    return torch.relu(2 - 2 * v.abs())


def fourier(v, n=9, omega=0.1):
    series = sum(torch.cos((2 * i + 1) * omega * v) for i in range(n + 1))
    return clip(v) * 4 * omega / math.pi * series


class Straight(torch.autograd.Function):
    """A given value forward; the gradient times a given factor backward."""

    @staticmethod
    def forward(ctx, v, value, factor):
        ctx.save_for_backward(factor)
        return value

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None, None


def straight(v, derivative, scale=1.0):
    """scale * sgn(v) forward, the gradient times derivative(v), without the scale, backward."""
    d = v.detach()
    return Straight.apply(v, scale * plain_sign(d), derivative(d))


def mean_abs(w, dims=(1, 2, 3)):
    return w.detach().abs().mean(dim=dims, keepdim=True)


def sample_std(x):
    return torch.sqrt(x.var(dim=(1, 2, 3), keepdim=True) + 1e-5)


def rectified(w, tau=0.85):
    w0 = w - w.mean(dim=(1, 2, 3), keepdim=True)
    w1 = w0 / torch.sqrt(w0.var(dim=(1, 2, 3), keepdim=True) + 1e-5) * 2 * math.sqrt(2)
    q = -w1.detach().abs().mean().item() * math.log(2 - 2 * tau)
    return straight(w1.clamp(-q, q), torch.ones_like)


def periodic(w, frequency=20.0):
    return straight(torch.sin(frequency * w), torch.ones_like)


def half_shift(v, bound):
    return (v.abs() < bound * (1 - 2.0**-7)).to(v)


def channel_max(w):
    return w.detach().abs().amax(dim=(1, 2, 3), keepdim=True)


def fda_noise(module, v):
    return module.amplitude * (module(v) / module.amplitude)


REFERENCES = {
    # operator: (x, w, layer) -> binarized inputs and weights, as each paper's layer convolves them
    "bnn": lambda x, w, _: (straight(x, clip), straight(w, clip)),
    "xnor": lambda x, w, _: (straight(x, clip, mean_abs(x)), straight(w, clip, mean_abs(w))),
    "dorefa": lambda x, w, _: (straight(x, clip), straight(w, clip, mean_abs(w))),
    "bireal": lambda x, w, _: (straight(x, poly), straight(w, clip, mean_abs(w))),
    "xnor++": lambda x, w, _: (straight(x, clip), straight(w, clip)),
    "reactnet": lambda x, w, layer: (
        straight(x + layer.inputs.shift, poly),
        straight(w, clip, mean_abs(w)),
    ),
    "recu": lambda x, w, _: (straight(x / sample_std(x), poly), rectified(w)),
    "fda": lambda x, w, layer: (
        straight(x, fourier) + layer.inputs.noise(x),
        (straight(w, fourier) + layer.weights.noise(w.flatten(1)).reshape(w.shape)) * mean_abs(w),
    ),
    "biper": lambda x, w, _: (straight(x / sample_std(x), poly), periodic(w)),
    "poke": lambda x, w, _: (
        straight(x, lambda v: half_shift(v, 3.0), 1.5),
        straight(w, lambda v: half_shift(v, channel_max(v)), channel_max(w) / 2),
    ),
}


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(("stride", "padding", "groups"), [(1, 1, 1), (2, 0, 2), (2, 1, 1)])
def test_a_convolution_s_values_and_gradients_are_the_paper_s(operator, stride, padding, groups):
    rows = (7 + 2 * padding - 3) // stride + 1
    torch.manual_seed(0)
    layer = BinaryConv2d(
        4, 6, 3, operator,
        stride=stride, padding=padding, groups=groups, bias=True, output_size=(rows, rows),
    ).double()  # fmt: skip
    with torch.no_grad():
        layer.weight.copy_(normal(6, 4 // groups, 3, 3, seed=1, scale=0.7))
        for parameter in (layer.inputs.shift, *layer.parameters()):
            if parameter is not None and parameter is not layer.weight:
                parameter.add_(0.3 * normal(*parameter.shape, seed=2))
    x = normal(3, 4, 7, 7, seed=3)
    weights_of_outputs = normal(3, 6, rows, rows, seed=4)

    ours = x.clone().requires_grad_()
    y = layer(ours)
    y.backward(weights_of_outputs)
    gradients = {name: p.grad.clone() for name, p in layer.named_parameters()}

    layer.zero_grad()
    theirs = x.clone().requires_grad_()
    inputs, weights = REFERENCES[operator](theirs, layer.weight, layer)
    reference = functional.conv2d(inputs, weights, None, stride, padding, groups=groups)
    if layer.output_scale is not None:
        reference = reference * layer.output_scale.channel
        if operator == "xnor++":
            reference = reference * layer.output_scale.axis0 * layer.output_scale.axis1
    reference = reference + layer.bias[:, None, None]
    reference.backward(weights_of_outputs)

    torch.testing.assert_close(y, reference)
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert ours.grad.abs().max() > 0
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, msg=name)


def test_each_operator_has_the_learnt_parts_that_it_is_known_for():
    def learnt(operator):
        layer = BinaryConv2d(4, 6, 3, operator, output_size=(8, 8))
        return {name for name, _ in layer.named_parameters()} - {"weight"}

    parts = {operator: learnt(operator) for operator in OPERATORS}
    for operator in ("bnn", "xnor", "dorefa", "bireal", "poke"):
        assert parts[operator] == set()
    assert parts["reactnet"] == {"inputs.shift"}
    assert parts["recu"] == parts["biper"] == {"output_scale.channel"}
    assert parts["xnor++"] == {"output_scale.channel"} | {
        f"output_scale.axis{axis}" for axis in (0, 1)
    }
    assert len(parts["fda"]) == 4
    assert len(BIBENCH) == 8 < len(OPERATORS)


def test_the_published_example_of_a_scale_left_out_of_the_gradient():
    layer = BinaryLinear(3, 1, "dorefa")
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -2.0, 0.3]]))
    for row, expected in enumerate((0.9333, -0.9333, 0.9333)):
        x = -torch.ones(3)
        x[row] = 1  # the sum with the others' signs flipped leaves twice this weight
        pair = (layer(x) - layer(-torch.ones(3))).item() / 2
        assert pair == pytest.approx(expected, abs=1e-4)
    layer.zero_grad()
    layer(torch.ones(3)).sum().backward()
    torch.testing.assert_close(layer.weight.grad, torch.tensor([[1.0, 0.0, 1.0]]))
    with_scale = BinaryLinear(3, 1, OPERATORS["dorefa"].replace(scale_in_gradient=True))
    with_scale.load_state_dict(layer.state_dict())
    with_scale(torch.ones(3)).sum().backward()
    torch.testing.assert_close(with_scale.weight.grad, 0.93333 * torch.tensor([[1.0, 0.0, 1.0]]))


@pytest.mark.parametrize("scale", ["none", "layer", "channel", "channel_graph", "half_max"])
def test_weight_scales(scale):
    layer = BinaryLinear(5, 3, OPERATORS["bnn"].replace(weight_scale=scale)).double()
    w = layer.weight.detach()
    expected = {
        "none": torch.ones(3).double(),
        "layer": w.abs().mean().expand(3),
        "channel": w.abs().mean(dim=1),
        "channel_graph": w.abs().mean(dim=1),
        "half_max": w.abs().amax(dim=1) / 2,
    }[scale]
    x = normal(4, 5)
    torch.testing.assert_close(layer(x), plain_sign(x) @ plain_sign(w).T * expected)
    layer(x).sum().backward()
    in_graph = layer.weight.grad.clone()
    if scale == "channel_graph":  # beside the sign's gradient, that of the mean
        plain = BinaryLinear(5, 3, OPERATORS["bnn"].replace(weight_scale="channel")).double()
        plain.load_state_dict(layer.state_dict())
        plain(x).sum().backward()
        dots = (plain_sign(x) @ plain_sign(w).T).sum(dim=0)
        extra = dots[:, None] * plain_sign(w) / 5
        torch.testing.assert_close(in_graph, plain.weight.grad + extra)


def test_the_mean_of_the_absolute_weights_is_the_best_scale():
    w = normal(50, seed=7)
    scales = torch.linspace(0, 2, 20001, dtype=torch.float64)
    distances = ((w - scales[:, None] * plain_sign(w)) ** 2).sum(dim=1)
    assert scales[distances.argmin()] == pytest.approx(w.abs().mean().item(), abs=1e-4)


def test_the_spatial_input_scale_is_a_box_filter_of_the_mean_over_channels():
    config = OPERATORS["xnor"].replace(input_scale="map")
    layer = BinaryConv2d(4, 2, 3, config, padding=1, stride=2).double()
    x = normal(2, 4, 6, 6)
    box = torch.ones(1, 1, 3, 3).double() / 9
    k = functional.conv2d(x.abs().mean(dim=1, keepdim=True), box, stride=2, padding=1)
    scale = layer.weight.detach().abs().mean(dim=(1, 2, 3))[:, None, None]
    torch.testing.assert_close(layer(x), layer.integers(x) * scale * k)


def test_xnor_s_linear_layers_centre_the_weights_of_an_output_and_its_convolutions_do_not():
    layer = BinaryLinear(6, 2, "xnor").double()
    with torch.no_grad():
        layer.weight.add_(3.0)
    x = normal(3, 6)
    w = layer.weight.detach()
    centred = w - w.mean(dim=1, keepdim=True)
    expected = plain_sign(x) @ plain_sign(centred).T * centred.abs().mean(dim=1)
    torch.testing.assert_close(layer(x), expected * x.abs().mean(dim=1, keepdim=True))
    conv = BinaryConv2d(1, 1, 2, "xnor")
    with torch.no_grad():
        conv.weight.add_(3.0)
    assert conv.weights(conv.weight).signs.unique().tolist() == [1.0]


def test_convolutions_in_one_dimension_and_linear_layers_agree_with_those_in_two():
    for operator in OPERATORS:
        if operator in ("xnor++", "fda"):  # rows and columns; noise drawn apart
            continue
        torch.manual_seed(0)
        one = BinaryConv1d(4, 3, 3, operator, padding=1, bias=True)
        torch.manual_seed(0)
        two = BinaryConv2d(4, 3, (1, 3), operator, padding=(0, 1), bias=True)
        two.load_state_dict(
            {k: v.reshape(two.state_dict()[k].shape) for k, v in one.state_dict().items()}
        )
        x = normal(2, 4, 9).float()
        torch.testing.assert_close(one(x), two(x[:, :, None])[:, :, 0])
        if operator == "xnor":
            continue  # centres the weights of linear layers
        linear = BinaryLinear(4, 3, operator)
        conv = BinaryConv2d(4, 3, 1, operator)
        conv.load_state_dict(
            {k: v.reshape(conv.state_dict()[k].shape) for k, v in linear.state_dict().items()}
        )
        torch.testing.assert_close(linear(x[..., 0]), conv(x[:, :, :1, None])[..., 0, 0])


@pytest.mark.parametrize("operator", OPERATORS)
def test_in_evaluation_a_layer_is_an_integer_contraction_with_the_parity_of_its_valid_taps(
    operator,
):
    layer = BinaryConv2d(5, 4, 3, operator, padding=1, stride=2, output_size=(4, 4)).eval()
    x = normal(2, 5, 7, 7).float()
    dots = layer.integers(x)
    taps = functional.conv2d(torch.ones(1, 5, 7, 7), torch.ones(1, 5, 3, 3), stride=2, padding=1)
    assert torch.equal(dots, dots.round())
    assert ((dots - taps) % 2 == 0).all()
    assert (dots.abs() <= taps).all()


def test_same_padding_gives_one_output_a_stride():
    for size, stride in ((6, 1), (6, 2), (7, 2)):
        layer = BinaryConv2d(2, 3, 3, "poke", stride=stride, padding="same")
        assert layer(normal(1, 2, size, size).float()).shape[-1] == -(-size // stride)


# ---- ReCU ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("tau", [0.6, 0.85, 0.99])
def test_rectified_weights_are_clipped_at_the_quantile_of_a_laplace_law(tau):
    weight = torch.from_numpy(np.random.default_rng(0).laplace(size=(1, 400_000)))
    rectified_weights = RectifiedWeights(first_tau=tau)
    standardized = rectified_weights.threshold_input(weight)
    assert standardized.std().item() == pytest.approx(2 * math.sqrt(2), rel=1e-4)
    empirical = torch.from_numpy(np.quantile(standardized.numpy(), [tau]))
    assert rectified_weights.quantile(standardized).item() == pytest.approx(
        empirical.item(), rel=0.01
    )


# ---- FDA ----------------------------------------------------------------------------------------
def test_noise_is_there_in_training_only_and_gone_at_the_end():
    layer = BinaryConv2d(4, 6, 3, "fda", padding=1)
    x = normal(2, 4, 6, 6).float()
    exact = layer.eval()(x)
    layer.train()
    anneal(layer, 0, 10)
    assert not torch.allclose(layer(x), exact)
    anneal(layer, 9, 10)
    torch.testing.assert_close(layer(x), exact)


# ---- cost, device, errors -----------------------------------------------------------------------
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_layer_costs_one_bit_by_one_bit_on_the_meta_device(operator):
    network = nn.Sequential(BinaryConv2d(4, 6, 3, operator, padding=1, output_size=(8, 8)))
    assert count_cost(network, (4, 8, 8)).macs == {(1, 1): 8 * 8 * 9 * 4 * 6}


def test_latent_weights_can_be_clamped():
    network = nn.Sequential(BinaryLinear(4, 4, "bnn"), nn.Linear(4, 4))
    for layer in network:
        with torch.no_grad():
            layer.weight.mul_(100)
    clamp_latent_weights(network)
    assert network[0].weight.abs().max() <= 1 < network[1].weight.abs().max()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BinaryConv2d(2, 2, 3, "birael"), "did you mean 'bireal'"),
        (lambda: BinaryConv2d(2, 2, 3, "xnor++"), "output_size"),
        (lambda: BinaryConv2d(2, 2, 3, "xnor++", output_size=(3,)), "must hold 2 numbers"),
        (lambda: BinaryConv2d(2, 2, 3, padding="valid"), "'same'"),
        (lambda: BinaryConv2d(2, 2, 3, padding="same", dilation=2), "without dilation"),
        (lambda: BinaryLinear(1, 2, "recu"), "two weights"),
        (
            lambda: BinaryLinear(4, 2, OPERATORS["xnor"].replace(input_scale="map")),
            "for convolutions",
        ),
        (lambda: BinaryLinear(1, 2, "biper")(torch.ones(3, 1)), "no standard deviation"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
