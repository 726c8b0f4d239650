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
from botorch.models.transforms.input import InputTransform
from botorch.models.transforms.outcome import OutcomeTransform
from botorch.posteriors.posterior import Posterior
from torch import Tensor

from bo_surrogates.config import Config
from bo_surrogates.errors import FitError, InputError, RunError
from bo_surrogates.networks import BatchedMLP
from bo_surrogates.posteriors.ensemble import EnsembleMixturePosterior
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates.base import FunctionSamples, Surrogate, seed_or_random


class FiniteWidthSurrogate(Surrogate):
    """A surrogate on networks of one shape: its data, scaled, and its outputs.

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
        with torch.no_grad():
            inputs = self.network_inputs(train_X[:1]).shape[-1]
        self.network = self.make_network(self.config, inputs, Y.shape[-1])
        self.make_state(train_Y)
        self.register_buffer("fitted", torch.tensor(False, device=train_Y.device))
        self.prepare()

    # ---- what a subclass decides -------------------------------------------------------------
    @classmethod
    @abstractmethod
    def make_network(cls, config: Any, inputs: int, outputs: int) -> BatchedMLP:
        """The network of a configuration."""

    @abstractmethod
    def make_state(self, like: Tensor) -> None:
        """Register the buffers of what will be learnt, empty, of the dtype and device of `like`."""

    # ---- inputs and outputs ------------------------------------------------------------------
    def network_inputs(self, X: Tensor) -> Tensor:
        """Inputs as the network sees them: the unit cube centred and scaled to unit variance.

        Args:
            X: `batch_shape x n x d` inputs in the user's units.

        Returns:
            `batch_shape x n x d'`, each input in [-sqrt(3), sqrt(3)].
        """
        return (self.transform_inputs(X) - 0.5) * 12**0.5

    @property
    def num_outputs(self) -> int:
        """m."""
        return self._num_outputs

    @property
    def batch_shape(self) -> torch.Size:
        """Empty: one model, not a batch of them."""
        return torch.Size()

    def _set_transformed_inputs(self) -> None:
        """Nothing to do: training inputs are transformed where they are used."""

    def _selected(self, output_indices: list[int] | None) -> list[int] | None:
        """Outputs of the network that are wanted, None for all."""
        if output_indices is None:
            return self._outputs
        return [self._outputs[i] if self._outputs else i for i in output_indices]

    def subset_output(self, idcs: list[int]) -> Self:
        """A copy of the model with some of its outputs."""
        model = deepcopy(self)
        model._outputs = self._selected(list(idcs))
        model._num_outputs = len(idcs)
        return model


class EnsembleSurrogate(FiniteWidthSurrogate):
    """A surrogate whose posterior is an ensemble of K functions.

    Learnt state, all in `state_dict()`: `weights` (`K x P`, a network a function, unless a subclass
    says otherwise), `noise_variance` (`K x m`, in standardized units) and the transforms.

    Arguments: see `FiniteWidthSurrogate`.
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
        """See `FiniteWidthSurrogate.make_state`."""
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
