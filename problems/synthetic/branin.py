"""Branin's function.

f(x1, x2) = (x2 - 5.1/(4 pi^2) x1^2 + 5/pi x1 - 6)^2 + 10 (1 - 1/(8 pi)) cos x1 + 10 on
[-5, 10] x [0, 15], minimized. At x1 = -pi, pi, 3 pi the cosine is -1 and x2 = 12.275, 2.275, 2.475
makes the square vanish, which leaves 5/(4 pi) = 0.397887...

Source: Dixon and Szego 1978, Towards Global Optimisation 2.
"""

from __future__ import annotations

import math

from botorch.test_functions.synthetic import Branin as BoTorchBranin
from torch import Tensor

from bo_surrogates.config import Config
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
from problems.base import Optimum, Problem


class Branin(Problem):
    """See the module's docstring; keywords as for `Problem`."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        noise_std: float | None = None,
        negate: bool = False,
    ) -> None:
        super().__init__(
            Space([Float("x1", -5.0, 10.0), Float("x2", 0.0, 15.0)]),
            [Objective("branin")],
            config=config,
            optimum=Optimum(
                5 / (4 * math.pi),
                ((-math.pi, 12.275), (math.pi, 2.275), (3 * math.pi, 2.475)),
                "closed form",
            ),
            noise_std=noise_std,
            negate=negate,
        )
        self._function = BoTorchBranin()

    def _true_metrics(self, X: Tensor) -> Tensor:
        return self._function(X).unsqueeze(-1)
