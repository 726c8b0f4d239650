"""`import` and `export`, and the forms of `ask --csv` and `tell --csv`: tables in and out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bo_surrogates.cli.app import Database, Json, Name, Steal, Target, app, note
from bo_surrogates.cli.targets import exists, locate, open_campaign, open_or_start
from bo_surrogates.errors import InputError

if TYPE_CHECKING:
    from bo_surrogates.campaign.campaign import Campaign
    from bo_surrogates.campaign.tables import Table
    from bo_surrogates.campaign.trial import Trial


class DecimalMark(StrEnum):
    """What separates the fraction of a number."""

    point = "point"
    comma = "comma"


class OutsidePoints(StrEnum):
    """What is done with points outside the space."""

    refuse = "refuse"
    keep = "keep"


ReadDecimal = Annotated[
    DecimalMark | None,
    typer.Option(
        "--decimal", help="What separates the fraction of the table's numbers, where it is not "
        "clear from them.", show_default=False,
    ),
]  # fmt: skip
WriteDecimal = Annotated[
    DecimalMark,
    typer.Option(
        "--decimal", help="Write CSV with decimal points and commas between columns, or with "
        "decimal commas and semicolons, as spreadsheets in many countries expect it.",
    ),
]  # fmt: skip
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]


# ---- forms ---------------------------------------------------------------------------------------
def check_form(path: Path, *, force: bool) -> None:
    """Refuse a file that a form cannot be written to, before points are asked for it."""
    from bo_surrogates.campaign.tables import check_output

    if str(path) != "-":
        check_output(path, overwrite=force)


def write_form(
    campaign: Campaign, trials: Sequence[Trial], path: Path, *, sem: bool, decimal: DecimalMark
) -> None:
    """Write a form to fill in, for these trials; "-" is standard output."""
    from bo_surrogates.campaign.tables import csv_text, write_table
    from bo_surrogates.campaign.trial_table import points_frame

    frame = points_frame(campaign.spec, trials, sem=sem)
    if str(path) == "-":
        sys.stdout.write(csv_text(frame, decimal=decimal.value))
    else:
        write_table(frame, path, decimal=decimal.value)


def tell_form(
    campaign: Campaign, path: Path, decimal: DecimalMark | None, *, as_json: bool
) -> None:
    """Record the results in a form, and say what was recorded."""
    from bo_surrogates.cli.display import print_json

    table = _read(campaign, path, decimal)
    told = campaign.tell_table(table)
    recorded = [t.index for t in told.finished]
    if as_json:
        print_json(
            {"recorded": recorded, "unchanged": told.unchanged, "waiting": told.waiting,
             "ignored_columns": told.ignored}
        )  # fmt: skip
        return
    failed = sum(t.status == "abandoned" for t in told.finished)
    print(
        f"recorded {_trials(recorded)}" + (f", {failed} of them without a result" if failed else "")
        if recorded
        else "nothing to record"
    )
    _note_empty(table)
    if told.unchanged:
        note(f"{_trials(told.unchanged)} had been recorded before, with the same results")
    if told.waiting:
        note(f"{_trials(told.waiting)} without a result yet: still waiting")
    _note_ignored(told.ignored)


def _read(campaign: Campaign, path: Path, decimal: DecimalMark | None) -> Table:
    from bo_surrogates.campaign.tables import read_table
    from bo_surrogates.campaign.trial_table import columns_of

    return read_table(
        path, names=columns_of(campaign.spec).names, decimal=decimal.value if decimal else None
    )


def _note_empty(table: Table) -> None:
    if not table.rows:
        note(f"{table.source} has a header only; expected below it a row for each trial")


def _note_ignored(columns: Sequence[str]) -> None:
    if columns:
        note(f"not kept, as they mean nothing to the campaign: columns {', '.join(columns)}")


def _trials(indices: Sequence[int]) -> str:
    """Such as "3 trials (0, 1, 5)"."""
    shown = ", ".join(map(str, indices[:20])) + (", ..." if len(indices) > 20 else "")
    return f"{len(indices)} trial{'' if len(indices) == 1 else 's'} ({shown})"


# ---- whole campaigns and data --------------------------------------------------------------------
@app.command()
def export(
    target: Target,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", show_default=False,
            help="Where to: .csv or .parquet for the table of trials, .json for the whole "
            "campaign. CSV on standard output if not given.",
        ),
    ] = None,
    decimal: WriteDecimal = DecimalMark.point,
    force: Force = False,
    database: Database = None,
    name: Name = None,
) -> None:  # fmt: skip
    """Write all trials as a table, or the whole campaign as JSON.

    'import' makes an equal campaign of that JSON in another database. Always possible, also while
    the campaign runs.
    """
    import json

    from bo_surrogates.campaign.tables import check_output, csv_text, write_bytes, write_table

    if output is not None:
        check_output(output, overwrite=force)
    with open_campaign(target, database, name, read_only=True) as campaign:
        if output is None:
            sys.stdout.write(csv_text(campaign.to_dataframe(), decimal=decimal.value))
            return
        if output.suffix.lower() == ".json":
            text = json.dumps(campaign.archive(), ensure_ascii=False, indent=1, allow_nan=False)
            write_bytes(output, text.encode("utf-8", "backslashreplace"))
        else:
            write_table(campaign.to_dataframe(), output, decimal=decimal.value)
        print(f"wrote {len(campaign.trials)} trials to {output}")


@app.command("import")
def import_(
    target: Target,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", show_default=False,
            help="A table of measurements (.csv, .json, .parquet; - is CSV from standard input), "
            "or a whole campaign (.json, written by 'export').",
        ),
    ],
    outside: Annotated[
        OutsidePoints,
        typer.Option(
            help="What is done with points outside the parameters' bounds: refuse the table, or "
            "keep them for the surrogate to learn from.",
        ),
    ] = OutsidePoints.refuse,
    decimal: ReadDecimal = None,
    database: Database = None,
    name: Name = None,
    as_campaign: Annotated[
        bool,
        typer.Option(
            "--as-campaign", help="Of an exported campaign, make a campaign beside those in the "
            "database (under the --name given), instead of data for one of them.",
        ),
    ] = False,
    steal: Steal = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Record measurements made before the campaign or elsewhere, or restore an exported campaign.

    Measurements need a column for each parameter and each metric. The surrogate learns from them;
    they cost no budget. All of the table is recorded, or nothing; what was recorded before is not
    recorded again. An exported campaign is restored where the database does not exist yet.
    """
    from bo_surrogates.campaign.tables import read_bytes, read_json

    content: Any = None
    if data.suffix.lower() == ".json":
        from bo_surrogates.campaign.storage.archive import is_archive

        content = read_json(read_bytes(data), str(data))
        content = content if is_archive(content) else None
    path, name_in_file = locate(target, database, name)
    is_file = Path(target).suffix.lower() == ".toml"
    if as_campaign and content is None:
        raise InputError(f"{data} is not an exported campaign; leave out --as-campaign")
    if content is not None and (as_campaign or (not is_file and not exists(path))):
        _restore(content, data, path, name_in_file if is_file else name, as_json=as_json)
        return
    with open_or_start(target, database, name, steal=steal) as campaign:
        table = _read(campaign, data, decimal) if content is None else _table_of(content, data)
        _add(campaign, table, outside, as_json=as_json)


