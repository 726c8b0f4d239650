"""`status`, `best` and `plot`: commands that only look."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bo_surrogates.cli.app import Database, Json, Name, Target, app, note
from bo_surrogates.cli.points import At, Like, point_of
from bo_surrogates.cli.targets import open_campaign
from bo_surrogates.errors import InputError

if TYPE_CHECKING:
    from bo_surrogates.campaign.campaign import Campaign
    from bo_surrogates.campaign.recommendation import Recommendation


@app.command()
def status(
    target: Target, database: Database = None, name: Name = None, as_json: Json = False
) -> None:
    """Show how far a campaign is, and what failed. Always possible, also while it runs."""
    from bo_surrogates.cli.display import print_json
    from bo_surrogates.cli.status import print_status, status_json

    with open_campaign(target, database, name, read_only=True) as campaign:
        if as_json:
            print_json(status_json(campaign))
        else:
            print_status(campaign)


@app.command()
def best(
    target: Target,
    predicted: Annotated[
        bool,
        typer.Option(
            "--predicted", help="Also show the best points by the surrogate's mean, which averages "
            "noise out: of those tried, and of the whole space.",
        ),
    ] = False,
    database: Database = None,
    name: Name = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Show the best trial; with several objectives, the Pareto front and its hypervolume."""
    from bo_surrogates.cli.display import best_json, print_best, print_json

    with open_campaign(target, database, name, read_only=True) as campaign:
        found = {}
        if predicted:
            from bo_surrogates.campaign.recommendation import recommend, recommend_tried

            model = campaign.model()
            for metric, reason in model.unreliable.items():
                note(f"the surrogate's fit to {metric} is not to be relied on: {reason}")
            found = {"tried": recommend_tried(model), "space": recommend(model)}
        if as_json:
            print_json(best_json(campaign) | _recommended_json(found))
            return
        print_best(campaign)
        for where, one in found.items():
            _print_recommended(campaign, where, one)


def _recommended_json(found: Mapping[str, Recommendation | None]) -> dict[str, Any]:
    return {
        f"predicted_best_{where}": one
        and {
            "parameters": dict(one.parameters),
            "trial": one.trial and one.trial.index,
            "metrics": {
                m: {"mean": mean, "interval": list(one.interval[m])} for m, mean in one.mean.items()
            },
        }
        for where, one in found.items()
    }


def _print_recommended(campaign: Campaign, where: str, one: Recommendation | None) -> None:
    from rich.text import Text

    from bo_surrogates.cli.display import format_point, make_console, unit

    console = make_console()
    of = "the trials" if where == "tried" else "the whole space"
    if one is None:
        console.print(f"no point of {of} is expected to satisfy the constraints", style="yellow")
        return
    which = f"trial {one.trial.index}" if one.trial is not None else "not tried yet"
    console.print(Text(f"best of {of} by the surrogate's mean: {which}", "bold"))
    for metric, mean in one.mean.items():
        low, high = one.interval[metric]
        value = f"{mean:.6g}{unit(campaign, metric)}"
        console.print(f"  {metric} = {value}, 90 % interval {low:.6g} to {high:.6g}")
    console.print(Text(f"  {format_point(one.parameters)}", "dim"))


@app.command()
def plot(
    target: Target,
    parameters: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PARAMETER", show_default=False, help="Of --slices: which; all if none."
        ),
    ] = None,
    slices: Annotated[
        bool,
        typer.Option("--slices", help="Draw what the surrogate expects as one parameter changes."),
    ] = False,
    contour: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="X Y", show_default=False,
            help="Draw what it expects over two parameters, and how surely.",
        ),
    ] = None,
    predicted: Annotated[
        bool,
        typer.Option("--predicted", help="Draw what was measured against what was predicted."),
    ] = False,
    at: At = None,
    trial: Like = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", show_default=False,
            help="Where to (.png, .svg or .pdf); next to the database as .png if not given.",
        ),
    ] = None,
    database: Database = None,
    name: Name = None,
) -> None:  # fmt: skip
    """Draw the best value so far; with several objectives, the Pareto front.

    Or what the surrogate has learnt: slices and contours go through the best trial, or the point
    that --at and --trial give (what they leave open is the best trial's).
    """
    from reports.style import save

    chosen = [what for what, wanted in (("--slices", slices), ("--contour", contour),
                                        ("--predicted", predicted)) if wanted]  # fmt: skip
    if len(chosen) > 1:
        raise InputError(f"plot draws one thing at a time, got {' and '.join(chosen)}")
    if parameters and not slices:
        raise InputError(f"parameters ({', '.join(parameters)}) are named with --slices only")
    if (at or trial is not None) and not (slices or contour):
        raise InputError("--at and --trial place slices and contours; give one of these too")
    with open_campaign(target, database, name, read_only=True) as campaign:
        suffix = ""
        if slices or contour:
            from bo_surrogates.campaign.slices import default_point
            from reports.contours import draw_contours
            from reports.slices import draw_slices

            model = campaign.model()
            for metric, reason in model.unreliable.items():
                note(f"the surrogate's fit to {metric} is not to be relied on: {reason}")
            point = point_of(campaign, at, trial, base=default_point(model))
            if contour:
                figure, suffix = draw_contours(campaign, *contour, point), "-contour"
            else:
                figure, suffix = draw_slices(campaign, parameters or (), point), "-slices"
        elif predicted:
            from reports.forecasts import draw_forecasts

            figure, suffix = draw_forecasts(campaign), "-predicted"
        else:
            from reports.campaign_figure import draw_campaign

            figure = draw_campaign(campaign)
        path = campaign.journal.path or Path(f"{campaign.spec.name.replace('/', '_')}.db")
        path = path.with_name(f"{path.stem}{suffix}.png")
        print(f"wrote {save(figure, output or path)}")
