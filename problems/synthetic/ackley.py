"""Ackley's function with its optimum off the centre of the box.

f(x) = -20 exp(-0.2 sqrt(mean_j z_j^2)) - exp(mean_j cos(2 pi z_j)) + 20 + e, z = x - x_opt, on
[-32.768, 32.768]^d, minimized; f(x_opt) = 0.

The classical x_opt = 0 is the centre of the box, which favours methods that try the centre first
or are drawn to it. Here each coordinate of x_opt is uniform on the inner four fifths of the box,
drawn from `shift_seed`.

Source: Ackley 1987, A Connectionist Machine for Genetic Hillclimbing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from botorch.test_functions.synthetic import Ackley as BoTorchAckley
from torch import Tensor

from bo_surrogates.config import Config, flag, integer
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
from problems.base import Optimum, Problem

HALF_WIDTH = 32.768
SHIFT_RANGE = 0.8  # of the half width


@dataclass(frozen=True)
class AckleyConfig(Config):
    """Options of `ackley`.

    Attributes:
        dim: Number of inputs.
        shifted: Whether the optimum is moved off the centre.
        shift_seed: Where to.
    """

    dim: int = integer(10, 1, 10_000)
    shifted: bool = flag(True)
    shift_seed: int = integer(0, 0, 2**31 - 1)


class Ackley(Problem):
    """See the module's docstring; keywords as for `Problem`."""

    config_class: ClassVar[type[Config]] = AckleyConfig
    shift: Tensor

    def __init__(
        self,
        config: AckleyConfig | None = None,
        *,
        noise_std: float | None = None,
        negate: bool = False,
    ) -> None:
        config = config or AckleyConfig()
        shift = torch.zeros(config.dim, dtype=torch.float64)
        if config.shifted:
            generator = torch.Generator().manual_seed(config.shift_seed)
            unit = torch.rand(config.dim, generator=generator, dtype=torch.float64)
            shift = SHIFT_RANGE * HALF_WIDTH * (2 * unit - 1)
        super().__init__(
            Space([Float(f"x{j + 1}", -HALF_WIDTH, HALF_WIDTH) for j in range(config.dim)]),
            [Objective("ackley")],
            config=config,
            optimum=Optimum(0.0, (tuple(shift.tolist()),), "closed form"),
            noise_std=noise_std,
            negate=negate,
        )
        self.register_buffer("shift", shift)
        # z reaches further than x.
        self._function = BoTorchAckley(
            config.dim, bounds=[(-2 * HALF_WIDTH, 2 * HALF_WIDTH)] * config.dim
        )

    def _true_metrics(self, X: Tensor) -> Tensor:
        return self._function(X - self.shift.to(X)).unsqueeze(-1)
