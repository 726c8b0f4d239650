"""Hyper-parameters of an exact Gaussian process of many observations, from those of a few.

The marginal likelihood costs n^3, and its maximum lies near that of a random subset of the data
(Chalupka, Williams & Murray 2013, JMLR 14). The search on all observations begins there, and ends
where a step gains less than a thousandth of a nat for a thousand observations: at n = 1000 it takes
a third of the evaluations, and ends at the same likelihood to a tenth of a nat.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood
from gpytorch.models import ExactGP

MANY = 500  # observations from which on it pays
FEW = 200  # observations in the subset
FTOL = 1e-6  # relative change of the loss a point at which the search on all of them ends


def on_few_points(model: ExactGP, generator: torch.Generator) -> Any:
    """A copy of a model in training mode that has some of its observations, chosen at random."""
    few: Any = deepcopy(model)
    n = few.train_targets.shape[-1]
    chosen = torch.randperm(n, generator=generator)[:FEW].to(few.train_targets.device)
    inputs = [X[..., chosen, :] for X in few.train_inputs]
    few.set_train_data(inputs, few.train_targets[..., chosen], strict=False)
    if isinstance(few.likelihood, FixedNoiseGaussianLikelihood):
        few.likelihood.noise = few.likelihood.noise[..., chosen]
    return few


def options_for_many(options: dict[str, Any], several: bool) -> dict[str, Any]:
    """Options of `fit_gpytorch_mll` for a search that starts near the optimum.

    Args:
        options: Those of a search from elsewhere.
        several: Whether there are several outputs.
    """
    options = {k: v for k, v in options.items() if k != "pick_best_of_all_attempts"}
    if "optimizer" in options or "optimizer_kwargs" in options:  # it has its own tolerance
        return options
    return options | search_until(FTOL, several)


def search_until(ftol: float, several: bool) -> dict[str, Any]:
    """Options of `fit_gpytorch_mll` for a search that ends at small gains.

    Args:
        ftol: Relative change of the loss a point.
        several: Whether there are several outputs.
    """
    tolerance: dict[str, float | None] = {"ftol": ftol}
    if several:  # BoTorch's optimizer of several models has another name for it
        tolerance["factr"] = None
    return {"optimizer_kwargs": {"options": tolerance}}
