"""Rosenbrock's function: a long, curved, flat valley.

f(x) = sum_{j<d} (100 (x_{j+1} - x_j^2)^2 + (1 - x_j)^2) on [-5, 10]^d, minimized; f(1, ..., 1) = 0.
The optimum is not near the centre of the box, so it stays where it is.

Source: Rosenbrock 1960, Comput. J. 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from botorch.test_functions.synthetic import Rosenbrock as BoTorchRosenbrock

from bo_surrogates.config import Config, integer
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
from problems.base import Optimum
from problems.botorch_adapter import BoTorchProblem


@dataclass(frozen=True)
class RosenbrockConfig(Config):
    """Options of `rosenbrock`.

    Attributes:
        dim: Number of inputs.
    """

    dim: int = integer(4, 2, 10_000)


class Rosenbrock(BoTorchProblem):
    """See the module's docstring; keywords as for `Problem`."""

    config_class: ClassVar[type[Config]] = RosenbrockConfig

    def __init__(
        self,
        config: RosenbrockConfig | None = None,
        *,
        noise_std: float | None = None,
        negate: bool = False,
    ) -> None:
        config = config or RosenbrockConfig()
        super().__init__(
            BoTorchRosenbrock(dim=config.dim),
            Space([Float(f"x{j + 1}", -5.0, 10.0) for j in range(config.dim)]),
            [Objective("rosenbrock")],
            config=config,
            optimum=Optimum(0.0, ((1.0,) * config.dim,), "closed form"),
            noise_std=noise_std,
            negate=negate,
        )
