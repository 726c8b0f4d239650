"""Noisy expected improvement, of a value or of a hypervolume, where the model predicts cheaply
beside fixed points.

Such a model has a Gaussian posterior for each outcome, independent of the others
(`Surrogate.has_fixed_points`).
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.models.model import Model, ModelList
from botorch.posteriors import Posterior
from botorch.sampling.list_sampler import ListSampler
from botorch.utils.transforms import match_batch_shape
from torch import Tensor

from bo_surrogates.posteriors.fixed_points import FixedPoints
from bo_surrogates.surrogates.base import Surrogate

DEVIATIONS = 5.0  # within which all values are taken to be


def parts_beside_fixed_points(model: Model) -> list[Surrogate]:
    """A model for each outcome, if all of them predict beside fixed points; else none."""
    parts = list(model.models) if isinstance(model, ModelList) else [model]
    found = [part for part in parts if isinstance(part, Surrogate) and part.has_fixed_points]
    return found if len(found) == len(parts) else []


def marginals(parts: list[Surrogate], X: Tensor) -> tuple[Tensor, Tensor]:
    """Means and variances of all outcomes, `n x m` each, at `n x d` inputs."""
    means, variances = zip(*(part.marginals(X) for part in parts), strict=True)
    return torch.cat(means, dim=-1), torch.cat(variances, dim=-1)


def possibly_best(model: Model, X: Tensor, weights: Tensor) -> Tensor:
    """Points that are not surely worse than another: a first sieve, which takes no samples.

    A point goes if its value is below another's as long as all outcomes of both are within five
    standard deviations of their means. Which of the rest are the best in some sample is BoTorch's
    to find out, by 2048 joint samples.

    Args:
        model: Any; all points are kept if it does not predict beside fixed points.
        X: `n x d` inputs.
        weights: `m`, of the outcomes in the objective.
    """
    parts = parts_beside_fixed_points(model)
    if not parts:
        return X
    with torch.no_grad():
        mean, variance = marginals(parts, X)
    centre = mean @ weights.to(mean)
    reach = DEVIATIONS * (variance.sqrt() @ weights.abs().to(mean))
    return X[centre + reach >= (centre - reach).max()]


class _BesideFixedBaseline:
    """Samples at the baseline and beside it, from predictions made once.

    BoTorch predicts the baseline again for each candidate it evaluates. Here it is predicted once,
    and candidates beside it (`posteriors/fixed_points.py`). Base samples are BoTorch's with a
    cached root: those of the baseline stay whatever the number of candidates.
    """

    model: Any
    sampler: Any
    base_sampler: Any
    X_baseline: Tensor
    q_in: int
    _fixed: list[FixedPoints]

    def _fix_baseline(self) -> None:
        with torch.no_grad():
            parts = parts_beside_fixed_points(self.model)
            self._fixed = [part.fix_points(self.X_baseline) for part in parts]

    def _normals(self) -> list[Tensor]:
        """`k x (r + q)` for each outcome, in the order of the points."""
        several = isinstance(self.sampler, ListSampler)
        found: list[Tensor] = []
        for sampler in self.sampler.samplers if several else [self.sampler]:
            numbers: Tensor = sampler.base_samples
            k, m = sampler.sample_shape.numel(), 1 if several else len(self._fixed)
            found += numbers.reshape(k, -1, m).unbind(dim=-1)
        return found

    def _samples_at_baseline(self) -> Tensor:
        """`k x r x m`."""
        pairs = zip(self._fixed, self._normals(), strict=True)
        samples = torch.stack([f.fixed_samples(normal) for f, normal in pairs], dim=-1)
        return samples.to(self.X_baseline)

    def _samples_beside(self, X: Tensor) -> Tensor:
        """`k x batch_shape x q x m` at `batch_shape x q x d` inputs."""
        if self.q_in != X.shape[-2]:
            with torch.no_grad():
                one = X.detach().reshape(-1, *X.shape[-2:])[:1]
                joint = torch.cat([match_batch_shape(self.X_baseline, one), one], dim=-2)
                posterior = self.model.posterior(joint)
                if self.base_sampler is None:  # no baseline: no point may dominate the reference
                    self.sampler(posterior)  # makes the base samples
                    self.q_in = X.shape[-2]
                else:
                    self._set_sampler(q_in=X.shape[-2], posterior=posterior)  # type: ignore[attr-defined]
        pairs = zip(self._fixed, self._normals(), strict=True)
        return torch.stack([f.samples(X, normal) for f, normal in pairs], dim=-1).to(X)


class FixedBaselineLogNoisyExpectedImprovement(_BesideFixedBaseline, qLogNoisyExpectedImprovement):
    """BoTorch's acquisition function, of the same value; arguments as for that."""

    def _init_baseline(self, *args: Any, **kwargs: Any) -> None:
        super()._init_baseline(*args, **kwargs | {"cache_root": False})
        self._cache_root, self.q_in = True, -1
        self._fix_baseline()
        with torch.no_grad():
            # Makes the base samples; the values follow from the factors that are kept here.
            self.get_posterior_samples(self.model.posterior(self.X_baseline))
            self.base_sampler = deepcopy(self.sampler)
            samples = self._samples_at_baseline()
            objective = self.objective(samples, X=self.X_baseline)
            self.baseline_samples, self.baseline_obj = samples, objective
            self._baseline_best_f = self._compute_best_feasible_objective(
                samples=samples, obj=objective
            )

    def _get_samples_and_objectives(self, X: Tensor) -> tuple[Tensor, Tensor]:
        samples = self._samples_beside(X)
        return samples, self.objective(samples, X=X)


class FixedBaselineLogNoisyExpectedHypervolumeImprovement(  # type: ignore[misc]
    _BesideFixedBaseline, qLogNoisyExpectedHypervolumeImprovement
):
    """BoTorch's acquisition function, of the same value; arguments as for that.

    Pending points are part of the baseline, as by BoTorch's default.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"cache_root": False})

    def _set_cell_bounds(self, num_new_points: int) -> None:
        self._fix_baseline()
        self.base_sampler = None  # the baseline grew
        super()._set_cell_bounds(num_new_points)

    def get_posterior_samples(self, posterior: Posterior) -> Tensor:
        """At the baseline; from the factors that are kept."""
        super().get_posterior_samples(posterior)  # makes the base samples
        return self._samples_at_baseline()

    def _compute_posterior_samples_and_concat_pending(self, X: Tensor) -> tuple[Tensor, Tensor]:
        return self._samples_beside(X), X