def _restore(content: Any, data: Path, path: str, name: str | None, *, as_json: bool) -> None:
    from bo_surrogates.campaign.campaign import Campaign
    from bo_surrogates.cli.display import print_json

    with Campaign.restore(content, path, name, source=str(data)) as campaign:
        trials = len(campaign.trials)
        if as_json:
            print_json({"restored": campaign.spec.name, "database": path, "trials": trials})
        else:
            print(f"restored campaign {campaign.spec.name!r} with {trials} trials in {path}")


def _table_of(content: Any, data: Path) -> Table:
    """The trials of an exported campaign, as data for another."""
    from bo_surrogates.campaign.storage.archive import read_archive
    from bo_surrogates.campaign.tables import table_of
    from bo_surrogates.campaign.trial_table import trials_frame

    archived = read_archive(content, str(data))
    return table_of(trials_frame(archived.spec, archived.trials), str(data))


def _add(campaign: Campaign, table: Table, outside: OutsidePoints, *, as_json: bool) -> None:
    from bo_surrogates.cli.display import print_json

    added = campaign.add_data(table, outside=outside.value)
    indices = [t.index for t in added.trials]
    if as_json:
        print_json(
            {"recorded": indices, "recorded_before": added.known,
             "rows_skipped": added.skipped, "ignored_columns": added.ignored}
        )  # fmt: skip
        return
    print(f"recorded {_trials(indices)} as data" if indices else "nothing to record")
    _note_empty(table)
    if added.known:
        note(f"{added.known} row(s) had been recorded before")
    if added.skipped:
        note(f"row(s) {', '.join(map(str, added.skipped))} skipped: trials that were still running")
    _note_ignored(added.ignored)
