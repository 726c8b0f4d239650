"""What the command line shows of a study: its cells, a run's progress, and where a run stands."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, TextIO

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from bo_surrogates.campaign.pace import duration
from bo_surrogates.cli.display import make_console
from studies.progress import Progress

if TYPE_CHECKING:
    from studies.results import Results
    from studies.run_folder import RunFolder
    from studies.runner import Event
    from studies.study import Cell, Study

SHOWN = 12  # running cells, or failures


def _table(*columns: str, left: int = 1) -> Table:
    """A plain table whose first columns are text."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i < left else "right", overflow="fold")
    return table


def print_studies(rows: Sequence[dict[str, Any]]) -> None:
    """The shipped studies."""
    table = _table("name", "problems", "surrogates", "seeds")
    table.add_column("what for")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    make_console().print(table)


# ---- what would be run ---------------------------------------------------------------------------
def print_cells(study: Study, cells: Sequence[Cell]) -> None:
    """The cells of a resolved study, those that differ in the seed together."""
    console = make_console()
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.key[:2], []).append(cell)
    table = _table("problem", "surrogate", "seeds", "initial", "q", "iterations", left=3)
    for (problem, surrogate), ones in groups.items():
        arm = ones[0].problem
        seeds = ", ".join(str(c.seed) for c in ones)
        table.add_row(problem, surrogate, seeds, *map(str, (arm.initial, arm.q, arm.iterations)))
    console.print(table)
    console.print(f"acquisition, held fixed: {study.acquisition!r}", soft_wrap=True)
    fits = sum(c.iterations for c in cells)
    console.print(
        f"{len(cells)} of the study's {len(study.cells)} cells, {fits} iterations; all checks "
        "passed, nothing was run"
    )


# ---- the progress of a run -----------------------------------------------------------------------
def make_study_display(name: str, stream: TextIO) -> StudyDisplay:
    """Live on a terminal, a line a finished cell elsewhere."""
    return LiveStudy(name, stream) if stream.isatty() else PlainStudy(name, stream)


