"""A whole campaign as one JSON document, and back: an equal campaign in another database.

All that the journal holds is in it, to the last digit: the specification, every trial with its
result, reason, times, seconds and diagnostics, what it reported by step, its single measurements
and what it printed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, get_args

from sqlalchemy import Table, select

from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.storage import schema
from bo_surrogates.campaign.storage.journal import Journal
from bo_surrogates.campaign.trial import Status, Trial
from bo_surrogates.errors import InputError

FORMAT, VERSION = "bo-surrogates campaign", 1
DETAILS = {"progress": schema.progress, "replicates": schema.replicate}
_OF_THE_DATABASE = ("campaign_id", "number")  # columns that say whose a row is


def is_archive(data: object) -> bool:
    """Whether a JSON document is one that `archive` made, of whatever version."""
    return isinstance(data, Mapping) and data.get("format") == FORMAT


def archive(journal: Journal, campaign: int) -> dict[str, Any]:
    """A campaign as JSON-able data."""
    trials = {t.index: t.to_dict() for t in journal.trials(campaign)}
    with journal.read() as connection:
        row = connection.execute(
            select(schema.campaign).where(schema.campaign.c.id == campaign)
        ).one()
        if journal.version >= 2:
            logs = select(schema.trial.c.number, schema.trial.c.log).where(
                schema.trial.c.campaign_id == campaign, schema.trial.c.log.is_not(None)
            )
            for log in connection.execute(logs):
                trials[log.number]["log"] = log.log
            for name, table in DETAILS.items():
                of_campaign = select(table).where(table.c.campaign_id == campaign)
                for detail in connection.execute(of_campaign.order_by(*table.primary_key)):
                    values = {c: getattr(detail, c) for c in _columns(table)}
                    trials[detail.number].setdefault(name, []).append(values)
    return {
        "format": FORMAT,
        "version": VERSION,
        "created": row.created,
        "spec": json.loads(row.spec),
        "trials": list(trials.values()),
    }


@dataclass(frozen=True)
class Archive:
    """What an archive holds.

    Attributes:
        spec: The campaign.
        trials: By index.
        details: Rows of the detail tables.
        logs: What trials printed, by index.
        created: When the campaign was started, ISO 8601.
    """

    spec: CampaignSpec
    trials: tuple[Trial, ...]
    details: tuple[tuple[Table, dict[str, Any]], ...]
    logs: Mapping[int, str]
    created: str | None


def read_archive(data: Mapping[str, Any], source: str) -> Archive:
    """The campaign in an archive.

    Raises:
        InputError: It was made by a newer version, or is damaged.
    """
    version = data.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise InputError(
            f"{source}: an export of version {version!r}, and this bo-surrogates reads up to "
            f"{VERSION}; upgrade with 'pip install --upgrade bo-surrogates'"
        )
    try:
        spec = CampaignSpec.from_dict(data["spec"])
        records, created = data["trials"], data.get("created")
        if not isinstance(records, list):
            raise InputError(f"trials must be a list, got {records!r}")
        if created is not None:
            datetime.fromisoformat(created)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{source}: a damaged export: {error}") from None
    trials: list[Trial] = []
    details: list[tuple[Table, dict[str, Any]]] = []
    logs = {}
    for index, record in enumerate(records):
        try:
            trials.append(_trial(spec, record, index))
            for key, table in DETAILS.items():
                details += [(table, _detail(table, index, row)) for row in record.get(key, ())]
            if "log" in record:
                logs[index] = str(record["log"])
        except (InputError, TypeError) as error:
            raise InputError(f"{source}: a damaged export: trial {index}: {error}") from None
    return Archive(spec, tuple(trials), tuple(details), logs, created)


def _trial(spec: CampaignSpec, record: Any, index: int) -> Trial:
    trial = Trial.from_dict(record)
    if trial.index != index or isinstance(trial.index, bool):
        raise InputError(f"its number is {trial.index!r}")
    if trial.status not in get_args(Status):
        raise InputError(f"unknown status {trial.status!r}")
    unknown = [n for n in trial.parameters if n not in spec.space.names]
    if unknown:
        raise InputError(f"unknown parameter {unknown[0]!r}")
    for value in trial.parameters.values():
        if not isinstance(value, bool | int | float | str):
            raise InputError(f"a parameter's value is {value!r}")
    measured = {"completed": (True,), "stopped": (True, False)}.get(trial.status, (False,))
    if bool(trial.measurements) not in measured:
        raise InputError(f"{trial.status} with {len(trial.measurements)} measurements")
    texts: list[Any] = [trial.origin, *([] if trial.reason is None else [trial.reason])]
    if not all(isinstance(t, str) for t in texts):
        raise InputError(f"expected texts, got {texts!r}")
    for figures in (trial.seconds, trial.diagnostics):
        if not all(isinstance(v, int | float) for v in figures.values()):
            raise InputError(f"expected numbers, got {dict(figures)!r}")
    return trial


def restore(journal: Journal, archived: Archive, name: str | None) -> str:
    """Make the campaign of an archive anew; all of it or nothing.

    Args:
        journal: Where.
        archived: The campaign.
        name: The campaign's new name; None: as it was.

    Returns:
        The campaign's name.

    Raises:
        InputError: A campaign of that name is there.
    """
    spec = replace(archived.spec, name=name or archived.spec.name)
    journal.create_campaign(
        spec.name, spec.to_dict(), archived.trials,
        details=archived.details, logs=archived.logs, created=archived.created,
    )  # fmt: skip
    return spec.name


def _columns(table: Table) -> list[str]:
    return [c.name for c in table.columns if c.name not in _OF_THE_DATABASE]


def _detail(table: Table, index: int, row: Any) -> dict[str, Any]:
    """A row of one of the detail tables, its columns checked by name and type."""
    values = {}
    for column in table.columns:
        if column.name in _OF_THE_DATABASE:
            continue
        value = row.get(column.name) if isinstance(row, Mapping) else None
        kinds = {int: int, float: int | float, str: str}[column.type.python_type]
        if isinstance(value, bool) or not (
            isinstance(value, kinds) or (value is None and column.nullable)
        ):
            raise InputError(f"{table.name} holds {row!r}")
        values[column.name] = value
    return {"number": index, **values}
