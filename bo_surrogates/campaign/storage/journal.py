"""The journal of campaigns: every trial and every result, each committed before anything else
happens.

The journal is the only truth of a campaign. It is a few plain tables in one database, written
through SQLAlchemy, one short transaction an event, so that a process may be killed at any moment:
what was acknowledged is there, and what was not is not.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, func, inspect, select
from sqlalchemy.exc import IntegrityError

from bo_surrogates.campaign.storage import rows, schema
from bo_surrogates.campaign.storage.database import NoDatabaseError, open_database
from bo_surrogates.campaign.storage.holder import Holder
from bo_surrogates.campaign.storage.rows import Report
from bo_surrogates.campaign.storage.schema import SCHEMA_VERSION
from bo_surrogates.campaign.storage.sqlite import SQLiteDatabase
from bo_surrogates.campaign.storage.writer_lock import WriterLock
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.errors import InputError, RunError, did_you_mean

_campaign = schema.campaign


class Journal:
    """One database with any number of campaigns.

    Args:
        database: A file path, or an SQLAlchemy URL (`sqlite:///...`, `postgresql://...`).
        create: Make the database's file or tables where there are none.
        read_only: Only look: a database of an earlier version is left as it is.

    Attributes:
        label: The database as it was given, without any password.
        version: Of its tables.

    Raises:
        NoDatabaseError: No such database, or an empty one.
        InputError: Not one of ours, or made by a newer version.
        RunError: It cannot be opened, read or written.
    """

    def __init__(
        self, database: str | Path, *, create: bool = False, read_only: bool = False
    ) -> None:
        self.database = open_database(database, create=create)
        self.label = self.database.label
        self.read_only = read_only
        self._claims: dict[int, tuple[WriterLock, Holder]] = {}
        self._mutex = threading.RLock()  # a server's threads share what is known of the trials
        self._known: dict[int, dict[int, Trial]] = {}  # trials of campaigns that are ours to write
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
            raise NoDatabaseError(
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

    @contextmanager
    def _change(self, campaign: int, changed: Sequence[int] = ()) -> Iterator[Connection]:
        """One transaction on a campaign, that refuses if its writer is not who it was.

        Args:
            campaign: Which.
            changed: Numbers of the trials that it adds or changes.
        """
        with self._mutex:
            claim = self._claim(campaign)
            try:
                with self.write() as connection:
                    self._check_claim(connection, campaign, claim)
                    yield connection
                    after = (
                        rows.read_trials(connection, campaign, changed, version=self.version)
                        if campaign in self._known
                        else []
                    )
            except BaseException:
                self._known.pop(campaign, None)  # whether it was committed may be unknown
                raise
            if campaign in self._known:
                self._known[campaign] |= {t.index: t for t in after}

    # ---- campaigns ---------------------------------------------------------------------------
    def campaigns(self) -> list[str]:
        """The names of the campaigns, oldest first."""
        with self.read() as connection:
            found = connection.execute(select(_campaign.c.name).order_by(_campaign.c.id))
            return [row.name for row in found]

    def create_campaign(
        self,
        name: str,
        spec: Mapping[str, Any],
        trials: Sequence[Trial] = (),
        *,
        details: Sequence[tuple[Table, Mapping[str, Any]]] = (),
        logs: Mapping[int, str] | None = None,
        created: str | None = None,
    ) -> int:
        """Add a campaign, with the trials it begins with, and return its id.

        Args:
            name: Its name.
            spec: Its specification.
            trials: Asked and finished ones.
            details: Rows of further tables, without the campaign's id.
            logs: What trials printed, by index.
            created: When, ISO 8601; None: now.

        Raises:
            InputError: One of that name is there.
        """
        try:
            with self.write() as connection:
                result = connection.execute(
                    _campaign.insert().values(
                        name=name,
                        spec=json.dumps(spec, allow_nan=False),
                        created=created or rows.now(),
                    )
                )
                number = int(result.inserted_primary_key[0])  # type: ignore[index]
                rows.add_trials(connection, number, trials)
                for table, row in details:
                    connection.execute(table.insert().values(campaign_id=number, **row))
                for index, text in (logs or {}).items():
                    rows.set_log(connection, number, index, text)
        except IntegrityError as error:
            raise InputError(
                f"{self.label} holds a campaign {name!r} already; resume it with "
                f"'bo-surrogates resume {self.label}', or choose another name or database"
            ) from error
        return number

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
        with self._change(campaign) as connection:
            connection.execute(
                _campaign.update()
                .where(_campaign.c.id == campaign)
                .values(spec=json.dumps(spec, allow_nan=False))
            )

    # ---- the single writer -------------------------------------------------------------------
    def lock(self, campaign: int, name: str, *, steal: bool = False) -> WriterLock:
        """Become the one writer of a campaign; release the returned lock when done.

        Args:
            campaign: Which.
            name: Its name.
            steal: Take the right from another process, if that is shown to be dead. Only needed
                where a lock outlives its holder; see `writer_lock.py`.

        Raises:
            RunError: Another process is the writer; the message names it.
        """
        lock = self.database.writer_lock(campaign, name)
        with self.database.errors("lock"):
            if not lock.acquire():
                self._contend(lock, campaign, name, steal=steal)
        holder = Holder.this_process()
        try:
            with self.write() as connection:
                connection.execute(
                    _campaign.update()
                    .where(_campaign.c.id == campaign)
                    .values(writer=holder.to_json())
                )
        except BaseException:
            lock.release()
            raise
        lock.keep()
        self._claims[campaign] = lock, holder
        return lock

    def _contend(self, lock: WriterLock, campaign: int, name: str, *, steal: bool) -> None:
        with self.read() as connection:
            holder = self._holder(connection, campaign)
        if not steal:
            raise RunError(
                f"campaign {name!r} in {self.label} is being written by "
                f"{holder or 'another process'}; wait for it, stop it, or open the campaign "
                "read-only ('bo-surrogates status'). If it is dead on another machine, add --steal"
            )
        reason = lock.steal(holder)
        if reason is not None:
            raise RunError(
                f"the right to write campaign {name!r} in {self.label} was not taken over: {reason}"
            )

    def _holder(self, connection: Connection, campaign: int) -> Holder | None:
        # The row stays locked until the transaction's end, where the database has such locks: the
        # writer cannot change within it, and transactions on one campaign are one after the other.
        query = select(_campaign.c.writer).where(_campaign.c.id == campaign)
        if connection.get_execution_options().get("bo_surrogates_write"):
            query = query.with_for_update()
        return Holder.from_json(connection.execute(query).scalar_one_or_none())

    def _claim(self, campaign: int) -> Holder | None:
        """This journal's right to write a campaign, unless it was given back."""
        lock, holder = self._claims.get(campaign, (None, None))
        if lock is not None and not lock.held:
            del self._claims[campaign]
            self._known.pop(campaign, None)
            return None
        return holder

    def _check_claim(self, connection: Connection, campaign: int, claim: Holder | None) -> None:
        holder = self._holder(connection, campaign)
        if claim is not None and (holder is None or holder.token != claim.token):
            raise RunError(
                f"the right to write this campaign in {self.label} was taken over by "
                f"{holder or 'another process'}; this process writes nothing any more, and "
                "nothing recorded is lost"
            )

    # ---- trials ------------------------------------------------------------------------------
    def add_trials(self, campaign: int, trials: Sequence[Trial]) -> None:
        """Commit trials as they are, all or none: asked ones, and finished ones with results.

        Raises:
            RunError: There is a trial of that number already.
        """
        try:
            with self._change(campaign, [t.index for t in trials]) as connection:
                rows.add_trials(connection, campaign, trials)
        except IntegrityError as error:
            raise RunError(
                f"{self.label} holds a trial with one of the numbers "
                f"{', '.join(str(t.index) for t in trials)} already: another process writes the "
                "campaign"
            ) from error

    def finish_trial(
        self,
        campaign: int,
        index: int,
        *,
        measurements: Mapping[str, Measurement] | None = None,
        reason: str | None = None,
        seconds: Mapping[str, float] | None = None,
        status: str | None = None,
    ) -> None:
        """Commit a running trial's result, or the reason why there is none; both at once.

        Args:
            campaign: Which.
            index: The trial.
            measurements: Its result; None if there is none.
            reason: Why it ended as it did, for people.
            seconds: Times to add to those recorded when it was asked.
            status: None: "completed" with a result, "abandoned" without.

        Raises:
            InputError: There is no such trial, or it is finished already.
        """
        if status is None:
            status = "abandoned" if measurements is None else "completed"
        with self._change(campaign, [index]) as connection:
            rows.finish_trial(
                connection, campaign, index, status, measurements or {}, reason, seconds or {}
            )

    def finish_trials(self, campaign: int, trials: Sequence[Trial]) -> None:
        """Commit the results of several running trials, or the reasons why there are none: of all
        or of none.

        Raises:
            InputError: There is no such trial, or one is finished already.
        """
        with self._change(campaign, [t.index for t in trials]) as connection:
            for t in trials:
                rows.finish_trial(
                    connection, campaign, t.index, t.status, t.measurements, t.reason, t.seconds
                )

    def trials(self, campaign: int, index: int | None = None) -> list[Trial]:
        """All trials of a campaign by index, or the one of a given index.

        The writer of a campaign knows them and reads them only once.
        """
        if self._claim(campaign) is not None:
            with self._mutex:
                if campaign not in self._known:
                    self._known[campaign] = {t.index: t for t in self._read_trials(campaign, None)}
                known = self._known[campaign]
                if index is not None:
                    return [known[index]] if index in known else []
                return list(known.values())
        return self._read_trials(campaign, None if index is None else [index])

    def _read_trials(self, campaign: int, indices: Sequence[int] | None) -> list[Trial]:
        with self.read() as connection:
            return rows.read_trials(connection, campaign, indices, version=self.version)

    # ---- who evaluates a trial ---------------------------------------------------------------
    def assign(self, campaign: int, indices: Sequence[int], request: str, worker: str) -> None:
        """Commit which request running trials were given to, and whose it was.

        Raises:
            InputError: There is no such trial, or one is finished.
        """
        with self._change(campaign) as connection:
            rows.assign(connection, campaign, indices, request, worker)

    def assignments(self, campaign: int) -> dict[int, str]:
        """By running trial, the request that it was given to; the others wait for one."""
        with self.read() as connection:
            return rows.read_assignments(connection, campaign)

    def release(self, campaign: int, indices: Sequence[int]) -> None:
        """Commit that trials wait for another request."""
        with self._change(campaign) as connection:
            rows.release(connection, campaign, indices)

    # ---- what belongs to a trial -------------------------------------------------------------
    def add_progress(
        self, campaign: int, index: int, step: float, measurements: Mapping[str, Measurement]
    ) -> None:
        """Commit what a running trial reports at a step; a later report of the step replaces it.

        Raises:
            InputError: There is no such trial, or it is finished.
        """
        with self._change(campaign) as connection:
            rows.add_progress(connection, campaign, index, step, measurements)

    def progress(self, campaign: int, index: int | None = None) -> dict[int, list[Report]]:
        """What trials have reported, by trial, in the order of steps; of one trial, or of all."""
        with self.read() as connection:
            return rows.read_progress(connection, campaign, index) if self.version > 1 else {}

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
            with self._change(campaign) as connection:
                rows.add_replicate(connection, campaign, index, repeat, measurements)
        except IntegrityError as error:
            raise InputError(
                f"trial {index} has its repeat {repeat} already; a recorded result is never "
                "overwritten"
            ) from error

    def replicates(
        self, campaign: int, index: int | None = None
    ) -> dict[int, dict[int, dict[str, Measurement]]]:
        """The repeated measurements: by trial, repeat and metric; of one trial, or of all."""
        with self.read() as connection:
            return rows.read_replicates(connection, campaign, index) if self.version > 1 else {}

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
        with self._change(campaign, [index]) as connection:
            rows.set_attempt(connection, campaign, index, attempt)

    def note_log(self, campaign: int, index: int, path: str) -> None:
        """Commit where what a trial printed is kept, relative to the database's folder.

        Raises:
            InputError: There is no such trial.
        """
        with self._change(campaign) as connection:
            rows.set_log(connection, campaign, index, path)

    def log(self, campaign: int, index: int) -> str | None:
        """Where what a trial printed is kept, if that was noted.

        Raises:
            InputError: There is no such trial.
        """
        with self.read() as connection:
            return rows.read_log(connection, campaign, index, version=self.version)

    def close(self) -> None:
        """Close all connections."""
        self.database.close()


def completed(trials: Iterable[Trial]) -> list[Trial]:
    """Those with a result."""
    return [t for t in trials if t.status == "completed"]
