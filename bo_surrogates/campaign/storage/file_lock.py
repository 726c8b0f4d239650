"""The writer's lock of a campaign in a file: the operating system's, on another file beside it."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from bo_surrogates.campaign.storage.holder import Holder
from bo_surrogates.campaign.storage.writer_lock import WriterLock, living
from bo_surrogates.errors import RunError


class FileWriterLock(WriterLock):
    """The operating system's lock on a file next to the database; its time stamp is the pulse.

    Args:
        database: The database's file.
        campaign: The campaign's number in it.
        name: Its name, for people who see the file.
    """

    def __init__(self, database: Path, campaign: int, name: str) -> None:
        super().__init__()
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:60]
        self.path = Path(f"{database}.{campaign}-{safe}.lock")
        self._lock = FileLock(self.path, is_singleton=False)
        self._file = 0  # its inode

    def acquire(self) -> bool:
        """Try once, without waiting.

        Raises:
            RunError: The file cannot be made.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        except (OSError, NotImplementedError) as error:
            raise RunError(
                f"cannot create the lock file {self.path}: {error}; check the permissions of "
                "the folder, and that its file system has locks"
            ) from error
        self._file = self.path.stat().st_ino
        self._sign_of_life()
        return True

    def steal(self, holder: Holder | None) -> str | None:
        """Acquire what a dead process holds, by way of a new file: its lock stays on the old one.

        All times compared are the file system's own.
        """
        with FileLock(f"{self.path}.steal"):  # two thieves: the second finds the first alive
            with suppress(FileNotFoundError):  # it was released meanwhile
                with tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=".clock-") as clock:
                    now = os.stat(clock.name).st_mtime
                reason = living(holder, now - self.path.stat().st_mtime)
                if reason is not None:
                    return reason
                self.path.unlink()
            return None if self.acquire() else "another process was faster"

    def _sign_of_life(self) -> None:
        with suppress(OSError):  # the claim in the database decides
            if self.path.stat().st_ino == self._file:  # else it was stolen: not ours to touch
                os.utime(self.path)

    def _let_go(self) -> None:
        self._lock.release()
