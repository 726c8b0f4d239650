"""Functions that do not behave alike everywhere: a length scale that changes, steps, a cliff.

A stationary kernel has one length scale an input for the whole box; these tell surrogates apart
that learn where a function is rough from those that cannot.

**xiong** (1 input): f(x) = -(sin(40 (x - 0.85)^4) cos(2.5 (x - 0.95)) + (x - 0.9) / 2 + 1) / 2 on
[0, 1]: fast waves that die out towards the right. Minimized at x = 0.0265 in the roughest part.
Source: Xiong, Chen, Apley and Ding 2007, Int. J. Numer. Meth. Eng. 71, example 1.

**michalewicz** (d inputs): f(x) = -sum_j sin(x_j) sin^20(j x_j^2 / pi) on [0, pi]^d: flat but for
narrow valleys, ever more of them with j. It is a sum over inputs, so its minimum is one of d
one-dimensional ones, each found to machine precision here.
Source: Michalewicz 1992, Genetic Algorithms + Data Structures = Evolution Programs.

**cliff** (d inputs): a plane cuts [0, 1]^d obliquely. With s = mean_j x_j, on its lower side
(s <= 0.6) a smooth bowl f(x) = 4 |x - a|^2 / d, a = 0.45 in odd inputs and 0.6 in even ones; beyond
it a plateau a full unit higher with ripples, f(x) = 1 + (1 + sin(12 pi s)) / 10. A step at a
threshold that no input has by itself, as where a phase changes or a reaction runs away. Minimum
f(a) = 0, next to the cliff.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from bo_surrogates.config import Config, integer
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
from problems.base import Optimum, Problem

EXPONENT = 10  # Michalewicz's m: sin^(2 m)
THRESHOLD, LOW, HIGH = 0.6, 0.45, 0.6  # of `cliff`


class Xiong(Problem):
    """See the module's docstring; keywords as for `Problem`."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        noise_std: float | None = None,
        negate: bool = False,
    ) -> None:
        point, value = _minimum(_xiong, 0.0, 1.0)
        super().__init__(
            Space([Float("x", 0.0, 1.0)]),
            [Objective("xiong")],
            config=config,
            optimum=Optimum(value, ((point,),), "one-dimensional search"),
            noise_std=noise_std,
            negate=negate,
        )

    def _true_metrics(self, X: Tensor) -> Tensor:
        return _xiong(X)


def _xiong(x: Tensor) -> Tensor:
    waves = (40 * (x - 0.85).pow(4)).sin() * (2.5 * (x - 0.95)).cos()
    return -0.5 * (waves + 0.5 * (x - 0.9) + 1)


@dataclass(frozen=True)
class MichalewiczConfig(Config):
    """Options of `michalewicz`.

    Attributes:
        dim: Number of inputs.
    """

    dim: int = integer(5, 1, 1000)


class Michalewicz(Problem):
    """See the module's docstring; keywords as for `Problem`."""

    config_class: ClassVar[type[Config]] = MichalewiczConfig

    def __init__(
        self,
        config: MichalewiczConfig | None = None,
        *,
        noise_std: float | None = None,
        negate: bool = False,
    ) -> None:
        config = config or MichalewiczConfig()
        minima = [
            _minimum(partial(_michalewicz, j=float(j)), 0.0, math.pi)
            for j in range(1, config.dim + 1)
        ]
        super().__init__(
            Space([Float(f"x{j + 1}", 0.0, math.pi) for j in range(config.dim)]),
            [Objective("michalewicz")],
            config=config,
            optimum=Optimum(
                sum(value for _, value in minima),
                (tuple(point for point, _ in minima),),
                "a one-dimensional search for each input",
            ),
            noise_std=noise_std,
            negate=negate,
        )

    def _true_metrics(self, X: Tensor) -> Tensor:
        j = torch.arange(1, self.dim + 1).to(X)
        return _michalewicz(X, j).sum(dim=-1, keepdim=True)


def _michalewicz(x: Tensor, j: Tensor | float) -> Tensor:
    return -x.sin() * (j * x.square() / math.pi).sin().pow(2 * EXPONENT)


@dataclass(frozen=True)
class CliffConfig(Config):
    """Options of `cliff`.

    Attributes:
        dim: Number of inputs.
    """

    dim: int = integer(4, 2, 1000)


class Cliff(Problem):
    """See the module's docstring; keywords as for `Problem`."""

    config_class: ClassVar[type[Config]] = CliffConfig

    def __init__(
        self,
        config: CliffConfig | None = None,
        *,
        noise_std: float | None = None,
        negate: bool = False,
    ) -> None:
        config = config or CliffConfig()
        self._best = tuple(LOW if j % 2 == 0 else HIGH for j in range(config.dim))
        super().__init__(
            Space([Float(f"x{j + 1}", 0.0, 1.0) for j in range(config.dim)]),
            [Objective("cliff")],
            config=config,
            optimum=Optimum(0.0, (self._best,), "closed form"),
            noise_std=noise_std,
            negate=negate,
        )

    def _true_metrics(self, X: Tensor) -> Tensor:
        s = X.mean(dim=-1, keepdim=True)
        best = torch.tensor(self._best).to(X)
        bowl = 4 * (X - best).square().mean(dim=-1, keepdim=True)
        plateau = 1 + 0.1 * (1 + (12 * math.pi * s).sin())
        return torch.where(s <= THRESHOLD, bowl, plateau)


def _minimum(function: Callable[[Tensor], Tensor], low: float, high: float) -> tuple[float, float]:
    """Point and value of a one-dimensional minimum: a fine grid, then Brent's method."""
    grid = torch.linspace(low, high, 20_001, dtype=torch.float64)
    values = function(grid)
    best = int(values.argmin())
    around = grid[max(best - 1, 0)].item(), grid[min(best + 1, len(grid) - 1)].item()
    found = minimize_scalar(
        lambda x: function(torch.tensor(x, dtype=torch.float64)).item(),
        bounds=around,
        method="bounded",
        options={"xatol": 1e-13},
    )
    if found.fun < values[best]:
        return float(found.x), float(found.fun)
    return grid[best].item(), values[best].item()
