"""A function drawn from a Bayesian neural network's prior.

f(x) is the output of a network with `depth` hidden layers of `width` units on [0, 1]^d, whose
weights and biases are drawn once, by `weight_seed`, and it is maximized. The prior of a layer's
weights is N(0, weight_std^2), divided by the number of the layer's inputs where `fan_in` is set;
that of its biases N(0, bias_std^2).

The reference study's function has d = 400, two layers of 256 tanh units, and variance one for
every weight whatever the fan-in: with `fan_in=False` and the defaults otherwise this is a draw of
the same kind. Its maximum is not known. With several outputs each is an objective with the
reference value -2.

Source: Li, Rudner and Wilson 2024, ICLR, arXiv 2305.20028, "BNN draw".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from bo_surrogates.config import Config, choice, flag, integer, real
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
from problems.base import Problem

ACTIVATIONS = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "erf": torch.erf,
    "sin": torch.sin,
    "gelu": torch.nn.functional.gelu,
}
REFERENCE = -2.0


@dataclass(frozen=True)
class BNNDrawConfig(Config):
    """Options of `bnn_draw`.

    Attributes:
        dim: Number of inputs.
        outputs: Number of objectives.
        depth: Hidden layers.
        width: Units of each.
        activation: Of the hidden layers.
        weight_std: Standard deviation of a weight's prior (times the root of the fan-in if
            `fan_in`).
        bias_std: Standard deviation of a bias's prior.
        fan_in: Whether a weight's variance is divided by the number of its layer's inputs.
        weight_seed: Of the draw.
    """

    dim: int = integer(400, 1, 100_000)
    outputs: int = integer(1, 1, 100)
    depth: int = integer(2, 1, 20)
    width: int = integer(256, 1, 10_000)
    activation: str = choice("tanh", tuple(ACTIVATIONS))
    weight_std: float = real(1.0, 1e-6, 1e3)
    bias_std: float = real(1.0, 0.0, 1e3)
    fan_in: bool = flag(False)
    weight_seed: int = integer(2, 0, 2**31 - 1)


class BNNDraw(Problem):
    """See the module's docstring; keywords as for `Problem`."""

    config_class: ClassVar[type[Config]] = BNNDrawConfig

    def __init__(
        self,
        config: BNNDrawConfig | None = None,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        config = config or BNNDrawConfig()
        count = config.outputs
        objectives = [
            Objective(
                "output" if count == 1 else f"output_{k + 1}",
                "maximize",
                reference=None if count == 1 else REFERENCE,
            )
            for k in range(count)
        ]
        super().__init__(
            Space([Float(f"x{j + 1}", 0.0, 1.0) for j in range(config.dim)]),
            objectives,
            config=config,
            noise_std=noise_std,
            negate=negate,
        )
        generator = torch.Generator().manual_seed(config.weight_seed)
        sizes = [config.dim, *[config.width] * config.depth, count]
        for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
            std = config.weight_std / (math.sqrt(inputs) if config.fan_in else 1.0)
            draws = torch.randn(inputs + 1, outputs, generator=generator, dtype=torch.float64)
            self.register_buffer(f"weights_{layer}", std * draws[:-1])
            self.register_buffer(f"biases_{layer}", config.bias_std * draws[-1])

    def _true_metrics(self, X: Tensor) -> Tensor:
        activation = ACTIVATIONS[self.config.activation]  # type: ignore[attr-defined]
        depth: int = self.config.depth  # type: ignore[attr-defined]
        hidden = X
        for layer in range(depth + 1):
            weights, biases = (self.get_buffer(f"{w}_{layer}") for w in ("weights", "biases"))
            hidden = hidden @ weights.to(X) + biases.to(X)
            if layer < depth:
                hidden = activation(hidden)
        return hidden
