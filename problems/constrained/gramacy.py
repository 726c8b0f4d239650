"""Gramacy's problem: a linear objective, and a constraint that makes three separate valleys.

Minimize x1 + x2 on [0, 1]^2 subject to

    1.5 - x1 - 2 x2 - sin(2 pi (x1^2 - 2 x2)) / 2 <= 0    and    x1^2 + x2^2 <= 1.5.

The first constraint is active at the minimum, where Lagrange's conditions give
x = (0.195123, 0.404665).

Source: Gramacy et al. 2016, Technometrics 58, equation 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from botorch.test_functions.synthetic import ConstrainedGramacy

from bo_surrogates.config import Config
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
from problems.base import Optimum
from problems.botorch_adapter import BoTorchProblem


class Gramacy(BoTorchProblem):
    """See the module's docstring; keywords as for `Problem`."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        super().__init__(
            ConstrainedGramacy(),
            Space([Float("x1", 0.0, 1.0), Float("x2", 0.0, 1.0)]),
            [Objective("sum")],
            slacks=("wave_slack", "circle_slack"),
            config=config,
            optimum=Optimum(
                0.5997880520100676,
                ((0.1951226834720717, 0.40466536853799584),),
                "Lagrange's conditions",
            ),
            noise_std=noise_std,
            negate=negate,
        )
