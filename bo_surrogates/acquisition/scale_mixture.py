"""Analytic acquisition functions for scale mixtures of Gaussians, one point at a time.

With location m and scale s at a point, z = (m - best) / s, and T the distribution function of the
posterior's standardized variable t,

    EI = s h(z),    h(z) = E max(z + t, 0),    PI = T(z).

For Student-t posteriors h(z) = z T(z) + (v + z^2) / (v - 1) t(z) with v degrees of freedom and
t the density (Shah, Wilson & Ghahramani 2014, arXiv 1402.4306); for finite mixtures h and T are
sums over the components. BoTorch's analytic functions take a posterior's mean and variance for a
normal distribution's. Its Monte Carlo functions need none of this: they work on any posterior that
can be sampled, and take batches.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from botorch.acquisition.analytic import AnalyticAcquisitionFunction
from botorch.acquisition.objective import PosteriorTransform
from botorch.models.model import Model
from botorch.utils.transforms import t_batch_mode_transform
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.posteriors.scale_mixture import ScaleMixturePosterior


class ScaleMixtureAnalyticAcquisition(AnalyticAcquisitionFunction):
    """What the analytic acquisition functions share: location and scale at one point.

    Args:
        model: One outcome, or several with a `posterior_transform` that leaves one.
        posterior_transform: Applied to the posterior.
        maximize: Whether the outcome is maximized.
    """

    def __init__(
        self,
        model: Model,
        posterior_transform: PosteriorTransform | None = None,
        maximize: bool = True,
    ) -> None:
        super().__init__(model=model, posterior_transform=posterior_transform)
        self.sign = 1.0 if maximize else -1.0

    @t_batch_mode_transform(expected_q=1)  # type: ignore[arg-type]  # its type takes no methods
    def forward(self, X: Tensor) -> Tensor:
        """Values at `b x 1 x d` points: `b`.

        Raises:
            InputError: The model's posterior is no `ScaleMixturePosterior`.
        """
        posterior = self.model.posterior(X, posterior_transform=self.posterior_transform)
        if not isinstance(posterior, ScaleMixturePosterior):
            raise InputError(
                f"{type(self).__name__} needs a model with a ScaleMixturePosterior such as 'tp', "
                f"got a {type(posterior).__name__}; use BoTorch's acquisition functions for it"
            )
        return self._value(self.sign * posterior.loc, posterior)[..., 0, 0]

    @abstractmethod
    def _value(self, location: Tensor, posterior: ScaleMixturePosterior) -> Tensor:
        """Of an outcome to be maximized with this location: `b x 1 x 1`."""


class ScaleMixtureLogExpectedImprovement(ScaleMixtureAnalyticAcquisition):
    """Logarithm of the expected improvement: its gradient does not vanish far from the best.

    Args:
        model: See `ScaleMixtureAnalyticAcquisition`.
        best_f: Best outcome so far, a number or a tensor that broadcasts to `b`.
        posterior_transform: See `ScaleMixtureAnalyticAcquisition`.
        maximize: See `ScaleMixtureAnalyticAcquisition`.
    """

    def __init__(
        self,
        model: Model,
        best_f: float | Tensor,
        posterior_transform: PosteriorTransform | None = None,
        maximize: bool = True,
    ) -> None:
        super().__init__(model, posterior_transform, maximize)
        best = best_f if isinstance(best_f, Tensor) else torch.tensor(best_f, dtype=torch.float64)
        self.register_buffer("best_f", best)

    def _standardized(self, location: Tensor, posterior: ScaleMixturePosterior) -> Tensor:
        best = self.sign * torch.as_tensor(self.best_f).to(location)
        return (location - best.reshape(*best.shape, 1, 1)) / posterior.scale

    def _value(self, location: Tensor, posterior: ScaleMixturePosterior) -> Tensor:
        z = self._standardized(location, posterior)
        return posterior.scale.log() + posterior.log_improvement(z)


class ScaleMixtureExpectedImprovement(ScaleMixtureLogExpectedImprovement):
    """Expected improvement, in units of the outcome; arguments as for its logarithm."""

    def _value(self, location: Tensor, posterior: ScaleMixturePosterior) -> Tensor:
        return super()._value(location, posterior).exp()


class ScaleMixtureProbabilityOfImprovement(ScaleMixtureLogExpectedImprovement):
    """Probability that the outcome is better than `best_f`; arguments as above."""

    def _value(self, location: Tensor, posterior: ScaleMixturePosterior) -> Tensor:
        return posterior.standard_cdf(self._standardized(location, posterior))


class ScaleMixtureUpperConfidenceBound(ScaleMixtureAnalyticAcquisition):
    """A quantile of the outcome: what it does not exceed with probability `level`.

    For minimization, minus the outcome's quantile at 1 - `level`. A normal distribution's bound
    m + beta s is the quantile at the level Phi(beta).

    Args:
        model: See `ScaleMixtureAnalyticAcquisition`.
        level: In (0, 1); above 0.5 it explores.
        posterior_transform: See `ScaleMixtureAnalyticAcquisition`.
        maximize: See `ScaleMixtureAnalyticAcquisition`.

    Raises:
        InputError: The level is not in (0, 1).
    """

    def __init__(
        self,
        model: Model,
        level: float = 0.975,
        posterior_transform: PosteriorTransform | None = None,
        maximize: bool = True,
    ) -> None:
        if not 0 < level < 1:
            raise InputError(f"level must be in (0, 1), got {level}")
        super().__init__(model, posterior_transform, maximize)
        self.level = level

    def _value(self, location: Tensor, posterior: ScaleMixturePosterior) -> Tensor:
        z = posterior.standard_quantile(location.new_tensor(self.level))
        return location + posterior.scale * z
