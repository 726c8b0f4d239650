"""What an executor's worker does: evaluate one task in a process of its own, and watch over it.

The process is killed, with all it started, where its time is up, where the campaign says so, and
where the campaign has ended. So a hung, crashing or memory-eating evaluation neither blocks nor
breaks the executor.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait

from bo_surrogates.campaign.black_box import Reading
from bo_surrogates.campaign.execution.child_process import ChildProcess
from bo_surrogates.campaign.execution.evaluation import Evaluation, Task
from bo_surrogates.campaign.execution.lifeline import Address, connect
from bo_surrogates.campaign.execution.logs import heading, read_tail


@dataclass(frozen=True)
class Assignment:
    """All that a worker needs to know; it is pickled.

    Attributes:
        black_box: Pickled.
        task: What to evaluate.
        threads: Of the evaluation; 0: leave the environment alone.
        timeout: Seconds, from the moment the evaluation starts; None: none.
        directory: Where the campaign runs.
        address: Where it listens; None: it cannot be reached from the workers.
        token: This assignment's name on its line.
    """

    black_box: bytes
    task: Task
    threads: int
    timeout: float | None
    directory: str
    address: Address | None
    token: str


@dataclass(frozen=True)
class Return:
    """What a worker gives back; plain data, so that it can be read anywhere.

    Attributes:
        evaluation: How it went; None if it did not come to its end.
        failure: Then "died", "timeout", "unusable" (the black box could not be loaded),
            "withdrawn" (the campaign has ended, or has given the task to another worker) or
            "unreachable" (the campaign could not be called: nothing was done).
        reason: Why, in words.
        seconds: How long it ran.
        log: What it printed.
        reports: Of an evaluation without a line to the campaign.
    """

    evaluation: Evaluation | None
    failure: str | None
    reason: str | None
    seconds: float
    log: str
    reports: tuple[tuple[float, dict[str, Reading]], ...] = ()


def evaluate_remotely(assignment: Assignment) -> Return:
    """Evaluate one task; the function that executors are given.

    Nothing is done before the campaign has said that it still wants it (an executor may start a
    task anew, and start what it has queued after the campaign has ended), unless it has said
    beforehand that its workers cannot call it.
    """
    line = None
    try:
        if assignment.address is not None:
            line = connect(assignment.address)
            if line is None:
                return Return(None, "unreachable", None, 0.0, "")
            line.send((assignment.token, "hello"))
            if not line.recv():
                return Return(None, "withdrawn", "it was given to another worker", 0.0, "")
    except (EOFError, OSError):
        return Return(None, "withdrawn", "the campaign has ended", 0.0, "")
    with tempfile.TemporaryDirectory(prefix="bo-surrogates-") as folder:
        log = os.path.join(folder, "log")
        task = replace(assignment.task, log=log)
        _allow_children()
        child = ChildProcess(assignment.black_box, assignment.threads, assignment.directory)
        try:
            returned = _watch(child, task, assignment, line)
        finally:
            child.kill()
        if line is not None:
            with suppress(OSError):
                line.send((assignment.token, "bye"))
            line.close()
        return replace(returned, log=read_tail(log) or heading(task))


def _watch(
    child: ChildProcess, task: Task, assignment: Assignment, line: Connection | None
) -> Return:
    reports: list[tuple[float, dict[str, Reading]]] = []

    def without_result(failure: str, reason: str) -> Return:
        seconds = time.monotonic() - child.started if child.busy else 0.0
        return Return(None, failure, reason, seconds, "", tuple(reports))

    while True:
        deadline = child.deadline(assignment.timeout)
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
        happened = wait([*child.waitables, *([line] if line is not None else [])], remaining)
        message = child.receive(happened)
        if isinstance(message, Evaluation):
            return Return(message, None, None, message.seconds, "", tuple(reports))
        if isinstance(message, tuple) and not child.ready:
            if message[0] != "ready":
                return without_result("unusable", str(message[1]))
            child.greet(message)
            child.assign(task)
        elif isinstance(message, tuple):
            if line is None:
                reports.append(message[1:])
                child.answer(True)
            else:
                child.asking = time.monotonic()
                with suppress(OSError):  # broken: found out below
                    line.send((assignment.token, *message))
        elif message is None and child.process.sentinel in happened:
            return without_result("died", child.bury())
        if line is not None and line in happened:
            try:
                child.answer(line.recv())
            except (EOFError, OSError):
                _end_with_owner()
                return without_result("withdrawn", "the campaign has ended")
        deadline = child.deadline(assignment.timeout)
        if deadline is not None and time.monotonic() >= deadline:
            return without_result("timeout", "")


def _allow_children() -> None:
    """Dask's workers are daemonic, which forbids them children of their own; ours are watched."""
    process = multiprocessing.current_process()
    if process.daemon:
        process.daemon = False


def _end_with_owner() -> None:
    """End a pool's worker whose pool has died: it would wait for another task for ever."""
    parent = multiprocessing.parent_process()
    # Not `parent.is_alive()`: a forked sibling keeps its pipe open.
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)
