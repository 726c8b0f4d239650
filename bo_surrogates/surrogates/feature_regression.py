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

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.exceptions.errors import UnsupportedError
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.posteriors.posterior import Posterior
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from linear_operator import to_linear_operator
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.inference.linear_regression import LinearRegression, condition
from bo_surrogates.posteriors.fixed_points import FixedPoints, positions, rescaled_marginals
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates.base import FunctionSamples, seed_or_random
from bo_surrogates.surrogates.gaussian_weights import GaussianWeights
from bo_surrogates.surrogates.own_data import OwnDataSurrogate


class FeatureRegression(GaussianWeights, OwnDataSurrogate):
    """Bayesian linear regression on `features`, which a subclass defines and learns.

    Learnt state, all in `state_dict()`: `variance` (s^2) and `noise_variance`, `m` each, of
    standardized outcomes, float64; and what the subclass adds in `prepare`. Arguments: see
    `OwnDataSurrogate`.
    """

    variance: Tensor
    _conditioned: LinearRegression | None

    def make_state(self, like: Tensor) -> None:
        """See `OwnDataSurrogate.make_state`."""
        ones = torch.ones(self.num_outputs, dtype=torch.float64, device=like.device)
        self.register_buffer("variance", ones)
        self.register_buffer("noise_variance", 1e-2 * ones)

    @abstractmethod
    def features(self, X: Tensor) -> Tensor:
        """phi(x).

        Args:
            X: `batch_shape x n x d` inputs in the user's units.

        Returns:
            `batch_shape x n x k` features, float64.
        """

    # ---- state ---------------------------------------------------------------------------------
    def weight_posterior(self) -> LinearRegression:
        """The posterior of the weights, given all observations.

        Raises:
            RunError: The model has not been fitted.
        """
        self._require_fit()
        if self._conditioned is None:
            with torch.no_grad():
                self._conditioned = condition(
                    self.features(self._inputs), self.variance, self._targets.double(),
                    self._training_noise(),
                )  # fmt: skip
        return self._conditioned

    def _design(self, X: Tensor) -> Tensor:
        return self.features(X)

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
        mean, covariance = self.weight_posterior().joint(self.features(X))
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

    @property
    def has_fixed_points(self) -> bool:
        """See `Surrogate.has_fixed_points`."""
        return self._one_outcome_scaling() is not None

    def fix_points(self, X: Tensor) -> FixedPoints:
        """See `Surrogate.fix_points`."""
        scales = self._one_outcome_scaling()
        if scales is None:
            return super().fix_points(X)
        self.eval()
        with torch.no_grad():
            mean, root, others = self.weight_posterior().beside(self.features(X))
        return FixedPoints(mean, root, lambda x: others(self.features(x)), *scales)

    def marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """See `Surrogate.marginals`; at the training points from leverages, without a product."""
        scales = self._one_outcome_scaling()
        at = None if scales is None else positions(X, self._inputs)
        if scales is None or at is None:
            return super().marginals(X)
        self.eval()
        Y, noise = self._targets.double(), self._training_noise()
        with torch.no_grad():
            mean, leverage = self.weight_posterior().at_training_points(
                lambda: self.features(self._inputs), Y, noise
            )
            return rescaled_marginals(mean[at], (leverage * noise)[at], *scales, X)

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
            weights = self.weight_posterior().draw(k, generator)  # k x m x features
        view = copy.copy(self)
        view._conditioned = None
        model = copy.deepcopy(view).eval()  # a later fit of this model does not change the draws

        def functions(X: Tensor) -> Tensor:
            phi = model.features(X)
            values = (phi @ weights.flatten(end_dim=1).mT).unflatten(-1, weights.shape[:2])
            values = values.movedim(-2, 0).to(X.dtype)
            if hasattr(model, "outcome_transform"):
                values, _ = model.outcome_transform.untransform(values, X=X)
            return values if model._outputs is None else values[..., model._outputs]

        return functions
