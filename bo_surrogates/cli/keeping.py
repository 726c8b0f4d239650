"""`backup`: a copy of a campaign's database while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bo_surrogates.cli.app import Database, Target, app
from bo_surrogates.cli.targets import locate


@app.command()
def backup(
    target: Target,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The copy to make.", show_default=False)
    ],
    database: Database = None,
) -> None:
    """Copy a campaign's database, with all of its campaigns, into a new file.

    Campaigns may run meanwhile. The copy is an SQLite database from which they can be resumed.
    """
    from bo_surrogates.campaign.storage import Journal
    from bo_surrogates.campaign.storage.backup import backup as copy

    path, _ = locate(target, database, None)
    journal = Journal(path, read_only=True)
    try:
        print(f"wrote {copy(journal, file)}")
    finally:
        journal.close()
