"""`ask` and `tell`: experiments done by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bo_surrogates.cli.app import Database, Json, Name, Steal, Target, app, note
from bo_surrogates.cli.targets import open_campaign, start_campaign, started
from bo_surrogates.errors import InputError, did_you_mean


@app.command()
def ask(
    target: Target,
    n: Annotated[int, typer.Option("--n", "-n", min=1, metavar="K", help="How many points.")] = 1,
    database: Database = None,
    name: Name = None,
    steal: Steal = False,
    as_json: Json = False,
) -> None:
    """Propose points to evaluate by hand, and record them as running trials.

    Given a campaign file without a database yet, this starts the campaign.
    """
    from bo_surrogates.cli.display import print_json, print_trials, trial_json

    fresh = Path(target).suffix.lower() == ".toml" and not started(target, database)
    with (
        start_campaign(Path(target), database)
        if fresh and name is None
        else open_campaign(target, database, name, read_only=False, steal=steal)
    ) as campaign:
        asked = campaign.ask(n)
        if as_json:
            print_json([trial_json(t) for t in asked])
        else:
            print_trials(campaign, asked)
            metrics = " ".join(f"{m}=..." for m in campaign.metrics)
            note(f"report each: bo-surrogates tell {target} TRIAL {metrics}  (or --failed REASON)")


@app.command()
def tell(
    target: Target,
    index: Annotated[
        int, typer.Argument(metavar="TRIAL", help="The trial's number.", show_default=False)
    ],
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
    database: Database = None,
    name: Name = None,
    steal: Steal = False,
    as_json: Json = False,
) -> None:
    """Record the result of a running trial, or that it failed."""
    from bo_surrogates.cli.display import print_json, trial_json

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
