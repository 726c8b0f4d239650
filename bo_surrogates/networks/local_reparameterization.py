"""Networks with independent Gaussian weights, sampled at the sums into the units.

Where the weights of a layer are independent, w_ij ~ N(m_ij, s_ij^2), the sum into unit j for an
input h is Gaussian, with mean sum_i h_i m_ij and variance sum_i h_i^2 s_ij^2, and the sums into
different units are independent. Drawing the sums in the place of the weights (Kingma, Salimans and
Welling 2015, arXiv 1506.02557, section 2.3) gives every input noise of its own: the gradient of a
sum over inputs has a variance that falls with their number, at two matrix products a layer.

Values at different inputs are no function's: this is for training. Predictions draw weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bo_surrogates.networks import ACTIVATIONS, BatchedMLP

SMALLEST_VARIANCE = 1e-8  # of a sum: the square root has no gradient at zero


def sampled_forward(
    network: BatchedMLP, mean: Tensor, std: Tensor, X: Tensor, generator: torch.Generator
) -> Tensor:
    """Outputs of K networks at common inputs, with fresh noise for each input and unit.

    Args:
        network: Shape of the networks.
        mean: `K x P` means of weights and biases.
        std: `K x P` standard deviations, >= 0.
        X: `n x d` inputs.
        generator: Source of the noise; it is advanced.

    Returns:
        `K x n x m` outputs, differentiable in `mean` and `std`.
    """
    activation = ACTIVATIONS[network.activation]
    means, variances = network.unpack(mean), network.unpack(std.square())
    widths = [fan_out for _, fan_out in network.fan]
    noise = torch.randn(
        len(mean), len(X), sum(widths), generator=generator, dtype=X.dtype,
        device=generator.device,
    )  # fmt: skip
    h = X.expand(len(mean), -1, -1)
    for layer, (m, v, e) in enumerate(
        zip(means, variances, noise.to(X.device).split(widths, dim=-1), strict=True)
    ):
        if layer > 0:
            h = activation(h)
        variance = torch.baddbmm(v.bias, h.square(), v.weight)
        h = torch.baddbmm(m.bias, h, m.weight) + (variance + SMALLEST_VARIANCE).sqrt() * e
    return h
