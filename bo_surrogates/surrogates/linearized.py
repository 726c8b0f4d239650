"""What surrogates on a network that is linear in its uncertain weights share: a Gaussian posterior.

Such a surrogate keeps the weights theta* where the network is linearized, a Gaussian prior of the
weights and a noise variance of each outcome. Its posterior over functions is Gaussian, joint over
points and outcomes, and follows from these and the training data
(`networks/linearized_posterior.py`, `networks/kronecker_posterior.py`). A subclass says how they
are learnt (`fit`) and which form the posterior takes (`condition`). Computations are in double
precision, whatever the data's.
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

from bo_surrogates.errors import FitError, InputError
from bo_surrogates.networks.linearization import Linearization, linearize
from bo_surrogates.networks.linearized_posterior import LinearizedPosterior, WeightPrior
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates.base import FunctionSamples, seed_or_random
from bo_surrogates.surrogates.finite_width import FiniteWidthSurrogate
from bo_surrogates.surrogates.gaussian_weights import GaussianWeights


class LinearizedSurrogate(GaussianWeights, FiniteWidthSurrogate):
    """A surrogate whose functions are linear in Gaussian weights.

    Learnt state, all in `state_dict()`, float64: `theta` (`P`), where the network is linearized;
    `prior_mean` (`P`) and `prior_variances` (`2 (depth + 1)`) of the weights; `noise_variance`
    (`m`, of standardized outcomes). Arguments: see `OwnDataSurrogate`.
    """

    theta: Tensor
    prior_mean: Tensor
    prior_variances: Tensor
    _conditioned: LinearizedPosterior | None

    # ---- what a subclass decides -------------------------------------------------------------
    @abstractmethod
    def condition(self, at: Linearization, targets: Tensor, noise: Tensor) -> LinearizedPosterior:
        """The posterior given the training data.

        Args:
            at: The network at the training inputs.
            targets: `n x m` standardized outcomes.
            noise: `n x m` noise variances.
        """

    # ---- state -------------------------------------------------------------------------------
    def make_state(self, like: Tensor) -> None:
        """See `OwnDataSurrogate.make_state`."""
        size, groups = self.network.num_parameters, 2 * len(self.network.fan)
        for name, count in (
            ("theta", size), ("prior_mean", size), ("prior_variances", groups),
            ("noise_variance", self.num_outputs),
        ):  # fmt: skip
            zeros = torch.zeros(count, dtype=torch.float64, device=like.device)
            self.register_buffer(name, zeros)

    def _keep(self, theta: Tensor, prior: WeightPrior, noise_variance: Tensor) -> None:
        """Store what was learnt.

        Raises:
            FitError: Something is not finite.
        """
        learnt = {
            "theta": theta, "prior_mean": prior.mean, "prior_variances": prior.variances,
            "noise_variance": noise_variance,
        }  # fmt: skip
        if not all(torch.isfinite(value).all() for value in learnt.values()):
            raise FitError(
                f"the fit of {self.entry_name or type(self).__name__} diverged: its weights are "
                "not finite; lower input_scale or weight_scale"
            )
        for name, value in learnt.items():
            setattr(self, name, value.detach().clone())
        self.fitted = torch.ones_like(self.fitted)
        self._conditioned = None

    @property
    def prior(self) -> WeightPrior:
        """Of the weights, as it was learnt."""
        return WeightPrior(self.network, self.prior_mean, self.prior_variances)

    def _design(self, X: Tensor) -> Linearization:
        """The network at inputs in the user's units."""
        return linearize(self.network, self.theta, self.network_inputs(X).double())

    def weight_posterior(self) -> LinearizedPosterior:
        """The posterior over weights, given all observations.

        Raises:
            RunError: The model has not been fitted.
        """
        self._require_fit()
        if self._conditioned is None:
            with torch.no_grad():
                at = self._design(self._inputs)
                self._conditioned = self.condition(
                    at, self._targets.double(), self._training_noise()
                )
        return self._conditioned

    # ---- prediction --------------------------------------------------------------------------
    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> Posterior:
        """The Gaussian posterior, joint over points and outcomes.

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
        conditioned = self.weight_posterior()
        mean, covariance = conditioned.joint(self._design(X))
        q, m = X.shape[-2], self.network.outputs
        covariance = covariance.expand(*mean.shape, q * m)
        if isinstance(observation_noise, Tensor) or observation_noise:
            noise = (
                observation_noise
                if isinstance(observation_noise, Tensor)
                else self._training_noise().mean(dim=0)
            )
            grid = noise.to(mean).expand(*mean.shape[:-1], q, m)
            covariance = covariance + torch.diag_embed(grid.flatten(start_dim=-2))
        outputs = self._selected(output_indices)
        if outputs is not None:
            rows = torch.arange(q).unsqueeze(-1) * m + torch.tensor(outputs)
            rows = rows.flatten().to(mean.device)
            mean, covariance = mean[..., rows], covariance[..., rows, :][..., rows]
            m = len(outputs)
        posterior = _gaussian(mean.to(X.dtype), covariance.to(X.dtype), m)
        result = self._in_user_units(posterior, X, outputs)
        if posterior_transform is None:
            return result
        return posterior_transform(posterior=result, X=X)

    def sample_functions(self, k: int, seed: int | None = None) -> FunctionSamples:
        """k draws of the weights of the linearized network, exact; see the base class."""
        if k < 1:
            raise InputError(f"sample_functions: k must be at least 1, got {k}")
        if self.batch_shape:
            raise UnsupportedError(
                "functions cannot be drawn from a model that was conditioned on batches of "
                "observations; condition on one set of them"
            )
        generator = torch.Generator().manual_seed(derive_seed(seed_or_random(seed), "functions"))
        with torch.no_grad():
            weights = self.weight_posterior().draw(k, generator)
        view = copy.copy(self)
        view._conditioned = None
        model = copy.deepcopy(view).eval()  # a later fit of this model does not change the draws

        def functions(X: Tensor) -> Tensor:
            at = model._design(X)
            values = (at.values + at.jvp(weights - model.theta)).to(X.dtype)
            if hasattr(model, "outcome_transform"):
                values, _ = model.outcome_transform.untransform(values, X=X)
            return values if model._outputs is None else values[..., model._outputs]

        return functions


def _gaussian(mean: Tensor, covariance: Tensor, m: int) -> GPyTorchPosterior:
    """From `... x q m` values, rows over points, then outputs.

    As a linear operator: GPyTorch then factorizes when it must, with jitter where points repeat.
    """
    operator = to_linear_operator(covariance)
    if m == 1:
        return GPyTorchPosterior(MultivariateNormal(mean, operator))
    return GPyTorchPosterior(
        MultitaskMultivariateNormal(mean.unflatten(-1, (-1, m)), operator, interleaved=True)
    )
