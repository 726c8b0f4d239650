"""BoTorch's test functions as problems: under names, units and directions.

BoTorch writes outcome constraints as slacks that are not negative where they hold; here each slack
is a metric of its own with the constraint `slack >= 0`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from botorch.test_functions.base import BaseTestProblem
from torch import Tensor

from bo_surrogates.config import Config
from bo_surrogates.errors import InputError
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.space import Ordered, Space
from problems.base import Optimum, Problem


class BoTorchProblem(Problem):
    """A problem whose mathematics is one of BoTorch's test functions.

    An ordered parameter stands for its value: where `space` has one, the function gets the number
    at that index.

    Args:
        function: Evaluated without noise and without its own sign.
        space: A parameter for each of the function's inputs, in order.
        objectives: One for each of its outputs, in its order and sign.
        slacks: A metric's name for each of its constraints.
        config: See `Problem`.
        optimum: See `Problem`.
        max_hypervolume: See `Problem`.
        noise_std: See `Problem`.
        negate: See `Problem`.

    Raises:
        InputError: Names that do not match the function's inputs, outputs and constraints.
    """

    def __init__(
        self,
        function: BaseTestProblem,
        space: Space,
        objectives: Sequence[Objective],
        *,
        slacks: Sequence[str] = (),
        config: Config | None = None,
        optimum: Optimum | None = None,
        max_hypervolume: float | None = None,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        given = (space.dim, len(objectives), len(slacks))
        # A torch Module: to a type checker, each of its attributes is a Tensor or a Module.
        f: Any = function
        expected = (f.dim, getattr(f, "num_objectives", 1), getattr(f, "num_constraints", 0))
        if given != expected:
            raise InputError(
                f"{type(function).__name__} has {expected[0]} inputs, {expected[1]} outputs and "
                f"{expected[2]} constraints; got names for {given[0]}, {given[1]} and {given[2]}"
            )
        super().__init__(
            space,
            objectives,
            constraints=[OutcomeConstraint(name, ">=", 0.0) for name in slacks],
            config=config,
            optimum=optimum,
            max_hypervolume=max_hypervolume,
            noise_std=noise_std,
            negate=negate,
        )
        self._function = function

    def _inputs(self, X: Tensor) -> Tensor:
        """The function's inputs at problem coordinates."""
        columns = []
        for x, parameter in zip(X.unbind(dim=-1), self.space.parameters, strict=True):
            if isinstance(parameter, Ordered):
                x = torch.tensor(parameter.values).to(x)[x.long()]
            columns.append(x)
        return torch.stack(columns, dim=-1)

    def _true_metrics(self, X: Tensor) -> Tensor:
        # Some of BoTorch's functions take one batch dimension only.
        Z, function = self._inputs(X.reshape(-1, self.dim)), self._function
        columns = [function._evaluate_true(Z).reshape(len(Z), -1)]
        if self.num_constraints:
            columns.append(function._evaluate_slack_true(Z))  # type: ignore[operator]
        return torch.cat(columns, dim=-1).reshape(*X.shape[:-1], -1)