class StudyDisplay(ABC):
    """Told of each event of a run; a context manager around it."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name = name
        self.console = make_console(stream)
        self.progress = Progress()
        self.began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @abstractmethod
    def __call__(self, event: Event) -> None:
        """Show an event."""

    def left(self) -> str:
        """The time the rest will take, in words."""
        seconds = self.progress.seconds_left()
        return "" if seconds is None else f"about {duration(seconds)} left"

    def summarize(self, folder: RunFolder) -> None:
        """Show what came of the run."""
        done, failed = self.progress.done, self.progress.failed
        elapsed = duration(time.monotonic() - self.began)
        self.console.print(
            Text.assemble(
                (self.name, "bold"),
                f": {done} of {self.progress.total} cells done"
                + (f", {len(failed)} failed" if failed else "")
                + f" ({elapsed}); stored in {folder.shown}",
            ),
            soft_wrap=True,
        )
        _print_failures(self.console, [(str(c), reason) for c, reason in failed.items()])


class PlainStudy(StudyDisplay):
    """A line for each finished cell."""

    def __call__(self, event: Event) -> None:
        """Print a finished cell, or a note."""
        found = event.kind == "done" and event.cell not in self.progress.running
        self.progress(event)
        if event.kind == "note":
            self.console.print(event.text, soft_wrap=True)
        if found or event.kind not in ("done", "failed"):
            return
        ended = self.progress.done + len(self.progress.failed)
        outcome = "done" if event.kind == "done" else f"failed: {' '.join(event.text.split())}"
        rest = self.left() if ended < self.progress.total else ""
        self.console.print(
            f"{ended}/{self.progress.total}  {event.cell}: {outcome}" + (rest and f"  ({rest})"),
            soft_wrap=True,
        )


class LiveStudy(StudyDisplay):
    """What runs, and a bar, redrawn in place."""

    def __init__(self, name: str, stream: TextIO) -> None:
        super().__init__(name, stream)
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("cells"),
            TimeElapsedColumn(),
            console=self.console,
        )
        self.task = self.bar.add_task(name, total=None)
        self.live = Live(console=self.console, get_renderable=self.render, refresh_per_second=4)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def __call__(self, event: Event) -> None:
        """Take an event into account."""
        self.progress(event)
        if event.kind == "note":
            self.live.console.print(event.text)
        ended = self.progress.done + len(self.progress.failed)
        self.bar.update(self.task, total=self.progress.total or None, completed=ended)

    def render(self) -> RenderableType:
        """What is on the screen now."""
        running = list(self.progress.running.items())
        lines = [
            Text(f"{cell}: iteration {max(done, 0)} of {cell.iterations}", "yellow")
            for cell, done in running[:SHOWN]
        ]
        if len(running) > SHOWN:
            lines.append(Text(f"and {len(running) - SHOWN} more", "yellow"))
        failed = len(self.progress.failed)
        if not running and self.progress.done + failed < self.progress.total:
            lines.append(Text("starting workers", "dim"))
        state = "; ".join(filter(None, [self.left(), f"{failed} failed" if failed else ""]))
        return Group(*lines, self.bar, Text(state, "dim"))


# ---- where a run stands --------------------------------------------------------------------------
def run_json(results: Results, *, running: bool) -> dict[str, Any]:
    """How far a run is, as plain data."""
    rows = results.summary().to_dict("records")
    return {
        "name": results.study.name,
        "running": running,
        "cells": _counts(results),
        "failed": [
            {"problem": c.problem, "surrogate": c.surrogate, "seed": c.seed, "reason": c.reason}
            for c in results.cells.itertuples()
            if c.state == "failed"
        ],
        "arms": [{str(k): _jsonable(v) for k, v in row.items()} for row in rows],
    }


def _jsonable(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _counts(results: Results) -> dict[str, int]:
    states = results.cells["state"].value_counts()
    return {state: int(states.get(state, 0)) for state in ("done", "partial", "missing", "failed")}


def print_run(results: Results, *, running: bool) -> None:
    """How far a run is, where each surrogate stands, and what failed."""
    console = make_console()
    counts = _counts(results)
    told = ", ".join(f"{n} {state}" for state, n in counts.items() if n or state == "done")
    now = "; it is running now" if running else ""
    console.print(
        Text.assemble((results.study.name, "bold"), f": of {len(results.cells)} cells {told}{now}")
    )
    states = results.cells.groupby(["problem", "surrogate"])["state"]
    done = states.agg(lambda s: int((s == "done").sum())).to_dict()
    table = _table("problem", "surrogate", "done", "median", "quartiles", "fit s", "acq. s", left=2)
    for row in results.summary().to_dict("records"):
        arms = (row["problem"], row["surrogate"])
        table.add_row(
            *map(str, arms), f"{done[arms]}/{len(results.study.seeds)}",
            f"{row['score_median']:.3g}", f"{row['score_q25']:.3g} .. {row['score_q75']:.3g}",
            f"{row['fit_seconds']:.2f}", f"{row['acquisition_seconds']:.2f}",
        )  # fmt: skip
    if table.row_count:
        console.print(table)
        console.print(
            "Median and quartiles over seeds, smaller is better: regret, or hypervolume regret; "
            "where no optimum is known, the best value or hypervolume with the sign that makes it "
            "so. Seconds are medians an iteration.",
            style="dim",
        )
    failed = results.cells[results.cells["state"] == "failed"]
    _print_failures(
        console,
        [
            (f"{c.problem} / {c.surrogate} / seed {c.seed}", str(c.reason))
            for c in failed.itertuples()
        ],
    )


def _print_failures(console: Any, failures: Sequence[tuple[str, str]]) -> None:
    for cell, reason in failures[:SHOWN]:
        console.print(Text(f"{cell} failed: {reason}", "red"), soft_wrap=True)
    if len(failures) > SHOWN:
        console.print(Text(f"and {len(failures) - SHOWN} more: see study status --json", "red"))
