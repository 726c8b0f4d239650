"""What runs in a worker process: one black box, called trial after trial.

A worker leads its own process group, so that killing the group ends the worker together with
everything its black box has started. A worker whose parent disappears does that to itself.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait

from bo_surrogates.campaign.black_box import BlackBox, EvaluationStopped, read_report
from bo_surrogates.campaign.execution.evaluation import (
    Evaluation,
    Task,
    describe_exception,
    evaluate,
)
from bo_surrogates.campaign.execution.logs import logged_process
from bo_surrogates.threads import ENVIRONMENT

RECEIVED = "received"  # a worker's word that a trial has reached it
WATCH_INTERVAL = 1.0  # seconds between looks at the parent, beside waiting for its end


def serve(connection: Connection, pickled: bytes, threads: int, directory: str | None) -> None:
    """The body of a worker process; see `_serve`. It ends in silence where its parent is gone."""
    with suppress(BrokenPipeError, ConnectionResetError):
        _serve(connection, pickled, threads, directory)


def _serve(connection: Connection, pickled: bytes, threads: int, directory: str | None) -> None:
    """Evaluates what arrives until told to stop.

    Sends ("ready", None) or ("unusable", reason) once, then for each `Task` received `RECEIVED`,
    ("report", step, readings) for each report, which waits for the answer whether to go on, and
    the `Evaluation`. None ends it.

    Args:
        connection: To whoever started it.
        pickled: The black box.
        threads: Of an evaluation; 0: leave the environment alone.
        directory: Where the campaign runs: made the current directory, if this machine has it.
    """
    os.setsid()
    # The parent started this process with SIGINT blocked. From here on a Ctrl-C at the terminal
    # does not reach it; drop one that came before, then behave as usual.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(2, 1)  # the campaign's standard output carries the campaign's results only
    if threads:  # before anything is imported; not for a command, which keeps its environment
        os.environ.update(dict.fromkeys(ENVIRONMENT, str(threads)))
    try:
        if directory is not None and os.path.isdir(directory):
            os.chdir(directory)
            sys.path.insert(0, directory)
        black_box: BlackBox = pickle.loads(pickled)
        black_box.prepare()
    except Exception as error:  # noqa: BLE001 - reported to the parent, which raises it
        connection.send(("unusable", describe_exception(error)))
        return
    connection.send(("ready", None))
    while True:
        try:
            task: Task | None = connection.recv()
        except (EOFError, OSError):  # the parent is gone
            return
        if task is None:
            return
        connection.send(RECEIVED)
        try:
            with logged_process(task):
                result = evaluate(black_box, threads, task, _Reporter(connection))
        except KeyboardInterrupt as error:  # raised by the black box: no Ctrl-C arrives here
            result = Evaluation(None, describe_exception(error), 0.0)
        connection.send(result)


class _Reporter:
    """What a black box calls `report`; it returns when the campaign has taken note."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()  # a black box may report from a thread of its own
        self._stopped = False

    def __call__(self, step: float, /, **metrics: float) -> bool:
        return self.report(step, metrics)

    def report(self, step: object, metrics: Mapping[str, object]) -> bool:
        with self._lock:
            if self._stopped:
                raise EvaluationStopped
            self._connection.send(("report", *read_report(step, metrics)))
            self._stopped = not self._connection.recv()
            return not self._stopped


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is None or parent.pid is None:
        return
    # Its sentinel stays silent where a process forked by the parent survives it: look, too.
    while not wait([parent.sentinel], timeout=WATCH_INTERVAL):
        if os.getppid() != parent.pid:
            break
    os.killpg(0, signal.SIGKILL)
