"""The journal of campaigns: every trial and every result, each committed before anything else
happens.

The journal is the only truth of a campaign. It is four plain tables in one database (SQLite by
default), written through SQLAlchemy, one short transaction an event, so that a process may be
killed at any moment: what was acknowledged is there, and what was not is not. Ax's experiment is
rebuilt from it (see `ax_bridge.py`) and never stored itself: Ax's own store writes 0.1 to 0.4 s a
trial, growing with their number, knows one database a process, and silently loses results when
two processes write.

One process at a time may write a campaign. The lock is the operating system's (released when its
holder dies, however it dies), so no lock is ever stale.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import (
    Column,
    Connection,
    Float,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    func,
    inspect,
    select,
)
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, OperationalError
from sqlalchemy.pool import NullPool

from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.errors import InputError, RunError, did_you_mean
from bo_surrogates.space import Values

SCHEMA_VERSION = 1

_metadata = MetaData()
_schema = Table("bo_surrogates_schema", _metadata, Column("version", Integer, primary_key=True))
_campaign = Table(
    "campaign",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("spec", Text, nullable=False),  # JSON
    Column("created", String(40), nullable=False),  # ISO 8601, UTC
    Column("writer", Text),  # JSON: who holds, or last held, the writer's lock
)
_trial = Table(
    "trial",
    _metadata,
    Column("campaign_id", Integer, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("parameters", Text, nullable=False),  # JSON
    Column("status", String(20), nullable=False),
    Column("origin", String(100), nullable=False),
    Column("reason", Text),
    Column("seconds", Text, nullable=False),  # JSON
    Column("diagnostics", Text, nullable=False),  # JSON
    Column("created", String(40), nullable=False),
    Column("finished", String(40)),
    ForeignKeyConstraint(["campaign_id"], ["campaign.id"]),
)
_measurement = Table(
    "measurement",
    _metadata,
    Column("campaign_id", Integer, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("metric", String(200), primary_key=True),
    Column("mean", Float(53), nullable=False),
    Column("sem", Float(53)),
    ForeignKeyConstraint(["campaign_id", "number"], ["trial.campaign_id", "trial.number"]),
)


def database_url(database: str | Path) -> URL:
    """The URL of a database given as a path or as a URL.

    Raises:
        InputError: A malformed URL, or a kind of database that is not supported.
    """
    text = str(database)
    if "://" not in text:
        return URL.create("sqlite", database=os.path.abspath(os.path.expanduser(text)))
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise InputError(f"database {text!r} is not a valid URL: {error}") from error
    if url.get_backend_name() != "sqlite":
        raise InputError(
            f"database {text!r}: only SQLite is supported; give a file path such as 'my.db'"
        )
    return url


class Journal:
    """One database with any number of campaigns.

    Args:
        database: A file path, or an SQLAlchemy URL (`sqlite:///...`).
        create: Make the database where there is none.

    Raises:
        InputError: No such database, not one of ours, or made by a newer version.
        RunError: It cannot be opened, read or written.
    """

    def __init__(self, database: str | Path, *, create: bool = False) -> None:
        self.url = database_url(database)
        # SQLite's URI form ("file:...?mode=ro") carries options behind the path.
        self.path = Path((self.url.database or "").removeprefix("file:").split("?")[0])
        self.label = str(database)
        if not self.path.name:
            raise InputError(f"database {self.label!r} names no file; a campaign must be on disk")
        exists = self.path.exists()
        if self.path.is_dir():
            raise InputError(f"database {self.label} is a folder; give the path of a file")
        if not exists and not create:
            raise InputError(
                f"there is no database {self.label}; start a campaign with "
                "'bo-surrogates run CAMPAIGN.toml', or check the path"
            )
        if not exists and not self.path.parent.is_dir():
            raise InputError(
                f"database {self.label}: the folder {self.path.parent} does not exist; create it"
            )
        self.engine = _engine(self.url)
        with self._errors("open"):
            self._check_or_create(fresh=not exists or self.path.stat().st_size == 0, create=create)

    def _check_or_create(self, fresh: bool, create: bool) -> None:
        if fresh:
            if not create:
                raise InputError(f"{self.label} is empty; it is not a campaign database")
            with self.write() as connection:
                _metadata.create_all(connection)
                if connection.execute(select(_schema.c.version)).first() is None:
                    connection.execute(_schema.insert().values(version=SCHEMA_VERSION))
            return
        with self.read() as connection:
            if not inspect(connection).has_table(_schema.name):
                raise InputError(
                    f"{self.label} is a database of another program (it has no table "
                    f"{_schema.name}); choose another file"
                )
            version = connection.execute(select(func.max(_schema.c.version))).scalar_one()
        if version is None or version > SCHEMA_VERSION:
            raise InputError(
                f"{self.label} was written by a newer version of bo-surrogates (schema {version}, "
                f"this one reads up to {SCHEMA_VERSION}); upgrade with "
                "'pip install --upgrade bo-surrogates'"
            )

    @contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        """Turn a database's own errors into ours."""
        try:
            yield
        except IntegrityError:
            raise
        except (OperationalError, DatabaseError) as error:
            text = str(error.orig)
            if "file is not a database" in text or "file is encrypted" in text:
                raise InputError(
                    f"{self.label} is not an SQLite database; choose another file"
                ) from error
            if "readonly" in text or "read-only" in text or "readonly" in type(error.orig).__name__:
                hint = "it is read-only: check the permissions of the file and its folder"
            elif "locked" in text or "busy" in text:
                hint = "another program holds it locked; close that program and try again"
            elif "unable to open" in text:
                hint = "check the path and its permissions"
            elif "full" in text:
                hint = "free space on the disk; nothing recorded so far is lost"
            elif "malformed" in text:
                hint = "the file is damaged; restore it from a backup"
            else:
                hint = "nothing recorded so far is lost"
            raise RunError(f"cannot {verb} the database {self.label}: {text}; {hint}") from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view."""
        with self._errors("read"), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: on leaving, it is on disk, or (on an exception) nothing of it is."""
        engine = self.engine.execution_options(bo_surrogates_write=True)
        with self._errors("write to"), engine.begin() as connection:
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
            row = connection.execute(
                select(_trial.c.status, _trial.c.seconds).where(_is(campaign, index))
            ).first()
            if row is None:
                raise InputError(self._no_such_trial(connection, campaign, index))
            if row.status != "running":
                raise InputError(
                    f"trial {index} is {row.status} already; a recorded result is never overwritten"
                )
            connection.execute(
                _trial.update()
                .where(_is(campaign, index))
                .values(
                    status="abandoned" if measurements is None else "completed",
                    reason=reason,
                    seconds=json.dumps({**json.loads(row.seconds), **(seconds or {})}),
                    finished=_now(),
                )
            )
            if measurements:
                connection.execute(
                    _measurement.insert(),
                    [
                        {"campaign_id": campaign, "number": index, "metric": metric,
                         "mean": m.mean, "sem": m.sem}
                        for metric, m in measurements.items()
                    ],
                )  # fmt: skip

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
        trials = select(_trial).where(_trial.c.campaign_id == campaign)
        measurements = select(_measurement).where(_measurement.c.campaign_id == campaign)
        if index is not None:
            trials = trials.where(_trial.c.number == index)
            measurements = measurements.where(_measurement.c.number == index)
        with self.read() as connection:
            measured: dict[int, dict[str, Measurement]] = {}
            for m in connection.execute(measurements):
                measured.setdefault(m.number, {})[m.metric] = Measurement(m.mean, m.sem)
            rows = connection.execute(trials.order_by(_trial.c.number))
            return [_to_trial(row, measured.get(row.number, {})) for row in rows]

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _engine(url: URL) -> Engine:
    # A connection a transaction: nothing is shared between threads, nothing survives a fork.
    engine = create_engine(url, poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions are opened below, not by the driver
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes the write lock at once: upgrading a read lock later can fail at once
        # ("database is locked") when another campaign in the same file writes too.
        write = connection.get_execution_options().get("bo_surrogates_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _is(campaign: int, index: int) -> Any:
    return (_trial.c.campaign_id == campaign) & (_trial.c.number == index)


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
    )


def completed(trials: Iterable[Trial]) -> list[Trial]:
    """Those with a result."""
    return [t for t in trials if t.status == "completed"]
