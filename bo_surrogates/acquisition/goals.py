"""Objectives and outcome constraints as acquisition functions take them: on standardized outcomes.

Acquisition functions want outcomes of about unit scale (their smoothing temperatures are absolute
numbers), and that is how surrogates predict them inside: each metric less its mean, divided by its
standard deviation. A weighted sum of metrics is divided by the standard deviation of its own
measured values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bo_surrogates.objective import Objective, OutcomeConstraint, metric_names
from bo_surrogates.surrogates.base import smallest_meaningful_stdv

Constraint = Callable[[Tensor], Tensor]  # of outcome samples `... x m`; satisfied where <= 0


@dataclass(frozen=True)
class Goals:
    """What is wanted of m standardized outcomes.

    Attributes:
        weights: `k x m`: objective i, to be maximized, is `outcomes @ weights[i]`.
        reference: `k` reference point of the weighted objectives, NaN where it is inferred.
        constraints: Callables of outcomes `... x m`, satisfied where <= 0.
    """

    weights: Tensor
    reference: Tensor
    constraints: tuple[Constraint, ...] = field(default=())


def outcome_scales(Y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation by which surrogates standardize outcomes `n x m`: `m` each.

    1 instead of a deviation that is due to rounding.
    """
    mean = Y.mean(dim=0)
    if len(Y) < 2:
        return mean, torch.ones_like(mean)
    stdv = Y.std(dim=0)
    smallest = Y.new_tensor([smallest_meaningful_stdv(column.unsqueeze(-1)) for column in Y.T])
    return mean, stdv.where(stdv >= smallest, torch.ones_like(stdv))


def standardized_goals(
    objectives: Sequence[Objective], constraints: Sequence[OutcomeConstraint], Y: Tensor
) -> Goals:
    """The goals on the scale on which surrogates fitted to Y predict.

    Args:
        objectives: What is wanted.
        constraints: Bounds on outcomes, none relative.
        Y: `n x m` measured outcomes, a column for each of `metric_names(objectives, constraints)`.
    """
    names = metric_names(objectives, constraints)
    mean, stdv = outcome_scales(Y)
    weights = Y.new_zeros(len(objectives), len(names))
    reference = Y.new_full((len(objectives),), torch.nan)
    for i, objective in enumerate(objectives):
        raw = Y.new_zeros(len(names))
        for metric, weight in objective.terms.items():
            raw[names.index(metric)] = weight
        _, scale = outcome_scales((Y @ raw).unsqueeze(-1))
        if not objective.weights:
            scale = stdv[names.index(objective.name)]  # exactly: the weight is then 1 or -1
        weights[i] = objective.sign * raw * stdv / scale
        if objective.reference is not None:
            reference[i] = objective.sign * (objective.reference - raw @ mean) / scale
    return Goals(
        weights,
        reference,
        tuple(_constraint(c, names.index(c.metric), mean, stdv) for c in constraints),
    )


def _constraint(
    constraint: OutcomeConstraint, column: int, mean: Tensor, stdv: Tensor
) -> Constraint:
    sign = 1.0 if constraint.op == "<=" else -1.0
    bound = float((constraint.bound - mean[column]) / stdv[column])
    return lambda outcomes: sign * (outcomes[..., column] - bound)
