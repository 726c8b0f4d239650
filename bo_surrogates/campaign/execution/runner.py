"""What runs trials, whatever the executor behind it; and the one that runs them right here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from bo_surrogates.campaign.black_box import (
    BlackBox,
    EvaluationStopped,
    Reading,
    read_report,
)
from bo_surrogates.campaign.execution.evaluation import Evaluation, Task, evaluate
from bo_surrogates.campaign.execution.logs import logged_here
from bo_surrogates.campaign.trial import Measurement
from bo_surrogates.errors import InputError

OnReport = Callable[[Task, float, Mapping[str, Measurement]], bool]  # whether to go on


@dataclass(frozen=True)
class Outcome:
    """How a task went.

    Attributes:
        task: What was evaluated.
        measurements: By metric; None if it failed.
        reason: Why it failed; None if it did not.
        seconds: Wall-clock time of the evaluation.
        failure: "raised" (also: gave no usable result), "died" (its process), "timeout", or
            "lost" (the worker it ran on, with it); None if it did not fail.
    """

    task: Task
    measurements: dict[str, Measurement] | None
    reason: str | None
    seconds: float
    failure: str | None = None

    @property
    def index(self) -> int:
        """The trial's number."""
        return self.task.index


def outcome_of(task: Task, evaluation: Evaluation) -> Outcome:
    """The outcome of an evaluation that came to its end."""
    if evaluation.readings is None:
        return Outcome(task, None, evaluation.reason, evaluation.seconds, "raised")
    return Outcome(task, as_measurements(evaluation.readings), None, evaluation.seconds)


def as_measurements(readings: Mapping[str, Reading]) -> dict[str, Measurement]:
    """Measurements by metric."""
    return {metric: Measurement(mean, sem) for metric, (mean, sem) in readings.items()}


class Runner(ABC):
    """Evaluates tasks, several at a time, whatever they do. A context manager.

    Results do not depend on which runner it is.

    Args:
        black_box: What to call.
        workers: Tasks evaluated at a time, >= 1.
        timeout: Seconds after which an evaluation is given up; None: never.
        threads: Threads that numerical libraries may use in one evaluation, >= 1.
        on_report: Told of each report of a running evaluation; says whether to go on.

    Raises:
        InputError: A number out of its range.
    """

    def __init__(
        self,
        black_box: BlackBox,
        workers: int = 1,
        timeout: float | None = None,
        threads: int = 1,
        on_report: OnReport | None = None,
    ) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise InputError(f"workers must be an integer >= 1, got {workers!r}")
        if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
            raise InputError(f"timeout must be a number of seconds > 0, got {timeout!r}")
        self.black_box = black_box
        self.workers = workers
        self.timeout = timeout
        self.threads = threads
        self.on_report: OnReport = on_report or (lambda task, step, measurements: True)

    @property
    @abstractmethod
    def pending(self) -> int:
        """The tasks submitted whose outcome has not been given yet."""

    @abstractmethod
    def submit(self, task: Task) -> None:
        """Take a task; it is started as soon as a worker is free."""

    @abstractmethod
    def wait(self) -> list[Outcome]:
        """Wait for something to happen; the outcomes that came of it, perhaps none."""

    @abstractmethod
    def close(self) -> None:
        """End all that is running."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Evaluate the tasks; yields each outcome as it comes.

        Leaving the iterator early, or an exception such as KeyboardInterrupt, leaves the tasks
        that are still running to `close`, which ends them.
        """
        for task in tasks:
            self.submit(task)
        while self.pending:
            yield from self.wait()

    def _report(self, task: Task, step: float, readings: Mapping[str, Reading]) -> bool:
        return self.on_report(task, step, as_measurements(readings))

    def _overdue(self, task: Task, seconds: float) -> Outcome:
        if self.timeout is not None and seconds >= self.timeout:
            reason = f"exceeded the time-out of {self.timeout:g} s and was stopped"
        else:
            reason = "was told to stop early, went on, and was killed"
        return Outcome(task, None, reason, seconds, "timeout")


class InProcessRunner(Runner):
    """Calls the black box in this process, one task after the other, without a time-out."""

    def __init__(
        self, black_box: BlackBox, threads: int = 1, on_report: OnReport | None = None
    ) -> None:
        super().__init__(black_box, 1, None, threads, on_report)
        self._waiting: deque[Task] = deque()

    @property
    def pending(self) -> int:
        """See `Runner.pending`."""
        return len(self._waiting)

    def submit(self, task: Task) -> None:
        """See `Runner.submit`."""
        self._waiting.append(task)

    def close(self) -> None:
        """Nothing is running."""

    def wait(self) -> list[Outcome]:
        """Evaluate the next task."""
        if not self._waiting:
            return []
        task = self._waiting[0]
        stopped = False

        def report(step: float, /, **metrics: float) -> bool:
            nonlocal stopped
            if stopped:
                raise EvaluationStopped
            stopped = not self._report(task, *read_report(step, metrics))
            return not stopped

        with logged_here(task):
            evaluation = evaluate(self.black_box, self.threads, task, report)
        self._waiting.popleft()
        return [outcome_of(task, evaluation)]
