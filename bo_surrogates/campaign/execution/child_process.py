"""A process that evaluates, may hang or die, and can always be ended with all it started.

`concurrent.futures` cannot kill a hung task and breaks when a worker dies; Pebble kills the worker
alone and leaves what the worker started running. Here every process has a pipe of its own and
leads a process group, which is killed as a whole.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait

from bo_surrogates.campaign.black_box import BlackBox, describe_exit
from bo_surrogates.campaign.execution import worker
from bo_surrogates.campaign.execution.evaluation import Task
from bo_surrogates.errors import InputError, RunError

STOP_SECONDS = 2.0  # an idle process's time to end by itself, with its exit handlers
STOPPING_SECONDS = 30.0  # the time of an evaluation told to stop until it is killed


class ChildProcess:
    """One process that evaluates one task after another.

    Args:
        pickled: The black box.
        threads: Of an evaluation; 0: leave the environment alone.
        directory: See `worker.serve`.

    Raises:
        RunError: It cannot be started.

    Attributes:
        ready: Whether it has loaded the black box.
        task: What it is evaluating.
        started: When that was sent, `time.monotonic()`.
        received: Whether the task has arrived.
        stopping: When it was told to stop early, `time.monotonic()`.
        asking: Since when it has been waiting for the answer to a report, `time.monotonic()`.
    """

    def __init__(self, pickled: bytes, threads: int, directory: str | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=worker.serve, args=(theirs, pickled, threads, directory), name="trial worker"
        )
        self.ready = False
        self.task: Task | None = None
        self.started = 0.0
        self.received = False
        self.stopping: float | None = None
        self.asking: float | None = None
        try:
            with _interrupts_blocked():
                self.process.start()
        except OSError as error:
            raise RunError(f"cannot start a worker process: {error}") from error
        theirs.close()  # so that the child's end closes with the child

    @property
    def waitables(self) -> list[Connection | int]:
        """What `multiprocessing.connection.wait` watches: messages, and its death."""
        return [self.connection, self.process.sentinel]

    @property
    def busy(self) -> bool:
        """Whether it is evaluating."""
        return self.task is not None

    def assign(self, task: Task) -> bool:
        """Send it a task; False if it has died meanwhile."""
        try:
            self.connection.send(task)
        except OSError:
            return False
        self.task, self.started = task, time.monotonic()
        self.received, self.stopping, self.asking = False, None, None
        return True

    def deadline(self, timeout: float | None) -> float | None:
        """When what it is evaluating is overdue, `time.monotonic()`.

        The time it waits for the answer to a report is not its own.
        """
        if self.task is None or self.asking is not None:
            return None
        ends = [] if timeout is None else [self.started + timeout]
        if self.stopping is not None:
            ends.append(self.stopping + STOPPING_SECONDS)
        return min(ends, default=None)

    def receive(self, happened: Sequence[object]) -> object:
        """Its next message; None if there is none."""
        if self.connection in happened or self.connection.poll():
            # A process that dies while it writes leaves half a message: that is no message.
            with suppress(EOFError, OSError, pickle.UnpicklingError):
                return self.connection.recv()
        return None

    def greet(self, message: tuple[str, str | None]) -> None:
        """Take its first message.

        Raises:
            InputError: It could not load the black box.
        """
        state, reason = message
        if state != "ready":
            raise InputError(
                f"the black box cannot be loaded in a worker process: {reason}; define the "
                "function in a module that can be imported (not in a notebook or at the prompt)"
            )
        self.ready = True

    def answer(self, go_on: bool) -> None:
        """Answer a report."""
        if self.asking is not None:
            self.started += time.monotonic() - self.asking
            self.asking = None
        if not go_on and self.stopping is None:
            self.stopping = time.monotonic()
        with suppress(OSError):  # it has died meanwhile, which its sentinel tells
            self.connection.send(go_on)

    def bury(self) -> str:
        """Clear a dead process away, and say how it ended.

        Raises:
            RunError: It never became ready.
        """
        # Its pipe may close a moment before it ends; then its own exit code is worth waiting for.
        wait([self.process.sentinel], STOP_SECONDS)
        code = self.kill()
        if not self.ready:
            raise RunError(
                f"a worker process {describe_exit(code)} before its first trial; a script that "
                "starts a campaign with workers needs `if __name__ == '__main__':` around it"
            )
        return f"its process {describe_exit(code)}"

    def dismiss(self) -> None:
        """Ask an idle process to end by itself; `kill` it after a while."""
        if self.ready and not self.busy:
            with suppress(OSError):  # it has died meanwhile
                self.connection.send(None)

    def kill(self) -> int | None:
        """End the process and all it started; return its exit code."""
        # The group is killed before the process is reaped, while its id cannot be another's.
        with suppress(ProcessLookupError, PermissionError):  # not a group yet, or all dead
            if self.process.pid is not None:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode


def pickle_black_box(black_box: BlackBox, *, by_value: bool = False) -> bytes:
    """The black box as bytes.

    Args:
        black_box: What is evaluated.
        by_value: Send functions that other machines cannot import (of the main script or a
            notebook) as code, where the package cloudpickle is installed (it comes with Dask).

    Raises:
        InputError: It cannot be sent.
    """
    if by_value:
        with suppress(ImportError):
            import cloudpickle

            return bytes(cloudpickle.dumps(black_box))
    try:
        return pickle.dumps(black_box)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"the black box cannot be sent to worker processes: {error}; define the function at "
            "the top level of a module, or run with workers = 1 and without a time-out"
        ) from error


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Hold Ctrl-C back while a process starts: it inherits the mask, and lifts it when it leads
    its own group. Here the signal is delivered, not lost, at the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
