"""The tables of a campaign database, and how those of an earlier version become today's."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    Column,
    Connection,
    Float,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    Table,
    Text,
)

SCHEMA_VERSION = 3

metadata = MetaData()
schema = Table("bo_surrogates_schema", metadata, Column("version", Integer, primary_key=True))
campaign = Table(
    "campaign",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("spec", Text, nullable=False),  # JSON
    Column("created", Text, nullable=False),  # ISO 8601, UTC
    Column("writer", Text),  # JSON: who holds, or last held, the right to write
)
trial = Table(
    "trial",
    metadata,
    Column("campaign_id", Integer, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("parameters", Text, nullable=False),  # JSON
    Column("status", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("reason", Text),
    Column("seconds", Text, nullable=False),  # JSON
    Column("diagnostics", Text, nullable=False),  # JSON
    Column("created", Text, nullable=False),
    Column("finished", Text),
    Column("attempt", Integer, nullable=False, server_default="1"),  # since version 2
    Column("log", Text),  # since version 2
    ForeignKeyConstraint(["campaign_id"], ["campaign.id"]),
)
measurement = Table(
    "measurement",
    metadata,
    Column("campaign_id", Integer, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("metric", Text, primary_key=True),
    Column("mean", Float(53), nullable=False),
    Column("sem", Float(53)),
    ForeignKeyConstraint(["campaign_id", "number"], ["trial.campaign_id", "trial.number"]),
)
progress = Table(  # since version 2: what a running trial has reported so far
    "progress",
    metadata,
    Column("campaign_id", Integer, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("metric", Text, primary_key=True),
    Column("step", Float(53), primary_key=True),
    Column("mean", Float(53), nullable=False),
    Column("sem", Float(53)),
    Column("recorded", Text, nullable=False),
    ForeignKeyConstraint(["campaign_id", "number"], ["trial.campaign_id", "trial.number"]),
)
replicate = Table(  # since version 2: the single measurements behind a trial's result
    "replicate",
    metadata,
    Column("campaign_id", Integer, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("repeat", Integer, primary_key=True, autoincrement=False),
    Column("metric", Text, primary_key=True),
    Column("mean", Float(53), nullable=False),
    Column("sem", Float(53)),
    Column("recorded", Text, nullable=False),
    ForeignKeyConstraint(["campaign_id", "number"], ["trial.campaign_id", "trial.number"]),
)

assignment = Table(  # since version 3: which request a server gave a trial to
    "assignment",
    metadata,
    Column("campaign_id", Integer, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("request", Text, nullable=False),
    Column("worker", Text, nullable=False),
    Column("created", Text, nullable=False),
    ForeignKeyConstraint(["campaign_id", "number"], ["trial.campaign_id", "trial.number"]),
)


def _from_1(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE trial ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1")
    connection.exec_driver_sql("ALTER TABLE trial ADD COLUMN log TEXT")
    metadata.create_all(connection, tables=[progress, replicate])


def _from_2(connection: Connection) -> None:
    metadata.create_all(connection, tables=[assignment])


_STEPS: dict[int, Callable[[Connection], None]] = {1: _from_1, 2: _from_2}  # to the next version


def create(connection: Connection) -> None:
    """Make all tables, within the caller's transaction."""
    metadata.create_all(connection)
    connection.execute(schema.insert().values(version=SCHEMA_VERSION))


def upgrade(connection: Connection, version: int) -> None:
    """Bring the tables of an earlier version up to date, within the caller's transaction."""
    for step in range(version, SCHEMA_VERSION):
        _STEPS[step](connection)
    connection.execute(schema.update().values(version=SCHEMA_VERSION))
