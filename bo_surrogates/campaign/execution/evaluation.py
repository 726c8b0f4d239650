"""One evaluation of a black box: what goes in, what comes out, and the fence around the call.

This module is imported by every worker process, so it stays light: no torch, no Ax.
"""

from __future__ import annotations

import os
import random
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bo_surrogates.campaign.black_box import (
    BlackBox,
    EvaluationStopped,
    Reading,
    Report,
    TrialFailure,
    read_result,
)
from bo_surrogates.threads import limited_threads

if TYPE_CHECKING:
    from bo_surrogates.space import Values


@dataclass(frozen=True)
class Task:
    """One evaluation to be done.

    Attributes:
        index: The trial's number.
        parameters: Values by name.
        seed: For whatever the evaluation draws at random.
        repeat: Which of the trial's replicates: 0, 1, ...
        attempt: Which attempt at the trial: 1, or more after a retry.
        log: File that takes what the evaluation prints; None: standard error.
    """

    index: int
    parameters: Values
    seed: int
    repeat: int = 0
    attempt: int = 1
    log: str | None = None

    @property
    def key(self) -> tuple[int, int]:
        """What tells the tasks of a run apart."""
        return self.index, self.repeat


@dataclass(frozen=True)
class Evaluation:
    """How an evaluation went, as its process tells it.

    Attributes:
        readings: Mean and standard error by metric; None if there is no result.
        reason: Why there is none.
        seconds: Wall-clock time of the call.
    """

    readings: dict[str, Reading] | None
    reason: str | None
    seconds: float


def evaluate(
    black_box: BlackBox, threads: int, task: Task, report: Report | None = None
) -> Evaluation:
    """Run one trial; whatever it raises becomes a reason.

    The call is fenced so that its result is the same in any process: the global generators of
    `random`, NumPy and (where it is loaded before the call) torch start from the trial's seed and
    are put back afterwards, and numerical libraries use the given number of threads.
    """
    start = time.perf_counter()
    readings, reason = None, None
    try:
        with nullcontext() if black_box.needs_process else _fenced(task.seed, threads):
            raw = black_box(
                dict(task.parameters), task.index, task.seed, report=report, attempt=task.attempt
            )
        readings = read_result(raw, black_box.metrics)
    except TrialFailure as error:
        reason = str(error)
    except SystemExit as error:
        reason = f"the black box called sys.exit({error.code!r})"
    except EvaluationStopped:
        reason = "stopped early"
    except Exception as error:  # noqa: BLE001 - recorded with the trial: nothing is swallowed
        reason = describe_exception(error)
    return Evaluation(readings, reason, time.perf_counter() - start)


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
