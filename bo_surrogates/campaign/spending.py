"""What trials cost where the space has a fidelity, and which must be at its target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import Trial, budgeted
from bo_surrogates.space import Value


@dataclass(frozen=True)
class Spending:
    """The trials at one fidelity.

    Attributes:
        value: The fidelity.
        trials: Their number.
        cost: Of all of them.
    """

    value: Value
    trials: int
    cost: float


def trials_cost(spec: CampaignSpec, trials: Iterable[Trial]) -> float:
    """What trials cost, each replicate by itself; 0 without a fidelity."""
    return sum(s.cost for s in spending(spec, trials))


def spending(spec: CampaignSpec, trials: Iterable[Trial]) -> list[Spending]:
    """What trials cost by fidelity, ascending; none without a fidelity."""
    f = spec.space.fidelity
    if f is None or spec.fidelity is None:
        return []
    counts: dict[Value, int] = {}
    for t in trials:
        value = t.parameters[f.name]
        counts[value] = counts.get(value, 0) + 1
    return [
        Spending(value, n, n * spec.replicates * spec.fidelity.cost(f, value))
        for value, n in sorted(counts.items(), key=lambda item: f.encode(item[0]))
    ]


def at_target(spec: CampaignSpec, trials: Sequence[Trial], n: int) -> frozenset[int]:
    """Which of the next n trials must be at the target: the baseline, and the last of the budget.

    What a cheap trial tells is of use to the trials that come after it only.
    """
    f = spec.space.fidelity
    if f is None or spec.fidelity is None:
        return frozenset()
    counted = budgeted(trials)
    numbers = range(len(trials), len(trials) + n)
    last = len(trials) - len(counted) + spec.budget - 1
    found = {k for k in numbers if k in (last, spec.baseline)}
    if spec.budget_cost is not None:
        one = spec.replicates * spec.fidelity.target_cost(f)
        left = spec.budget_cost - trials_cost(spec, counted)
        found.update(k for k in numbers if (k - len(trials) + 1) * one >= left)
    return frozenset(found)
