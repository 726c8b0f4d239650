"""The writer's lock of a campaign in PostgreSQL: an advisory lock of a session."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from bo_surrogates.campaign.storage.holder import Holder
from bo_surrogates.campaign.storage.writer_lock import WriterLock, living
from bo_surrogates.errors import RunError


class SessionWriterLock(WriterLock):
    """An advisory lock of PostgreSQL, held by a session of its own; its statements are the pulse.

    A session that is lost (the server was restarted) is replaced at the next beat if no other
    process was faster.

    Args:
        engine: The database.
        campaign: The campaign's number in it.
        name: Its name, for people who list the sessions.
    """

    def __init__(self, engine: Engine, campaign: int, name: str) -> None:
        super().__init__()
        self.engine = engine
        self.campaign = campaign
        self.name = name
        self._session: Connection | None = None

    def acquire(self) -> bool:
        """Try once, without waiting."""
        session = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        session.detach()  # it is nobody else's
        try:
            for setting, value in _LOCK_SESSION.items():
                session.execute(
                    text(
                        "SELECT set_config(name, :value, false) FROM pg_settings WHERE name = :name"
                    ),
                    {"name": setting, "value": value},
                )
            session.execute(
                text("SELECT set_config('application_name', :name, false)"),
                {"name": f"bo-surrogates writes {self.name}"[:63]},
            )
            held: bool = session.execute(
                text(f"SELECT pg_try_advisory_lock({_KEY})"), {"campaign": self.campaign}
            ).scalar_one()
        except BaseException:
            session.close()
            raise
        if held:
            self._session = session
        else:
            session.close()
        return held

    def steal(self, holder: Holder | None) -> str | None:
        """Acquire what a dead process holds, by ending its session.

        The server knows when it last heard of the session.

        Raises:
            RunError: The server does not allow it.
        """
        row = self._holding_session()
        if row is not None:
            reason = living(holder, None if row.silence is None else float(row.silence))
            if reason is not None:
                return reason
            self._end_session(row.pid)
        return None if self.acquire() else "another process was faster"

    def _end_session(self, pid: int) -> None:
        try:
            with self.engine.connect() as connection:
                connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        except SQLAlchemyError as error:
            raise RunError(
                f"cannot end the dead holder's session (PostgreSQL process {pid}): {error}; ask "
                "the database's administrator to"
            ) from error
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline:
            row = self._holding_session()
            if row is None or row.pid != pid:
                return
            time.sleep(0.05)

    def _holding_session(self) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(text(_HOLDING), {"campaign": self.campaign}).first()

    def _sign_of_life(self) -> None:
        try:
            if self._session is not None:
                self._session.execute(text("SELECT 1"))
                return
        except SQLAlchemyError:
            self._drop()
        with suppress(SQLAlchemyError):  # no server: again at the next beat; the claim decides
            self.acquire()

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(SQLAlchemyError):
                session.close()

    def _let_go(self) -> None:
        self._drop()


# The server notices within about a minute that a machine is gone, instead of within two hours.
_LOCK_SESSION = {
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "idle_session_timeout": "0",
}
# One lock a campaign: the oid tells the tables of different schemas apart.
_KEY = "'campaign'::regclass::oid::bigint << 32 | :campaign"
_HOLDING = """
    SELECT l.pid, extract(epoch FROM clock_timestamp() - a.state_change) AS silence
    FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.classid = 'campaign'::regclass::oid AND l.objid = CAST(:campaign AS bigint)::oid
"""
