"""The journal of campaigns: every trial and every result, each committed before anything else
happens.

The journal is the only truth of a campaign. It is a few plain tables in one database, written
through SQLAlchemy, one short transaction an event, so that a process may be killed at any moment:
what was acknowledged is there, and what was not is not.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import Column, Connection, Table, delete, func, inspect, select
from sqlalchemy.exc import IntegrityError

from bo_surrogates.campaign.storage import schema
from bo_surrogates.campaign.storage.database import open_database
from bo_surrogates.campaign.storage.schema import SCHEMA_VERSION
from bo_surrogates.campaign.storage.sqlite import SQLiteDatabase
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.errors import InputError, RunError, did_you_mean
from bo_surrogates.space import Values

_campaign, _trial, _measurement = schema.campaign, schema.trial, schema.measurement
_progress, _replicate = schema.progress, schema.replicate


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


class Journal:
    """One database with any number of campaigns.

    Args:
        database: A file path, or an SQLAlchemy URL (`sqlite:///...`).
        create: Make the database where there is none.
        read_only: Only look: a database of an earlier version is left as it is.

    Raises:
        InputError: No such database, not one of ours, or made by a newer version.
        RunError: It cannot be opened, read or written.
    """

    def __init__(
        self, database: str | Path, *, create: bool = False, read_only: bool = False
    ) -> None:
        self.database = open_database(database, create=create)
        self.label = self.database.label
        self.read_only = read_only
        with self.database.errors("open"):
            self.version = self._prepare(create and not read_only)

    @property
    def path(self) -> Path | None:
        """The database's file, if it is one."""
        return self.database.path if isinstance(self.database, SQLiteDatabase) else None

    def _prepare(self, create: bool) -> int:
        """Make or upgrade the tables where that is needed and allowed; return their version."""
        with self.read() as connection:
            version = self._stored_version(connection)
        if version == SCHEMA_VERSION or (version is not None and self.read_only):
            return version
        if version is None and not create:
            raise InputError(
                f"{self.label} is empty; it is not a campaign database. Start a campaign with "
                "'bo-surrogates run CAMPAIGN.toml'"
            )
        with self.write() as connection:
            self.database.serialize(connection)
            version = self._stored_version(connection)  # another process may have been faster
            if version is None:
                schema.create(connection)
            elif version < SCHEMA_VERSION:
                schema.upgrade(connection, version)
        return SCHEMA_VERSION

    def _stored_version(self, connection: Connection) -> int | None:
        inspector = inspect(connection)
        if not inspector.has_table(schema.schema.name):
            if self.database.occupied(inspector.get_table_names()):
                raise InputError(
                    f"{self.label} is a database of another program (it has no table "
                    f"{schema.schema.name}); choose another"
                )
            return None
        version = connection.execute(select(func.max(schema.schema.c.version))).scalar_one()
        if version is None or version > SCHEMA_VERSION:
            raise InputError(
                f"{self.label} was written by a newer version of bo-surrogates (schema {version}, "
                f"this one reads up to {SCHEMA_VERSION}); upgrade with "
                "'pip install --upgrade bo-surrogates'"
            )
        return int(version)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view."""
        with self.database.read() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: on leaving, it is on disk, or (on an exception) nothing of it is."""
        with self.database.write() as connection:
            yield connection

    # ---- campaigns ---------------------------------------------------------------------------
    def campaigns(self) -> list[str]:
        """The names of the campaigns, oldest first."""
        with self.read() as connection:
            rows = connection.execute(select(_campaign.c.name).order_by(_campaign.c.id))
            return [row.name for row in rows]

    def create_campaign(self, name: str, spec: Mapping[str, Any]) -> int:
        """Add a campaign and return its id.

        Raises:
            InputError: One of that name is there.
        """
        try:
            with self.write() as connection:
                result = connection.execute(
                    _campaign.insert().values(
                        name=name, spec=json.dumps(spec, allow_nan=False), created=_now()
                    )
                )
        except IntegrityError as error:
            raise InputError(
                f"{self.label} holds a campaign {name!r} already; resume it with "
                f"'bo-surrogates resume {self.label}', or choose another name or database"
            ) from error
        key = result.inserted_primary_key
        return int(key[0]) if key is not None else self.find_campaign(name)[0]

    def find_campaign(self, name: str | None) -> tuple[int, str, dict[str, Any]]:
        """Id, name and stored specification of a campaign; `None` is the only one.

        Raises:
            InputError: No such campaign, or several and no name.
        """
        names = self.campaigns()
        if name is None:
            if len(names) != 1:
                many = f"holds {len(names)} campaigns; name one of: {', '.join(names)}"
                raise InputError(f"{self.label} " + (many if names else "holds no campaign"))
            name = names[0]
        elif name not in names:
            raise InputError(f"{self.label} holds no campaign {name!r}{did_you_mean(name, names)}")
        with self.read() as connection:
            row = connection.execute(select(_campaign).where(_campaign.c.name == name)).one()
        return row.id, row.name, json.loads(row.spec)

    def update_spec(self, campaign: int, spec: Mapping[str, Any]) -> None:
        """Replace a campaign's stored specification (a larger budget, say)."""
        with self.write() as connection:
            connection.execute(
                _campaign.update()
                .where(_campaign.c.id == campaign)
                .values(spec=json.dumps(spec, allow_nan=False))
            )

    # ---- the single writer -------------------------------------------------------------------
    def lock(self, campaign: int, name: str) -> FileLock:
        """Become the one writer of a campaign; release the returned lock when done.

        Raises:
            RunError: Another process is; the message names it.
        """
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:60]
        lock = FileLock(f"{self.path}.{campaign}-{safe}.lock", is_singleton=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"campaign {name!r} in {self.label} is being written by {self._holder(campaign)}; "
                "wait for it, stop it, or open the campaign read-only ('bo-surrogates status')"
            ) from None
        except OSError as error:
            raise RunError(
                f"cannot create the lock file {lock.lock_file}: {error}; check the permissions of "
                "the folder"
            ) from error
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
        try:
            with self.write() as connection:
                connection.execute(
                    _campaign.update()
                    .where(_campaign.c.id == campaign)
                    .values(writer=json.dumps(holder))
                )
        except BaseException:
            lock.release()
            raise
        return lock

    def _holder(self, campaign: int) -> str:
        with self.read() as connection:
            text = connection.execute(
                select(_campaign.c.writer).where(_campaign.c.id == campaign)
            ).scalar_one()
        if not text:
            return "another process"
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']} (since {holder['since']})"

    # ---- trials ------------------------------------------------------------------------------
    def add_trials(self, campaign: int, trials: Sequence[Trial]) -> None:
        """Commit asked trials, all or none."""
        with self.write() as connection:
            connection.execute(
                _trial.insert(),
                [
                    {
                        "campaign_id": campaign,
                        "number": t.index,
                        "parameters": json.dumps(t.parameters, allow_nan=False),
                        "status": "running",
                        "origin": t.origin,
                        "seconds": json.dumps(dict(t.seconds)),
                        "diagnostics": json.dumps(dict(t.diagnostics)),
                        "created": _now(),
                    }
                    for t in trials
                ],
            )

    def finish_trial(
        self,
        campaign: int,
        index: int,
        *,
        measurements: Mapping[str, Measurement] | None = None,
        reason: str | None = None,
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        """Commit a running trial's result, or the reason why there is none; both at once.

        Raises:
            InputError: There is no such trial, or it is finished already.
        """
        with self.write() as connection:
            self._require_running(connection, campaign, index)
            before = connection.execute(
                select(_trial.c.seconds).where(_is(campaign, index))
            ).scalar_one()
            connection.execute(
                _trial.update()
                .where(_is(campaign, index))
                .values(
                    status="abandoned" if measurements is None else "completed",
                    reason=None if reason is None else _storable(reason),
                    seconds=json.dumps({**json.loads(before), **(seconds or {})}),
                    finished=_now(),
                )
            )
            if measurements:
                _insert(connection, _measurement, campaign, index, measurements)

    def _no_such_trial(self, connection: Connection, campaign: int, index: int) -> str:
        rows = connection.execute(
            select(_trial.c.number)
            .where(_trial.c.campaign_id == campaign, _trial.c.status == "running")
            .order_by(_trial.c.number)
        )
        running = [str(row.number) for row in rows]
        return f"there is no trial {index}; running trials: {', '.join(running) or 'none'}"

    def trials(self, campaign: int, index: int | None = None) -> list[Trial]:
        """All trials of a campaign by index, or the one of a given index."""
        trials = select(*self._trial_columns()).where(_trial.c.campaign_id == campaign)
        measurements = select(_measurement).where(_measurement.c.campaign_id == campaign)
        if index is not None:
            trials = trials.where(_trial.c.number == index)
            measurements = measurements.where(_measurement.c.number == index)
        with self.read() as connection:
            measured: dict[int, dict[str, Measurement]] = {}
            for m in connection.execute(measurements):
                measured.setdefault(m.number, {})[m.metric] = _measured(m)
            rows = connection.execute(trials.order_by(_trial.c.number))
            return [_to_trial(row, measured.get(row.number, {})) for row in rows]

    def _trial_columns(self) -> list[Column[Any]]:
        """What is read of each trial: its log only where it is asked for."""
        later = {"attempt"} if self.version < 2 else set()
        return [c for c in _trial.c if c.name not in {"log", *later}]

    # ---- what a running trial reports ----------------------------------------------------------
    def add_progress(
        self, campaign: int, index: int, step: float, measurements: Mapping[str, Measurement]
    ) -> None:
        """Commit what a running trial reports at a step; a later report of the step replaces it.

        Raises:
            InputError: There is no such trial, or it is finished.
        """
        with self.write() as connection:
            self._require_running(connection, campaign, index)
            connection.execute(
                delete(_progress).where(
                    _progress.c.campaign_id == campaign,
                    _progress.c.number == index,
                    _progress.c.step == step,
                    _progress.c.metric.in_(list(measurements)),
                )
            )
            _insert(connection, _progress, campaign, index, measurements, step=step)

    def progress(self, campaign: int, index: int | None = None) -> dict[int, list[Report]]:
        """What trials have reported, by trial, in the order of steps; of one trial, or of all."""
        reports: dict[int, list[Report]] = {}
        for row in self._rows_of(_progress, campaign, index, _progress.c.step):
            reports.setdefault(row.number, []).append(
                Report(row.metric, row.step, _measured(row), datetime.fromisoformat(row.recorded))
            )
        return reports

    def add_replicate(
        self, campaign: int, index: int, repeat: int, measurements: Mapping[str, Measurement]
    ) -> None:
        """Commit one of the repeated measurements of a running trial.

        Args:
            campaign: Which.
            index: The trial.
            repeat: 0, 1, 2, ...
            measurements: By metric.

        Raises:
            InputError: There is no such trial, it is finished, or has that repeat already.
        """
        try:
            with self.write() as connection:
                self._require_running(connection, campaign, index)
                _insert(connection, _replicate, campaign, index, measurements, repeat=repeat)
        except IntegrityError as error:
            raise InputError(
                f"trial {index} has its repeat {repeat} already; a recorded result is never "
                "overwritten"
            ) from error

    def replicates(
        self, campaign: int, index: int | None = None
    ) -> dict[int, dict[int, dict[str, Measurement]]]:
        """The repeated measurements: by trial, repeat and metric; of one trial, or of all."""
        repeats: dict[int, dict[int, dict[str, Measurement]]] = {}
        for row in self._rows_of(_replicate, campaign, index, _replicate.c.repeat):
            one = repeats.setdefault(row.number, {}).setdefault(row.repeat, {})
            one[row.metric] = _measured(row)
        return repeats

    def note_attempt(self, campaign: int, index: int, attempt: int) -> None:
        """Commit that a running trial is evaluated anew: what it had reported so far is dropped.

        Its replicates are kept: those that were measured need not be again.

        Args:
            campaign: Which.
            index: The trial.
            attempt: 2 for the second, and so on.

        Raises:
            InputError: There is no such trial, or it is finished.
        """
        with self.write() as connection:
            self._require_running(connection, campaign, index)
            connection.execute(_trial.update().where(_is(campaign, index)).values(attempt=attempt))
            connection.execute(
                delete(_progress).where(
                    _progress.c.campaign_id == campaign, _progress.c.number == index
                )
            )

    def note_log(self, campaign: int, index: int, text: str) -> None:
        """Commit what a trial printed, instead of what was noted before.

        Raises:
            InputError: There is no such trial.
        """
        with self.write() as connection:
            self._status(connection, campaign, index)
            connection.execute(
                _trial.update().where(_is(campaign, index)).values(log=_storable(text))
            )

    def log(self, campaign: int, index: int) -> str | None:
        """What a trial printed, if that was noted.

        Raises:
            InputError: There is no such trial.
        """
        with self.read() as connection:
            self._status(connection, campaign, index)
            if self.version < 2:
                return None
            text: str | None = connection.execute(
                select(_trial.c.log).where(_is(campaign, index))
            ).scalar_one()
            return text

    def _status(self, connection: Connection, campaign: int, index: int) -> str:
        row = connection.execute(select(_trial.c.status).where(_is(campaign, index))).first()
        if row is None:
            raise InputError(self._no_such_trial(connection, campaign, index))
        return str(row.status)

    def _require_running(self, connection: Connection, campaign: int, index: int) -> None:
        status = self._status(connection, campaign, index)
        if status != "running":
            raise InputError(
                f"trial {index} is {status} already; a recorded result is never overwritten"
            )

    def _rows_of(self, table: Table, campaign: int, index: int | None, order: Any) -> list[Any]:
        if self.version < 2:
            return []
        rows = select(table).where(table.c.campaign_id == campaign)
        if index is not None:
            rows = rows.where(table.c.number == index)
        with self.read() as connection:
            return list(connection.execute(rows.order_by(table.c.number, order, table.c.metric)))

    def close(self) -> None:
        """Close all connections."""
        self.database.close()


def _is(campaign: int, index: int) -> Any:
    return (_trial.c.campaign_id == campaign) & (_trial.c.number == index)


def _insert(
    connection: Connection,
    table: Table,
    campaign: int,
    index: int,
    measurements: Mapping[str, Measurement],
    **key: float,
) -> None:
    """Add a row a metric; all but results also say when they were recorded."""
    if table is not _measurement:
        key["recorded"] = _now()  # type: ignore[assignment]
    connection.execute(
        table.insert(),
        [
            {"campaign_id": campaign, "number": index, "metric": metric,
             "mean": m.mean, "sem": m.sem, **key}
            for metric, m in measurements.items()
        ],
    )  # fmt: skip


def _measured(row: Any) -> Measurement:
    return Measurement(row.mean, row.sem)


def _storable(text: str) -> str:
    """Text from anywhere as every database takes it: no lone surrogates, no NUL."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


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


def completed(trials: Iterable[Trial]) -> list[Trial]:
    """Those with a result."""
    return [t for t in trials if t.status == "completed"]
