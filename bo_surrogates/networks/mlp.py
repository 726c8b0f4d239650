"""Batched multilayer perceptrons: K networks of one shape, evaluated together.

The parameters of K networks are one flat tensor `theta` of shape `K x P`. Layer by layer it is
read, without copying, as weights `K x in x out` and biases `K x 1 x out`; a layer of all K networks
is then one batched matrix product. Everything here is a pure function of `theta`, so that an
optimizer, a sampler and a posterior can share it. Where `theta` needs no gradient, networks on the
CPU are evaluated by compiled code (`evaluation.py`).

Network with L hidden layers: h_0 = x, h_l = phi(h_{l-1} W_l + b_l), f(x) = h_L W_{L+1} + b_{L+1}.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from bo_surrogates.errors import InputError, did_you_mean
from bo_surrogates.networks.evaluation import can_evaluate, evaluate


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent as 2 / (1 + exp(-2x)) - 1.

    The identity with the logistic function is used because that is vectorized on the CPU: measured,
    it is three times as fast as `torch.tanh` in float64. Its error is absolute, about one unit of
    rounding of 1, where `torch.tanh`'s is relative; a sum over units cannot tell the two apart.
    """
    return torch.sigmoid(2.0 * x).mul(2.0).sub(1.0)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": tanh,
    "relu": torch.relu,
    "silu": functional.silu,
    "sine": torch.sin,
}


