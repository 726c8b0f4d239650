"""`status`, `best` and `plot`: commands that only look."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bo_surrogates.cli.app import Database, Json, Name, Target, app
from bo_surrogates.cli.targets import open_campaign


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
    target: Target, database: Database = None, name: Name = None, as_json: Json = False
) -> None:
    """Show the best trial; with several objectives, the Pareto front and its hypervolume."""
    from bo_surrogates.cli.display import best_json, print_best, print_json

    with open_campaign(target, database, name, read_only=True) as campaign:
        if as_json:
            print_json(best_json(campaign))
        else:
            print_best(campaign)


@app.command()
def plot(
    target: Target,
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
    """Draw the best value so far; with several objectives, the Pareto front."""
    from reports.campaign_figure import draw_campaign
    from reports.style import save

    with open_campaign(target, database, name, read_only=True) as campaign:
        figure = draw_campaign(campaign)
        path = campaign.journal.path or Path(f"{campaign.spec.name.replace('/', '_')}.db")
        print(f"wrote {save(figure, output or path.with_suffix('.png'))}")
