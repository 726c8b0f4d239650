"""Campaigns in a PostgreSQL database: for many people, machines and campaigns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import DBAPIError

from bo_surrogates.campaign.storage import schema
from bo_surrogates.campaign.storage.database import Database, without_password
from bo_surrogates.campaign.storage.session_lock import SessionWriterLock
from bo_surrogates.campaign.storage.writer_lock import WriterLock
from bo_surrogates.errors import BoSurrogatesError, InputError, RunError

DRIVERS = ("postgres", "postgresql", "postgresql+psycopg")  # as a URL may begin


class PostgreSQLDatabase(Database):
    """A database of a PostgreSQL server.

    Raises:
        InputError: The driver is missing, or the URL asks for another.
    """

    def __init__(self, url: URL, label: str) -> None:
        self.label = label
        if url.drivername not in DRIVERS:
            raise InputError(
                f"database {label!r}: the driver is psycopg; begin the URL with 'postgresql://'"
            )
        try:
            self.engine = _engine(url.set(drivername="postgresql+psycopg"))
        except ModuleNotFoundError as error:
            raise InputError(
                f"database {label!r} needs the package psycopg; install it with "
                "\"pip install 'bo-surrogates[postgresql]'\""
            ) from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view: one snapshot, however many statements."""
        engine = self.engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        with self.errors("read"), engine.begin() as connection:
            yield connection

    def writer_lock(self, campaign: int, name: str) -> WriterLock:
        """The lock of a campaign's writer, not acquired yet."""
        return SessionWriterLock(self.engine, campaign, name)

    def occupied(self, tables: Sequence[str]) -> bool:
        """Other programs may have tables beside ours, as long as none has the name of one."""
        return any(name in schema.metadata.tables for name in tables)

    def serialize(self, connection: Connection) -> None:
        """Let no other process make or change the tables until the transaction's end."""
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('bo_surrogates_schema'))"))

    def explain(self, verb: str, error: DBAPIError) -> BoSurrogatesError:
        """An error of the database, with what to do about it."""
        said = without_password(" ".join(str(error.orig).split()))
        code = getattr(error.orig, "sqlstate", None) or ""
        kind: type[BoSurrogatesError] = RunError
        if "does not exist" in said and code in ("", "3D000") and "database" in said:
            kind, hint = InputError, "create it with 'createdb', or check the URL"
        elif "authentication failed" in said or "no password supplied" in said or code[:2] == "28":
            kind, hint = (
                InputError,
                "check the user and the password (in the URL, in PGPASSWORD or in ~/.pgpass)",
            )
        elif code == "42501":
            hint = "ask its owner for the right to read, write and create tables in it"
        elif code == "25006" or "read-only" in said:
            hint = "it is read-only: connect to the primary server, as a user who may write"
        elif code in ("53100", "58030"):
            hint = "free space on the server's disk; nothing recorded so far is lost"
        elif code == "53300":
            hint = "the server has too many connections; close some and try again"
        elif error.connection_invalidated or code in ("", "57P01", "57P02", "57P03", "08006"):
            hint = (
                "check that the server is running and can be reached, then resume; nothing "
                "recorded so far is lost"
            )
        else:
            hint = "nothing recorded so far is lost"
        return kind(f"cannot {verb} the database {self.label}: {said}; {hint}")


def _engine(url: URL) -> Engine:
    options = {"connect_timeout": "10", "application_name": "bo-surrogates"}
    url = url.update_query_dict({k: v for k, v in options.items() if k not in url.query})
    # Pinged before use: an evaluation takes longer than many a firewall or server waits.
    engine = create_engine(url, pool_pre_ping=True, pool_size=1, max_overflow=9)

    @event.listens_for(engine, "connect")
    def _connect(connection: object, _record: object) -> None:
        with connection.cursor() as cursor:  # type: ignore[attr-defined]
            # What is acknowledged is on disk, whatever the server's default.
            cursor.execute(
                "SELECT set_config('synchronous_commit', 'on', false) "
                "WHERE current_setting('synchronous_commit') = 'off'"
            )
            encoding = cursor.execute("SHOW server_encoding").fetchone()[0]
        connection.commit()  # type: ignore[attr-defined]
        if encoding != "UTF8":
            raise InputError(
                f"the database's encoding is {encoding}; create one with 'createdb -E UTF8'"
            )

    return engine
