"""Which point to take in the end: the best by the surrogate's mean, not by one measurement.

The best of many noisy measurements is too good on average (the winner's curse); the posterior mean
averages the noise out over all trials. Two points are recommended: the best of those tried, and
the best of the whole space, where perhaps nothing has been measured yet. Both satisfy the outcome
constraints by the means of the constrained metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from botorch.acquisition import AcquisitionFunction
from torch import Tensor

from bo_surrogates.acquisition.optimize import maximize
from bo_surrogates.campaign.model import CampaignModel
from bo_surrogates.campaign.trial import Trial
from bo_surrogates.errors import InputError, SpaceExhausted
from bo_surrogates.seeding import derive_seed, fixed_seed
from bo_surrogates.space import Values
from bo_surrogates.threads import limited_threads

LEVEL = 0.9
# In standard deviations of the outcomes: what a violated constraint costs, and how far inside its
# bound the optimizer is to end, which it meets only roughly.
PENALTY, MARGIN = 10.0, 0.01


@dataclass(frozen=True)
class Recommendation:
    """A point with what is expected there of the outcome free of noise.

    Attributes:
        parameters: Of the point.
        trial: The trial there, if it has been tried.
        mean: By metric.
        interval: By metric, the ends of the central 90 % interval.
    """

    parameters: Values
    trial: Trial | None
    mean: Mapping[str, float]
    interval: Mapping[str, tuple[float, float]]


def recommend_tried(model: CampaignModel) -> Recommendation | None:
    """The tried point whose posterior mean is best among those that satisfy the constraints.

    Of those tried at the target, where the space has a fidelity. None where none does.

    Raises:
        InputError: The campaign has several objectives.
    """
    value, violation = _merit(model, model.X)
    left_out = (violation > 0) | ~model.spec.space.at_target(model.X)
    value = value.masked_fill(left_out, -torch.inf)
    best = int(value.argmax())
    if torch.isinf(value[best]):
        return None
    return _recommendation(model, model.X[best], model.trials[best])


def recommend(model: CampaignModel) -> Recommendation | None:
    """The point of the space whose posterior mean is best and satisfies the constraints.

    At the target, where the space has a fidelity; it may have been tried at another one only.
    Never worse, by the mean, than `recommend_tried`. None where no point is found.

    Raises:
        InputError: The campaign has several objectives.
    """
    space, tried = model.spec.space, recommend_tried(model)
    seed = derive_seed(model.seed, "recommend")
    with limited_threads(1), fixed_seed(seed):
        try:
            avoid = model.X[space.at_target(model.X)]
            config = model.spec.acquisition
            X, _ = maximize(_PosteriorMean(model), space, 1, config, avoid, space.target)
        except SpaceExhausted:
            return tried
    value, violation = _merit(model, X)
    if violation[0] > 0:
        return tried
    if tried is not None:
        known, _ = _merit(model, model.encode([tried.parameters]))
        if known[0] >= value[0]:
            return tried
    return _recommendation(model, X[0], None)


def _merit(model: CampaignModel, X: Tensor) -> tuple[Tensor, Tensor]:
    """The objective to be maximized and the worst violation, at `n x d` problem coordinates."""
    return _merit_of_model_coordinates(model, model.spec.space.to_model(X))


def _merit_of_model_coordinates(model: CampaignModel, Z: Tensor) -> tuple[Tensor, Tensor]:
    """In standard deviations of the outcomes; differentiable. A violation below 0 is slack."""
    spec = model.spec
    if len(spec.objectives) != 1:
        raise InputError(
            f"campaign {spec.name!r} has {len(spec.objectives)} objectives, hence no single point "
            "to recommend; see the Pareto front"
        )
    (objective,) = spec.objectives
    surrogates: Mapping[str, Any] = model.surrogates

    def mean(metric: str) -> Tensor:
        found: Tensor = surrogates[metric].posterior(Z.unsqueeze(-2)).mean[..., 0, 0]
        return found

    def scale(metric: str) -> float:
        values = [t.value(metric) for t in model.trials]
        return float(torch.tensor(values, dtype=torch.float64).std()) or 1.0

    worth = {m: weight * scale(m) for m, weight in objective.terms.items()}
    size = max(map(abs, worth.values()))  # of what the terms contribute
    value = objective.sign * sum(
        (weight * mean(m) / size for m, weight in objective.terms.items()),
        torch.zeros(len(Z)).to(Z),
    )
    violation = torch.full_like(value, -torch.inf)
    for c in model.constraints:
        sign = 1.0 if c.op == "<=" else -1.0
        excess = sign * (mean(c.metric) - c.bound) / scale(c.metric)
        violation = torch.maximum(violation, excess)
    return value, violation


class _PosteriorMean(AcquisitionFunction):
    """The mean of the objective, less a penalty where a constrained metric's mean is beyond."""

    def __init__(self, model: CampaignModel) -> None:
        super().__init__(model=next(iter(model.surrogates.values())))
        self._of = model

    def forward(self, X: Tensor) -> Tensor:
        """Of `b x 1 x d` model coordinates, `b`."""
        value, violation = _merit_of_model_coordinates(self._of, X.squeeze(-2))
        return value - PENALTY * (violation + MARGIN).clamp_min(0.0)


def _recommendation(model: CampaignModel, x: Tensor, trial: Trial | None) -> Recommendation:
    tails = 0.5 - LEVEL / 2, 0.5 + LEVEL / 2
    found = {m: model.marginals(m, x.unsqueeze(0), tails) for m in model.metrics}
    values = trial.parameters if trial is not None else model.spec.space.decode(x)
    return Recommendation(
        values,
        trial,
        {m: p.mean.item() for m, p in found.items()},
        {m: (p.quantiles[0, 0].item(), p.quantiles[1, 0].item()) for m, p in found.items()},
    )
