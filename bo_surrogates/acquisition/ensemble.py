"""Acquisition over an ensemble of functions without evaluating any of them in vain.

A sample of an ensemble's posterior is one of its functions, the same at all points
(`posteriors/ensemble.py`). Hence

- a function's values at observed and pending points do not depend on where else it is evaluated:
  noisy expected improvement (Ament et al. 2023, arXiv 2310.20708, with the increments of Wilson,
  Hutter and Deisenroth 2018, arXiv 1805.10196) needs them once for each point that joins a batch,
  where a Gaussian process's samples need a joint posterior at each evaluation;
- fewer samples than functions leave some functions without a sample: their values are not needed.

Neither changes what is optimized.
"""

from __future__ import annotations

from typing import Any

import torch
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.models.model import Model
from botorch.sampling.base import MCSampler
from botorch.sampling.list_sampler import ListSampler
from torch import Tensor

from bo_surrogates.posteriors.ensemble import EnsembleMixturePosterior, EnsembleSampler
from bo_surrogates.surrogates.finite_width import EnsembleSurrogate


def samples_functions(sampler: MCSampler) -> bool:
    """Whether a sampler's samples are functions, each the same wherever it is evaluated."""
    if isinstance(sampler, ListSampler):
        return all(isinstance(part, EnsembleSampler) for part in sampler.samplers)
    return isinstance(sampler, EnsembleSampler)


def sampled_functions(model: Model, sampler: MCSampler, X: Tensor) -> tuple[Model, MCSampler]:
    """A model of those functions of an ensemble that have a sample, and its sampler.

    Args:
        model: Of any kind; if nothing can be saved, it is returned as it is.
        sampler: For its posteriors.
        X: `n x d` inputs, to see a posterior.
    """
    if not isinstance(model, EnsembleSurrogate) or not isinstance(sampler, EnsembleSampler):
        return model, sampler
    with torch.no_grad():
        posterior = model.posterior(X[:1])
    if not isinstance(posterior, EnsembleMixturePosterior):
        return model, sampler
    members = sampler.members(posterior).flatten()
    if len(members.unique()) == posterior.ensemble_size:
        return model, sampler
    chosen, place = members.unique(return_inverse=True)
    part = model.subset_draws(chosen)
    if part is None:
        return model, sampler
    fixed = EnsembleSampler(sampler.sample_shape, seed=sampler.seed)
    fixed.base_samples = place.reshape(sampler.sample_shape)
    return part, fixed


class FunctionwiseLogNoisyExpectedImprovement(qLogNoisyExpectedImprovement):
    """BoTorch's acquisition function for samples that are functions; arguments as for that.

    The best value of each function at observed and pending points is computed when these are set.
    """

    _best: Tensor

    def _init_baseline(self, *args: Any, **kwargs: Any) -> None:
        super()._init_baseline(*args, **kwargs)
        with torch.no_grad():
            samples, objective = self._get_samples_and_objectives(self.X_baseline)
            self.baseline_samples, self.baseline_obj = samples, objective
            self._best = self._compute_best_feasible_objective(samples=samples, obj=objective)

    def _get_samples_and_objectives(self, X: Tensor) -> tuple[Tensor, Tensor]:
        posterior = self.model.posterior(X, posterior_transform=self.posterior_transform)
        samples = self.get_posterior_samples(posterior)
        return samples, self.objective(samples, X=X)

    def compute_best_f(self, obj: Tensor) -> Tensor:
        """`sample_shape x 1 x ...`, for objectives `sample_shape x batch_shape x q`."""
        batch = obj.ndim - self._best.ndim - 1
        return self._best.reshape(*self._best.shape, *[1] * batch).to(obj)
