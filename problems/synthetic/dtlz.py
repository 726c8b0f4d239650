"""Two of the scalable problems of Deb, Thiele, Laumanns and Zitzler: DTLZ1 and DTLZ5.

On [0, 1]^d with m objectives, all minimized; the last k = d - m + 1 inputs enter through g >= 0
only, and the Pareto front is where g = 0.

**DTLZ1**: g = 100 (k + sum_i ((x_i - 1/2)^2 - cos(20 pi (x_i - 1/2)))), and the front is the
simplex sum_i f_i = 1/2, f >= 0. Reference point 400 in each objective, far beyond the front: what a
hypervolume says is mostly how far a method has come down g. The simplex cuts off the volume
(1/2)^m / m!, so the largest hypervolume is 400^m - (1/2)^m / m!. (BoTorch's `max_hv` subtracts
(1/2)^m.)

**DTLZ5**: g = sum_i (x_i - 1/2)^2; with three objectives the front is the curve
(cos t / sqrt 2, cos t / sqrt 2, sin t), t in [0, pi/2]. Reference point 10 in each. A point (a, b,
c) is dominated by the curve where c >= sqrt(1 - 2 min(a, b)^2) (or min(a, b) >= 1 / sqrt 2), so the
largest hypervolume is

    10^3 - 2 int_0^{1/sqrt 2} (10 - u) sqrt(1 - 2 u^2) du = 1000 - 20 pi / (4 sqrt 2) + 1/3.

Source: Deb et al. 2005, in Evolutionary Multiobjective Optimization; sizes and reference points as
in Li, Rudner and Wilson 2024, ICLR, arXiv 2305.20028.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from botorch.test_functions import multi_objective as botorch_functions

from bo_surrogates.config import Config, integer
from bo_surrogates.errors import InputError
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
from problems.botorch_adapter import BoTorchProblem


@dataclass(frozen=True)
class DTLZConfig(Config):
    """Options of the DTLZ problems.

    Attributes:
        dim: Number of inputs, at least the number of objectives.
        objectives: Their number, >= 2.
    """

    dim: int = integer(5, 2, 1000)
    objectives: int = integer(2, 2, 20)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim < self.objectives:
            raise InputError(
                f"{type(self).__name__}: dim ({self.dim}) must be at least objectives "
                f"({self.objectives})"
            )


@dataclass(frozen=True)
class DTLZ5Config(DTLZConfig):
    """Options of `dtlz5`, as for `DTLZConfig`."""

    dim: int = integer(20, 2, 1000)
    objectives: int = integer(3, 2, 20)


class _DTLZ(BoTorchProblem):
    function_class: ClassVar[type[botorch_functions.DTLZ]]
    reference: ClassVar[float]

    def __init__(
        self,
        config: DTLZConfig | None = None,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        options: Any = config or self.config_class()
        m = options.objectives
        super().__init__(
            self.function_class(dim=options.dim, num_objectives=m),
            Space([Float(f"x{j + 1}", 0.0, 1.0) for j in range(options.dim)]),
            [Objective(f"f{i + 1}", reference=self.reference) for i in range(m)],
            config=options,
            max_hypervolume=self.largest_hypervolume(m),
            noise_std=noise_std,
            negate=negate,
        )

    @classmethod
    @abstractmethod
    def largest_hypervolume(cls, objectives: int) -> float | None:
        """Of the true front, by the number of objectives; None if unknown."""


class DTLZ1(_DTLZ):
    """Linear front behind many local ones; see the module's docstring."""

    config_class: ClassVar[type[Config]] = DTLZConfig
    function_class = botorch_functions.DTLZ1
    reference = 400.0

    @classmethod
    def largest_hypervolume(cls, objectives: int) -> float:
        """See the module's docstring."""
        return float(cls.reference**objectives - 0.5**objectives / math.factorial(objectives))


class DTLZ5(_DTLZ):
    """A front that is a curve; see the module's docstring."""

    config_class: ClassVar[type[Config]] = DTLZ5Config
    function_class = botorch_functions.DTLZ5
    reference = 10.0

    @classmethod
    def largest_hypervolume(cls, objectives: int) -> float | None:
        """See the module's docstring; known for three objectives."""
        if objectives != 3:
            return None
        return 1000.0 - 20 * math.pi / (4 * math.sqrt(2)) + 1 / 3
