"""PolyDraw: a sum of products of four inputs each, in many dimensions.

f(x) = sum_{j<m} prod_{r<4} (x_{j + r m} - c_{j + r m}) on [0, 1]^d with m = d / 4, maximized; c is
drawn once, from the standard normal distribution by `coefficient_seed`. Each input belongs to one
product, so the problem falls apart into m problems of four inputs (whose inputs are m apart).

A product is linear in each of its inputs, so its maximum over the box is at a corner, and the
exact optimum is found by looking at the sixteen corners of each product.

Source: the high-dimensional problem of Li, Rudner and Wilson 2024, ICLR, arXiv 2305.20028.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bo_surrogates.config import Config, integer
from bo_surrogates.errors import InputError
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
from problems.base import Optimum, Problem

DEGREE = 4  # inputs a product


@dataclass(frozen=True)
class PolyDrawConfig(Config):
    """Options of `poly_draw`.

    Attributes:
        dim: Number of inputs, a multiple of 4.
        coefficient_seed: Of the draw of c.
    """

    dim: int = integer(200, DEGREE, 100_000)
    coefficient_seed: int = integer(2, 0, 2**31 - 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim % DEGREE:
            raise InputError(f"PolyDrawConfig.dim must be a multiple of {DEGREE}, got {self.dim}")


class PolyDraw(Problem):
    """See the module's docstring; keywords as for `Problem`."""

    config_class: ClassVar[type[Config]] = PolyDrawConfig
    coefficients: Tensor  # d

    def __init__(
        self,
        config: PolyDrawConfig | None = None,
        *,
        noise_std: float | None = None,
        negate: bool = False,
    ) -> None:
        config = config or PolyDrawConfig()
        generator = torch.Generator().manual_seed(config.coefficient_seed)
        c = torch.randn(config.dim, generator=generator, dtype=torch.float64)
        value, point = best_corner(c)
        super().__init__(
            Space([Float(f"x{j + 1}", 0.0, 1.0) for j in range(config.dim)]),
            [Objective("polynomial", "maximize")],
            config=config,
            optimum=Optimum(value, (tuple(point.tolist()),), "the corners of each product"),
            noise_std=noise_std,
            negate=negate,
        )
        self.register_buffer("coefficients", c)

    def _true_metrics(self, X: Tensor) -> Tensor:
        return polynomial(X, self.coefficients.to(X)).unsqueeze(-1)


def polynomial(X: Tensor, coefficients: Tensor) -> Tensor:
    """`... x d` points and `d` coefficients to `...` values."""
    factors = (X - coefficients).unflatten(-1, (DEGREE, -1))  # ... x 4 x m
    return factors.prod(dim=-2).sum(dim=-1)


def best_corner(coefficients: Tensor) -> tuple[float, Tensor]:
    """The largest value on the unit cube and the corner where it is, from `d` coefficients."""
    c = coefficients.unflatten(-1, (DEGREE, -1))  # 4 x m
    corners = torch.tensor(list(itertools.product((0.0, 1.0), repeat=DEGREE))).to(c)  # 16 x 4
    values, best = (corners.unsqueeze(-1) - c).prod(dim=1).max(dim=0)  # m
    return values.sum().item(), corners[best].T.reshape(-1)
