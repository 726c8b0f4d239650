"""`report`: the report of a comparison study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bo_surrogates.cli.app import app, note


@app.command()
def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", show_default=False,
            help="Where to; 'report' in the folder of the run if not given. A report that is there "
            "is replaced.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Write the report of a study's run: a page that works offline, figures, and tables.

    Also of a run that is still going on; the report then says so.
    """
    from rich.text import Text

    from bo_surrogates.cli.display import make_console
    from reports.study import write_report
    from reports.study.answer import answers

    analysis = write_report(run, output)
    if left := len(analysis.unfinished):
        note(f"unfinished: {left} of {len(analysis.results.cells)} runs have not ended")
    console = make_console()
    for sentence in answers(analysis)[:3]:
        console.print(Text(sentence.replace("`", "")))
    print(f"wrote {(output or run / 'report') / 'index.html'}")
