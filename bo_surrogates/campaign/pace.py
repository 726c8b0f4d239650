"""How fast a campaign goes, and how long it will still take."""

from __future__ import annotations

from collections.abc import Sequence

from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import Trial, budgeted

RECENT = 10  # trials whose times are taken to be those of the next


def seconds_left(spec: CampaignSpec, trials: Sequence[Trial]) -> float | None:
    """Seconds of running until the budget is spent, at the pace of the last trials.

    Evaluations side by side count once; fits and acquisitions come for each batch beyond the
    initial design. None where no evaluation has been timed, as when results are told by hand.
    """
    counted = list(budgeted(trials))
    finished = [t for t in counted if t.status != "running"]
    evaluations = [t.seconds["evaluation"] for t in finished if "evaluation" in t.seconds]
    if not evaluations:
        return None
    left = max(spec.budget - len(finished), 0)
    proposed = [t for t in counted if t.origin not in ("sobol", "manual")][-RECENT:]
    asking = sum(t.seconds.get("fit", 0.0) + t.seconds.get("acquisition", 0.0) for t in proposed)
    to_ask = min(left, max(spec.budget - max(len(counted), spec.initial_design_size), 0))
    side_by_side = max(min(spec.workers, spec.batch_size), 1)
    recent = evaluations[-RECENT:]
    return left / side_by_side * sum(recent) / len(recent) + (
        to_ask * asking / len(proposed) if proposed else 0.0
    )


def duration(seconds: float) -> str:
    """A time for people, in two units at most."""
    if seconds < 1:
        return f"{seconds:.1g} s" if seconds > 0 else "0 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    for size, name, smaller, part in ((86_400, "d", "h", 3600), (3600, "h", "min", 60)):
        if seconds >= 1.5 * size:
            rest = round(seconds % size / part)
            whole, rest = divmod(round(seconds // size) * (size // part) + rest, size // part)
            return f"{whole} {name} {rest} {smaller}" if rest else f"{whole} {name}"
    return f"{seconds / 60:.0f} min"
