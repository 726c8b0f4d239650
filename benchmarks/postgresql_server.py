"""A PostgreSQL server of one's own, in a temporary folder, for measurements and tests."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self


class NoPostgreSQLError(Exception):
    """Why no server can be started here."""


class PostgreSQLServer:
    """A running server; it stops on `stop`, or when this process ends, however it ends.

    Args:
        durable: Wait until what is committed is on disk, as servers do; tests need not.

    Attributes:
        port: On 127.0.0.1, where users need their password.

    Raises:
        NoPostgreSQLError: It is not installed, or there is no user to run it.
    """

    def __init__(self, *, durable: bool = True) -> None:
        self._as_user = _unprivileged()
        self._programs = _programs()
        self._folder = Path(tempfile.mkdtemp(prefix="bo-pg-", dir="/tmp"))  # short: it has sockets
        if self._as_user:
            shutil.chown(self._folder, self._as_user[2])
        self._data = self._folder / "data"
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        made = self._run(
            "initdb", "-D", self._data, "-U", "tester", "-E", "UTF8", "--no-locale", "--no-sync",
            "--auth-local=trust", "--auth-host=scram-sha-256",
        )  # fmt: skip
        if made.returncode != 0:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise NoPostgreSQLError(f"initdb failed: {made.stderr.decode()[-500:]}")
        self.start()

    def start(self) -> None:
        """Start the server, or start it again."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self._folder,
            "fsync": "on" if self._durable else "off",
            "max_connections": 200,
            "shared_buffers": "32MB",
            "log_min_messages": "fatal",
            "autovacuum": "off",
        }
        options = " ".join(f"-c {k}={v}" for k, v in settings.items())
        # The shell ends the server when its standard input closes: when this process is gone.
        script = (
            f"{self._programs / 'postgres'} -D {self._data} {options} </dev/null >&2 & server=$!; "
            "read _; kill -QUIT $server; wait $server"
        )
        self._process = subprocess.Popen(
            [*self._as_user, "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while self._run("pg_isready", "-q", "-h", self._folder, "-p", self.port).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise NoPostgreSQLError("the server does not start")
            time.sleep(0.1)

    def crash(self) -> None:
        """End the server at once, as a loss of power would."""
        if self._process is not None:
            self._process.communicate()  # closes its standard input
            self._process = None

    def stop(self) -> None:
        """End the server and remove its files."""
        self.crash()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def query(self, statement: str, database: str = "postgres") -> str:
        """What the server answers, a line a row."""
        done = self._run(
            "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self._folder, "-p", self.port,
            "-U", "tester", "-d", database, "-c", statement,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(done.stderr.decode())
        return done.stdout.decode().strip()

    def create(self, database: str, template: str = "template1") -> str:
        """Make an empty database; returns its URL."""
        with contextlib.suppress(RuntimeError):
            self.query(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
        self.query(f'CREATE DATABASE "{database}" TEMPLATE {template}')
        return self.url(database)

    def url(self, database: str) -> str:
        """A URL of a database, through the socket."""
        return f"postgresql://tester@/{database}?host={self._folder}&port={self.port}"

    def _run(self, program: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self._as_user, self._programs / program, *map(str, arguments)],
            capture_output=True,
            check=False,
            cwd="/",
        )


def _programs() -> Path:
    on_path = shutil.which("postgres")
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    if on_path:
        candidates.insert(0, Path(on_path).resolve())
    for program in candidates:
        if all((program.parent / name).exists() for name in ("initdb", "psql", "pg_isready")):
            return program.parent
    raise NoPostgreSQLError("PostgreSQL is not installed (Debian: apt-get install postgresql)")


def _unprivileged() -> list[str]:
    """How to run a program as a user that a server runs as: never as root."""
    if os.geteuid() != 0:
        return []
    if shutil.which("runuser") is None:
        raise NoPostgreSQLError(
            "there is no 'runuser' to start PostgreSQL as another user than root"
        )
    for user in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            pwd.getpwnam(user)
            return ["runuser", "-u", user, "--"]
    raise NoPostgreSQLError("PostgreSQL cannot run as root, and there is no user postgres")
