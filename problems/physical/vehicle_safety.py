"""A car's front in a crash: light, gentle to its passengers, and not pushed in.

The thicknesses of five reinforced members around the front; mass, acceleration in a full frontal
crash, and intrusion of the toe board in an offset one, each a polynomial fitted to crash
simulations and all minimized.

Source: Liao et al. 2008, Struct. Multidisc. Optim. 35; in Tanabe and Ishibuchi 2020, Appl. Soft
Comput. 89 (RE3-5-4); formulas, reference point and largest known hypervolume from BoTorch.
"""

from __future__ import annotations

from collections.abc import Sequence

from botorch.test_functions.multi_objective import VehicleSafety as BoTorchVehicleSafety

from bo_surrogates.config import Config
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
from problems.botorch_adapter import BoTorchProblem


class VehicleSafety(BoTorchProblem):
    """See the module's docstring; keywords as for `Problem`."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        super().__init__(
            BoTorchVehicleSafety(),
            Space([Float(f"thickness_{i}", 1.0, 3.0, unit="mm") for i in range(1, 6)]),
            [
                Objective("mass", reference=1864.72022, unit="kg"),
                Objective("acceleration", reference=11.81993945, unit="m/s²"),
                Objective("intrusion", reference=0.2903999384, unit="m"),
            ],
            config=config,
            max_hypervolume=246.81607081187002,
            noise_std=noise_std,
            negate=negate,
        )
