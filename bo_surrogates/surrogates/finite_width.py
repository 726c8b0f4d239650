"""What all surrogates on networks of finite width share: inputs and outputs, draws of weights.

An ensemble is K networks, each a draw from (an approximation of) the posterior over weights.
A draw is a function of the input; the posterior at a set of points is the ensemble of these
functions' values, in the user's units because each value is un-standardized by itself. A subclass
says how the draws are made (`fit`) and, if they are more than the network, how they are evaluated
(`function_values`).
"""

from __future__ import annotations

from abc import abstractmethod
from copy import copy, deepcopy
from typing import Any, Self

import torch
from botorch.acquisition.objective import PosteriorTransform, ScalarizedPosteriorTransform
from botorch.exceptions.errors import UnsupportedError
from botorch.posteriors.posterior import Posterior
from torch import Tensor

from bo_surrogates.errors import FitError, InputError, RunError
from bo_surrogates.inference.adam import Minimum
from bo_surrogates.networks import BatchedMLP
from bo_surrogates.posteriors.ensemble import EnsembleMixturePosterior
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates.base import FitDiagnostics, FunctionSamples, seed_or_random
from bo_surrogates.surrogates.own_data import OwnDataSurrogate


class FiniteWidthSurrogate(OwnDataSurrogate):
    """A surrogate on networks of one shape. Arguments: see `OwnDataSurrogate`."""

    network: BatchedMLP

    @classmethod
    @abstractmethod
    def make_network(cls, config: Any, inputs: int, outputs: int) -> BatchedMLP:
        """The network of a configuration."""

    def make_parts(self) -> None:
        """See `OwnDataSurrogate.make_parts`: the network."""
        with torch.no_grad():
            inputs = self.network_inputs(self._inputs[:1]).shape[-1]
        self.network = self.make_network(self.config, inputs, self.num_outputs)

    def network_inputs(self, X: Tensor) -> Tensor:
        """Inputs as the network sees them: the unit cube centred and scaled to unit variance.

        Args:
            X: `batch_shape x n x d` inputs in the user's units.

        Returns:
            `batch_shape x n x d'`, each input in [-sqrt(3), sqrt(3)].
        """
        return (self.transform_inputs(X) - 0.5) * 12**0.5


