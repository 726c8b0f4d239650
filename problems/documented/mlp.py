"""A plain multilayer perceptron, not quantized: what is compressed after it was trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn


class MLP(nn.Sequential):
    """Linear layers with a ReLU after each but the last; images are flattened.

    Args:
        shape: Of one input.
        classes: Number of outputs.
        widths: Of the hidden layers.
    """

    def __init__(
        self, shape: Sequence[int], classes: int, widths: Sequence[int] = (64, 64)
    ) -> None:
        sizes = [math.prod(shape), *widths]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(*layers, nn.Linear(sizes[-1], classes))
