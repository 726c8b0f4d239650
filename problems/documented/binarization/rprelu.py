"""RPReLU: a PReLU whose input and output are shifted per channel.

    y = PReLU(x - shift_in) + shift_out

ReActNet's activation. Source: Liu et al. 2020, ReActNet, ECCV, arXiv 2003.03488, equation 5.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class RPReLU(nn.Module):
    """See the module's docstring.

    Args:
        channels: Channels of the input.
        slope: Below the shift, at the start.
        spatial_dims: Dimensions of the input after the channels.
    """

    def __init__(self, channels: int, slope: float = 0.25, spatial_dims: int = 2) -> None:
        super().__init__()
        shape = (channels, *[1] * spatial_dims)
        self.shift_in = nn.Parameter(torch.zeros(shape))
        self.shift_out = nn.Parameter(torch.zeros(shape))
        self.weight = nn.Parameter(torch.full((channels,), slope))

    def forward(self, x: Tensor) -> Tensor:
        """`n x channels x ...`, elementwise."""
        return functional.prelu(x - self.shift_in, self.weight) + self.shift_out

    def elementwise_ops(self, output: Tensor) -> int:
        """Two additions, one multiplication."""
        return 3 * output.numel()
