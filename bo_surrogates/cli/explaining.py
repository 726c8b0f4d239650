"""`predict` and `explain`: what the surrogate has learnt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bo_surrogates.cli.app import Database, Json, Name, Target, app, note
from bo_surrogates.cli.points import At, Like, point_of
from bo_surrogates.cli.tables import ReadDecimal
from bo_surrogates.cli.targets import open_campaign
from bo_surrogates.errors import InputError, RunError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from bo_surrogates.analysis.sensitivity import SobolIndices
    from bo_surrogates.campaign.campaign import Campaign
    from bo_surrogates.campaign.model import CampaignModel

POOR = 0.3  # an R2 below which an explanation explains the surrogate rather than the black box


@app.command()
def predict(
    target: Target,
    at: At = None,
    trial: Like = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv", metavar="FILE", show_default=False,
            help="Predict every row of a table with a column a parameter.",
        ),
    ] = None,
    decimal: ReadDecimal = None,
    level: Annotated[
        float, typer.Option(metavar="P", help="Mass of the central interval, in (0, 1).")
    ] = 0.9,
    noise: Annotated[
        bool,
        typer.Option(
            "--noise", help="Predict a measurement, with its noise, not the outcome free of noise."
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE.csv", show_default=False,
            help="Write the predictions there instead of showing them.",
        ),
    ] = None,
    database: Database = None,
    name: Name = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Say what the surrogate expects at points: mean, standard deviation, and an interval."""
    from bo_surrogates.campaign.tables import read_table
    from bo_surrogates.campaign.trial_table import read_points
    from bo_surrogates.cli.display import print_json

    with open_campaign(target, database, name, read_only=True) as campaign:
        point = point_of(campaign, at, trial)
        if (point is None) == (csv is None):
            raise InputError(
                "predict takes a point (--at NAME=VALUE ..., --trial TRIAL) or a table (--csv FILE)"
                + ("" if csv is None else ", not both")
            )
        points: Sequence[Mapping[str, object]] = [point or {}]
        if csv:
            names = [*campaign.spec.space.names, *campaign.metrics]
            table = read_table(csv, names=names, decimal=None if decimal is None else decimal.value)
            points = read_points(campaign.spec, table)
        model = campaign.model()
        found = model.predict(points, level=level, noise=noise)
        _warn(model)
        if output is not None:
            _write(found, output)
        elif as_json:
            print_json(_predictions_json(campaign, model, found, level, noise))
        else:
            _print_predictions(campaign, model, found, level, noise)


