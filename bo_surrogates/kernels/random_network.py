"""Features of wide random networks, which stand in for a kernel where one needs functions.

Finite networks with the weight distribution of the infinite one give features psi with
psi(x) . psi(x') close to a kernel k(x, x'); a Gaussian weight on each makes a draw from (almost)
the prior. With one hidden layer the expectation over networks is k exactly; each further layer
adds a bias of order 1 / width.

For the NNGP kernel the features are the last hidden layer's units. The tangent kernel is a sum
over the layers of weights,

    T(x, x') = K(x, x') + sum_{l <= L} E[delta^l . delta^l'] K^l(x, x'),

delta^l = df/dD^l being the gradient at layer l, and K^l the covariance of D^l. Here delta^l_i times
unit i of an independent copy of D^l (new weights, on the same layer below) has the expected
product of term l: one feature a unit and layer, in place of one a weight.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from botorch.sampling.pathwise.features.maps import FeatureMap
from torch import Size, Tensor

from bo_surrogates.kernels.infinite_width import NNGPKernel

HIDDEN_WIDTH = 512


class RandomNetworkFeatures(FeatureMap):
    """Last-layer features of several independent random networks, side by side.

    Several networks of moderate width instead of a wide one: the error of psi . psi' falls with
    the total number of features, the cost grows with their number times `HIDDEN_WIDTH`.

    Args:
        kernel: The kernel to be represented, with its present parameters.
        num_inputs: Not used: BoTorch passes it, and counts inputs before they are transformed.
        num_outputs: Number of features, see `count`.
    """

    def __init__(self, kernel: NNGPKernel, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.batch_shape = kernel.batch_shape
        self.num_outputs = num_outputs
        self.input_transform = None
        self.output_transform = None
        network = kernel.network
        networks = (num_outputs - 1) // (self.count(network.depth, 1) - 1)
        if networks < 1 or num_outputs != self.count(network.depth, networks):
            raise ValueError(
                f"num_outputs must be count({network.depth}, networks) for some number of "
                f"networks, e.g. {self.count(network.depth, 1)}, got {num_outputs}"
            )
        leading = Size((*kernel.batch_shape, networks))
        widths = [kernel.ard_num_dims] + [HIDDEN_WIDTH] * network.depth
        self.layers = [self._layer(leading, *sizes) for sizes in pairwise(widths)]

    @classmethod
    def count(cls, depth: int, networks: int) -> int:
        """Number of features of some networks of that depth; one is the output's bias."""
        return networks * HIDDEN_WIDTH + 1

    def _layer(self, leading: Size, fan_in: int, fan_out: int) -> tuple[Tensor, Tensor]:
        """Standard normal weights, divided by sqrt(fan_in), and biases."""
        options = {"dtype": torch.float64, "device": self.kernel.device}
        weight = torch.randn(*leading, fan_in, fan_out, **options) / fan_in**0.5
        return weight, torch.randn(*leading, 1, fan_out, **options)

    def forward(self, x: Tensor) -> Tensor:
        """psi(x).

        Args:
            x: `... x n x d` inputs in [0, 1]; leading dimensions broadcast against the kernel's
                batch shape.

        Returns:
            `... x n x num_outputs` features in the dtype of `x`.
        """
        kernel = self.kernel
        z = kernel.scaled_inputs(x)
        hidden = self._pre_activations(z)
        psi = torch.cat([*self._features(z, hidden), self._bias(z)], dim=-1)
        amplitude = kernel.amplitude(z)
        factor = kernel._factor() if amplitude is None else kernel.output_variance
        psi = psi if amplitude is None else psi * amplitude
        return (psi * factor.sqrt()).to(x.dtype)

    def _features(self, z: Tensor, hidden: list[Tensor]) -> list[Tensor]:
        """Features but for the output's bias, side by side."""
        return [self._last_layer(hidden)]

    def _last_layer(self, hidden: list[Tensor]) -> Tensor:
        network = self.kernel.network
        units = _flat(network.activation.activation(hidden[-1]))
        return units * (network.weight_variance / units.shape[-1]) ** 0.5

    def _bias(self, z: Tensor) -> Tensor:
        return self.kernel.bias_variance.sqrt().expand(*z.shape[:-1], 1)

    def _dense(self, layer: tuple[Tensor, Tensor], u: Tensor) -> Tensor:
        """D(u), for `... x networks x n x fan_in` inputs."""
        weight, bias = layer
        weight_scale = self.kernel.network.weight_variance**0.5
        return weight_scale * (u @ weight) + self.kernel.bias_variance.sqrt().unsqueeze(-3) * bias

    def _pre_activations(self, z: Tensor) -> list[Tensor]:
        """h^1, ..., h^L, `... x networks x n x HIDDEN_WIDTH` each."""
        network = self.kernel.network
        first, *further = self.layers
        hidden = [self._dense(first, z.unsqueeze(-3))]
        for layer, a in zip(further, network.shares(), strict=False):
            dense = self._dense(layer, network.activation.activation(hidden[-1]))
            hidden.append(dense if a == 0.0 else a**0.5 * hidden[-1] + (1.0 - a) ** 0.5 * dense)
        return hidden


class TangentFeatures(RandomNetworkFeatures):
    """Features of the tangent kernel, an `NTKKernel`; arguments as for `RandomNetworkFeatures`."""

    def __init__(self, kernel: NNGPKernel, num_inputs: int, num_outputs: int) -> None:
        super().__init__(kernel, num_inputs, num_outputs)
        leading = Size((*kernel.batch_shape, self.layers[0][0].shape[-3]))
        fan_ins = [weight.shape[-2] for weight, _ in self.layers]
        self.copies = [self._layer(leading, fan_in, HIDDEN_WIDTH) for fan_in in fan_ins]
        # Output weights of equal size: their fourth moment enters the features' variance.
        normal = torch.randn(*leading, 1, HIDDEN_WIDTH, dtype=torch.float64, device=kernel.device)
        self.output_signs = normal.sign()

    @classmethod
    def count(cls, depth: int, networks: int) -> int:
        """See `RandomNetworkFeatures.count`: one a unit of each layer, twice for the last."""
        return networks * HIDDEN_WIDTH * (depth + 1) + 1

    def _features(self, z: Tensor, hidden: list[Tensor]) -> list[Tensor]:
        network = self.kernel.network
        activation, sw = network.activation, network.weight_variance
        inputs = [z.unsqueeze(-3), *(activation.activation(h) for h in hidden[:-1])]
        features = [self._last_layer(hidden)]
        # df/dh^L; of each of M networks 1 / sqrt(M), for their features to be side by side.
        delta = activation.slope_of(hidden[-1]) * self.output_signs
        delta = delta * (sw / HIDDEN_WIDTH / self.output_signs.shape[-3]) ** 0.5
        shares = list(network.shares())
        for layer in reversed(range(network.depth)):
            # Of the layer's dense part; the first layer is dense throughout.
            a = shares[layer - 1] if layer else 0.0
            of_dense = (1.0 - a) ** 0.5 * delta
            features.append(_flat(of_dense * self._dense(self.copies[layer], inputs[layer])))
            if layer:
                below = sw**0.5 * (of_dense @ self.layers[layer][0].mT)
                delta = a**0.5 * delta + activation.slope_of(hidden[layer - 1]) * below
        return features


def _flat(units: Tensor) -> Tensor:
    """`... x networks x n x width` to `... x n x (networks * width)`."""
    return units.movedim(-3, -2).flatten(-2)
