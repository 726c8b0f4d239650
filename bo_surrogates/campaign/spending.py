"""What trials cost, where the space has a fidelity."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import Trial
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
