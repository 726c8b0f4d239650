"""Penicillin by fermentation: much of it, soon, and with little carbon dioxide.

Seven settings of a fed-batch fermenter, whose growth, substrate, product and volume are followed in
steps of one hour until the penicillin stops to grow, the volume or the substrate runs out (at most
2500 h). The simulator is BoTorch's.

Source: Liang and Lai 2021, Winter Simulation Conference, arXiv 2109.02762, after Birol, Ündey and
Çinar 2002, Comput. Chem. Eng. 26; reference point and largest known hypervolume from BoTorch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from botorch.test_functions.multi_objective import Penicillin as BoTorchPenicillin
from torch import Tensor

from bo_surrogates.config import Config
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
from problems.botorch_adapter import BoTorchProblem


class Penicillin(BoTorchProblem):
    """See the module's docstring; keywords as for `Problem`."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        super().__init__(
            BoTorchPenicillin(),
            Space(
                [
                    Float("culture_volume", 60.0, 120.0, unit="L"),
                    Float("biomass", 0.05, 18.0, unit="g/L"),
                    Float("temperature", 293.0, 303.0, unit="K"),
                    Float("glucose", 0.05, 18.0, unit="g/L"),
                    Float("feed_rate", 0.01, 0.5, unit="L/h"),
                    Float("feed_concentration", 500.0, 700.0, unit="g/L"),
                    Float("pH", 5.0, 6.5),
                ]
            ),
            [
                Objective("penicillin", "maximize", reference=-25.935, unit="g/L"),
                Objective("carbon_dioxide", "minimize", reference=57.612),
                Objective("time", "minimize", reference=935.5, unit="h"),
            ],
            config=config,
            max_hypervolume=2_183_455.909507436,
            noise_std=noise_std,
            negate=negate,
        )

    def _true_metrics(self, X: Tensor) -> Tensor:
        # BoTorch gives minus the penicillin.
        return super()._true_metrics(X) * torch.tensor([-1.0, 1.0, 1.0]).to(X)
