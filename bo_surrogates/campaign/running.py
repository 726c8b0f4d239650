"""Running a campaign: ask, evaluate and tell until the budget is spent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bo_surrogates.campaign.black_box import BlackBox, make_black_box
from bo_surrogates.campaign.execution import TrialRunner
from bo_surrogates.campaign.trial import Trial
from bo_surrogates.errors import InputError, RunError
from bo_surrogates.seeding import derive_seed

if TYPE_CHECKING:
    from bo_surrogates.campaign.campaign import Campaign


@dataclass(frozen=True)
class Event:
    """What `Campaign.run` reports as it goes.

    Attributes:
        kind: "asking" (before fit and acquisition), "asked", "completed" or "abandoned".
        trial: The trial, except for "asking".
        campaign: The campaign.
    """

    kind: Literal["asking", "asked", "completed", "abandoned"]
    trial: Trial | None
    campaign: Campaign


def run(
    campaign: Campaign,
    black_box: Callable[..., Any] | None,
    *,
    trials: int | None,
    workers: int | None,
    on_event: Callable[[Event], None] | None,
    resolve_problem: Callable[..., Any] | None,
) -> None:
    """See `Campaign.run`."""
    campaign._require_writer()
    spec = campaign.spec
    report = on_event or (lambda event: None)
    box = _black_box(campaign, black_box, resolve_problem)
    with TrialRunner(box, workers or spec.workers, spec.timeout, spec.threads) as runner:
        failures = 0
        finished = sum(t.status != "running" for t in campaign.trials)
        stop = spec.budget
        if trials is not None:
            stop = min(stop, finished + trials)
        batch = _interrupted(campaign)
        while True:
            if not batch:
                known = len(campaign.trials)
                if known >= stop:
                    break
                report(Event("asking", None, campaign))
                batch = campaign.ask(min(spec.batch_size, stop - known))
            for trial in batch:
                report(Event("asked", trial, campaign))
            tasks = [
                (t.index, t.parameters, derive_seed(spec.seed, "evaluate", t.index)) for t in batch
            ]
            for outcome in runner.run(tasks):
                if outcome.measurements is not None:
                    trial = campaign.tell(
                        outcome.index, outcome.measurements, seconds=outcome.seconds
                    )
                    failures = 0
                    report(Event("completed", trial, campaign))
                else:
                    trial = campaign.abandon(
                        outcome.index, outcome.reason or "unknown", seconds=outcome.seconds
                    )
                    failures += 1
                    report(Event("abandoned", trial, campaign))
            if failures >= spec.max_consecutive_failures:
                raise RunError(
                    f"the last {failures} trials failed, the last with: {trial.reason}; mend "
                    f"the black box, then resume with 'bo-surrogates resume {campaign.database}'"
                )
            batch = []


def _interrupted(campaign: Campaign) -> list[Trial]:
    """Trials that an earlier process left running, to be evaluated again."""
    running = [t for t in campaign.trials if t.status == "running"]
    if campaign.spec.on_interrupt == "abandon":
        for t in running:
            campaign.abandon(t.index, "interrupted")
        return []
    return running


def _black_box(
    campaign: Campaign,
    function: Callable[..., Any] | None,
    resolve_problem: Callable[..., Any] | None,
) -> BlackBox:
    spec = campaign.spec
    source = function if function is not None else spec.black_box
    if source is None:
        raise InputError(
            f"campaign {spec.name!r} has no black box to run: give run() a function, or "
            "use ask and tell"
        )
    return make_black_box(
        source, space=spec.space, metrics=campaign.metrics, resolve_problem=resolve_problem
    )
