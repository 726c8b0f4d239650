"""A campaign's rows: how trials and what belongs to them are written and read.

Each function works on a connection within its caller's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Table, delete, select

from bo_surrogates.campaign.storage.schema import (
    assignment,
    measurement,
    progress,
    replicate,
    trial,
)
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.errors import InputError
from bo_surrogates.space import Values


@dataclass(frozen=True)
class Report:
    """What a running trial has reported of a metric.

    Attributes:
        metric: Which.
        step: How far the trial was; its unit is the black box's.
        measurement: The value there.
        recorded: When, UTC.
    """

    metric: str
    step: float
    measurement: Measurement
    recorded: datetime


# ---- trials --------------------------------------------------------------------------------------
def add_trials(connection: Connection, campaign: int, trials: Sequence[Trial]) -> None:
    """Add trials as they are: running ones, and finished ones with their results."""
    if not trials:
        return
    connection.execute(
        trial.insert(),
        [
            {
                "campaign_id": campaign,
                "number": t.index,
                "parameters": json.dumps(t.parameters, allow_nan=False),
                "status": t.status,
                "origin": t.origin,
                "reason": None if t.reason is None else storable(t.reason),
                "seconds": json.dumps(dict(t.seconds)),
                "diagnostics": json.dumps(dict(t.diagnostics)),
                "created": now() if t.created is None else t.created.isoformat(),
                "finished": None if t.status == "running" else _text(t.finished),
                "attempt": t.attempt,
            }
            for t in trials
        ],
    )
    for t in trials:
        _insert(connection, measurement, campaign, t.index, t.measurements)


# ---- who evaluates a trial -----------------------------------------------------------------------
def assign(
    connection: Connection, campaign: int, indices: Sequence[int], request: str, worker: str
) -> None:
    """Record which request running trials were given to."""
    for index in indices:
        require_running(connection, campaign, index)
    connection.execute(
        assignment.insert(),
        [
            {"campaign_id": campaign, "number": index, "request": storable(request),
             "worker": storable(worker), "created": now()}
            for index in indices
        ],
    )  # fmt: skip


def read_assignments(connection: Connection, campaign: int) -> dict[int, str]:
    """The request that each running trial was given to, if it was."""
    found = connection.execute(
        select(assignment.c.number, assignment.c.request)
        .join(
            trial,
            (trial.c.campaign_id == assignment.c.campaign_id)
            & (trial.c.number == assignment.c.number),
        )
        .where(assignment.c.campaign_id == campaign, trial.c.status == "running")
        .order_by(assignment.c.number)
    )
    return {row.number: row.request for row in found}


def release(connection: Connection, campaign: int, indices: Sequence[int]) -> None:
    """Take trials back from whom they were given to."""
    connection.execute(
        delete(assignment).where(
            assignment.c.campaign_id == campaign, assignment.c.number.in_(indices)
        )
    )


def _text(time: datetime | None) -> str:
    return now() if time is None else time.isoformat()


def finish_trial(
    connection: Connection,
    campaign: int,
    index: int,
    status: str,
    measurements: Mapping[str, Measurement],
    reason: str | None,
    seconds: Mapping[str, float],
) -> None:
    """End a running trial.

    Raises:
        InputError: There is no such trial, or it is finished already.
    """
    require_running(connection, campaign, index)
    before = connection.execute(select(trial.c.seconds).where(_is(campaign, index))).scalar_one()
    connection.execute(
        trial.update()
        .where(_is(campaign, index))
        .values(
            status=status,
            reason=None if reason is None else storable(reason),
            seconds=json.dumps({**json.loads(before), **seconds}),
            finished=now(),
        )
    )
    _insert(connection, measurement, campaign, index, measurements)


def read_trials(
    connection: Connection, campaign: int, indices: Sequence[int] | None = None, *, version: int
) -> list[Trial]:
    """The trials of these indices, or all, by index.

    Args:
        connection: To the database.
        campaign: Which.
        indices: Of the trials; None: all.
        version: The schema's.
    """
    # A log may be long: it is read only where it is asked for.
    later = {"log"} if version >= 2 else {"log", "attempt"}
    trials = select(*[c for c in trial.c if c.name not in later])
    trials = trials.where(trial.c.campaign_id == campaign)
    measurements = select(measurement).where(measurement.c.campaign_id == campaign)
    if indices is not None:
        trials = trials.where(trial.c.number.in_(indices))
        measurements = measurements.where(measurement.c.number.in_(indices))
    measured: dict[int, dict[str, Measurement]] = {}
    for m in connection.execute(measurements):
        measured.setdefault(m.number, {})[m.metric] = _measured(m)
    rows = connection.execute(trials.order_by(trial.c.number))
    return [_to_trial(row, measured.get(row.number, {})) for row in rows]


def require_running(connection: Connection, campaign: int, index: int) -> None:
    """Refuse to change what is finished.

    Raises:
        InputError: There is no such trial, or it is finished.
    """
    status = _status(connection, campaign, index)
    if status != "running":
        raise InputError(
            f"trial {index} is {status} already; a recorded result is never overwritten"
        )


def _status(connection: Connection, campaign: int, index: int) -> str:
    row = connection.execute(select(trial.c.status).where(_is(campaign, index))).first()
    if row is not None:
        return str(row.status)
    rows = connection.execute(
        select(trial.c.number)
        .where(trial.c.campaign_id == campaign, trial.c.status == "running")
        .order_by(trial.c.number)
    )
    running = [str(row.number) for row in rows]
    raise InputError(f"there is no trial {index}; running trials: {', '.join(running) or 'none'}")


# ---- what belongs to a trial ---------------------------------------------------------------------
def add_progress(
    connection: Connection,
    campaign: int,
    index: int,
    step: float,
    measurements: Mapping[str, Measurement],
) -> None:
    """Record what a running trial reports at a step, instead of an earlier report of the step."""
    require_running(connection, campaign, index)
    connection.execute(
        delete(progress).where(
            progress.c.campaign_id == campaign,
            progress.c.number == index,
            progress.c.step == step,
            progress.c.metric.in_(list(measurements)),
        )
    )
    _insert(connection, progress, campaign, index, measurements, step=step, recorded=now())


def read_progress(
    connection: Connection, campaign: int, index: int | None
) -> dict[int, list[Report]]:
    """What trials have reported, by trial, in the order of steps; of one trial, or of all."""
    reports: dict[int, list[Report]] = {}
    for row in _rows_of(connection, progress, campaign, index, progress.c.step):
        reports.setdefault(row.number, []).append(
            Report(row.metric, row.step, _measured(row), datetime.fromisoformat(row.recorded))
        )
    return reports


def add_replicate(
    connection: Connection,
    campaign: int,
    index: int,
    repeat: int,
    measurements: Mapping[str, Measurement],
) -> None:
    """Record one of the repeated measurements of a running trial."""
    require_running(connection, campaign, index)
    _insert(connection, replicate, campaign, index, measurements, repeat=repeat, recorded=now())


def read_replicates(
    connection: Connection, campaign: int, index: int | None
) -> dict[int, dict[int, dict[str, Measurement]]]:
    """The repeated measurements: by trial, repeat and metric; of one trial, or of all."""
    repeats: dict[int, dict[int, dict[str, Measurement]]] = {}
    for row in _rows_of(connection, replicate, campaign, index, replicate.c.repeat):
        one = repeats.setdefault(row.number, {}).setdefault(row.repeat, {})
        one[row.metric] = _measured(row)
    return repeats


def set_attempt(connection: Connection, campaign: int, index: int, attempt: int) -> None:
    """Start a running trial anew: what it has reported so far is dropped, replicates are kept."""
    require_running(connection, campaign, index)
    connection.execute(trial.update().where(_is(campaign, index)).values(attempt=attempt))
    connection.execute(
        delete(progress).where(progress.c.campaign_id == campaign, progress.c.number == index)
    )


def set_log(connection: Connection, campaign: int, index: int, text: str) -> None:
    """Keep what a trial printed.

    Raises:
        InputError: There is no such trial.
    """
    _status(connection, campaign, index)
    connection.execute(trial.update().where(_is(campaign, index)).values(log=storable(text)))


def read_log(connection: Connection, campaign: int, index: int, *, version: int) -> str | None:
    """What a trial printed, if that was kept.

    Raises:
        InputError: There is no such trial.
    """
    _status(connection, campaign, index)
    if version < 2:
        return None
    text: str | None = connection.execute(
        select(trial.c.log).where(_is(campaign, index))
    ).scalar_one()
    return text


# ---- values --------------------------------------------------------------------------------------
def now() -> str:
    """The time, as it is stored."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def storable(text: str) -> str:
    """Text from anywhere as every database takes it: no lone surrogates, no NUL."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _is(campaign: int, index: int) -> Any:
    return (trial.c.campaign_id == campaign) & (trial.c.number == index)


def _insert(
    connection: Connection,
    table: Table,
    campaign: int,
    index: int,
    measurements: Mapping[str, Measurement],
    **key: object,
) -> None:
    if measurements:
        connection.execute(
            table.insert(),
            [
                {"campaign_id": campaign, "number": index, "metric": metric,
                 "mean": m.mean, "sem": m.sem, **key}
                for metric, m in measurements.items()
            ],
        )  # fmt: skip


def _rows_of(
    connection: Connection, table: Table, campaign: int, index: int | None, order: Any
) -> list[Any]:
    rows = select(table).where(table.c.campaign_id == campaign)
    if index is not None:
        rows = rows.where(table.c.number == index)
    return list(connection.execute(rows.order_by(table.c.number, order, table.c.metric)))


def _measured(row: Any) -> Measurement:
    return Measurement(row.mean, row.sem)


def _to_trial(row: Any, measurements: Mapping[str, Measurement]) -> Trial:
    parameters: Values = json.loads(row.parameters)
    return Trial(
        index=row.number,
        parameters=parameters,
        status=row.status,
        origin=row.origin,
        measurements=measurements,
        reason=row.reason,
        seconds=json.loads(row.seconds),
        diagnostics=json.loads(row.diagnostics),
        created=datetime.fromisoformat(row.created),
        finished=None if row.finished is None else datetime.fromisoformat(row.finished),
        attempt=getattr(row, "attempt", 1),
    )
