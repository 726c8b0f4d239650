"""Running a campaign: ask, evaluate and tell until the budget is spent.

The campaign's process is the only one that asks and writes; workers, wherever they are, report to
it. What they report is committed before they hear an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from bo_surrogates.campaign.black_box import BlackBox, make_black_box
from bo_surrogates.campaign.early_stopping import LearningCurves
from bo_surrogates.campaign.execution.evaluation import Task
from bo_surrogates.campaign.execution.executors import open_runner
from bo_surrogates.campaign.execution.future_runner import AnyExecutor
from bo_surrogates.campaign.execution.logs import discard_silent, log_file, log_files, remove_empty
from bo_surrogates.campaign.execution.runner import Outcome, Runner
from bo_surrogates.campaign.trial import Measurement, Trial, budgeted
from bo_surrogates.errors import InputError, RunError, SpaceExhausted
from bo_surrogates.seeding import derive_seed

if TYPE_CHECKING:
    from bo_surrogates.campaign.campaign import Campaign

LOST_WORKER_RETRIES = 1  # where a worker was lost, which says nothing about the trial


@dataclass(frozen=True)
class Event:
    """What `Campaign.run` reports as it goes.

    Attributes:
        kind: "asking" (before fit and acquisition), "asked", "retried" (its evaluation begins
            anew), "completed", "abandoned" or "stopped".
        trial: The trial, except for "asking".
        campaign: The campaign.
    """

    kind: Literal["asking", "asked", "retried", "completed", "abandoned", "stopped"]
    trial: Trial | None
    campaign: Campaign


@dataclass(frozen=True)
class RunOptions:
    """How a run differs from what the campaign says; see `Campaign.run`."""

    trials: int | None = None
    workers: int | None = None
    executor: str | AnyExecutor | None = None
    scheduler: str | None = None
    asynchronous: bool | None = None
    on_event: Callable[[Event], None] | None = None


def run(campaign: Campaign, black_box: BlackBox, options: RunOptions) -> None:
    """See `Campaign.run`."""
    try:
        _Run(campaign, black_box, options).run()
    finally:
        remove_empty(campaign.log_folder)


class _Run:
    """One run of a campaign: what is under way, and what failed how often."""

    def __init__(self, campaign: Campaign, black_box: BlackBox, options: RunOptions) -> None:
        self.campaign = campaign
        self.spec = campaign.spec
        self.black_box = black_box
        self.options = options
        self.workers = options.workers or self.spec.workers
        asynchronous = options.asynchronous
        self.asynchronous = self.spec.asynchronous if asynchronous is None else asynchronous
        self.logs = campaign.log_folder
        finished = sum(t.status != "running" for t in budgeted(campaign.trials))
        self.stop = self.spec.budget
        if options.trials is not None:
            self.stop = min(self.stop, finished + options.trials)
        self.failures = 0  # trials in a row
        self.failed_with = ""
        self.tries: dict[tuple[int, int], int] = {}  # evaluations in this run, by task
        self.attempts: dict[int, int] = {}  # last attempt at each trial under way
        self.repeats: dict[int, dict[int, dict[str, Measurement]]] = {}  # of trials under way
        self.seconds: dict[int, float] = {}
        self.curves = (
            LearningCurves(self.spec.early_stopping, self.spec.objectives[0], campaign.trials,
                           campaign.progress())
            if self.spec.early_stopping is not None
            else None
        )  # fmt: skip
        self.to_stop: dict[int, str] = {}  # trials under way that were told to stop, and why

    def run(self) -> None:
        """Evaluate what an earlier process left running, then go on to the end."""
        with open_runner(
            self.options.executor if self.options.executor is not None else self.spec.executor,
            self.black_box,
            workers=self.workers,
            timeout=self.spec.timeout,
            threads=self.spec.threads,
            scheduler=self.options.scheduler or self.spec.scheduler,
            resources=self.spec.resources,
            on_report=self._take_report,
        ) as runner:
            for trial in self._interrupted():
                self._submit(trial, runner)
            if self.asynchronous:
                self._run_asynchronously(runner)
            else:
                self._run_in_batches(runner)

    def _run_in_batches(self, runner: Runner) -> None:
        """Finish a batch before the next is asked: nothing depends on who is done first."""
        while True:
            while runner.pending:
                for outcome in runner.wait():
                    self._take(outcome, runner)
            self._check_failures()
            left = self.campaign.left(self.stop)
            if not left:
                return
            self._ask(min(self.spec.batch_size, left), runner)

    def _run_asynchronously(self, runner: Runner) -> None:
        """Ask for the next point as soon as a worker is free."""
        while True:
            self._check_failures()
            free = -(-(self.workers - runner.pending) // self.spec.replicates)
            n = min(free, self.campaign.left(self.stop))
            if n > 0:
                self._ask(n, runner)
            if not runner.pending:
                return
            for outcome in runner.wait():
                self._take(outcome, runner)

    def _ask(self, n: int, runner: Runner) -> None:
        self._report("asking", None)
        try:
            asked = self.campaign.ask(n)
        except SpaceExhausted:
            self.stop = self.campaign.spent  # every point is measured, or will be: an end, too
            return
        for trial in asked:
            self._submit(trial, runner)

    def _interrupted(self) -> list[Trial]:
        """Trials that an earlier process left running, to be evaluated again."""
        running = [t for t in self.campaign.trials if t.status == "running"]
        if self.spec.on_interrupt == "abandon":
            for t in running:
                self.campaign.abandon(t.index, "interrupted")
            return []
        return [self.campaign.note_attempt(t.index, t.attempt + 1) for t in running]

    # ---- evaluations -----------------------------------------------------------------------------
    def _submit(self, trial: Trial, runner: Runner) -> None:
        self._report("asked", trial)
        self.attempts[trial.index] = trial.attempt
        if self.curves is not None:
            self.curves.begin(self.campaign.trials[trial.index])
        done = self.campaign.replicates(trial.index) if self.spec.replicates > 1 else {}
        self.repeats[trial.index] = dict(done)
        self.seconds[trial.index] = 0.0
        for repeat in range(self.spec.replicates):
            if repeat not in done:
                runner.submit(self._task(trial.index, trial.parameters, repeat, trial.attempt))
        if len(done) == self.spec.replicates:  # all were measured, the result was not yet told
            self._conclude(trial.index)

    def _task(self, index: int, parameters: Any, repeat: int, attempt: int) -> Task:
        log = log_file(self.logs, index, repeat)
        seed = evaluation_seed(self.spec.seed, index, repeat)
        return Task(index, parameters, seed, repeat, attempt, str(log))

    def _take_report(self, task: Task, step: float, measured: Mapping[str, Measurement]) -> bool:
        """Commit a report; whether the trial goes on."""
        if task.index in self.to_stop or task.index not in self.attempts:
            return False
        if task.repeat > 0:
            return True
        self.campaign.report(task.index, step, measured)
        reason = self.curves.judge(task.index, step, measured) if self.curves else None
        if reason is not None:
            self.to_stop[task.index] = f"stopped at step {step:g}: {reason}"
        return reason is None

    def _take(self, outcome: Outcome, runner: Runner) -> None:
        """Commit what became of a task."""
        task = outcome.task
        if task.index not in self.attempts:
            return  # another replicate of its trial has failed for good
        self.seconds[task.index] += outcome.seconds
        if task.index in self.to_stop:  # whatever it did then: the verdict is final
            reason = self.to_stop.pop(task.index)
            seconds = self._forget(task.index)
            self._finished("stopped", self.campaign.stop(task.index, reason, seconds=seconds))
        elif outcome.measurements is None:
            if self._may_retry(outcome):
                self._retry(task, runner)
            else:
                self._give_up(outcome)
        elif self.spec.replicates == 1:
            self._complete(task.index, outcome.measurements)
        else:
            self.campaign.add_replicate(task.index, task.repeat, outcome.measurements)
            self.repeats[task.index][task.repeat] = outcome.measurements
            if len(self.repeats[task.index]) == self.spec.replicates:
                self._conclude(task.index)

    def _may_retry(self, outcome: Outcome) -> bool:
        key = outcome.task.key
        self.tries[key] = self.tries.get(key, 0) + 1
        allowed = {
            "lost": max(self.spec.retries, LOST_WORKER_RETRIES),
            "died": self.spec.retries,
            "raised": self.spec.retries if self.spec.retry_on == "failed" else 0,
        }
        return self.tries[key] <= allowed.get(outcome.failure or "", 0)

    def _retry(self, task: Task, runner: Runner) -> None:
        attempt = self.attempts[task.index] + 1
        self.attempts[task.index] = attempt
        if self.curves is not None:
            self.curves.forget(task.index)
        self._report("retried", self.campaign.note_attempt(task.index, attempt))
        runner.submit(replace(task, attempt=attempt))

    def _conclude(self, index: int) -> None:
        """The replicates' mean and standard error are the trial's result."""
        repeats = self.repeats[index]
        self._complete(
            index,
            {
                metric: Measurement.from_replicates(
                    [repeats[r][metric].mean for r in sorted(repeats)]
                )
                for metric in self.campaign.metrics
            },
        )

    def _complete(self, index: int, measurements: Mapping[str, Measurement]) -> None:
        trial = self.campaign.tell(index, measurements, seconds=self._forget(index))
        self._finished("completed", trial)

    def _give_up(self, outcome: Outcome) -> None:
        index, reason = outcome.task.index, outcome.reason or "unknown"
        if self.spec.replicates > 1:
            reason = f"replicate {outcome.task.repeat + 1} of {self.spec.replicates}: {reason}"
        if self.attempts[index] > 1:
            reason += f" (attempt {self.attempts[index]})"
        trial = self.campaign.abandon(index, reason, seconds=self._forget(index))
        self.failures += 1
        self.failed_with = reason
        self._finished("abandoned", trial)

    def _finished(self, kind: Literal["completed", "abandoned", "stopped"], trial: Trial) -> None:
        if kind != "abandoned":
            self.failures = 0
        if self.curves is not None:
            self.curves.end(trial)
        self._report(kind, trial)

    def _forget(self, index: int) -> float:
        """A trial is no longer under way; the seconds its evaluations took."""
        del self.attempts[index], self.repeats[index]
        kept = [log for log in log_files(self.logs, index) if not discard_silent(log)]
        if kept:
            self.campaign.note_log(index)
        return self.seconds.pop(index)

    def _check_failures(self) -> None:
        if self.failures >= self.spec.max_consecutive_failures:
            raise RunError(
                f"the last {self.failures} trials failed, the last with: {self.failed_with}; mend "
                f"the black box, then resume with 'bo-surrogates resume {self.campaign.database}'"
            )

    def _report(self, kind: Any, trial: Trial | None) -> None:
        if self.options.on_event is not None:
            self.options.on_event(Event(kind, trial, self.campaign))


def evaluation_seed(campaign_seed: int, index: int, repeat: int = 0) -> int:
    """The seed of an evaluation.

    It depends on the campaign's seed, the trial and the replicate only. All attempts at an
    evaluation have the same seed, so one whose worker was lost gives what it would have given.
    """
    path = (index,) if repeat == 0 else (index, repeat)
    return derive_seed(campaign_seed, "evaluate", *path)


def resolve_black_box(
    campaign: Campaign,
    function: Callable[..., Any] | None,
    resolve_problem: Callable[..., Any] | None,
) -> BlackBox:
    """What a run evaluates: what it is given, or what the campaign names.

    Raises:
        InputError: There is none, or it does not fit the campaign.
    """
    spec = campaign.spec
    source = function if function is not None else spec.black_box
    if source is None:
        raise InputError(
            f"campaign {spec.name!r} has no black box to run: give run() a function, or "
            "use ask and tell"
        )
    return make_black_box(
        source, space=spec.space, metrics=campaign.metrics, resolve_problem=resolve_problem
    )
