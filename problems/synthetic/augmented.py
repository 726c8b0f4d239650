"""Branin's and Hartmann's function with a fidelity: cheap evaluations of a distorted function.

The fidelity s in [0, 1] changes one constant, which has its own value at the target s = 1; so the
values at the target, and their optimum, are those of the plain functions.

    augmented_branin: the coefficient 5.1/(4 pi^2) of x1^2 is less by 0.1 (1 - s);
    augmented_hartmann6: the first of the four weights alpha is less by 0.1 (1 - s).

An evaluation costs `fixed_cost + s` in a unit of its own: by default 1.1 at the target and 0.1 at
the lowest fidelity.

Source: Wu et al. 2019, UAI, arXiv 1903.04703, section 5.1, in BoTorch's form (`AugmentedBranin`,
`AugmentedHartmann`); with Branin's exact coefficients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bo_surrogates.config import Config, real
from bo_surrogates.fidelity import FidelityConfig
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
from problems.base import Optimum, Problem
from problems.synthetic.hartmann import ALPHA, OPTIMAL_VALUE, OPTIMIZER, A, P

DISTORTION = 0.1


@dataclass(frozen=True)
class AugmentedConfig(Config):
    """Options of both functions.

    Attributes:
        fixed_cost: Cost of every evaluation beside that of its fidelity.
    """

    fixed_cost: float = real(0.1, 1e-6, 1e6, log=True)


class AugmentedBranin(Problem):
    """See the module's docstring; keywords as for `Problem`."""

    config_class: ClassVar[type[Config]] = AugmentedConfig

    def __init__(
        self,
        config: AugmentedConfig | None = None,
        *,
        noise_std: float | None = None,
        negate: bool = False,
    ) -> None:
        config = config or AugmentedConfig()
        super().__init__(
            Space([Float("x1", -5.0, 10.0), Float("x2", 0.0, 15.0), _fidelity()]),
            [Objective("branin")],
            config=config,
            optimum=Optimum(
                5 / (4 * math.pi),
                ((-math.pi, 12.275, 1.0), (math.pi, 2.275, 1.0), (3 * math.pi, 2.475, 1.0)),
                "closed form",
            ),
            fidelity=FidelityConfig(fixed_cost=config.fixed_cost),
            noise_std=noise_std,
            negate=negate,
        )

    def _true_metrics(self, X: Tensor) -> Tensor:
        x1, x2, s = X[..., 0], X[..., 1], X[..., 2]
        b = 5.1 / (4 * math.pi**2) - DISTORTION * (1 - s)
        square = (x2 - b * x1.square() + 5 / math.pi * x1 - 6).square()
        return (square + 10 * (1 - 1 / (8 * math.pi)) * x1.cos() + 10).unsqueeze(-1)


class AugmentedHartmann6(Problem):
    """See the module's docstring; keywords as for `Problem`."""

    config_class: ClassVar[type[Config]] = AugmentedConfig

    def __init__(
        self,
        config: AugmentedConfig | None = None,
        *,
        noise_std: float | None = None,
        negate: bool = False,
    ) -> None:
        config = config or AugmentedConfig()
        super().__init__(
            Space([*(Float(f"x{j}", 0.0, 1.0) for j in range(1, 7)), _fidelity()]),
            [Objective("hartmann6")],
            config=config,
            optimum=Optimum(
                OPTIMAL_VALUE,
                ((*OPTIMIZER, 1.0),),
                "Dixon and Szego 1978, refined by Newton's method to double precision",
            ),
            fidelity=FidelityConfig(fixed_cost=config.fixed_cost),
            noise_std=noise_std,
            negate=negate,
        )

    def _true_metrics(self, X: Tensor) -> Tensor:
        alpha, a, p = (torch.tensor(t, dtype=torch.float64).to(X) for t in (ALPHA, A, P))
        x, s = X[..., :6], X[..., 6]
        humps = (-(a * (x.unsqueeze(-2) - p).square()).sum(dim=-1)).exp()
        distortion = DISTORTION * (1 - s) * humps[..., 0]
        return (distortion - (alpha * humps).sum(dim=-1)).unsqueeze(-1)


def _fidelity() -> Float:
    return Float("fidelity", 0.0, 1.0, fidelity=True)
