"""What runs in a worker process: one black box, called trial after trial.

A worker leads its own process group, so that killing the group ends the worker together with
everything its black box has started. A worker whose parent disappears does that to itself.
"""

from __future__ import annotations

import os
import pickle
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from bo_surrogates.campaign.black_box import BlackBox, Reading, TrialFailure, read_result
from bo_surrogates.threads import ENVIRONMENT, limited_threads

if TYPE_CHECKING:
    from bo_surrogates.space import Values

RECEIVED = "received"  # a worker's word that a trial has reached it
WATCH_INTERVAL = 1.0  # seconds between looks at the parent, beside waiting for its end


def evaluate(
    black_box: BlackBox, threads: int, index: int, parameters: Values, seed: int
) -> tuple[dict[str, Reading] | None, str | None, float]:
    """Run one trial; whatever it raises becomes a reason.

    The call is fenced so that its result is the same in any process: the global generators of
    `random`, NumPy and (where it is loaded before the call) torch start from the trial's seed and
    are put back afterwards, and numerical libraries use the given number of threads.

    Returns:
        Readings by metric or None, the reason for None, and the seconds it took.
    """
    start = time.perf_counter()
    readings, reason = None, None
    try:
        with nullcontext() if black_box.needs_process else _fenced(seed, threads):
            raw = black_box(dict(parameters), index, seed)
        readings = read_result(raw, black_box.metrics)
    except TrialFailure as error:
        reason = str(error)
    except SystemExit as error:
        reason = f"the black box called sys.exit({error.code!r})"
    except Exception as error:  # noqa: BLE001 - recorded with the trial: nothing is swallowed
        reason = describe_exception(error)
    return readings, reason, time.perf_counter() - start


def describe_exception(error: BaseException) -> str:
    """Its type, text and the line that raised it."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    if frames:
        text += f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})"
    return text


@contextmanager
def _fenced(seed: int, threads: int) -> Iterator[None]:
    import numpy as np  # here, so that workers that only run commands do without

    with ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        random.seed(seed)
        stack.callback(np.random.set_state, np.random.get_state())
        np.random.seed(seed % 2**32)
        stack.enter_context(limited_threads(threads))
        # Loading torch takes seconds that most black boxes do not need: only if it is there.
        if (torch := sys.modules.get("torch")) is not None:
            stack.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
            torch.manual_seed(seed)
        yield


def serve(connection: Connection, pickled: bytes, threads: int) -> None:
    """The body of a worker process: evaluates what arrives until told to stop.

    `threads` is the number of threads of an evaluation; 0: leave the environment alone.

    Sends ("ready", None) or ("unusable", reason) once, then for each (index, parameters, seed)
    received `RECEIVED` and the triple of `evaluate`; None ends it.
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
        black_box = pickle.loads(pickled)
        black_box.prepare()
    except Exception as error:  # noqa: BLE001 - reported to the parent, which raises it
        connection.send(("unusable", describe_exception(error)))
        return
    connection.send(("ready", None))
    while True:
        try:
            task: Any = connection.recv()
        except (EOFError, OSError):  # the parent is gone
            return
        if task is None:
            return
        connection.send(RECEIVED)
        try:
            result = evaluate(black_box, threads, *task)
        except KeyboardInterrupt as error:  # raised by the black box: no Ctrl-C arrives here
            result = (None, describe_exception(error), 0.0)
        connection.send(result)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is None or parent.pid is None:
        return
    # Its sentinel stays silent where a process forked by the parent survives it: look, too.
    while not wait([parent.sentinel], timeout=WATCH_INTERVAL):
        if os.getppid() != parent.pid:
            break
    os.killpg(0, signal.SIGKILL)
