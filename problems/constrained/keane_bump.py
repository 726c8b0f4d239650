"""Keane's bump: many ridges, and the best point against a constraint.

Minimize -|sum_j cos^4 x_j - 2 prod_j cos^2 x_j| / sqrt(sum_j j x_j^2) on [0, 10]^d subject to
prod_j x_j >= 0.75 and sum_j x_j <= 7.5 d.

In two dimensions the product is active at the minimum, which leaves one dimension: -0.364980 at
(1.60086, 0.468498). For 10, 20, 30, 40 and 50 dimensions the best values that BoTorch lists are
given, without their points.

Source: Keane 1994, Artificial Intelligence in Engineering; values, Mishra 2007.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from botorch.test_functions.synthetic import KeaneBumpFunction

from bo_surrogates.config import Config, integer
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
from problems.base import Optimum
from problems.botorch_adapter import BoTorchProblem

IN_TWO_DIMENSIONS = Optimum(
    -0.3649797458706567,
    ((1.6008604339192454, 0.4684980552388575),),
    "the active constraint leaves one dimension",
)


@dataclass(frozen=True)
class KeaneBumpConfig(Config):
    """Options of `keane_bump`.

    Attributes:
        dim: Number of inputs.
    """

    dim: int = integer(2, 2, 1000)


class KeaneBump(BoTorchProblem):
    """See the module's docstring; keywords as for `Problem`."""

    config_class: ClassVar[type[Config]] = KeaneBumpConfig

    def __init__(
        self,
        config: KeaneBumpConfig | None = None,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        config = config or KeaneBumpConfig()
        best = KeaneBumpFunction._optimal_value_lookup.get(config.dim)
        optimum = None if best is None else Optimum(best, (), "Mishra 2007", proven=False)
        super().__init__(
            KeaneBumpFunction(dim=config.dim),
            Space([Float(f"x{j + 1}", 0.0, 10.0) for j in range(config.dim)]),
            [Objective("bump")],
            slacks=("product_slack", "sum_slack"),
            config=config,
            optimum=IN_TWO_DIMENSIONS if config.dim == 2 else optimum,
            noise_std=noise_std,
            negate=negate,
        )
