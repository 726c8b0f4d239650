"""`run` and `resume`: a campaign that evaluates its black box itself; `log`: what that printed."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bo_surrogates.cli.app import (
    INTERRUPTED,
    CampaignFile,
    Database,
    Device,
    Json,
    Name,
    Steal,
    Target,
    Verbose,
    Workers,
    app,
    complain,
    note,
)
from bo_surrogates.cli.targets import make_problem, open_campaign, read_spec, start_campaign
from bo_surrogates.errors import RunError

if TYPE_CHECKING:
    from bo_surrogates.campaign.campaign import Campaign


Executor = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Where trials are evaluated: in-process, processes or dask. The result does not "
        "depend on it.",
        show_default=False,
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Dask's scheduler (tcp://host:8786), or its scheduler file (.json).",
        show_default=False,
    ),
]
Asynchronous = Annotated[
    bool | None,
    typer.Option(
        "--asynchronous/--batches",
        help="Ask for the next point as soon as a worker is free (the course then depends on the "
        "order of completion), or in batches.",
        show_default=False,
    ),
]


@app.command()
def run(
    file: CampaignFile,
    database: Database = None,
    workers: Workers = None,
    executor: Executor = None,
    scheduler: Scheduler = None,
    asynchronous: Asynchronous = None,
    device: Device = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Stop after N trials; resume later.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Start a campaign and run it until its budget is spent.

    Ctrl-C stops it; 'resume' continues. A campaign that was started before is never overwritten.
    """
    with start_campaign(file, database, device) as campaign:
        options = _Options(trials, workers, executor, scheduler, asynchronous)
        _run(campaign, options, as_json=as_json, verbose=verbose)


@app.command()
def resume(
    target: Target,
    database: Database = None,
    name: Name = None,
    workers: Workers = None,
    executor: Executor = None,
    scheduler: Scheduler = None,
    asynchronous: Asynchronous = None,
    device: Device = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Extend the campaign's budget by N trials first, for good.",
            show_default=False,
        ),
    ] = None,
    steal: Steal = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Continue a campaign until its budget is spent.

    Trials that were running when it stopped are run again. What the database holds counts, also
    where the campaign file was changed meanwhile.
    """
    with open_campaign(target, database, name, read_only=False, steal=steal) as campaign:
        _note_changes(campaign, Path(target))
        if device is not None:
            campaign.use_device(device)
        if trials is not None:
            campaign.extend(trials)
        elif not any(t.status == "running" for t in campaign.trials) and not campaign.left():
            limit = campaign.spec.budget_cost
            cost = "" if limit is None else f", or of cost {limit:g}"
            note(
                f"campaign {campaign.spec.name!r} has spent its budget of {campaign.spec.budget} "
                f"trials{cost}; extend it with --trials N"
            )
        options = _Options(None, workers, executor, scheduler, asynchronous)
        _run(campaign, options, as_json=as_json, verbose=verbose)


def _note_changes(campaign: Campaign, path: Path) -> None:
    if path.suffix.lower() != ".toml" or not path.exists():
        return
    stored, now = campaign.spec.to_dict(), read_spec(path).to_dict()
    budgets = ("budget", "budget_cost")
    changed = [key for key in stored if stored[key] != now[key] and key not in budgets]
    if changed:
        note(
            f"{path} has changed since the campaign was started ({', '.join(changed)}); the stored "
            "campaign counts. To use the file, start another with 'run --database'"
        )
    if any(now[key] != stored[key] for key in budgets):
        note(f"the stored budget of {stored['budget']} trials counts; extend it with --trials N")


@dataclass(frozen=True)
class _Options:
    trials: int | None
    workers: int | None
    executor: str | None
    scheduler: str | None
    asynchronous: bool | None


def _run(campaign: Campaign, options: _Options, *, as_json: bool, verbose: bool) -> None:
    from bo_surrogates.cli.display import make_display

    display = make_display(campaign, sys.stdout, as_json=as_json, verbose=verbose)
    try:
        # What the black box prints goes to standard error: standard output holds results only.
        with display, redirect_stdout(sys.stderr):
            campaign.run(**vars(options), on_event=display, resolve_problem=make_problem)
    except KeyboardInterrupt:
        display.summarize("interrupted")
        done = sum(t.status != "running" for t in campaign.trials)
        complain(
            f"interrupted; {done} finished trial(s) are stored in {campaign.database}. Continue "
            f"with: bo-surrogates resume {campaign.database}"
        )
        raise typer.Exit(INTERRUPTED) from None
    except RunError:
        display.summarize("failed")
        raise
    exhausted = campaign.is_exhausted
    finished = exhausted or not campaign.left()
    display.summarize("finished" if finished else "stopped")
    if exhausted:
        space = campaign.spec.space
        count = space.count(space.target)
        note(
            "no new point is left within the parameter constraints"
            if count is None
            else f"all {count} points of the space have been tried"
        )


@app.command()
def log(
    target: Target,
    index: Annotated[
        int, typer.Argument(metavar="TRIAL", help="The trial's number.", show_default=False)
    ],
    database: Database = None,
    name: Name = None,
) -> None:
    """Print what the evaluation of a trial printed, attempt after attempt."""
    with open_campaign(target, database, name, read_only=True) as campaign:
        text = campaign.log(index)
    if not text:
        note(f"trial {index} has printed nothing")
    sys.stdout.write(text)
