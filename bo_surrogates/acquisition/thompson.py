"""Thompson sampling: each point of a batch is the optimum of its own function from the posterior.

For any surrogate with `sample_functions`; exact where its posterior is an ensemble of functions
(Thompson 1933; for batches, Kandasamy et al. 2018, AISTATS, arXiv 1705.09236). Several objectives
are scalarized anew for each function (`scalarization.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from botorch.acquisition import AcquisitionFunction
from botorch.models.model import Model
from botorch.utils.transforms import t_batch_mode_transform
from torch import Tensor

from bo_surrogates.acquisition.scalarization import Scalarization, random_scalarization
from bo_surrogates.errors import InputError
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates.base import FunctionSamples, Surrogate

BLOCK = 8  # functions drawn at a time: drawing costs more than evaluating
PENALTY = 100.0  # of a constraint's violation, in standard deviations of the outcome


class ThompsonSampling(AcquisitionFunction):
    """One posterior function's (scalarized) value, less a penalty where it violates a constraint.

    The number of pending points chooses the function, so that a batch built one point after the
    other, and points asked for while others run, follow different functions.

    Args:
        model: A `Surrogate`, or a list of them, m outcomes in all.
        weights: `k x m`: objective i, to be maximized, is `outcomes @ weights[i]`.
        baseline: `n x m` means at the observed inputs, to scale several objectives by.
        seed: Of the functions and the scalarizations.
        constraints: Callables of outcomes `... x m`, satisfied where <= 0.
        X_pending: `p x d` inputs whose outcomes are awaited.

    Raises:
        InputError: A model without `sample_functions`.
    """

    def __init__(
        self,
        model: Model,
        weights: Tensor,
        baseline: Tensor,
        seed: int,
        constraints: Sequence[Callable[[Tensor], Tensor]] | None = None,
        X_pending: Tensor | None = None,
    ) -> None:
        super().__init__(model)
        self._parts: list[Any] = list(getattr(model, "models", [model]))
        for part in self._parts:
            if not isinstance(part, Surrogate):
                raise InputError(
                    f"Thompson sampling needs a registered surrogate, got {type(part).__name__}"
                )
        self._weights, self._baseline, self._seed = weights, baseline, seed
        self._constraints = tuple(constraints or ())
        self._blocks: dict[int, list[FunctionSamples]] = {}
        self._scalarizations: dict[int, Scalarization] = {}
        self.set_X_pending(X_pending)

    @property
    def index(self) -> int:
        """Number of the function in use."""
        return 0 if self.X_pending is None else len(self.X_pending)

    def outcomes(self, X: Tensor) -> Tensor:
        """The function in use.

        Args:
            X: `b x 1 x d` inputs.

        Returns:
            `b x 1 x m` outcomes on the model's scale.
        """
        block, number = divmod(self.index, BLOCK)
        if block not in self._blocks:
            self._blocks[block] = [
                part.sample_functions(BLOCK, derive_seed(self._seed, "thompson", block, i))
                for i, part in enumerate(self._parts)
            ]
        return torch.cat([functions(X)[number] for functions in self._blocks[block]], dim=-1)

    @t_batch_mode_transform(expected_q=1)  # type: ignore[arg-type]
    def forward(self, X: Tensor) -> Tensor:
        """Values at `b x 1 x d` inputs, `b`."""
        Y = self.outcomes(X).squeeze(-2)
        value = self._scalarize(Y @ self._weights.T.to(Y))
        for constraint in self._constraints:
            value = value - PENALTY * constraint(Y).clamp_min(0.0)
        return value

    def _scalarize(self, objectives: Tensor) -> Tensor:
        """`b x k` objectives to `b` values."""
        if objectives.shape[-1] == 1:
            return objectives.squeeze(-1)
        index = self.index
        if index not in self._scalarizations:
            observed = self._baseline.to(objectives) @ self._weights.T.to(objectives)
            self._scalarizations[index] = random_scalarization(observed, self._seed, index)
        return self._scalarizations[index](objectives)
