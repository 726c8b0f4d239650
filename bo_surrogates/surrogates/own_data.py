"""What surrogates share that keep their data themselves: all that are no GPyTorch models.

Outcomes are standardized once, at construction; inputs are transformed where they are used.
"""

from __future__ import annotations

from abc import abstractmethod
from copy import deepcopy
from typing import Self

import torch
from botorch.models.transforms.input import InputTransform
from botorch.models.transforms.outcome import OutcomeTransform
from torch import Tensor

from bo_surrogates.config import Config
from bo_surrogates.surrogates.base import Surrogate


class OwnDataSurrogate(Surrogate):
    """A surrogate with its data, scaled, and its outputs.

    Args:
        train_X: `n x d` inputs.
        train_Y: `n x m` outcomes.
        train_Yvar: `n x m` variances of the outcomes, if known.
        config: An instance of `config_class`; its defaults if None.
        seed: Of everything random in the model; drawn from torch's global generator if None.
        input_transform: Applied to all inputs; its result should lie in the unit cube.
        outcome_transform: Applied to the outcomes, undone by the posterior.
    """

    noise_variance: Tensor
    outcome_transform: OutcomeTransform  # where there is one
    fitted: Tensor
    _inputs: Tensor
    _targets: Tensor
    _target_variance: Tensor | None

    def __init__(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        train_Yvar: Tensor | None = None,
        input_transform: InputTransform | None = None,
        outcome_transform: OutcomeTransform | None = None,
        *,
        config: Config | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        Y, Yvar = self.start(train_X, train_Y, train_Yvar, outcome_transform, config, seed)
        if input_transform is not None:
            self.input_transform = input_transform.to(train_X)
        # Training data are no part of the state: `state_dict` holds what was learnt from them.
        self.register_buffer("_inputs", train_X, persistent=False)
        self.register_buffer("_targets", Y, persistent=False)
        self.register_buffer("_target_variance", Yvar, persistent=False)
        self._outputs: list[int] | None = None  # of a model made by subset_output
        self.eval()
        self.make_parts()
        self.make_state(train_Y)
        self.register_buffer("fitted", torch.tensor(False, device=train_Y.device))
        self.prepare()

    # ---- what a subclass decides -------------------------------------------------------------
    def make_parts(self) -> None:
        """Make what depends on the data's shape and has no state."""

    @abstractmethod
    def make_state(self, like: Tensor) -> None:
        """Register the buffers of what will be learnt, empty, of the dtype and device of `like`."""

    # ---- outputs -----------------------------------------------------------------------------
    @property
    def num_outputs(self) -> int:
        """m."""
        return self._targets.shape[-1] if self._outputs is None else len(self._outputs)

    @property
    def batch_shape(self) -> torch.Size:
        """Empty: one model, not a batch of them."""
        return torch.Size()

    def _set_transformed_inputs(self) -> None:
        """Nothing to do: training inputs are transformed where they are used."""

    def _selected(self, output_indices: list[int] | None) -> list[int] | None:
        """Outcomes of the data that are wanted, None for all."""
        if output_indices is None:
            return self._outputs
        return [self._outputs[i] if self._outputs else i for i in output_indices]

    def subset_output(self, idcs: list[int]) -> Self:
        """A copy of the model with some of its outputs."""
        model = deepcopy(self)
        model._outputs = self._selected(list(idcs))
        return model
