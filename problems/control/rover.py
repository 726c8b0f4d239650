"""Rover: a path of 30 waypoints through a field of obstacles.

From (0.05, 0.05) to (0.95, 0.95) in the unit square, past a grid of squares. Each waypoint is the
one before, moved towards the goal and aside by two of the inputs; a cubic spline joins them.
Minimize 20 times the length of the path that lies in obstacles: 0 for a path around them all.

Source: in the style of Wang et al. 2018, AISTATS, arXiv 1706.01445; BoTorch's `TrajectoryPlanning`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from botorch.test_functions.synthetic import TrajectoryPlanning

from bo_surrogates.config import Config, integer
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
from problems.base import Optimum
from problems.botorch_adapter import BoTorchProblem


@dataclass(frozen=True)
class RoverConfig(Config):
    """Options of `rover`.

    Attributes:
        waypoints: Two inputs each.
    """

    waypoints: int = integer(30, 2, 500)


class Rover(BoTorchProblem):
    """See the module's docstring; keywords as for `Problem`."""

    config_class: ClassVar[type[Config]] = RoverConfig

    def __init__(
        self,
        config: RoverConfig | None = None,
        *,
        noise_std: float | None = None,
        negate: bool = False,
    ) -> None:
        config = config or RoverConfig()
        names = [f"{axis}{k + 1}" for k in range(config.waypoints) for axis in "xy"]
        super().__init__(
            TrajectoryPlanning(dim=2 * config.waypoints),
            Space([Float(name, 0.0, 1.0) for name in names]),
            [Objective("cost")],
            config=config,
            optimum=Optimum(0.0, (), "no cost is negative", proven=False),
            noise_std=noise_std,
            negate=negate,
        )
