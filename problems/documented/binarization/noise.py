"""FDA's noise adaptation: a small network that disturbs the signs, less and less.

    sgn(v) + a_t (W2 ReLU(W1 v) + 0.1 sin(v)),   a_t = (1 + cos(pi (t + 1) / T)) / 20

at epoch t of T; it is there to help the first epochs. a_t is 0 in the last one, so that the
statistics of a batch normalization behind it are those of the network without noise.

Source: Xu et al. 2021, Learning Frequency Domain Approximation for Binary Neural Networks, NeurIPS,
arXiv 2103.00841; sizes and schedule as in BiBench, arXiv 2301.11233.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

LARGEST_AMPLITUDE = 0.1


class NoiseAdaptation(nn.Module):
    """See the module's docstring.

    Args:
        size: Numbers that are mixed.
        dim: Which dimension they are; they are mixed alike at every place of the others.
    """

    def __init__(self, size: int, dim: int = -1) -> None:
        super().__init__()
        hidden = size // 64 or max(size // 4, 1)
        self.down = nn.Linear(size, hidden, bias=False)
        self.up = nn.Linear(hidden, size, bias=False)
        self.dim = dim
        self.amplitude = LARGEST_AMPLITUDE

    def stored_bits(self) -> int:
        """None: it is not part of the trained network."""
        return 0

    def anneal(self, epoch: int, epochs: int) -> None:
        """Set a_t."""
        self.amplitude = LARGEST_AMPLITUDE / 2 * (1 + math.cos(math.pi * (epoch + 1) / epochs))

    def forward(self, v: Tensor) -> Tensor:
        """What is added to the signs of v, of its shape."""
        mixed = self.up(functional.relu(self.down(v.movedim(self.dim, -1)))).movedim(-1, self.dim)
        return self.amplitude * (mixed + 0.1 * v.sin())
