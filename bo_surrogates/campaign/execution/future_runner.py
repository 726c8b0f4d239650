"""Trials on any executor: whatever has `submit(function, argument)` and returns futures.

`concurrent.futures` (threads, processes), Dask (`Client.get_executor()`), submitit (Slurm) and
mpi4py.futures are such. Each task is evaluated in a killable process beside the executor's worker
(`remote.py`), with a line to the campaign (`lifeline.py`).
"""

from __future__ import annotations

import queue
import time
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from os import getcwd
from typing import Any, Protocol

from bo_surrogates.campaign.black_box import BlackBox
from bo_surrogates.campaign.execution import logs
from bo_surrogates.campaign.execution.child_process import pickle_black_box
from bo_surrogates.campaign.execution.evaluation import Task
from bo_surrogates.campaign.execution.lifeline import Message, Switchboard, hang_up
from bo_surrogates.campaign.execution.remote import Assignment, Return, evaluate_remotely
from bo_surrogates.campaign.execution.runner import OnReport, Outcome, Runner, outcome_of
from bo_surrogates.errors import InputError, RunError

POLL_SECONDS = 0.5  # between looks at futures that cannot call back


class AnyExecutor(Protocol):
    """What is asked of an executor."""

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Any:
        """A future with `done`, `result` and `cancel`."""


@dataclass(eq=False)
class _Submitted:
    """A task that the executor has.

    Attributes:
        task: Which.
        future: The executor's word on it.
        started: When its evaluation has started, `time.monotonic()`; None: not yet.
        line: To its worker; None before the worker has called, and after it has hung up.
        ended: Whether its worker has said that it came to an end.
    """

    task: Task
    future: Any
    started: float | None = None
    line: Connection | None = None
    ended: bool = False


