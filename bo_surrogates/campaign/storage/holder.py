"""Who holds the right to write a campaign, and whether that process still lives.

A holder on this machine is looked up by its process id and start time: ids are used again, the pair
is not. Of a holder elsewhere, only its signs of life are seen (see `writer_lock.py`).
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Self

HEARTBEAT = 15.0  # seconds between a holder's signs of life
SILENCE = 90.0  # seconds without one after which a holder elsewhere counts as dead


@dataclass(frozen=True)
class Holder:
    """A process that may write a campaign.

    Attributes:
        pid: Its id.
        host: Its machine, for people.
        since: When it became the writer, ISO 8601, UTC.
        machine: Where its id has a meaning: a boot of a machine and a process namespace.
        started: When it started, in its machine's own terms.
        token: Of this one claim, unlike any other.
    """

    pid: int
    host: str
    since: str
    machine: str | None = None
    started: str | None = None
    token: str | None = None

    @classmethod
    def this_process(cls) -> Self:
        """A new claim of the process that calls."""
        return cls(
            pid=os.getpid(),
            host=socket.gethostname(),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=this_machine(),
            started=process_started(os.getpid()),
            token=uuid.uuid4().hex,
        )

    @classmethod
    def from_json(cls, text: str | None) -> Self | None:
        """A stored holder; None if there was none yet."""
        return cls(**json.loads(text)) if text else None

    def to_json(self) -> str:
        """As it is stored."""
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (since {self.since})"

    def alive(self) -> bool | None:
        """Whether the process runs; None where that cannot be seen from here."""
        if self.machine is None or self.machine != this_machine():
            return None
        return process_started(self.pid) == self.started


@cache
def this_machine() -> str:
    """This boot of this machine, and the namespace that its process ids belong to."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return f"{socket.gethostname()} {uuid.getnode()}"


def process_started(pid: int) -> str | None:
    """When a process of this machine started; None if there is no such process (any more)."""
    if Path("/proc/self/stat").exists():
        try:
            # The program's name, in parentheses, may hold anything, parentheses too.
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        state, *fields = stat.rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    shown = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return re.sub(r"\s+", " ", shown.stdout.strip()) or None
