"""Hartmann's six-dimensional function.

f(x) = -sum_i alpha_i exp(-sum_j A_ij (x_j - P_ij)^2) on [0, 1]^6, minimized.

BoTorch's version keeps the constants in single precision (errors of 4e-8 in the value) and changes
its own dtype when evaluated, hence the formula here.

Source: Dixon and Szego 1978, Towards Global Optimisation 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bo_surrogates.config import Config
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
from problems.base import Optimum, Problem

ALPHA = (1.0, 1.2, 3.0, 3.2)
A = (
    (10.0, 3.0, 17.0, 3.5, 1.7, 8.0),
    (0.05, 10.0, 17.0, 0.1, 8.0, 14.0),
    (3.0, 3.5, 1.7, 10.0, 17.0, 8.0),
    (17.0, 8.0, 0.05, 10.0, 0.1, 14.0),
)
P = (
    (0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886),
    (0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991),
    (0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650),
    (0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381),
)
OPTIMAL_VALUE = -3.3223680114155148
OPTIMIZER = (
    0.20168951100670542,
    0.15001069182345797,
    0.47687397422189699,
    0.27533243049405607,
    0.31165161660011324,
    0.65730053406562031,
)


class Hartmann6(Problem):
    """See the module's docstring; keywords as for `Problem`."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        noise_std: float | None = None,
        negate: bool = False,
    ) -> None:
        super().__init__(
            Space([Float(f"x{j}", 0.0, 1.0) for j in range(1, 7)]),
            [Objective("hartmann6")],
            config=config,
            optimum=Optimum(
                OPTIMAL_VALUE,
                (OPTIMIZER,),
                "Dixon and Szego 1978, refined by Newton's method to double precision",
            ),
            noise_std=noise_std,
            negate=negate,
        )

    def _true_metrics(self, X: Tensor) -> Tensor:
        alpha, a, p = (torch.tensor(t, dtype=torch.float64).to(X) for t in (ALPHA, A, P))
        exponents = (a * (X.unsqueeze(-2) - p).square()).sum(dim=-1)
        return -(alpha * (-exponents).exp()).sum(dim=-1, keepdim=True)
