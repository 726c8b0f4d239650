"""Noisy expected improvement where the model predicts cheaply beside fixed points.

Such a model has one outcome and a Gaussian posterior (`Surrogate.has_fixed_points`).
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, TypeGuard

import torch
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.models.model import Model
from botorch.utils.transforms import match_batch_shape
from torch import Tensor

from bo_surrogates.posteriors.fixed_points import FixedPoints
from bo_surrogates.surrogates.base import Surrogate

DEVIATIONS = 5.0  # within which all values are taken to be


def predicts_beside_fixed_points(model: Model) -> TypeGuard[Surrogate]:
    """Whether the acquisition function below takes the model."""
    return isinstance(model, Surrogate) and model.has_fixed_points


def possibly_best(model: Model, X: Tensor, weights: Tensor) -> Tensor:
    """Points that are not surely worse than another: a first sieve, which takes no samples.

    A point goes if its value is below another's as long as both are within five standard deviations
    of their means. Which of the rest are the best in some sample is BoTorch's to find out, by 2048
    joint samples.

    Args:
        model: Any; all points are kept if it does not predict beside fixed points.
        X: `n x d` inputs.
        weights: 1, of the outcome in the objective.
    """
    if not predicts_beside_fixed_points(model):
        return X
    with torch.no_grad():
        mean, variance = model.marginals(X)
    centre = mean @ weights.to(mean)
    reach = DEVIATIONS * (variance.sqrt() @ weights.abs().to(mean))
    return X[centre + reach >= (centre - reach).max()]


class FixedBaselineLogNoisyExpectedImprovement(qLogNoisyExpectedImprovement):
    """BoTorch's acquisition function, of the same value; arguments as for that.

    BoTorch predicts the baseline again for each candidate it evaluates. Here it is predicted once,
    and candidates beside it (`posteriors/fixed_points.py`). Base samples are BoTorch's with a
    cached root: those of the baseline stay whatever the number of candidates.
    """

    _fixed: FixedPoints

    def _init_baseline(self, *args: Any, **kwargs: Any) -> None:
        super()._init_baseline(*args, **kwargs | {"cache_root": False})
        self._cache_root, self.q_in = True, -1
        with torch.no_grad():
            model: Any = self.model
            fixed = self._fixed = model.fix_points(self.X_baseline)
            # Makes the base samples; the values follow from the factor that is kept here.
            self.get_posterior_samples(self.model.posterior(self.X_baseline))
            self.base_sampler = deepcopy(self.sampler)
            normal = self._base_samples()
            samples = fixed.fixed_samples(normal).to(self.X_baseline).unsqueeze(-1)
            objective = self.objective(samples, X=self.X_baseline)
            self.baseline_samples, self.baseline_obj = samples, objective
            self._baseline_best_f = self._compute_best_feasible_objective(
                samples=samples, obj=objective
            )

    def _base_samples(self) -> Tensor:
        """`k x (r + q)`, in the order of the points."""
        sampler: Any = self.sampler
        normal: Tensor = sampler.base_samples
        return normal.reshape(sampler.sample_shape.numel(), -1)

    def _get_samples_and_objectives(self, X: Tensor) -> tuple[Tensor, Tensor]:
        if self.q_in != X.shape[-2]:
            with torch.no_grad():
                one = X.detach().reshape(-1, *X.shape[-2:])[:1]
                joint = torch.cat([match_batch_shape(self.X_baseline, one), one], dim=-2)
                self._set_sampler(q_in=X.shape[-2], posterior=self.model.posterior(joint))
        samples = self._fixed.samples(X, self._base_samples()).to(X).unsqueeze(-1)
        return samples, self.objective(samples, X=X)
