"""The right to write a campaign, which one process has at a time.

Three things make it safe.

1. A lock that ends with its holder: the operating system's on a file next to an SQLite database, a
   session's in PostgreSQL. No lock of a dead process of this machine has to be cleared away.
2. A sign of life every `HEARTBEAT` seconds, so that of a holder on another machine, whose lock may
   outlive it (a network file system, a connection that was cut), it can be told whether it lives.
3. A claim: the holder's token in the campaign's row, looked at in each of its transactions. A
   process that was wrongly taken for dead (a laptop that slept) finds another's token there and
   writes nothing any more.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from bo_surrogates.campaign.storage.holder import HEARTBEAT, SILENCE, Holder


class WriterLock(ABC):
    """A lock that its holder keeps alive."""

    def __init__(self) -> None:
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="campaign writer", daemon=True)

    @abstractmethod
    def acquire(self) -> bool:
        """Try once, without waiting."""

    @abstractmethod
    def steal(self, holder: Holder | None) -> str | None:
        """Acquire what another process holds, if that process is dead.

        Args:
            holder: Who holds the lock, as far as that is known.

        Returns:
            None, or the reason why the lock was not stolen.
        """

    @abstractmethod
    def _sign_of_life(self) -> None:
        """Leave one."""

    @abstractmethod
    def _let_go(self) -> None:
        """Release the lock itself."""

    @property
    def held(self) -> bool:
        """Whether it has not been released yet."""
        return not self._released.is_set()

    def keep(self) -> None:
        """Give signs of life from now on."""
        self._thread.start()

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT):
            self._sign_of_life()

    def release(self) -> None:
        """Give the right to write back."""
        self._released.set()
        if self._thread.is_alive():
            self._thread.join()
        self._let_go()


def living(holder: Holder | None, silence: float | None) -> str | None:
    """What speaks against a holder's being dead; None if it has been shown dead.

    Its process decides where it can be seen from here; its silence where not. A fresh sign of life
    always speaks against it: the process that gave it may not have put its name down yet.

    Args:
        holder: Who holds the lock, as far as that is known.
        silence: Seconds since its last sign of life; None: that is not known.
    """
    name = "its holder" if holder is None else str(holder)
    alive = None if holder is None else holder.alive()
    if alive:
        return f"{name} is running"
    if silence is None or (holder is not None and holder.token is None):
        return f"{name} cannot be seen from here and leaves no signs of life; stop it there"
    limit = SILENCE if alive is None else 2 * HEARTBEAT
    if silence <= limit:
        return (
            f"{name} gave a sign of life {max(silence, 0):.0f} s ago; it counts as dead after "
            f"{limit:.0f} s without one"
        )
    return None
