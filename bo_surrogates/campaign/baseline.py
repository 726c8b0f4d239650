"""The baseline of relative outcome constraints, and what it makes of them.

The baseline's value of a metric is the mean of what was measured at its point, over all completed
trials there: measured, not predicted, so that whether a trial is feasible does not change with
each fit. A noisy baseline is told more exactly by replicates, or by measuring its point again.
"""

from __future__ import annotations

from collections.abc import Sequence

from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import Trial
from bo_surrogates.errors import InputError, RunError
from bo_surrogates.objective import OutcomeConstraint, resolve
from bo_surrogates.space import Values


def baseline_point(spec: CampaignSpec, trials: Sequence[Trial]) -> Values | None:
    """Where the baseline is: the campaign's point, or that of the trial it names (if it exists).

    Raises:
        InputError: That trial is not at the target fidelity.
    """
    if isinstance(spec.baseline, int):
        named = [t for t in trials if t.index == spec.baseline]
        if named and not spec.space.is_at_target(named[0].parameters):
            ((name, value),) = spec.space.target.items()
            raise InputError(
                f"baseline: trial {spec.baseline} is at {name} = "
                f"{named[0].parameters[name]!r}, but what is compared with it is at the target "
                f"{value!r}; name a trial that is"
            )
        return dict(named[0].parameters) if named else None
    return None if spec.baseline is None else dict(spec.baseline)


def baseline_trials(spec: CampaignSpec, trials: Sequence[Trial]) -> list[Trial]:
    """The trials at the baseline, whatever their status."""
    point = baseline_point(spec, trials)
    return [t for t in trials if point is not None and t.parameters == point]


def baseline_values(spec: CampaignSpec, trials: Sequence[Trial]) -> dict[str, float] | None:
    """What was measured at the baseline, by metric; None if nothing yet."""
    measured = [t for t in baseline_trials(spec, trials) if t.status == "completed"]
    if not measured:
        return None
    return {m: sum(t.value(m) for t in measured) / len(measured) for m in spec.metrics}


def is_pending(spec: CampaignSpec, trials: Sequence[Trial]) -> bool:
    """Whether constraints wait for a baseline that is being measured."""
    if not any(c.relative for c in spec.constraints) or baseline_values(spec, trials) is not None:
        return False
    return any(t.status == "running" for t in baseline_trials(spec, trials))


def absolute_constraints(
    spec: CampaignSpec, trials: Sequence[Trial]
) -> tuple[OutcomeConstraint, ...]:
    """The campaign's outcome constraints, relative ones resolved against the baseline.

    Raises:
        RunError: The baseline has not been measured.
        InputError: A constrained metric is 0 there.
    """
    values = baseline_values(spec, trials)
    relative = [c for c in spec.constraints if c.relative]
    if relative and values is None:
        at = baseline_trials(spec, trials)
        if not at:
            state = (
                f"there is no trial {spec.baseline}"
                if isinstance(spec.baseline, int)
                else "no trial was made at its point"
            )
        else:
            state = f"trial {at[-1].index} is {at[-1].status}"
            state += f" ({at[-1].reason})" if at[-1].reason else ""
        raise RunError(
            f"constraint '{relative[0]}' needs the baseline, which has not been measured: {state}; "
            "add a trial at the baseline's parameters and tell its result"
        )
    return resolve(spec.constraints, values)
