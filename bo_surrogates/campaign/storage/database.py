"""A database of either kind: where it is, its transactions, and its errors in our words."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError

from bo_surrogates.campaign.storage.writer_lock import WriterLock
from bo_surrogates.errors import BoSurrogatesError, InputError


class NoDatabaseError(InputError):
    """There is no such database, or nothing in it yet."""


class Database(ABC):
    """One database. Connections are made when they are needed.

    Attributes:
        label: The database as the user gave it, without any password.
        engine: SQLAlchemy's.
    """

    label: str
    engine: Engine

    @contextmanager
    def errors(self, verb: str) -> Iterator[None]:
        """Turn the database's own errors into ours, except for broken uniqueness."""
        try:
            yield
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise self.explain(verb, error) from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view."""
        with self.errors("read"), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: on leaving, it is on disk, or (on an exception) nothing of it is."""
        engine = self.engine.execution_options(bo_surrogates_write=True)
        with self.errors("write to"), engine.begin() as connection:
            yield connection

    @abstractmethod
    def explain(self, verb: str, error: DBAPIError) -> BoSurrogatesError:
        """An error of the database, with what to do about it."""

    @abstractmethod
    def writer_lock(self, campaign: int, name: str) -> WriterLock:
        """The lock of a campaign's writer, not acquired yet."""

    @abstractmethod
    def occupied(self, tables: Sequence[str]) -> bool:
        """Whether a database with these tables, none of them our schema's, is another program's."""

    @abstractmethod
    def serialize(self, connection: Connection) -> None:
        """Let no other process change the tables until the transaction's end."""

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def without_password(text: str) -> str:
    """A database's URL as it may be shown."""
    # Greedily: a password that was not escaped may hold any of the URL's own characters.
    text = re.sub(r"(://[^/@:]*):.*@", r"\1:***@", text)
    return re.sub(r"((?:^|[?&])(?:ssl)?password=)[^&]*", r"\1***", text)


def open_database(database: str | Path, *, create: bool) -> Database:
    """The database at a path or URL.

    Args:
        database: A file path, or an SQLAlchemy URL.
        create: Whether it may be made where there is none.

    Raises:
        InputError: A malformed URL, a kind that is not supported, or no such database.
    """
    # Here, because both build on this module.
    from bo_surrogates.campaign.storage.postgresql import DRIVERS, PostgreSQLDatabase
    from bo_surrogates.campaign.storage.sqlite import SQLiteDatabase

    text = str(database)
    if "://" not in text:
        return SQLiteDatabase.at(text, create=create)
    label = without_password(text)
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise InputError(f"database {label!r} is not a valid URL") from error
    name = url.drivername.split("+")[0]
    if name == "sqlite":
        return SQLiteDatabase(url, label, create=create)
    if name in DRIVERS:
        return PostgreSQLDatabase(url, label)
    raise InputError(
        f"database {label!r}: only SQLite and PostgreSQL are supported; give a file path such as "
        "'my.db', or a URL such as 'postgresql://user@host/database'"
    )
