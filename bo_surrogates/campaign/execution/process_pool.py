"""The platform's own pool of worker processes, on this machine.

One thread waits on all pipes and all deaths at once: an overdue or dead worker is killed with all
it started, its trial has failed, and a new worker takes its place.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import wait

from bo_surrogates.campaign.black_box import BlackBox
from bo_surrogates.campaign.execution import worker
from bo_surrogates.campaign.execution.child_process import (
    STOP_SECONDS,
    ChildProcess,
    pickle_black_box,
)
from bo_surrogates.campaign.execution.evaluation import Evaluation, Task
from bo_surrogates.campaign.execution.runner import OnReport, Outcome, Runner, outcome_of


class ProcessPool(Runner):
    """Evaluates in worker processes, started when first needed and kept until it is closed.

    Raises:
        InputError: See `Runner`; or the black box cannot be sent to a worker process.
    """

    def __init__(
        self,
        black_box: BlackBox,
        workers: int = 1,
        timeout: float | None = None,
        threads: int = 1,
        on_report: OnReport | None = None,
    ) -> None:
        super().__init__(black_box, workers, timeout, threads, on_report)
        self._pickled = pickle_black_box(black_box)
        self._pool: list[ChildProcess] = []
        self._waiting: deque[Task] = deque()
        self._left = time.monotonic()  # when `wait` was left last

    @property
    def pending(self) -> int:
        """See `Runner.pending`."""
        return len(self._waiting) + sum(one.busy for one in self._pool)

    def submit(self, task: Task) -> None:
        """See `Runner.submit`."""
        self._waiting.append(task)
        self._start()

    def close(self) -> None:
        """End all workers: idle ones by asking, busy ones by killing their process groups."""
        pool, self._pool = self._pool, []
        self._waiting.clear()
        for one in pool:
            one.dismiss()
        deadline = time.monotonic() + STOP_SECONDS
        for one in pool:
            if one.ready and not one.busy:
                wait([one.process.sentinel], max(0.0, deadline - time.monotonic()))
            one.kill()

    def wait(self) -> list[Outcome]:
        """Wait until something happens to a worker.

        Raises:
            RunError: No worker process can be started.
        """
        away = time.monotonic() - self._left
        for one in self._pool:
            if one.busy and one.connection.poll():  # it may have waited for us
                one.started += away
        self._start()
        deadlines = [d for one in self._pool if (d := one.deadline(self.timeout)) is not None]
        remaining = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        watched = [w for one in self._pool for w in one.waitables]
        happened = wait(watched, remaining) if watched else []
        outcomes = [o for one in list(self._pool) if (o := self._look_at(one, happened))]
        self._start()
        self._left = time.monotonic()
        return outcomes

    def _start(self) -> None:
        """Give waiting tasks to idle workers; start the workers that are missing."""
        busy = sum(one.busy for one in self._pool)
        while len(self._pool) < min(self.workers, busy + len(self._waiting)):
            threads = 0 if self.black_box.needs_process else self.threads
            self._pool.append(ChildProcess(self._pickled, threads))
        for one in self._pool:
            # A worker that died while idle is found out later; the task waits for the next.
            if self._waiting and one.ready and not one.busy and one.assign(self._waiting[0]):
                self._waiting.popleft()

    def _look_at(self, one: ChildProcess, happened: Sequence[object]) -> Outcome | None:
        message = one.receive(happened)
        now = time.monotonic()
        if message is not None:
            return self._take(one, message)
        if one.process.sentinel in happened or one.connection in happened:
            self._pool.remove(one)
            reason = one.bury()
            if one.task is None:
                return None
            if not one.received:  # it died of something earlier
                self._waiting.appendleft(one.task)
                return None
            return Outcome(one.task, None, reason, now - one.started, "died")
        deadline = one.deadline(self.timeout)
        if one.task is not None and deadline is not None and now >= deadline:
            self._pool.remove(one)
            one.kill()
            return self._overdue(one.task, now - one.started)
        return None

    def _take(self, one: ChildProcess, message: object) -> Outcome | None:
        if message == worker.RECEIVED:
            one.received = True
        elif isinstance(message, Evaluation) and one.task is not None:
            task, one.task = one.task, None
            return outcome_of(task, message)
        elif isinstance(message, tuple) and message[0] == "report" and one.task is not None:
            one.answer(self._report(one.task, *message[1:]))
        elif isinstance(message, tuple) and not one.ready:
            one.greet(message)
        return None
