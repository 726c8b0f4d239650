"""`list`: what is registered."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from bo_surrogates.cli.app import Json, app


class Listed(StrEnum):
    """What `list` lists."""

    surrogates = "surrogates"
    problems = "problems"


@app.command("list")
def list_entries(
    what: Annotated[Listed, typer.Argument(help="What to list.", show_default=False)],
    as_json: Json = False,
) -> None:
    """List the registered surrogates or problems, with what each is good for."""
    if what is Listed.surrogates:
        from bo_surrogates.surrogates import SURROGATES

        rows = [
            {
                "name": e.name,
                "summary": e.summary,
                "posterior": e.capabilities.posterior,
                "cost": e.capabilities.cost,
                "max_n": e.capabilities.max_n,
                "max_d": e.capabilities.max_d,
                "paper": e.paper,
            }
            for e in SURROGATES.values()
        ]
    else:
        from problems import PROBLEMS

        rows = [
            {
                "name": e.name,
                "summary": e.summary,
                "cost": e.cost,
                "tags": list(e.tags),
                "source": e.source,
            }
            for e in PROBLEMS.values()
        ]
    from bo_surrogates.cli.display import print_entries, print_json

    if as_json:
        print_json(rows)
    else:
        print_entries(what.value, rows)
