"""What surrogates share whose functions are linear in Gaussian weights, exactly conditioned.

A subclass says what the observations are linear in (`_design`), and what the weights' posterior is
given the training data (`weight_posterior`), which is computed once and extended by further
observations.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, Self

import torch
from botorch.exceptions.errors import UnsupportedError
from botorch.models.transforms.outcome import OutcomeTransform, Standardize
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.posteriors.posterior import Posterior
from botorch.sampling.base import MCSampler
from torch import Tensor

from bo_surrogates.errors import RunError
from bo_surrogates.posteriors.fixed_points import scaling
from bo_surrogates.posteriors.rescaled import RescaledGaussianPosterior, far_from_unit_scale
from bo_surrogates.surrogates.base import Surrogate

MIN_NOISE_VARIANCE = 1e-6  # known variances below it are raised: covariances are factorized


class GaussianWeights(Surrogate):
    """See the module's docstring."""

    noise_variance: Tensor
    fitted: Tensor
    outcome_transform: OutcomeTransform  # where there is one
    _targets: Tensor
    _target_variance: Tensor | None
    _outputs: list[int] | None
    _conditioned: Any = None  # on the training data, once it was asked for

    @abstractmethod
    def _design(self, X: Tensor) -> Any:
        """What the weights' posterior is extended by, at inputs in the user's units."""

    @abstractmethod
    def weight_posterior(self) -> Any:
        """The posterior over weights, given all observations."""

    def _training_noise(self) -> Tensor:
        """`n x m` noise variances of the training data."""
        known = self._known_noise()
        return self.noise_variance.expand(self._targets.shape) if known is None else known

    def _known_noise(self) -> Tensor | None:
        if self._target_variance is None:
            return None
        return self._target_variance.double().clamp_min(MIN_NOISE_VARIANCE)

    def _require_fit(self) -> None:
        if not self.fitted:
            raise RunError(
                f"this {type(self).__name__} has not been fitted; call fit(), or build it through "
                "its registered entry"
            )

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._conditioned = None
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._conditioned = None
        return super()._apply(*args, **kwargs)

    @property
    def batch_shape(self) -> torch.Size:
        """Empty, unless the model was conditioned on batches of observations."""
        return torch.Size() if self._conditioned is None else self._conditioned.batch_shape

    # ---- prediction ----------------------------------------------------------------------------
    def _in_user_units(
        self, posterior: GPyTorchPosterior, X: Tensor, outputs: list[int] | None
    ) -> Posterior:
        if not hasattr(self, "outcome_transform"):
            return posterior
        transform: Any = self.outcome_transform
        if outputs is not None:
            if not isinstance(transform, Standardize):
                raise UnsupportedError("a choice of outputs needs an affine outcome transform")
            transform = transform.subset_output(outputs)
        result = transform.untransform_posterior(posterior, X=X)
        scaling = far_from_unit_scale(transform)
        if scaling is None or not isinstance(result, GPyTorchPosterior):
            return result
        return RescaledGaussianPosterior(result, *scaling)

    def _one_outcome_scaling(self) -> tuple[Tensor, Tensor] | None:
        """Of `FixedPoints`; None where there are several outcomes, or batches of observations."""
        if self._targets.shape[-1] > 1 or self._outputs is not None or self.batch_shape:
            return None
        return scaling(getattr(self, "outcome_transform", None), self.noise_variance)

    # ---- conditioning --------------------------------------------------------------------------
    def condition_on_observations(
        self, X: Tensor, Y: Tensor, noise: Tensor | None = None, **kwargs: Any
    ) -> Self:
        """The posterior given further observations; what was learnt is kept.

        Args:
            X: `batch_shape x n' x d` inputs.
            Y: `... x batch_shape x n' x m` outcomes.
            noise: Variances of the new observations of standardized outcomes, broadcastable to
                `batch_shape x n' x m`; the learnt variances, or the mean of `train_Yvar`, if None.
            **kwargs: Not used; BoTorch passes some.

        Raises:
            UnsupportedError: The posterior cannot be conditioned, or has outputs left out.
        """
        if self._outputs is not None:
            raise UnsupportedError(
                "a model made by subset_output cannot be conditioned; condition the whole model, "
                "then take its outputs"
            )
        posterior = self.weight_posterior()
        if hasattr(self, "outcome_transform"):
            Y, _ = self.outcome_transform(Y, X=X)
        variance = self._training_noise().mean(dim=0) if noise is None else noise.double()
        design = self._design(X)
        model = copy.copy(self)
        model._buffers = dict(self._buffers)
        model._conditioned = posterior.extend(design, Y.double(), variance)
        model.training_data = None  # not these data: saving would lose the new observations
        return model

    def fantasize(
        self,
        X: Tensor,
        sampler: MCSampler,
        observation_noise: Tensor | None = None,
        **kwargs: Any,
    ) -> Self:
        """Condition on observations drawn from the posterior.

        Args:
            X: `batch_shape x n' x d` inputs.
            sampler: Draws them.
            observation_noise: Their variances, of standardized outcomes, broadcastable to
                `batch_shape x n' x m`; as in `posterior` if None.
            **kwargs: Passed to `condition_on_observations`.
        """
        noise: bool | Tensor = True if observation_noise is None else observation_noise
        drawn = sampler(self.posterior(X, observation_noise=noise))
        return self.condition_on_observations(X, drawn.detach(), observation_noise, **kwargs)
