"""What `status` shows: progress, what runs and what failed, the best, and what to watch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from bo_surrogates.campaign.forecasts import LEVEL, coverage, forecasts
from bo_surrogates.campaign.pace import duration, seconds_left
from bo_surrogates.cli.display import (
    format_point,
    heading,
    listed,
    make_console,
    print_best,
    print_failures,
    print_spending,
    progress_json,
    progress_line,
    trial_json,
)

if TYPE_CHECKING:
    from bo_surrogates.campaign.campaign import Campaign
    from bo_surrogates.campaign.trial import Trial

RECENT = 10  # fits looked at
SURPRISING = 0.01  # probability of so few measurements inside their intervals


def status_json(campaign: Campaign) -> dict[str, Any]:
    """How far a campaign is, as plain data."""
    trials = campaign.trials
    found = {m: forecasts(trials, m) for m in campaign.metrics}
    best = campaign.best() if len(campaign.spec.objectives) == 1 else None
    return {
        **progress_json(campaign),
        "seconds_left": seconds_left(campaign.spec, trials),
        "best_trial": None if best is None else best.index,
        "unconverged_fits": [t.index for t in trials if not _converged(t)],
        "calibration": {
            m: {"level": LEVEL, "inside": sum(f.inside() for f in ones), "of": len(ones)}
            for m, ones in found.items()
        },
        "trials": [trial_json(t) for t in trials],
    }


def print_status(campaign: Campaign) -> None:
    """How far a campaign is, what failed, how well its surrogate does."""
    console = make_console()
    trials = campaign.trials
    console.print(heading(campaign))
    console.print(progress_line(campaign, trials))
    print_spending(campaign, console, trials)
    left = seconds_left(campaign.spec, trials)
    if left:
        console.print(f"about {duration(left)} of running left, at the pace of the last trials")
    console.print(f"stored in {campaign.database}", soft_wrap=True)
    _print_running(console, trials)
    print_failures(console, trials)
    _print_fits(console, trials)
    _print_calibration(console, campaign, trials)
    print_best(campaign, console)
    _print_when(console, campaign, trials)


def _print_running(console: Console, trials: Sequence[Trial]) -> None:
    for t in trials:
        if t.status == "running":
            age = "" if t.created is None else f" for {duration(_age(t.created))}"
            text = f"trial {t.index} has been running{age}: {format_point(t.parameters)}"
            console.print(Text(text, "yellow"))


def _age(moment: datetime) -> float:
    return max((datetime.now(UTC) - moment).total_seconds(), 0.0)


def _converged(trial: Trial) -> bool:
    """Whether the fits behind a trial were fit to be relied on, as far as is known."""
    return all(
        value != 0
        for name, value in trial.diagnostics.items()
        if name == "converged" or name.startswith("converged:")
    )


def _print_fits(console: Console, trials: Sequence[Trial]) -> None:
    fitted = [t for t in trials if any(n.startswith("converged") for n in t.diagnostics)][-RECENT:]
    bad = [t.index for t in fitted if not _converged(t)]
    if bad:
        text = (
            f"{len(bad)} of the last {len(fitted)} fits of the surrogate did not converge (trial "
            f"{listed(bad)}): its proposals are less to be relied on; try another surrogate "
            "(bo-surrogates list surrogates) or its settings"
        )
        console.print(Text(text, "yellow"))


def _print_calibration(console: Console, campaign: Campaign, trials: Sequence[Trial]) -> None:
    for metric in campaign.metrics:
        found = forecasts(trials, metric)
        if coverage(found) is None:
            continue
        inside = sum(f.inside() for f in found)
        text = (
            f"{inside} of {len(found)} measured values of {metric} lay inside the {100 * LEVEL:g} "
            "% intervals predicted for them"
        )
        few = at_most(inside, len(found), LEVEL) < SURPRISING
        hint = ": the surrogate is too sure of itself" if few else ""
        console.print(Text(text + hint, "yellow" if few else "dim"))


def at_most(k: int, n: int, p: float) -> float:
    """Probability of at most k successes among n, each of probability p."""
    return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))


def _print_when(console: Console, campaign: Campaign, trials: Sequence[Trial]) -> None:
    best = campaign.best() if len(campaign.spec.objectives) == 1 else None
    if best is None:
        return
    later = sum(t.status == "completed" and t.index > best.index for t in trials)
    when = "" if best.finished is None else f" {duration(_age(best.finished))} ago"
    since = f"{later} trial{'' if later == 1 else 's'} since" if later else "the latest trial"
    console.print(f"  found{when}; {since}", style="dim")