class FutureRunner(Runner):
    """Evaluates on an executor, which stays its owner's: it is not shut down.

    A worker that is lost with its trial gives an outcome of failure "lost". The executor's own
    second attempts (Dask makes some) are refused, so that none goes unrecorded.

    Where workers cannot connect to the campaign's machine, evaluations run all the same; but they
    cannot be stopped early, their reports come with their results, a lost worker is noticed when
    the executor says so, and what runs when the campaign is interrupted runs to its end.

    Args:
        executor: The executor.
        black_box: See `Runner`, also for the rest.
        workers: Tasks given to the executor at a time.
        timeout: Counted from the start of the evaluation, not from the submission.
        threads: See `Runner`.
        on_report: See `Runner`.

    Raises:
        InputError: See `Runner`; or the executor is none, or the black box cannot be sent.
    """

    def __init__(
        self,
        executor: AnyExecutor,
        black_box: BlackBox,
        workers: int = 1,
        timeout: float | None = None,
        threads: int = 1,
        on_report: OnReport | None = None,
    ) -> None:
        super().__init__(black_box, workers, timeout, threads, on_report)
        if not callable(getattr(executor, "submit", None)):
            raise InputError(
                f"executor must have a method submit, as concurrent.futures.Executor, got "
                f"{executor!r}"
            )
        self.executor = executor
        self._pickled = pickle_black_box(black_box, by_value=True)
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        local = isinstance(executor, ThreadPoolExecutor | ProcessPoolExecutor)
        self._switchboard = Switchboard(self._messages, local=local)
        self._waiting: deque[Task] = deque()
        self._submitted: dict[str, _Submitted] = {}
        self._reachable = True  # by the workers, until one says otherwise

    @property
    def pending(self) -> int:
        """See `Runner.pending`."""
        return len(self._waiting) + len(self._submitted)

    def submit(self, task: Task) -> None:
        """See `Runner.submit`."""
        self._waiting.append(task)
        self._start()

    def close(self) -> None:
        """Withdraw what waits and end what runs, on all machines that can be reached."""
        self._switchboard.close()
        submitted, self._submitted = self._submitted, {}
        self._waiting.clear()
        for one in submitted.values():
            _cancel(one.future)

    def _start(self) -> None:
        while self._waiting and len(self._submitted) < self.workers:
            task = self._waiting[0]
            token = uuid.uuid4().hex
            assignment = Assignment(
                self._pickled,
                task,
                0 if self.black_box.needs_process else self.threads,
                self.timeout,
                getcwd(),
                self._switchboard.address if self._reachable else None,
                token,
            )
            try:
                future = self.executor.submit(evaluate_remotely, assignment)
            except Exception as error:
                raise RunError(
                    f"the executor takes no more trials: {type(error).__name__}: {error}; trials "
                    "that were running are run again by a resume"
                ) from error
            self._waiting.popleft()
            self._submitted[token] = _Submitted(task, future)
            if hasattr(future, "add_done_callback"):
                future.add_done_callback(lambda _, token=token: self._messages.put(token))

    def wait(self) -> list[Outcome]:
        """Wait until something happens to a task.

        Raises:
            RunError: The executor is broken.
            InputError: The black box cannot be loaded in a worker.
        """
        polled = [
            (token, one)
            for token, one in self._submitted.items()
            if not hasattr(one.future, "add_done_callback")
        ]
        outcomes: list[Outcome] = []
        try:
            message = self._messages.get(timeout=POLL_SECONDS if polled else None)
        except queue.Empty:
            message = None
        if isinstance(message, Message):
            outcomes += self._hear(message)
        elif message in self._submitted:
            outcomes += self._finish(message)
        for token, one in polled:
            if token in self._submitted and self._is_done(one):
                outcomes += self._finish(token)
        self._start()
        return outcomes

    def _is_done(self, one: _Submitted) -> bool:
        try:
            return bool(one.future.done())
        except Exception as error:
            raise RunError(
                f"the executor does not say how trial {one.task.index} is: "
                f"{type(error).__name__}: {error}; it is run again by a resume"
            ) from error

    # ---- over the line ---------------------------------------------------------------------------
    def _hear(self, message: Message) -> list[Outcome]:
        one = self._submitted.get(message.token)
        kind = message.content[0]
        if kind == "hello":
            # A second call about the same task: the executor has started it anew by itself,
            # hence the first worker is lost.
            refused = one is None or one.started is not None
            _answer(message.line, not refused)
            if one is not None and refused:
                return [self._lose(message.token, "the worker it ran on was lost")]
            if one is not None:
                one.started, one.line = time.monotonic(), message.line
        elif one is None or one.line is not message.line:
            return []
        elif kind == "report":
            step, readings = message.content[1:]
            _answer(message.line, self._report(one.task, step, readings))  # type: ignore[arg-type]
        elif kind == "bye":
            one.ended = True
        elif kind == "broken" and not one.ended:
            return [self._lose(message.token, "the worker it ran on was lost")]
        return []

    def _lose(self, token: str, reason: str) -> Outcome:
        one = self._submitted.pop(token)
        _cancel(one.future)
        if one.line is not None:
            hang_up(one.line)
        seconds = 0.0 if one.started is None else time.monotonic() - one.started
        if one.task.log is not None:
            logs.append(one.task.log, f"{logs.heading(one.task)}--- {reason}\n")
        return Outcome(one.task, None, reason, seconds, "lost")

    # ---- from the executor -----------------------------------------------------------------------
    def _finish(self, token: str) -> list[Outcome]:
        one = self._submitted[token]
        try:
            returned = one.future.result()
        except BrokenExecutor as error:
            raise RunError(
                f"the executor is broken: {error}; trials that were running are run again by a "
                "resume"
            ) from error
        except CancelledError:
            return [self._lose(token, "the executor has cancelled it")]
        except Exception as error:  # noqa: BLE001 - recorded with the trial: nothing is swallowed
            return [self._lose(token, f"its worker failed: {type(error).__name__}: {error}")]
        del self._submitted[token]
        if returned.failure == "unreachable":
            self._reachable = False
            self._waiting.appendleft(one.task)
            return []
        return [self._read(one.task, returned)]

    def _read(self, task: Task, returned: Return) -> Outcome:
        if task.log is not None:
            logs.append(task.log, returned.log)
        for step, readings in returned.reports:
            self._report(task, step, readings)
        if returned.evaluation is not None:
            return outcome_of(task, returned.evaluation)
        if returned.failure == "unusable":
            raise InputError(
                f"the black box cannot be loaded on a worker: {returned.reason}; workers need the "
                "same packages and the user's own modules: start them in the campaign's folder, or "
                "set PYTHONPATH"
            )
        if returned.failure == "timeout":
            return self._overdue(task, returned.seconds)
        failure = "lost" if returned.failure == "withdrawn" else "died"
        return Outcome(task, None, returned.reason, returned.seconds, failure)


def _answer(line: Connection, word: bool) -> None:
    with suppress(OSError):  # broken: its reader says so
        line.send(word)


def _cancel(future: Any) -> None:
    """Withdraw a task. What runs already ends by its line; here nothing more can be done."""
    with suppress(Exception):
        future.cancel()