class Layer(NamedTuple):
    """One layer of K networks.

    Attributes:
        weight: `K x in x out`.
        bias: `K x 1 x out`.
    """

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class BatchedMLP:
    """The shape of a fully connected network; its parameters are arguments of its methods.

    Several outputs share all hidden layers.

    Attributes:
        inputs: Number of inputs, >= 1.
        outputs: Number of outputs, >= 1.
        width: Units in each hidden layer, >= 1.
        depth: Number of hidden layers, 1 to 4.
        activation: "tanh", "relu", "silu" or "sine".

    Raises:
        InputError: A value out of range or an unknown activation.
    """

    inputs: int
    outputs: int
    width: int = 64
    depth: int = 2
    activation: str = "tanh"

    def __post_init__(self) -> None:
        for name, most in (("inputs", None), ("outputs", None), ("width", None), ("depth", 4)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1 or (most is not None and value > most):
                limit = f"an integer from 1 to {most}" if most else "an integer of at least 1"
                raise InputError(f"BatchedMLP: {name} must be {limit}, got {value!r}")
        if self.activation not in ACTIVATIONS:
            raise InputError(
                f"BatchedMLP: unknown activation {self.activation!r}"
                f"{did_you_mean(self.activation, ACTIVATIONS)}"
            )

    @property
    def fan(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of each of the `depth + 1` layers."""
        widths = (self.inputs, *[self.width] * self.depth, self.outputs)
        return tuple(pairwise(widths))

    @property
    def num_parameters(self) -> int:
        """P, the number of weights and biases of one network."""
        return sum(fan_in * fan_out + fan_out for fan_in, fan_out in self.fan)

    def unpack(self, theta: Tensor) -> list[Layer]:
        """The layers of the networks with parameters `theta`, as views of it.

        Args:
            theta: `K x P`; of each layer first the weight, in row-major order, then the bias.

        Raises:
            InputError: `theta` has another shape.
        """
        if theta.ndim != 2 or theta.shape[-1] != self.num_parameters:
            raise InputError(
                f"network parameters must have shape K x {self.num_parameters}, "
                f"got {tuple(theta.shape)}"
            )
        sizes = [size for i, o in self.fan for size in (i * o, o)]
        # One split has one concatenation as its gradient; a slice a layer would have one full-size
        # addition a layer.
        parts = theta.split(sizes, dim=-1)
        return [
            Layer(weight.unflatten(-1, (fan_in, fan_out)), bias.unsqueeze(-2))
            for (fan_in, fan_out), weight, bias in zip(
                self.fan, parts[::2], parts[1::2], strict=True
            )
        ]

    def pack(self, layers: Sequence[Layer]) -> Tensor:
        """Inverse of `unpack`: one new `K x P` tensor."""
        return torch.cat([part.flatten(start_dim=-2) for layer in layers for part in layer], dim=-1)

    def scales(
        self,
        input_scale: float = 1.0,
        weight_scale: float = 1.0,
        bias_scale: float = 1.0,
        output_scale: float = 1.0,
    ) -> Tensor:
        """Standard deviations of a Gaussian prior that keeps its meaning at any width.

        A weight of a layer with `in` inputs has standard deviation scale / sqrt(in) (Neal 1996,
        section 2.1), so that the sum into a unit has a variance that does not grow with the width.

        Args:
            input_scale: Scale of the first layer's weights: how fast functions vary.
            weight_scale: Of the weights between hidden layers.
            bias_scale: Standard deviation of all biases of hidden units.
            output_scale: Scale of the last layer's weights and standard deviation of its biases:
                how large functions are.

        Returns:
            `P` positive numbers, float64, in the order of `theta`.
        """
        between = self.depth - 1
        return self.layer_scales(
            [input_scale, *[weight_scale] * between, output_scale],
            [*[bias_scale] * self.depth, output_scale],
        )

    def layer_scales(self, weights: Sequence[float], biases: Sequence[float]) -> Tensor:
        """Standard deviations of a Gaussian prior, layer by layer.

        Args:
            weights: Scale of the weights of each of the `depth + 1` layers; a weight of a layer
                with `in` inputs has standard deviation scale / sqrt(in).
            biases: Standard deviation of each layer's biases.

        Returns:
            As of `scales`.

        Raises:
            InputError: Not one number a layer, or one that is not positive.
        """
        for name, values in (("weights", weights), ("biases", biases)):
            if len(values) != self.depth + 1 or not all(0.0 < value < math.inf for value in values):
                raise InputError(
                    f"a network of {self.depth} hidden layers takes {self.depth + 1} positive "
                    f"scales of {name}, got {list(values)}"
                )
        parts = [
            torch.cat([torch.full((fan_in * fan_out,), weight / fan_in**0.5, dtype=torch.float64),
                       torch.full((fan_out,), bias, dtype=torch.float64)])
            for (fan_in, fan_out), weight, bias in zip(self.fan, weights, biases, strict=True)
        ]  # fmt: skip
        return torch.cat(parts)

    def draw(
        self, k: int, scales: Tensor, generator: torch.Generator, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Independent Gaussian parameters of k networks, mean 0.

        The draws are made in float64 on the generator's device: they are the same, up to rounding,
        for any dtype.

        Args:
            k: Number of networks.
            scales: `P` standard deviations, see `scales`.
            generator: Source of randomness; it is advanced.
            dtype: Of the result; that of `scales` by default.

        Returns:
            `k x P` on the device of `scales`.
        """
        standard = torch.randn(
            k,
            self.num_parameters,
            generator=generator,
            dtype=torch.float64,
            device=generator.device,
        )
        return (standard.to(scales.device) * scales.to(torch.float64)).to(dtype or scales.dtype)

    def forward(self, theta: Tensor, X: Tensor) -> Tensor:
        """Every network at the same inputs.

        Args:
            theta: `K x P` parameters.
            X: `batch_shape x n x d` inputs.

        Returns:
            `K x batch_shape x n x m` outputs.
        """
        flat = X.reshape(-1, X.shape[-1])
        if can_evaluate(self, theta, flat):
            values = evaluate(self, theta, flat)
        else:
            values = self.forward_by_torch(theta, flat.expand(len(theta), -1, -1))
        return values.unflatten(-2, X.shape[:-1])

    def forward_each(self, theta: Tensor, X: Tensor) -> Tensor:
        """Each network at its own inputs.

        Args:
            theta: `K x P` parameters.
            X: `K x n x d` inputs.

        Returns:
            `K x n x m` outputs.

        Raises:
            InputError: The shapes do not match.
        """
        if can_evaluate(self, theta, X):
            return evaluate(self, theta, X)
        return self.forward_by_torch(theta, X)

    def forward_by_torch(self, theta: Tensor, X: Tensor) -> Tensor:
        """`forward_each` by torch's operations: differentiable in all ways."""
        *hidden, output = self.unpack(theta)
        return torch.baddbmm(output.bias, self._features(hidden, X), output.weight)

    def features(self, theta: Tensor, X: Tensor) -> Tensor:
        """Each network's last hidden layer h_L at its own inputs.

        Args:
            theta: `K x P` parameters.
            X: `K x n x d` inputs.

        Returns:
            `K x n x width`.

        Raises:
            InputError: The shapes do not match.
        """
        return self._features(self.unpack(theta)[:-1], X)

    def _features(self, hidden: Sequence[Layer], X: Tensor) -> Tensor:
        k = len(hidden[0].weight)
        if X.ndim != 3 or X.shape[0] != k or X.shape[-1] != self.inputs:
            raise InputError(
                f"inputs must have shape {k} x n x {self.inputs}, got {tuple(X.shape)}"
            )
        activation = ACTIVATIONS[self.activation]
        h = X
        for weight, bias in hidden:
            h = activation(torch.baddbmm(bias, h, weight))
        return h