class EnsembleSurrogate(FiniteWidthSurrogate):
    """A surrogate whose posterior is an ensemble of K functions.

    Learnt state, all in `state_dict()`: `weights` (`K x P`, a network a function, unless a subclass
    says otherwise), `noise_variance` (`K x m`, in standardized units) and the transforms.

    Arguments: see `OwnDataSurrogate`.
    """

    weights: Tensor

    # ---- what a subclass decides -------------------------------------------------------------
    @classmethod
    @abstractmethod
    def number_of_draws(cls, config: Any) -> int:
        """K, the number of functions kept."""

    @classmethod
    def number_of_networks(cls, config: Any) -> int:
        """Rows of `weights`: K, unless a subclass makes several functions of a network."""
        return cls.number_of_draws(config)

    def make_state(self, like: Tensor) -> None:
        """See `OwnDataSurrogate.make_state`."""
        k, networks = self.number_of_draws(self.config), self.number_of_networks(self.config)
        self.register_buffer("weights", like.new_zeros(networks, self.network.num_parameters))
        self.register_buffer("noise_variance", like.new_zeros(k, self.num_outputs))

    def function_values(self, X: Tensor, draws: Tensor | None = None) -> Tensor:
        """The functions in standardized units.

        Args:
            X: `batch_shape x n x d'` network inputs, see `network_inputs`.
            draws: Indices of the draws to evaluate, `k`; all if None.

        Returns:
            `k x batch_shape x n x m`.
        """
        weights = self.weights if draws is None else self.weights[draws]
        return self.network.forward(weights, X)

    def subset_draws(self, draws: Tensor) -> Self | None:
        """A view of the model in which some of its functions are the ensemble; fit the whole one.

        Args:
            draws: `k` indices of functions.

        Returns:
            None where functions have parts of a network in common.
        """
        if self.number_of_networks(self.config) != self.number_of_draws(self.config):
            return None
        part = copy(self)
        part._buffers = self._buffers | {
            "weights": self.weights[draws], "noise_variance": self.noise_variance[draws],
        }  # fmt: skip
        return part

    # ---- prediction --------------------------------------------------------------------------
    def _values_in_user_units(self, X: Tensor, draws: Tensor | None = None) -> Tensor:
        """`batch_shape x k x n x m` values of the functions, all outputs of the data."""
        if not self.fitted:
            raise RunError(
                f"this {type(self).__name__} has not been fitted; call fit(), or build it through "
                "its registered entry"
            )
        values = self.function_values(self.network_inputs(X), draws).movedim(0, -3)
        if hasattr(self, "outcome_transform"):
            values, _ = self.outcome_transform.untransform(values, X=X)
        return values

    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> Posterior:
        """The ensemble of the functions' values.

        Args:
            X: `batch_shape x q x d` inputs.
            output_indices: Outputs wanted; all if None.
            observation_noise: Whether to add observation noise: the variance that was learnt, or
                the mean of `train_Yvar`. A tensor, broadcastable to `batch_shape x q x m`, is used
                as the variance; it is in standardized units, as in BoTorch.
            posterior_transform: Applied to the posterior; a `ScalarizedPosteriorTransform` is
                exact.

        Returns:
            An `EnsembleMixturePosterior` with values `batch_shape x K x q x m`.

        Raises:
            RunError: The model has not been fitted.
        """
        self.eval()
        values = self._values_in_user_units(X)
        noise: Tensor | None = None
        if isinstance(observation_noise, Tensor):
            noise = observation_noise.unsqueeze(-3)
        elif observation_noise:
            noise = self.noise_variance.unsqueeze(-2)
        if noise is not None:
            noise = noise.to(values).expand_as(values)
            if hasattr(self, "outcome_transform"):
                _, noise = self.outcome_transform.untransform(torch.zeros_like(values), noise, X=X)
        outputs = self._selected(output_indices)
        if outputs is not None:
            values = values[..., outputs]
            noise = None if noise is None else noise[..., outputs]
        posterior = EnsembleMixturePosterior(values, noise)
        if posterior_transform is None:
            return posterior
        if isinstance(posterior_transform, ScalarizedPosteriorTransform):
            weights = torch.as_tensor(posterior_transform.weights)
            return posterior.scalarize(weights, posterior_transform.offset)
        return posterior_transform(posterior=posterior, X=X)

    def log_predictive_density(self, X: Tensor, Y: Tensor) -> Tensor:
        """Of the Gaussian mixture; see `Surrogate.log_predictive_density`."""
        posterior = self.posterior(X, observation_noise=True)
        if not isinstance(posterior, EnsembleMixturePosterior):
            raise RunError(f"expected an ensemble posterior, got {type(posterior).__name__}")
        return posterior.log_density(Y)

    def sample_functions(self, k: int, seed: int | None = None) -> FunctionSamples:
        """k of the K functions, none twice before all were used once.

        See `Surrogate.sample_functions`. The callable keeps its own copy of the functions: a later
        fit of this model does not change it.
        """
        if k < 1:
            raise InputError(f"sample_functions: k must be at least 1, got {k}")
        generator = torch.Generator().manual_seed(derive_seed(seed_or_random(seed), "functions"))
        total = len(self.noise_variance)
        rounds = -(-k // total)
        chosen = torch.cat([torch.randperm(total, generator=generator) for _ in range(rounds)])
        draws = chosen[:k].to(self.weights.device)
        model = deepcopy(self).eval()

        def functions(X: Tensor) -> Tensor:
            values = model._values_in_user_units(X, draws).movedim(-3, 0)
            return values if model._outputs is None else values[..., model._outputs]

        return functions

    # ---- what else BoTorch asks of a model ------------------------------------------------------
    def condition_on_observations(self, X: Tensor, Y: Tensor, **kwargs: Any) -> Self:
        """Not available.

        Raises:
            UnsupportedError: Always.
        """
        raise UnsupportedError(
            f"the weights of a {type(self).__name__} cannot be conditioned on new observations in "
            "closed form; build the model again on all data with warm_start=model, or use a "
            "surrogate with exact conditioning such as 'gp'"
        )

    def fantasize(self, X: Tensor, *args: Any, **kwargs: Any) -> Self:
        """Not available; see `condition_on_observations`."""
        return self.condition_on_observations(X, X)

    # ---- for subclasses' fit -------------------------------------------------------------------
    def _keep(self, weights: Tensor, noise_variance: Tensor) -> None:
        """Store what was learnt.

        Args:
            weights: Of the buffer's shape.
            noise_variance: Broadcastable to `K x m`, in standardized units.

        Raises:
            FitError: Something is not finite.
        """
        if not (torch.isfinite(weights).all() and torch.isfinite(noise_variance).all()):
            raise FitError(
                f"the fit of {self.entry_name or type(self).__name__} diverged: its weights are "
                "not finite; lower the learning rate or the step size"
            )
        self.weights.copy_(weights.detach())
        self.noise_variance.copy_(noise_variance.detach().expand_as(self.noise_variance))
        self.fitted.fill_(True)

    def _diagnose_training(
        self, minimum: Minimum, steps: int, noise: Tensor, **figures: float
    ) -> FitDiagnostics:
        """Of networks that were trained to a minimum of their loss.

        Args:
            minimum: Of the sum over the members.
            steps: To it.
            noise: Noise variances that they were trained with.
            **figures: Others that are to be told.
        """
        with torch.no_grad():
            values = self.function_values(self.network_inputs(self._inputs))
            residual = (values - self._targets).square().mean().sqrt().item()
        improved = minimum.last <= minimum.first
        return FitDiagnostics(
            converged=improved,
            message=""
            if improved
            else f"the loss rose from {minimum.first:.4g} to {minimum.last:.4g}; lower the "
            "learning rate",
            values={
                "loss_per_member": minimum.last / self.config.members,
                "first_loss_per_member": minimum.first / self.config.members,
                "steps": float(steps),
                "standardized_residual": residual,
                **figures,
                "noise_variance": noise.mean().item(),
            },
        )