@app.command()
def explain(
    target: Target,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", metavar="METRIC", show_default=False, help="Of this metric only."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the cross-validation, which takes 5 fits.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", show_default=False,
            help="Draw it too (.png, .svg or .pdf).",
        ),
    ] = None,
    database: Database = None,
    name: Name = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Say which parameters matter to the outcome, by the surrogate, and how far to trust that.

    Sobol indices: the share of the outcome's variance over the search space that a parameter causes
    alone, and in all (together with others), each with a 90 % interval. Lengthscales, where the
    surrogate has them: short where a parameter matters. And how well the surrogate predicts trials
    that it has not seen.
    """
    from bo_surrogates.cli.display import print_json

    with open_campaign(target, database, name, read_only=True) as campaign:
        for m in metric or ():
            if m not in campaign.metrics:
                raise InputError(f"unknown metric {m!r}{did_you_mean(m, campaign.metrics)}")
        metrics = [m for m in campaign.metrics if not metric or m in metric]
        model = campaign.model()
        _warn(model)
        indices = {m: model.sensitivity(m) for m in metrics}
        trust = {m: _quality(model, m) for m in metrics} if not quick else {}
        if as_json:
            print_json(_explanation_json(model, indices, trust))
        else:
            _print_explanation(campaign, model, indices, trust)
        if output is not None:
            from reports.importance import draw_importance
            from reports.style import save

            note(f"wrote {save(draw_importance(campaign, indices), output)}")


def _warn(model: CampaignModel) -> None:
    for metric, reason in model.unreliable.items():
        note(f"the surrogate's fit to {metric} is not to be relied on: {reason}")


def _basis(campaign: Campaign, model: CampaignModel) -> str:
    return f"surrogate {campaign.spec.surrogate}, fitted to {len(model.trials)} trials"


# ---- predictions ---------------------------------------------------------------------------------
def _bounds(metric: str, level: float) -> tuple[str, str]:
    from bo_surrogates.campaign.model import interval_columns

    return interval_columns(metric, level)


def _predictions_json(
    campaign: Campaign, model: CampaignModel, found: pd.DataFrame, level: float, noise: bool
) -> dict[str, Any]:
    rows = found.to_dict(orient="records")
    names = campaign.spec.space.names
    return {
        "surrogate": campaign.spec.surrogate,
        "trials": len(model.trials),
        "level": level,
        "noise": noise,
        "predictions": [
            {
                "parameters": _point(row, names),
                "metrics": {
                    m: {
                        "mean": row[m],
                        "sd": row[f"{m} (sd)"],
                        "interval": [row[bound] for bound in _bounds(m, level)],
                    }
                    for m in campaign.metrics
                },
            }
            for row in rows
        ],
    }


def _point(row: Mapping[Any, Any], names: Sequence[str]) -> dict[str, Any]:
    """The parameters in a row, those that are inactive left out."""
    return {n: row[n] for n in names if row[n] is not None and row[n] == row[n]}  # NaN is not


def _print_predictions(
    campaign: Campaign, model: CampaignModel, found: pd.DataFrame, level: float, noise: bool
) -> None:
    from rich.table import Table

    from bo_surrogates.cli.display import format_point, make_console, unit

    console = make_console()
    of = "a measurement" if noise else "the outcome free of noise"
    console.print(
        f"{campaign.spec.name}: {of}, mean and {100 * level:g} % interval; "
        + _basis(campaign, model)
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    single = len(found) == 1
    if not single:
        table.add_column("point", justify="right", style="bold")
    for m in campaign.metrics:
        table.add_column(m + unit(campaign, m, " [{}]"))
    if not single:
        table.add_column("parameters", overflow="fold", style="dim")
    for number, row in enumerate(found.to_dict(orient="records"), start=1):
        cells = []
        for m in campaign.metrics:
            low, high = (row[bound] for bound in _bounds(m, level))
            cells.append(f"{row[m]:.4g} ({low:.4g} to {high:.4g})")
        point = _point(row, campaign.spec.space.names)
        table.add_row(*(cells if single else (str(number), *cells, format_point(point))))
    console.print(table)


def _write(found: pd.DataFrame, path: Path) -> None:
    if path.suffix.lower() != ".csv":
        raise InputError(f"{path}: predictions are written as .csv, not {path.suffix!r}")
    try:
        found.to_csv(path, index=False)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error}") from error
    note(f"wrote {len(found)} predictions to {path}")


# ---- explanations --------------------------------------------------------------------------------
def _quality(model: CampaignModel, metric: str) -> dict[str, float | int] | str:
    """Figures of the cross-validation, or why there are none."""
    try:
        scores = model.cross_validate(metric)
    except (InputError, RunError) as error:
        return str(error)
    return {
        "r2": scores.r2,
        "crps": scores.crps.mean().item(),
        "coverage": scores.coverage,
        "level": scores.level,
        "folds": scores.folds,
    }


def _explanation_json(
    model: CampaignModel,
    indices: Mapping[str, SobolIndices],
    trust: Mapping[str, dict[str, float | int] | str],
) -> dict[str, Any]:
    def of(metric: str) -> dict[str, Any]:
        found, scales = indices[metric], model.lengthscales(metric)
        quality = trust.get(metric)
        return {
            "stdv": found.stdv,
            "level": found.level,
            "parameters": {
                parameter: {
                    "first": found.first[i].item(),
                    "first_interval": found.first_interval[:, i].tolist(),
                    "total": found.total[i].item(),
                    "total_interval": found.total_interval[:, i].tolist(),
                    "lengthscale": None if scales is None else scales[parameter],
                }
                for i, parameter in enumerate(found.names)
            },
            "converged": metric not in model.unreliable,
            "cross_validation": {
                k: None if isinstance(v, float) and math.isnan(v) else v for k, v in quality.items()
            }
            if isinstance(quality, dict)
            else None,
        }

    return {
        "surrogate": model.spec.surrogate,
        "trials": len(model.trials),
        "constrained": bool(model.spec.space.constraints),
        "metrics": {metric: of(metric) for metric in indices},
    }


def _print_explanation(
    campaign: Campaign,
    model: CampaignModel,
    indices: Mapping[str, SobolIndices],
    trust: Mapping[str, dict[str, float | int] | str],
) -> None:
    from rich.text import Text

    from bo_surrogates.cli.display import make_console, unit

    console = make_console()
    console.print(f"{campaign.spec.name}: which parameters matter; {_basis(campaign, model)}")
    for metric, found in indices.items():
        console.print()
        spread = f"standard deviation {found.stdv:.3g}{unit(campaign, metric)} over the space"
        console.print(Text.assemble((metric, "bold"), f": {spread}"))
        if found.stdv == 0:
            console.print("the surrogate sees no effect of any parameter", style="yellow")
        else:
            console.print(_table(found, model.lengthscales(metric)))
        if metric in trust:
            text, style = _verdict(trust[metric])
            console.print(Text(text, style))
    console.print()
    console.print(
        "share in all: of the variance over the search space, what the parameter takes part in; "
        f"alone: what is owed to it by itself; in brackets, {100 * found.level:g} % intervals over "
        "functions of the posterior",
        style="dim",
    )
    if campaign.spec.space.constraints:
        console.print(
            "the shares are over the whole box: they take parameters to be independent, and leave "
            "the parameter constraints out",
            style="dim",
        )


def _table(found: SobolIndices, scales: Mapping[str, float] | None) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("parameter", overflow="fold")
    table.add_column("share in all")
    table.add_column("alone")
    if scales is not None:
        table.add_column("lengthscale / range", justify="right")

    def share(value: float, interval: Sequence[float]) -> str:
        low, high = (min(max(v, 0.0), 1.0) for v in interval)
        return f"{min(max(value, 0.0), 1.0):.2f} ({low:.2f} to {high:.2f})"

    for i in found.order:
        row = [
            found.names[i],
            share(found.total[i].item(), found.total_interval[:, i].tolist()),
            share(found.first[i].item(), found.first_interval[:, i].tolist()),
        ]
        if scales is not None:
            row.append(f"{scales[found.names[i]]:.2g}")
        table.add_row(*row)
    return table


def _verdict(quality: dict[str, float | int] | str) -> tuple[str, str]:
    """How far to trust an explanation, and in which style to say so."""
    if isinstance(quality, str):
        return f"no cross-validation: {quality}", "yellow"
    r2, coverage = quality["r2"], quality["coverage"]
    if math.isnan(r2):
        return "all trials have the same outcome: there is nothing to explain", "yellow"
    text = (
        f"trials that it has not seen: R2 = {r2:.2f}; {100 * coverage:.0f} % of them in their "
        f"{100 * quality['level']:g} % intervals ({quality['folds']} folds, fitted anew)"
    )
    if r2 < POOR:
        return f"{text}: it hardly predicts them, so do not rely on these shares", "yellow"
    return text, "dim"
