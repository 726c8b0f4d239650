"""The executors by name, and how a run gets the runner it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bo_surrogates.campaign.black_box import BlackBox
from bo_surrogates.campaign.execution.dask_cluster import dask_executor
from bo_surrogates.campaign.execution.future_runner import AnyExecutor, FutureRunner
from bo_surrogates.campaign.execution.process_pool import ProcessPool
from bo_surrogates.campaign.execution.resources import EXECUTORS, Resources
from bo_surrogates.campaign.execution.runner import InProcessRunner, OnReport, Runner
from bo_surrogates.errors import InputError, did_you_mean


@contextmanager
def open_runner(
    executor: str | AnyExecutor | None,
    black_box: BlackBox,
    *,
    workers: int = 1,
    timeout: float | None = None,
    threads: int = 1,
    scheduler: str | None = None,
    resources: Resources | None = None,
    on_report: OnReport | None = None,
) -> Iterator[Runner]:
    """A runner, closed with the block.

    Args:
        executor: A name in `EXECUTORS`; an executor of the caller's, which is not shut down; or
            None: in this process where one worker and no time-out are asked for and the black box
            allows it, else the pool of processes.
        black_box: See `Runner`, also for the rest.
        workers: Trials evaluated at a time.
        timeout: Seconds.
        threads: Of one evaluation; the number of `cpus` among the resources counts instead.
        scheduler: Of Dask.
        resources: Of one evaluation.
        on_report: Told of reports.

    Raises:
        InputError: An unknown executor, or one that cannot do what is asked.
        RunError: It cannot be reached.
    """
    if resources is not None and resources.cpus is not None:
        threads = resources.cpus
    can_be_here = workers == 1 and timeout is None and not black_box.needs_process
    if executor is None:
        executor = "in-process" if can_be_here else "processes"
    if not isinstance(executor, str):
        with FutureRunner(executor, black_box, workers, timeout, threads, on_report) as runner:
            yield runner
    elif executor == "in-process":
        if not can_be_here:
            what = (
                "a command must be run in a process of its own"
                if black_box.needs_process
                else "workers must be 1" if workers > 1 else "a time-out cannot be enforced"
            )  # fmt: skip
            raise InputError(f"executor = 'in-process': {what}; use executor = 'processes'")
        with InProcessRunner(black_box, threads, on_report) as runner:
            yield runner
    elif executor == "processes":
        with ProcessPool(black_box, workers, timeout, threads, on_report) as runner:
            yield runner
    elif executor == "dask":
        with (
            dask_executor(scheduler, resources) as cluster,
            FutureRunner(cluster, black_box, workers, timeout, threads, on_report) as runner,
        ):
            yield runner
    else:
        raise InputError(
            f"unknown executor {executor!r}{did_you_mean(executor, EXECUTORS)}: it is one of "
            f"{', '.join(map(repr, EXECUTORS))}, or an executor object"
        )
