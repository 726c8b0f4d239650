"""Runs the cells of a study, several at a time, and goes on where an earlier run has stopped.

    results = run_study(Study.of(["branin"], ["gp", "nngp"], seeds=3), "runs/mine")

Each cell is one task of the runners that evaluate campaigns' trials: in this process, in a pool of
worker processes, on Dask, or on any executor. The cell's worker writes the cell's file, so all
workers must see the run's folder. What a cell gives depends on nothing but its settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bo_surrogates.campaign.black_box import BlackBox, Report
from bo_surrogates.campaign.execution import logs
from bo_surrogates.campaign.execution.evaluation import Task
from bo_surrogates.campaign.execution.executors import open_runner
from bo_surrogates.campaign.execution.future_runner import AnyExecutor
from bo_surrogates.campaign.trial import Measurement
from bo_surrogates.errors import InputError
from bo_surrogates.space import Values
from studies.cell_file import CellWriter
from studies.results import Results, load
from studies.run_folder import RunFolder
from studies.study import Cell, Study


@dataclass(frozen=True)
class Event:
    """Something that happened in a run.

    Attributes:
        kind: "found": the cell is to be run, with so many iterations stored already; "started";
            "iteration": one was stored; "done"; "failed"; "note": something to know.
        cell: Which.
        iteration: The number of the last stored one; 0 is the initial design, -1 before it.
        seconds: What that iteration took.
        text: The reason, or the note.
    """

    kind: Literal["found", "started", "iteration", "done", "failed", "note"]
    cell: Cell | None = None
    iteration: int = -1
    seconds: float = 0.0
    text: str = ""


OnEvent = Callable[[Event], object]


def run_study(
    study: Study,
    folder: str | Path,
    *,
    resume: bool = False,
    workers: int = 1,
    executor: str | AnyExecutor | None = None,
    scheduler: str | None = None,
    only: Callable[[Cell], bool] | None = None,
    on_event: OnEvent | None = None,
) -> Results:
    """Run a study, and store every iteration in a folder as soon as it is done.

    Args:
        study: What to run.
        folder: Where. Workers on other machines must see it under the same path.
        resume: Whether to go on with a run that is there: with cells that are missing, stopped or
            failed, with more seeds, surrogates, problems or iterations.
        workers: Cells run at a time; the results do not depend on it.
        executor: "in-process", "processes", "dask", or an executor; None: in this process, or with
            several workers the pool of processes.
        scheduler: Address or file of Dask's scheduler.
        only: Which of the study's cells to run now.
        on_event: Told of what happens.

    Returns:
        What the folder holds. A cell that failed does not stop the others: see `Results.cells`.

    Raises:
        InputError: A mistake in the study (see `Study.resolve`), or a folder that holds another
            run; nothing is run then.
        RunError: Another process runs the study in this folder.
    """
    run_cells(
        study, RunFolder(folder), resume=resume, workers=workers, executor=executor,
        scheduler=scheduler, only=only, on_event=on_event,
    )  # fmt: skip
    return load(folder)


def run_cells(
    study: Study,
    folder: RunFolder,
    *,
    resume: bool = False,
    workers: int = 1,
    executor: str | AnyExecutor | None = None,
    scheduler: str | None = None,
    only: Callable[[Cell], bool] | None = None,
    on_event: OnEvent | None = None,
) -> list[Cell]:
    """As `run_study`; returns the cells that failed."""
    tell = on_event or (lambda event: None)
    study = study.resolve()
    with folder.writing():
        folder.begin(study, resume=resume)
        wanted = [c for c in study.cells if only is None or only(c)]
        if not wanted:
            raise InputError(
                "no cell of the study is chosen; ask for problems, surrogates and seeds it has"
            )
        todo = list(_unfinished(wanted, folder, tell))
        if not todo:
            return []
        name = executor if isinstance(executor, str | None) else type(executor).__name__
        folder.note_environment(workers, name or ("in-process" if workers == 1 else "processes"))
        return _run(study, todo, folder, workers, executor, scheduler, tell)


def _unfinished(cells: list[Cell], folder: RunFolder, tell: OnEvent) -> Iterator[Cell]:
    """The cells with something left to do; damaged files are set aside."""
    for cell in cells:
        record = folder.sound_record(cell, lambda text: tell(Event("note", text=text)))
        seconds = sum(sum(i["seconds"].values()) for i in record.iterations)
        tell(Event("found", cell, record.done, seconds))
        if record.is_finished(cell.iterations) and record.error is None:
            tell(Event("done", cell, record.done))
        else:
            yield cell


def _run(
    study: Study,
    cells: list[Cell],
    folder: RunFolder,
    workers: int,
    executor: str | AnyExecutor | None,
    scheduler: str | None,
    tell: OnEvent,
) -> list[Cell]:
    started: set[int] = set()

    def on_report(task: Task, step: float, measured: Mapping[str, Measurement]) -> bool:
        kind: Literal["started", "iteration"] = "iteration" if task.index in started else "started"
        started.add(task.index)
        tell(Event(kind, cells[task.index], int(step), measured["seconds"].mean))
        return True

    failed: list[Cell] = []
    tasks = [
        Task(i, {"cell": i}, seed=0, log=str(folder.cell_log(cell))) for i, cell in enumerate(cells)
    ]
    box = _Cells(cells, folder)
    with open_runner(
        executor, box, workers=workers, scheduler=scheduler, on_report=on_report
    ) as runner:
        for outcome in runner.run(tasks):
            cell = cells[outcome.index]
            _drop_empty_log(folder.cell_log(cell))
            if outcome.reason is None and outcome.measurements is not None:
                tell(Event("done", cell, int(outcome.measurements["iterations"].mean)))
                continue
            failed.append(cell)
            reason = outcome.reason or "no reason is known"
            _store_error(folder, cell, reason)
            tell(Event("failed", cell, text=reason))
    return failed


def _store_error(folder: RunFolder, cell: Cell, reason: str) -> None:
    """Note in the cell's file why it failed; its worker has ended."""
    record = folder.sound_record(cell, lambda text: None)
    writer = CellWriter(folder.cell_file(cell), cell, record)
    try:
        writer.append({"error": reason})
    finally:
        writer.close()


def _drop_empty_log(path: Path) -> None:
    with suppress(OSError):
        logs.discard_silent(path)
        path.parent.rmdir()


class _Cells(BlackBox):
    """The cells as what a runner evaluates: a number in, how far it came out."""

    metrics = ("iterations",)

    def __init__(self, cells: list[Cell], folder: RunFolder) -> None:
        self.cells = cells
        self.folder = folder

    def prepare(self) -> None:
        """See `BlackBox.prepare`."""
        import studies.cell  # noqa: F401 - torch and the rest, before the first cell

        if not self.folder.exists:
            raise InputError(
                f"{self.folder} is not there on this machine; workers write the cells' files, so "
                "the run's folder must be one that all machines share"
            )

    def __call__(
        self,
        parameters: Values,
        trial_index: int,
        seed: int,
        *,
        report: Report | None = None,
        attempt: int = 1,
    ) -> Any:
        """Run one cell."""
        from studies.cell import run_cell

        cell = self.cells[trial_index]

        def on_iteration(number: int, seconds: float) -> None:
            if report is not None:
                report(number, seconds=seconds)

        done = run_cell(
            cell, self.folder.cell_file(cell), self.folder.cell_lock(cell), on_iteration
        )
        return {"iterations": done}
