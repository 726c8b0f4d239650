"""Trust regions: a box around the best point so far, which grows with success and shrinks without.

For many parameters (above about 20), where a surrogate is worth something only near the data. As
TuRBO with one region (Eriksson et al. 2019, NeurIPS, arXiv 1910.01003, section 2 and supplement):
the side starts at 0.8 of the range, doubles (to at most 1.6) after three batches in a row that
improve on the best value, and is halved after max(4, d) / q that do not; below 2^-7 the region
starts anew with a design of its own. With outcome constraints, as in SCBO (Eriksson & Poloczek
2021, AISTATS, arXiv 2002.08526), the centre is the best feasible point, or while there is none, the
one of the smallest violation. Sides are proportional to the surrogate's lengthscales, where it has
them, at the same volume.

Where a region is follows from the measurements alone, in their order (`replay`): there is no state
to lose, and a campaign that is resumed goes on as if it had not been interrupted.

Unlike TuRBO, any acquisition function is maximized in the box, and the surrogate is fitted to all
measurements, also to those before the last start: only the region's centre and its successes
count from there. An improvement is one of 1e-3 standard deviations of the region's first design;
TuRBO's 1e-3 |best| depends on where the outcome has its zero.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bo_surrogates.objective import Objective, OutcomeConstraint, metric_names
from bo_surrogates.space import Float, Space

FIRST_LENGTH, SMALLEST_LENGTH, LARGEST_LENGTH = 0.8, 2.0**-7, 1.6
SUCCESSES = 3  # in a row, after which the region grows
LEAST_FAILURES = 4  # points in a row, after which it shrinks; or as many as there are parameters
IMPROVEMENT = 1e-3  # standard deviations


@dataclass(frozen=True)
class TrustRegion:
    """A trust region after some measurements.

    Attributes:
        length: Side of the box, in shares of each parameter's range.
        start: Row from which measurements count, that of the region's first design.
        count: Measurements from there on.
        centre: Row of the best of these; None if there is none.
        successes: Batches in a row that improved.
        failures: Batches in a row that did not.
        restarts: How often it has started anew.
    """

    length: float = FIRST_LENGTH
    start: int = 0
    count: int = 0
    centre: int | None = None
    successes: int = 0
    failures: int = 0
    restarts: int = 0


Merit = tuple[float, float]  # minus the violation of the constraints, and the objective


def merits(
    objective: Objective, constraints: Sequence[OutcomeConstraint], Y: Tensor
) -> list[Merit]:
    """The merit of each of `n x m` measured outcomes; the larger, the better.

    Args:
        objective: The one objective.
        constraints: Bounds on outcomes, none relative.
        Y: A column for each of `metric_names([objective], constraints)`.
    """
    names = metric_names([objective], constraints)
    found = []
    for row in Y.tolist():
        values = dict(zip(names, row, strict=True))
        violation = sum(
            max(-c.slack(values[c.metric]), 0.0) / (abs(c.bound) or 1.0) for c in constraints
        )
        found.append((-violation, objective.sign * objective.value(values)))
    return found


def replay(measured: Sequence[Merit], dim: int, batch: int, design: int) -> TrustRegion:
    """The trust region that these measurements led to.

    Args:
        measured: Merits, in the order in which the points were asked.
        dim: Number of parameters.
        batch: Points of a batch, judged together.
        design: Measurements of each start's first design, which are not judged.
    """
    patience = math.ceil(max(LEAST_FAILURES, dim) / batch)
    region = TrustRegion()
    position = min(design, len(measured))
    while position + batch <= len(measured):
        before = measured[region.start : position]
        scale = _stdv([value for _, value in before[:design]])
        best = max(measured[position : position + batch])
        position += batch
        if _improves(best, max(before), scale):
            region = replace(region, successes=region.successes + 1, failures=0)
        else:
            region = replace(region, successes=0, failures=region.failures + 1)
        if region.successes == SUCCESSES:
            length = min(2 * region.length, LARGEST_LENGTH)
            region = replace(region, length=length, successes=0)
        elif region.failures == patience:
            region = replace(region, length=region.length / 2, failures=0)
        if region.length < SMALLEST_LENGTH:
            region = TrustRegion(start=position, restarts=region.restarts + 1)
            position = min(position + design, len(measured))
    since = range(region.start, len(measured))
    centre = max(since, key=lambda row: measured[row], default=None)
    return replace(region, count=len(since), centre=centre)


def _improves(new: Merit, old: Merit, scale: float) -> bool:
    if new[0] < 0 or old[0] < 0:  # by the violation, as long as there is any
        return new[0] > (1 - IMPROVEMENT) * old[0]
    return new[1] > old[1] + IMPROVEMENT * scale


def _stdv(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))


def narrowed(
    space: Space,
    centre: Tensor,
    length: float,
    lengthscales: Tensor | None = None,
    fixed: Collection[str] = (),
) -> Space:
    """The space within a trust region: its real parameters on shorter intervals.

    Integer, ordered and choice parameters keep their range, and so do conditional ones.

    Args:
        space: The whole.
        centre: `d` problem coordinates.
        length: Side of the box, in shares of each parameter's range in model coordinates.
        lengthscales: `d`, in shares of the range, by which the sides are weighted; equal if None.
        fixed: Names of parameters that are held, and keep their range.
    """
    chosen = [
        i
        for i, p in enumerate(space.varied)
        if isinstance(p, Float) and not p.when and p.name not in fixed
    ]
    if not chosen:
        return space
    weights = torch.ones(len(chosen), dtype=torch.float64)
    if lengthscales is not None:
        logs = lengthscales.to("cpu", torch.float64)[chosen].log()
        weights = (logs - logs.mean()).exp()
    low, high = space.model_bounds.double()
    Z = space.to_model(centre.to("cpu", torch.float64).unsqueeze(0))[0]
    half = torch.zeros_like(Z)
    half[chosen] = weights * length / 2 * (high - low)[chosen]
    Z = Z.clamp(low, high)
    lower = space.from_model((Z - half).clamp(low, high).unsqueeze(0))[0]
    upper = space.from_model((Z + half).clamp(low, high).unsqueeze(0))[0]
    shorter = {
        space.varied[i].name: (max(float(lower[i]), p.low), min(float(upper[i]), p.high))
        for i in chosen
        if isinstance(p := space.varied[i], Float)
    }
    return Space(
        [
            replace(p, low=shorter[p.name][0], high=shorter[p.name][1])
            if isinstance(p, Float) and p.name in shorter
            else p
            for p in space.parameters
        ],
        space.constraints,
    )
