"""BiPer: weights by a periodic function, trained in two stages.

Latent weights w become sin(f w) in the first stage and sgn(sin(f w)) in the second, which starts
from the first one's weights and must keep its frequency f. The surrogate of the sign is the sine of
the same period, so that f alone sets the gap between the two, the quantization error: for w from a
Laplace law of scale b, and s = b f,

    E sin^2(f w) = 2 s^2 / (1 + 4 s^2),
    g = E |sin(f w)| = s / (1 + s^2) coth(pi / (2 s)),
    E (sin(f w) - g sgn sin(f w))^2 = 2 s^2 / (1 + 4 s^2) - g^2,

which is bounded: at most 0.1029, at s = 0.955, and 1/2 - 4 / pi^2 as s grows. A penalty on the mean
of sin^2(f w) pulls the amplitude, and this error, down. (The distance |sin - sgn| without g grows.)

Inputs are divided by their standard deviation in a sample, in training, and signed with the
"poly" gradient; outputs have a learnt scale per channel.

Source: Vargas, Correa, Hinojosa and Arguello 2024, BiPer: Binary Neural Networks using a Periodic
Function, CVPR, arXiv 2404.01278.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bo_surrogates.errors import InputError
from problems.documented.binarization.layers import BinaryConv2d, BinaryLayer, BinaryLinear
from problems.documented.binarization.operators import OPERATORS
from problems.documented.binarization.weights import PeriodicWeights


class BiPerConv2d(BinaryConv2d):
    """A binary convolution of images with periodic weights, in the second stage until `set_stage`.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel_size: Of the kernel, one number or two.
        frequency: f, in radians per unit of weight, > 0.
        init_std_scale: Standard deviation of the initial weights, in those of Kaiming's normal law.
        input_estimator: Gradient of the inputs' sign, see `estimators`.
        input_bound: Of "clip" and "half_shift".
        stride: Step of the kernel.
        padding: Zeros on each side, or "same".
        dilation: Distance of the kernel's positions.
        groups: Groups of channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        frequency: float = 20.0,
        init_std_scale: float = 1.0,
        input_estimator: str = "poly",
        input_bound: float = 1.0,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            OPERATORS["biper"].replace(
                frequency=frequency, input_estimator=input_estimator, input_bound=input_bound
            ),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )
        init_periodic_(self.weight, init_std_scale)


class BiPerLinear(BinaryLinear):
    """A binary linear layer with periodic weights, in the second stage until `set_stage`.

    Args:
        in_features: Inputs.
        out_features: Outputs.
        frequency: f, in radians per unit of weight, > 0.
        init_std_scale: As for `BiPerConv2d`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        frequency: float = 20.0,
        init_std_scale: float = 1.0,
    ) -> None:
        super().__init__(in_features, out_features, OPERATORS["biper"].replace(frequency=frequency))
        init_periodic_(self.weight, init_std_scale)


def init_periodic_(weight: Tensor, std_scale: float = 1.0) -> None:
    """Kaiming's normal law, times a factor; only its product with the frequency matters."""
    nn.init.kaiming_normal_(weight)
    with torch.no_grad():
        weight.mul_(std_scale)


def periodic_layers(network: nn.Module) -> Iterator[tuple[Tensor, PeriodicWeights]]:
    """The latent weights of every layer with periodic weights, and how they are binarized."""
    for module in network.modules():
        if isinstance(module, BinaryLayer) and isinstance(module.weights, PeriodicWeights):
            yield module.weight, module.weights


def set_stage(network: nn.Module, stage: int) -> None:
    """Let all periodic weights be sines (stage 1) or signs (stage 2).

    Raises:
        InputError: Another stage.
    """
    if stage not in (1, 2):
        raise InputError(f"BiPer has stages 1 and 2, got {stage!r}")
    for _, periodic in periodic_layers(network):
        periodic.second_stage.fill_(stage == 2)


def amplitude_penalty(network: nn.Module) -> Tensor:
    """The sum over layers of the mean of sin^2(f w), to be added to the loss times some factor.

    A number with gradients, 0 for a network without periodic weights.
    """
    total = torch.zeros(())
    for weight, periodic in periodic_layers(network):
        total = total.to(weight) + periodic.threshold_input(weight).square().mean()
    return total


@torch.no_grad()
def quantization_errors(network: nn.Module) -> list[float]:
    """Of every layer with periodic weights: the mean of (sin - g sgn)^2, g that of |sin|."""
    errors = []
    for weight, periodic in periodic_layers(network):
        sine = periodic.threshold_input(weight)
        # The mean of (|sin| - g)^2.
        errors.append(sine.abs().var(correction=0).item())
    return errors


def laplace_quantization_error(s: float | Tensor) -> Tensor:
    """The closed form in the module's docstring.

    Args:
        s: Laplace scale of the weights times frequency, > 0.

    Returns:
        Float64, of the shape of s.
    """
    t = torch.as_tensor(s, dtype=torch.float64)
    amplitude = t / (1 + t**2) / torch.tanh(math.pi / (2 * t))
    return 2 * t**2 / (1 + 4 * t**2) - amplitude**2
