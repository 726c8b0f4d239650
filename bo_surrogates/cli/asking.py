"""`ask` and `tell`: experiments done by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bo_surrogates.cli.app import Database, Device, Json, Name, Steal, Target, app, note
from bo_surrogates.cli.points import parse_values
from bo_surrogates.cli.tables import (
    DecimalMark,
    Force,
    ReadDecimal,
    WriteDecimal,
    check_form,
    tell_form,
    write_form,
)
from bo_surrogates.cli.targets import open_campaign, open_or_start
from bo_surrogates.errors import InputError, RunError, did_you_mean


@app.command()
def ask(
    target: Target,
    n: Annotated[int, typer.Option("--n", "-n", min=1, metavar="K", help="How many points.")] = 1,
    fix: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PARAMETER=VALUE",
            help="Hold a parameter at a value in these points; may be repeated.",
            show_default=False,
        ),
    ] = None,
    waiting: Annotated[
        bool,
        typer.Option("--waiting", help="Ask for nothing; show the trials that wait for results."),
    ] = False,
    refill: Annotated[
        bool,
        typer.Option(
            "--refill", help="Ask for as many points as make K waiting, and show all of them."
        ),
    ] = False,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", show_default=False,
            help="Write the points as a form: fill in its metrics in a spreadsheet, then 'tell' "
            "with --csv. - is standard output.",
        ),
    ] = None,
    sem: Annotated[
        bool, typer.Option("--sem", help="With columns for the metrics' standard errors.")
    ] = False,
    decimal: WriteDecimal = DecimalMark.point,
    force: Force = False,
    device: Device = None,
    database: Database = None,
    name: Name = None,
    steal: Steal = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Propose points to evaluate by hand, and record them as running trials.

    Given a campaign file without a database yet, this starts the campaign.
    """
    from bo_surrogates.cli.display import print_json, print_trials, trial_json

    if waiting and refill:
        raise InputError("--waiting asks for nothing and --refill for points; give one of them")
    if csv is not None:
        check_form(csv, force=force)
    with (
        open_campaign(target, database, name, read_only=True)
        if waiting
        else open_or_start(target, database, name, steal=steal, device=device)
    ) as campaign:
        trials = [t for t in campaign.trials if t.status == "running" and (waiting or refill)]
        wanted = 0 if waiting else max(n - len(trials), 0)
        if wanted:
            asked = campaign.ask(wanted, fixed=parse_values(fix or [], campaign.spec.space))
            trials += asked
            if len(asked) < wanted:
                note(f"no more than {len(asked)} untried point(s) are left")
        if csv is not None:
            try:
                write_form(campaign, trials, csv, sem=sem, decimal=decimal)
            except InputError as error:
                raise RunError(
                    f"{error}; the points are recorded: write them elsewhere with 'bo-surrogates "
                    f"ask {target} --waiting --csv FILE'"
                ) from error
        if as_json:
            print_json([trial_json(t) for t in trials])
        elif csv is None and trials:
            print_trials(campaign, trials)
        if not trials:
            note("no trial waits for a result")
        elif csv is not None:
            note(f"fill in {csv}, then: bo-surrogates tell {target} --csv {csv}")
        else:
            metrics = " ".join(f"{m}=..." for m in campaign.metrics)
            note(f"report each: bo-surrogates tell {target} TRIAL {metrics}  (or --failed REASON)")


@app.command()
def tell(
    target: Target,
    index: Annotated[
        int | None, typer.Argument(metavar="TRIAL", help="The trial's number.", show_default=False)
    ] = None,
    results: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="METRIC=VALUE...",
            help="Each metric's value; with a known standard error, METRIC=VALUE±SEM or "
            "METRIC=VALUE,SEM.",
            show_default=False,
        ),
    ] = None,
    failed: Annotated[
        str | None,
        typer.Option(
            metavar="REASON", help="The trial gave no result, and why.", show_default=False
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", show_default=False,
            help="Record the results in a form that 'ask --csv' wrote; rows without results stay "
            "waiting. - is standard input.",
        ),
    ] = None,
    decimal: ReadDecimal = None,
    database: Database = None,
    name: Name = None,
    steal: Steal = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Record the result of a running trial, or that it failed; or all results in a form."""
    from bo_surrogates.cli.display import print_json, trial_json

    if csv is not None:
        if index is not None or failed is not None:
            raise InputError("tell takes either a trial and its results or --csv FILE, not both")
        with open_campaign(target, database, name, read_only=False, steal=steal) as campaign:
            tell_form(campaign, csv, decimal, as_json=as_json)
        return
    if index is None:
        raise InputError("tell takes a trial's number and its results, or --csv FILE")
    if (failed is None) == (not results):
        raise InputError(
            "tell takes either results (metric=value ...) or --failed REASON"
            + (", not both" if results else "")
        )
    with open_campaign(target, database, name, read_only=False, steal=steal) as campaign:
        if failed is not None:
            if not failed.strip():
                raise InputError("--failed needs a reason")
            trial = campaign.abandon(index, failed)
        else:
            trial = campaign.tell(index, parse_results(results or [], campaign.metrics))
        if as_json:
            print_json(trial_json(trial))
        else:
            print(f"trial {index} {trial.status}")


def parse_results(
    results: list[str], metrics: tuple[str, ...]
) -> dict[str, float | tuple[float, float | None]]:
    """`["yield=0.8±0.02"]` as `{"yield": (0.8, 0.02)}`.

    Raises:
        InputError: Not of that form, an unknown metric, or one given twice.
    """
    told: dict[str, float | tuple[float, float | None]] = {}
    for text in results:
        metric, equals, value = text.rpartition("=")
        metric = metric.strip()
        if not equals or not metric:
            raise InputError(f"cannot read {text!r}; write metric=value, e.g. {metrics[0]}=1.5")
        if metric not in metrics:
            raise InputError(f"unknown metric {metric!r}{did_you_mean(metric, metrics)}")
        if metric in told:
            raise InputError(f"metric {metric!r} is given twice")
        numbers = value.replace("+-", ",").replace("±", ",").split(",")
        try:
            read = [float(n) for n in numbers]
        except ValueError:
            read = []
        if len(read) not in (1, 2):
            raise InputError(
                f"metric {metric!r}: cannot read {value!r} as a number; write value, value±sem or "
                "value,sem"
            )
        told[metric] = read[0] if len(read) == 1 else (read[0], read[1])
    return told
