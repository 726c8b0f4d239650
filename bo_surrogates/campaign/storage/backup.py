"""A copy of a whole database in one new SQLite file, made while campaigns run.

The copy is one consistent view of all tables. It is written beside its place and then moved there,
so that what bears the name is always whole. It is an ordinary database: campaigns are resumed from
it, and one of PostgreSQL becomes a file.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from bo_surrogates.campaign.storage import schema
from bo_surrogates.campaign.storage.journal import Journal
from bo_surrogates.campaign.storage.sqlite import SQLiteDatabase
from bo_surrogates.errors import InputError, RunError

ROWS = 1000  # copied at a time


def backup(journal: Journal, path: str | Path) -> Path:
    """Copy the database, with all of its campaigns.

    Args:
        journal: The database.
        path: Of the file to make; there must be none.

    Raises:
        InputError: There is such a file, or no such folder.
        RunError: The copy cannot be written; nothing is left of it.
    """
    path = Path(path).expanduser().absolute()
    if path.exists():
        raise InputError(f"{path} exists; a backup overwrites nothing: choose another name")
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} does not exist; create it")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if isinstance(journal.database, SQLiteDatabase):
            with journal.database.engine.connect() as connection:
                # Outside a transaction, as VACUUM must be.
                connection.connection.cursor().execute("VACUUM INTO ?", (str(part),))
        else:
            with journal.read() as connection:
                _copy(connection, part)
        _to_disk(part)
        os.link(part, path)  # fails where another process has made it meanwhile
    except FileExistsError as error:
        raise InputError(f"{path} exists; a backup overwrites nothing") from error
    except (OSError, sqlite3.Error, DBAPIError) as error:
        said = error.orig if isinstance(error, DBAPIError) else error
        raise RunError(f"cannot write the backup {path}: {said}; nothing is left of it") from error
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
    _to_disk(path.parent)
    return path


def _copy(source: Connection, path: Path) -> None:
    """All rows of our tables, as they are."""
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    present = inspect(source).get_table_names()
    with engine.begin() as target:
        schema.metadata.create_all(target)
        for table in schema.metadata.sorted_tables:
            if table.name not in present:  # of a later version than the database
                continue
            columns = [c["name"] for c in inspect(source).get_columns(table.name)]
            found = source.execute(text(f"SELECT * FROM {table.name}")).mappings()
            for rows in found.partitions(ROWS):
                target.execute(
                    table.insert(), [{c: row[c] for c in columns if c in table.c} for row in rows]
                )
    engine.dispose()


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
