"""An electrospun oil sorbent: a mat of fibres that takes up oil, not water, and does not tear.

Seven settings of the electrospinning, three properties to maximize: the water contact angle, the
oil absorption capacity, and the mechanical strength, each a quadratic polynomial of the settings
that was fitted to experiments. Settings V1 and V5 are shares in [0, 1]; the others are the levels
at which experiments were made, and enter divided by the largest.

    y = c0 + sum_i b_i V_i + sum_{i<j} c_ij V_i V_j + sum_i d_i V_i^2

The reference point (125.3865, 57.8292, -43.2665) is that of the reference study. The largest
hypervolume known is that of all levels with V1 and V5 on a grid of 161 x 161 where the front is;
the study's own, 1,279,774.75, is too small.

Source: Wang et al. 2020, J. Mater. Chem. A 8; as in Li, Rudner and Wilson 2024, ICLR, arXiv
2305.20028.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from bo_surrogates.config import Config
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Ordered, Parameter, Space
from problems.base import Problem

LEVELS = {
    2: (0.7, 1.0, 1.4, 1.7, 2.0),
    3: (12.0, 15.0, 18.0, 21.0, 24.0),
    4: (0.12, 0.135, 0.15, 0.165, 0.18),
    6: (16.0, 20.0, 26.0, 28.0),
    7: (0.41, 0.6, 0.84, 1.32),
}
ORDER = (1, 5, 2, 3, 4, 6, 7)  # of the parameters: shares first
MAX_HYPERVOLUME = 1_489_446.6
# Constant; linear 1..7; products 12, 13, ..., 17, 23, ..., 67; squares by setting.
CONTACT_ANGLE = (
    -197.0928,
    (-78.3309, 98.6355, 300.0701, 89.8360, 208.2343, 332.9341, 135.6621),
    (-11.0715, 201.8934, 17.1270, 2.5198, -109.3922, 30.1607, -46.1790, 19.2888, -102.9493,
     -19.1245, 53.6297, -73.0649, -37.7181, -219.1268, -55.3704, 3.8778, -6.9252, -105.1650,
     -34.3181, -36.3892, -82.3222),
    {1: -16.7536, 2: -45.6507, 3: -91.4134, 5: -76.8701},
)  # fmt: skip
CAPACITY = (
    -212.8531,
    (245.7998, -127.3395, 305.8461, 638.1605, 301.2118, -451.3796, -115.5485),
    (42.8351, 262.3775, -103.5274, -196.1568, -394.7975, -176.3341, 74.8291, 4.1557, -133.8683,
     65.8711, -42.6911, -323.9363, -107.3983, -323.2353, 46.9172, -144.4199, 272.3729, 49.0799,
     318.4706, -236.2498, 252.4848),
    {4: -286.0182, 6: 393.5992},
)  # fmt: skip
STRENGTH = (
    7.7696,
    (15.4344, -10.6190, -17.9367, 17.1385, 2.5026, -24.3010, 10.6058),
    (-1.2041, -37.2207, -3.2265, 7.3121, 52.3994, 9.7485, -15.9371, -1.1706, -2.6297, 7.0225,
     -1.4938, 30.2786, 14.5061, 48.5021, -11.4857, -3.1381, -14.9747, 4.5204, -17.6907, -19.2489,
     -9.8219),
    {1: -18.7356, 2: 12.1928, 4: -17.5460, 5: 5.4997, 6: -26.2718},
)  # fmt: skip


class OilSorbent(Problem):
    """See the module's docstring; keywords as for `Problem`."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        parameters: list[Parameter] = [
            Ordered(f"V{i}", LEVELS[i]) if i in LEVELS else Float(f"V{i}", 0.0, 1.0) for i in ORDER
        ]
        super().__init__(
            Space(parameters),
            [
                Objective("contact_angle", "maximize", reference=125.3865, unit="°"),
                Objective("oil_capacity", "maximize", reference=57.8292, unit="g/g"),
                Objective("strength", "maximize", reference=-43.2665),
            ],
            config=config,
            max_hypervolume=MAX_HYPERVOLUME,
            noise_std=noise_std,
            negate=negate,
        )

    def _true_metrics(self, X: Tensor) -> Tensor:
        columns: dict[int, Tensor] = {}
        for i, x in zip(ORDER, X.unbind(dim=-1), strict=True):
            if i in LEVELS:
                levels = torch.tensor(LEVELS[i]).to(X)
                x = (levels / levels.max())[x.long()]
            columns[i] = x
        V = torch.stack([columns[i] for i in range(1, 8)], dim=-1)
        return torch.stack([_quadratic(V, *c) for c in (CONTACT_ANGLE, CAPACITY, STRENGTH)], dim=-1)


def _quadratic(
    V: Tensor,
    constant: float,
    linear: Sequence[float],
    products: Sequence[float],
    squares: dict[int, float],
) -> Tensor:
    """The polynomial at `... x 7` settings, `...`."""
    matrix = torch.zeros(7, 7).to(V)
    for (i, j), c in zip(combinations(range(7), 2), products, strict=True):
        matrix[i, j] = c
    for i, c in squares.items():
        matrix[i - 1, i - 1] = c
    return constant + V @ torch.tensor(linear).to(V) + ((V @ matrix) * V).sum(dim=-1)
