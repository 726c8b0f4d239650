"""Features of wide random networks, which stand in for an NNGP kernel where one needs functions.

The last hidden layer of a finite network with the NNGP's weight distribution gives features psi
with psi(x) . psi(x') close to k(x, x'); a Gaussian weight on each makes a draw from (almost) the
NNGP prior. With one hidden layer the expectation over networks is k exactly; each further layer
adds a bias of order 1 / width.
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
        kernel: The NNGP kernel to be represented, with its present parameters.
        num_inputs: Not used: BoTorch passes it, and counts inputs before they are transformed.
        num_outputs: Number of features: a multiple of `HIDDEN_WIDTH`, plus one for the output's
            bias.
    """

    def __init__(self, kernel: NNGPKernel, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.batch_shape = kernel.batch_shape
        self.num_outputs = num_outputs
        self.input_transform = None
        self.output_transform = None
        networks, remainder = divmod(num_outputs - 1, HIDDEN_WIDTH)
        if networks < 1 or remainder:
            raise ValueError(
                f"num_outputs must be a multiple of {HIDDEN_WIDTH} plus one, got {num_outputs}"
            )
        leading = Size((*kernel.batch_shape, networks))
        options = {"dtype": torch.float64, "device": kernel.device}
        widths = [kernel.ard_num_dims] + [HIDDEN_WIDTH] * kernel.depth
        self.weights = [
            torch.randn(*leading, fan_in, fan_out, **options) / fan_in**0.5
            for fan_in, fan_out in pairwise(widths)
        ]
        self.biases = [torch.randn(*leading, 1, width, **options) for width in widths[1:]]

    def forward(self, x: Tensor) -> Tensor:
        """psi(x).

        Args:
            x: `... x n x d` inputs in [0, 1]; leading dimensions broadcast against the kernel's
                batch shape.

        Returns:
            `... x n x num_outputs` features in the dtype of `x`.
        """
        kernel = self.kernel
        weight_scale = kernel.weight_variance**0.5
        bias_scale = kernel.bias_variance.sqrt().unsqueeze(-3)
        z = kernel.scaled_inputs(x)
        h = z.unsqueeze(-3)  # ... x networks x n x d
        for weight, bias in zip(self.weights, self.biases, strict=True):
            h = kernel.activation.activation(weight_scale * (h @ weight) + bias_scale * bias)
        features = h.movedim(-3, -2).flatten(-2)  # ... x n x (networks * width)
        features = features * (weight_scale * features.shape[-1] ** -0.5)
        constant = kernel.bias_variance.sqrt().expand(*features.shape[:-1], 1)
        psi = torch.cat([features, constant], dim=-1)
        if kernel.normalize:
            psi = psi * kernel.network_variance(z).rsqrt()
        return (psi * kernel.output_variance.sqrt()).to(x.dtype)
