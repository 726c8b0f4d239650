"""What surrogates share that are linear in Gaussian weights, on features of their own.

y_ij = w_j . phi(x_i) + e_ij for each outcome j, w_j ~ N(0, s_j^2 I), e_ij ~ N(0, v_j) or of known
variances. Given the features, s_j^2 and v_j, all is exact (`inference/linear_regression.py`): the
posterior, joint over points, outcomes independent; conditioning on further observations; drawn
functions, which are weight draws and cost O(k) a point. Computations are in double precision,
whatever the data's.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, Self

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.exceptions.errors import UnsupportedError
from botorch.models.transforms.input import InputTransform
from botorch.models.transforms.outcome import OutcomeTransform, Standardize
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.posteriors.posterior import Posterior
from botorch.sampling.base import MCSampler
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from linear_operator import to_linear_operator
from torch import Tensor

from bo_surrogates.config import Config
from bo_surrogates.errors import InputError, RunError
from bo_surrogates.inference.linear_regression import LinearRegression, condition
from bo_surrogates.posteriors.rescaled import RescaledGaussianPosterior, far_from_unit_scale
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates.base import FunctionSamples, Surrogate, seed_or_random

MIN_NOISE_VARIANCE = 1e-6  # known variances below it are raised: covariances are factorized


class FeatureRegression(Surrogate):
    """Bayesian linear regression on `features`, which a subclass defines and learns.

    Learnt state, all in `state_dict()`: `variance` (s^2) and `noise_variance`, `m` each, of
    standardized outcomes, float64; and what the subclass adds in `prepare`.

    Args:
        train_X: `n x d` inputs.
        train_Y: `n x m` outcomes.
        train_Yvar: `n x m` variances of the outcomes, if known.
        config: An instance of `config_class`; its defaults if None.
        seed: Of everything random in the model; drawn from torch's global generator if None.
        input_transform: Applied to all inputs; its result should lie in the unit cube.
        outcome_transform: Applied to the outcomes, undone by the posterior.
    """

    variance: Tensor
    noise_variance: Tensor
    fitted: Tensor
    outcome_transform: OutcomeTransform  # where there is one
    _inputs: Tensor
    _targets: Tensor
    _target_variance: Tensor | None
    _regression: LinearRegression | None = None  # on the training data, once it was asked for

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
        self.config = config or self.config_class()
        self.seed = seed_or_random(seed)
        Y, Yvar = self.transform_outcomes(train_X, train_Y, train_Yvar, outcome_transform)
        if input_transform is not None:
            self.input_transform = input_transform.to(train_X)
        # Training data are no part of the state: `state_dict` holds what was learnt from them.
        self.register_buffer("_inputs", train_X, persistent=False)
        self.register_buffer("_targets", Y.detach(), persistent=False)
        self.register_buffer(
            "_target_variance", None if Yvar is None else Yvar.detach(), persistent=False
        )
        self._num_outputs = Y.shape[-1]
        self._outputs: list[int] | None = None  # of a model made by subset_output
        self.eval()
        ones = torch.ones(self._num_outputs, dtype=torch.float64)
        for name, value in (
            ("variance", ones), ("noise_variance", 1e-2 * ones), ("fitted", torch.tensor(False)),
        ):  # fmt: skip
            self.register_buffer(name, value.to(train_Y.device))
        self.prepare()

    @abstractmethod
    def features(self, X: Tensor) -> Tensor:
        """phi(x).

        Args:
            X: `batch_shape x n x d` inputs in the user's units.

        Returns:
            `batch_shape x n x k` features, float64.
        """

    def _training_noise(self) -> Tensor:
        """`n x m` noise variances of the training data."""
        known = self._known_noise()
        return self.noise_variance.expand(self._targets.shape) if known is None else known

    def _known_noise(self) -> Tensor | None:
        if self._target_variance is None:
            return None
        return self._target_variance.double().clamp_min(MIN_NOISE_VARIANCE)

    # ---- state ---------------------------------------------------------------------------------
    def _require_fit(self) -> None:
        if not self.fitted:
            raise RunError(
                f"this {type(self).__name__} has not been fitted; call fit(), or build it through "
                "its registered entry"
            )

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._regression = None
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._regression = None
        return super()._apply(*args, **kwargs)

    def _set_transformed_inputs(self) -> None:
        """Nothing to do: training inputs are transformed where they are used."""

    def regression(self) -> LinearRegression:
        """The posterior of the weights, given all observations.

        Raises:
            RunError: The model has not been fitted.
        """
        self._require_fit()
        if self._regression is None:
            with torch.no_grad():
                self._regression = condition(
                    self.features(self._inputs), self.variance, self._targets.double(),
                    self._training_noise(),
                )  # fmt: skip
        return self._regression

    @property
    def num_outputs(self) -> int:
        """m."""
        return self._num_outputs if self._outputs is None else len(self._outputs)

    @property
    def batch_shape(self) -> torch.Size:
        """Empty, unless the model was conditioned on batches of observations."""
        return torch.Size() if self._regression is None else self._regression.batch_shape

    def subset_output(self, idcs: list[int]) -> Self:
        """A copy of the model with some of its outputs."""
        model = copy.deepcopy(self)
        model._outputs = self._selected(list(idcs))
        return model

    def _selected(self, output_indices: list[int] | None) -> list[int] | None:
        """Outcomes of the data that are wanted, None for all."""
        if output_indices is None:
            return self._outputs
        return [self._outputs[i] if self._outputs else i for i in output_indices]

    # ---- prediction ----------------------------------------------------------------------------
    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> Posterior:
        """The Gaussian posterior, joint over points.

        Args:
            X: `batch_shape x q x d` inputs.
            output_indices: Outputs wanted; all if None.
            observation_noise: Whether to add observation noise: the variance that was learnt, or
                the mean of `train_Yvar`. A tensor, broadcastable to `batch_shape x q x m`, is used
                as the variance; it is in standardized units, as in BoTorch.
            posterior_transform: Applied to the posterior.

        Raises:
            RunError: The model has not been fitted.
        """
        self.eval()
        mean, covariance = self.regression().joint(self.features(X))
        if isinstance(observation_noise, Tensor) or observation_noise:
            noise = (
                observation_noise
                if isinstance(observation_noise, Tensor)
                else self._training_noise().mean(dim=0)
            )
            covariance = covariance + torch.diag_embed(noise.to(mean).expand_as(mean.mT).mT)
        outputs = self._selected(output_indices)
        if outputs is not None:
            mean, covariance = mean[..., outputs, :], covariance[..., outputs, :, :]
        mean, covariance = mean.to(X.dtype), covariance.to(X.dtype)
        if mean.shape[-2] == 1:
            covariance = covariance.squeeze(-3)
            # As a linear operator: GPyTorch then adds jitter where points repeat.
            mvn = MultivariateNormal(mean.squeeze(-2), to_linear_operator(covariance))
        else:
            batch = MultivariateNormal(mean, to_linear_operator(covariance))
            mvn = MultitaskMultivariateNormal.from_batch_mvn(batch, task_dim=-1)
        result = self._in_user_units(GPyTorchPosterior(mvn), X, outputs)
        if posterior_transform is None:
            return result
        return posterior_transform(posterior=result, X=X)

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

    def sample_functions(self, k: int, seed: int | None = None) -> FunctionSamples:
        """k draws of the weights, exact; see `Surrogate.sample_functions`."""
        if k < 1:
            raise InputError(f"sample_functions: k must be at least 1, got {k}")
        if self.batch_shape:
            raise UnsupportedError(
                "functions cannot be drawn from a model that was conditioned on batches of "
                "observations; condition on one set of them"
            )
        generator = torch.Generator().manual_seed(derive_seed(seed_or_random(seed), "functions"))
        with torch.no_grad():
            weights = self.regression().draw(k, generator)  # k x m x features
        view = copy.copy(self)
        view._regression = None
        model = copy.deepcopy(view).eval()  # a later fit of this model does not change the draws

        def functions(X: Tensor) -> Tensor:
            phi = model.features(X)
            values = (phi @ weights.flatten(end_dim=1).mT).unflatten(-1, weights.shape[:2])
            values = values.movedim(-2, 0).to(X.dtype)
            if hasattr(model, "outcome_transform"):
                values, _ = model.outcome_transform.untransform(values, X=X)
            return values if model._outputs is None else values[..., model._outputs]

        return functions

    # ---- conditioning --------------------------------------------------------------------------
    def condition_on_observations(
        self, X: Tensor, Y: Tensor, noise: Tensor | None = None, **kwargs: Any
    ) -> Self:
        """The exact posterior given further observations; scales and variances are kept.

        Args:
            X: `batch_shape x n' x d` inputs.
            Y: `... x batch_shape x n' x m` outcomes.
            noise: Variances of the new observations of standardized outcomes, broadcastable to
                `batch_shape x n' x m`; the learnt variances, or the mean of `train_Yvar`, if None.
            **kwargs: Not used; BoTorch passes some.

        Raises:
            UnsupportedError: The model has outputs left out.
        """
        if self._outputs is not None:
            raise UnsupportedError(
                "a model made by subset_output cannot be conditioned; condition the whole model, "
                "then take its outputs"
            )
        regression = self.regression()
        if hasattr(self, "outcome_transform"):
            Y, _ = self.outcome_transform(Y, X=X)
        variance = self._training_noise().mean(dim=0) if noise is None else noise.double()
        model = copy.copy(self)
        model._buffers = dict(self._buffers)
        model._regression = regression.extend(self.features(X), Y.double(), variance)
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
