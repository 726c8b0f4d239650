"""Four classical multimodal functions, their optimum moved off the centre of the box.

Ackley, Griewank, Levy and Rastrigin have their optimum at or next to the centre of the box on which
they are customarily minimized, which favours methods that try the centre first or are drawn to it.
Here f(x) = f0(x - x_opt + z_opt), where z_opt is the optimum of the classical f0 and each
coordinate of x_opt is uniform on the inner four fifths of the box, drawn from `shift_seed`;
f(x_opt) = 0.

    Ackley     -20 exp(-0.2 sqrt(mean_j z_j^2)) - exp(mean_j cos(2 pi z_j)) + 20 + e,
               |x_j| <= 32.768, z_opt = 0
    Griewank   sum_j z_j^2 / 4000 - prod_j cos(z_j / sqrt(j)) + 1,  |x_j| <= 600, z_opt = 0
    Levy       sin^2(pi w_1) + sum_{j<d} (w_j - 1)^2 (1 + 10 sin^2(pi w_j + 1))
               + (w_d - 1)^2 (1 + sin^2(2 pi w_d)),  w = 1 + (z - 1) / 4,  |x_j| <= 10, z_opt = 1
    Rastrigin  10 d + sum_j (z_j^2 - 10 cos(2 pi z_j)),  |x_j| <= 5.12, z_opt = 0

Sources: Ackley 1987, A Connectionist Machine for Genetic Hillclimbing; Griewank 1981, J. Optim.
Theory Appl. 34; Levy and Montalvo 1985, SIAM J. Sci. Stat. Comput. 6; Rastrigin 1974.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from botorch.test_functions import synthetic as botorch_functions
from botorch.test_functions.synthetic import SyntheticTestFunction
from torch import Tensor

from bo_surrogates.config import Config, flag, integer
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
from problems.base import Optimum, Problem

SHIFT_RANGE = 0.8  # of the half width


@dataclass(frozen=True)
class ShiftedConfig(Config):
    """Options of the shifted functions.

    Attributes:
        dim: Number of inputs.
        shifted: Whether the optimum is moved off the centre.
        shift_seed: Where to.
    """

    dim: int = integer(10, 1, 10_000)
    shifted: bool = flag(True)
    shift_seed: int = integer(0, 0, 2**31 - 1)


class ShiftedFunction(Problem):
    """Base of the four; keywords as for `Problem`.

    Attributes:
        function_class: BoTorch's function.
        half_width: The box is [-half_width, half_width]^d.
        classical_optimum: Each coordinate of the function's own optimum.
    """

    config_class: ClassVar[type[Config]] = ShiftedConfig
    function_class: ClassVar[type[SyntheticTestFunction]]
    half_width: ClassVar[float]
    classical_optimum: ClassVar[float] = 0.0
    shift: Tensor

    def __init__(
        self,
        config: ShiftedConfig | None = None,
        *,
        noise_std: float | None = None,
        negate: bool = False,
    ) -> None:
        config = config or ShiftedConfig()
        optimum = torch.full((config.dim,), self.classical_optimum, dtype=torch.float64)
        if config.shifted:
            generator = torch.Generator().manual_seed(config.shift_seed)
            unit = torch.rand(config.dim, generator=generator, dtype=torch.float64)
            optimum = SHIFT_RANGE * self.half_width * (2 * unit - 1)
        name = type(self).__name__.lower()
        super().__init__(
            Space(
                [Float(f"x{j + 1}", -self.half_width, self.half_width) for j in range(config.dim)]
            ),
            [Objective(name)],
            config=config,
            optimum=Optimum(0.0, (tuple(optimum.tolist()),), "closed form"),
            noise_std=noise_std,
            negate=negate,
        )
        self.register_buffer("shift", optimum - self.classical_optimum)
        self._function = self.function_class(dim=config.dim)  # type: ignore[call-arg]

    def _true_metrics(self, X: Tensor) -> Tensor:
        # Not by calling it: z may leave the box in which BoTorch accepts it.
        return self._function._evaluate_true(X - self.shift.to(X)).unsqueeze(-1)


class Ackley(ShiftedFunction):
    """Many local minima around one funnel; see the module's docstring."""

    function_class = botorch_functions.Ackley
    half_width = 32.768


class Griewank(ShiftedFunction):
    """A bowl with ripples that matter near its bottom only; see the module's docstring."""

    function_class = botorch_functions.Griewank
    half_width = 600.0


class Levy(ShiftedFunction):
    """Waves on a bowl; see the module's docstring."""

    function_class = botorch_functions.Levy
    half_width = 10.0
    classical_optimum = 1.0


class Rastrigin(ShiftedFunction):
    """A grid of local minima on a bowl; see the module's docstring."""

    function_class = botorch_functions.Rastrigin
    half_width = 5.12
