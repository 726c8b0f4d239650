"""The 24 noiseless functions of the Black-Box Optimization Benchmark, by the package `ioh`.

From separable (1 to 5) through ill-conditioned (6 to 14) to multimodal with (15 to 19) and without
(20 to 24) global structure, on [-5, 5]^d, minimized. Every instance has its own shift and rotation,
and its own optimal value, which `ioh` tells.

Sources: Hansen, Finck, Ros and Auger 2009, INRIA RR-6829; de Nobel et al. 2024, IOHexperimenter,
Evol. Comput. 32. Needs the extra `bbob`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from bo_surrogates.config import Config, integer
from bo_surrogates.errors import RunError
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
from problems.base import Optimum, Problem


@dataclass(frozen=True)
class BBOBConfig(Config):
    """Options of `bbob`.

    Attributes:
        function: Number of the function, 1 to 24.
        instance: Number of its instance.
        dim: Number of inputs.
    """

    function: int = integer(15, 1, 24)
    instance: int = integer(1, 1, 100_000)
    dim: int = integer(5, 2, 640)


class BBOB(Problem):
    """See the module's docstring; keywords as for `Problem`.

    Raises:
        RunError: `ioh` is not installed.
    """

    config_class: ClassVar[type[Config]] = BBOBConfig

    def __init__(
        self,
        config: BBOBConfig | None = None,
        *,
        noise_std: float | None = None,
        negate: bool = False,
    ) -> None:
        config = config or BBOBConfig()
        function = _function(config)
        best = function.optimum
        super().__init__(
            Space([Float(f"x{j + 1}", -5.0, 5.0) for j in range(config.dim)]),
            [Objective(f"bbob_{function.meta_data.name}")],
            config=config,
            optimum=Optimum(float(best.y), (tuple(map(float, best.x)),), "ioh"),
            noise_std=noise_std,
            negate=negate,
        )
        self._function: Any = function

    def _true_metrics(self, X: Tensor) -> Tensor:
        points = X.detach().reshape(-1, self.dim)
        values = self._function(points.tolist()) if len(points) else []
        return torch.tensor(values).to(X).reshape(*X.shape[:-1], 1)

    def __getstate__(self) -> dict[str, Any]:
        # ioh's functions do not pickle; their numbers do.
        return {**self.__dict__, "_function": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._function = _function(self.config)


def _function(config: Any) -> Any:
    try:
        import ioh
    except ImportError as error:
        raise RunError(
            "problem 'bbob' needs the package ioh: pip install 'bo-surrogates[bbob]'"
        ) from error
    return ioh.get_problem(config.function, config.instance, config.dim, ioh.ProblemClass.BBOB)
