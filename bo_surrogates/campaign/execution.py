"""Running trials: in the campaign's own process, or in worker processes that may hang or die.

`concurrent.futures` cannot kill a hung task and breaks when a worker dies; Pebble kills the worker
alone and leaves what the worker started running. Here every worker has a pipe of its own and leads
a process group, and one thread waits on all pipes and all deaths at once: an overdue or dead
worker is killed with its whole group, its trial has failed, and a new worker takes its place.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Self

from bo_surrogates.campaign import worker
from bo_surrogates.campaign.black_box import (
    BlackBox,
    Reading,
    describe_exit,
)
from bo_surrogates.campaign.trial import Measurement
from bo_surrogates.errors import InputError, RunError

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from bo_surrogates.space import Values

Task = tuple[int, "Values", int]  # trial index, parameters, seed

STOP_SECONDS = 2.0  # an idle worker's time to end by itself, with its exit handlers


@dataclass(frozen=True)
class Outcome:
    """How a trial went.

    Attributes:
        index: The trial's number.
        measurements: By metric; None if the trial failed.
        reason: Why it failed; None if it did not.
        seconds: Wall-clock time of the evaluation.
    """

    index: int
    measurements: dict[str, Measurement] | None
    reason: str | None
    seconds: float


def _measurements(readings: dict[str, Reading]) -> dict[str, Measurement]:
    return {metric: Measurement(mean, sem) for metric, (mean, sem) in readings.items()}


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    connection: Connection
    ready: bool = False
    task: Task | None = None
    started: float = 0.0  # when the task was sent, time.monotonic()
    received: bool = False  # the task, by the worker

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


class TrialRunner:
    """Evaluates trials, several at a time, whatever they do.

    A Python function or a problem runs in this process where one worker and no time-out are
    asked for; everything else in worker processes, started when first needed and kept until the
    runner is closed. Results do not depend on which.

        with TrialRunner(black_box, workers=2, timeout=60) as runner:
            for outcome in runner.run([(0, {"x": 0.5}, 17), (1, {"x": 0.7}, 18)]):
                ...

    Args:
        black_box: What to call; see `make_black_box`.
        workers: Trials evaluated at a time, >= 1.
        timeout: Seconds after which a trial is given up and its process killed; None: never.
        threads: Threads that numerical libraries may use in one evaluation, >= 1.

    Raises:
        InputError: A bad number, or a black box that cannot be sent to a worker process.
    """

    def __init__(
        self,
        black_box: BlackBox,
        workers: int = 1,
        timeout: float | None = None,
        threads: int = 1,
    ) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise InputError(f"workers must be an integer >= 1, got {workers!r}")
        if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
            raise InputError(f"timeout must be a number of seconds > 0, got {timeout!r}")
        self.black_box = black_box
        self.workers = workers
        self.timeout = timeout
        self.threads = threads
        self.in_process = workers == 1 and timeout is None and not black_box.needs_process
        self._pickled = b"" if self.in_process else _pickle(black_box)
        self._pool: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers: idle ones by asking, busy ones by killing their process groups."""
        pool, self._pool = self._pool, []
        for idle in [w for w in pool if w.ready and w.task is None]:
            with suppress(OSError):  # it has died meanwhile
                idle.connection.send(None)
        deadline = time.monotonic() + STOP_SECONDS
        for one in pool:
            if one.ready and one.task is None:
                wait([one.process.sentinel], max(0.0, deadline - time.monotonic()))
            one.kill()

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Evaluate the tasks; yields each outcome as it comes.

        Leaving the iterator early, or an exception such as KeyboardInterrupt, leaves the trials
        that are still running to `close`, which kills them.

        Raises:
            RunError: No worker process can be started.
        """
        if self.in_process:
            for index, parameters, seed in tasks:
                readings, reason, seconds = worker.evaluate(
                    self.black_box, self.threads, index, parameters, seed
                )
                yield _outcome(index, readings, reason, seconds)
            return
        for abandoned in [w for w in self._pool if w.task is not None]:
            self._pool.remove(abandoned)  # an earlier iterator was left early
            abandoned.kill()
        waiting = deque(tasks)
        while waiting or any(w.task is not None for w in self._pool):
            busy = sum(w.task is not None for w in self._pool)
            while len(self._pool) < min(self.workers, busy + len(waiting)):
                self._pool.append(self._start())
            for one in self._pool:
                if waiting and one.ready and one.task is None:
                    self._assign(one, waiting)
            yield from self._collect(waiting)

    def _assign(self, one: _Worker, waiting: deque[Task]) -> None:
        # A worker that died while idle is found out by `_collect`; the task waits for the next.
        with suppress(OSError):
            one.connection.send(waiting[0])
            one.task = waiting.popleft()
            one.started, one.received = time.monotonic(), False

    def _collect(self, waiting: deque[Task]) -> Iterator[Outcome]:
        """Wait until something happens to a worker; yields the outcomes that follow from it."""
        deadlines = [
            w.started + self.timeout
            for w in self._pool
            if w.task is not None and self.timeout is not None
        ]
        remaining = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        watched: list[Connection | int] = []
        for one in self._pool:
            watched += [one.connection, one.process.sentinel]
        happened = wait(watched, remaining)
        now = time.monotonic()
        for one in list(self._pool):
            message = None
            if one.connection in happened or one.connection.poll():
                # A worker that dies while it writes leaves half a message: that is no message.
                with suppress(EOFError, OSError, pickle.UnpicklingError):
                    message = one.connection.recv()
            if message is not None and not one.ready:
                self._greet(one, *message)
            elif message == worker.RECEIVED:
                one.received = True
            elif message is not None and one.task is not None:
                (index, _, _), one.task = one.task, None
                yield _outcome(index, *message)
            elif one.process.sentinel in happened or one.connection in happened:
                yield from self._bury(one, waiting)
            elif (
                one.task is not None
                and self.timeout is not None
                and now >= one.started + self.timeout
            ):
                self._pool.remove(one)
                one.kill()
                yield _outcome(
                    one.task[0],
                    None,
                    f"exceeded the time-out of {self.timeout:g} s and was stopped",
                    now - one.started,
                )

    def _greet(self, one: _Worker, state: str, reason: str | None) -> None:
        if state != "ready":
            raise InputError(
                f"the black box cannot be loaded in a worker process: {reason}; define the "
                "function in a module that can be imported (not in a notebook or at the prompt)"
            )
        one.ready = True

    def _bury(self, one: _Worker, waiting: deque[Task]) -> Iterator[Outcome]:
        self._pool.remove(one)
        # Its pipe may close a moment before it ends; then its own exit code is worth waiting for.
        wait([one.process.sentinel], STOP_SECONDS)
        code = one.kill()
        if not one.ready:
            raise RunError(
                f"a worker process {describe_exit(code)} before its first trial; a script that "
                "starts a campaign with workers needs `if __name__ == '__main__':` around it"
            )
        if one.task is not None and not one.received:
            waiting.appendleft(one.task)  # it died of something earlier
        elif one.task is not None:
            yield _outcome(
                one.task[0],
                None,
                f"its process {describe_exit(code)}",
                time.monotonic() - one.started,
            )

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=worker.serve,
            args=(theirs, self._pickled, 0 if self.black_box.needs_process else self.threads),
            name="trial worker",
        )
        try:
            with _interrupts_blocked():
                process.start()
        except OSError as error:
            raise RunError(f"cannot start a worker process: {error}") from error
        theirs.close()  # so that the worker's end closes with the worker
        return _Worker(process, ours)


def _outcome(
    index: int, readings: dict[str, Reading] | None, reason: str | None, seconds: float
) -> Outcome:
    measurements = None if readings is None else _measurements(readings)
    return Outcome(index, measurements, reason, seconds)


def _pickle(black_box: BlackBox) -> bytes:
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
