"""Campaigns in an SQLite file: the default, for one machine."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from bo_surrogates.campaign.storage.database import Database, NoDatabaseError
from bo_surrogates.campaign.storage.file_lock import FileWriterLock
from bo_surrogates.campaign.storage.writer_lock import WriterLock
from bo_surrogates.errors import BoSurrogatesError, InputError, RunError


class SQLiteDatabase(Database):
    """An SQLite file.

    Attributes:
        path: Of the file.

    Raises:
        NoDatabaseError: There is no such file, and none may be made.
        InputError: There can be none.
    """

    def __init__(self, url: URL, label: str, *, create: bool) -> None:
        self.label = label
        # SQLite's URI form ("file:...?mode=ro") carries options behind the path.
        self.path = Path((url.database or "").removeprefix("file:").split("?")[0])
        if not self.path.name:
            raise InputError(f"database {self.label!r} names no file; a campaign must be on disk")
        exists = self.path.exists()
        if self.path.is_dir():
            raise InputError(f"database {self.label} is a folder; give the path of a file")
        if not exists and not create:
            raise NoDatabaseError(
                f"there is no database {self.label}; start a campaign with "
                "'bo-surrogates run CAMPAIGN.toml', or check the path"
            )
        if not exists and not self.path.parent.is_dir():
            raise InputError(
                f"database {self.label}: the folder {self.path.parent} does not exist; create it"
            )
        self.engine = _engine(url)

    @classmethod
    def at(cls, path: str, *, create: bool) -> Self:
        """The file at a path."""
        url = URL.create("sqlite", database=os.path.abspath(os.path.expanduser(path)))
        return cls(url, path, create=create)

    def writer_lock(self, campaign: int, name: str) -> WriterLock:
        """The lock of a campaign's writer, not acquired yet."""
        return FileWriterLock(self.path, campaign, name)

    def occupied(self, tables: Sequence[str]) -> bool:
        """A file of ours holds nothing else."""
        return bool(tables)

    def serialize(self, connection: Connection) -> None:
        """Nothing is left to do: a transaction that writes is alone in the file."""

    def explain(self, verb: str, error: DBAPIError) -> BoSurrogatesError:
        """An error of the database, with what to do about it."""
        text = str(error.orig)
        if "file is not a database" in text or "file is encrypted" in text:
            return InputError(f"{self.label} is not an SQLite database; choose another file")
        if "readonly" in text or "read-only" in text or "readonly" in type(error.orig).__name__:
            hint = "it is read-only: check the permissions of the file and its folder"
        elif "locked" in text or "busy" in text:
            hint = "another program holds it locked; close that program and try again"
        elif "unable to open" in text:
            hint = "check the path and its permissions"
        elif "full" in text or "disk I/O error" in text:
            hint = "free space on the disk, or check that it works; nothing recorded so far is lost"
        elif "malformed" in text:
            hint = "the file is damaged; restore it from a backup"
        else:
            hint = "nothing recorded so far is lost"
        return RunError(f"cannot {verb} the database {self.label}: {text}; {hint}")


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
