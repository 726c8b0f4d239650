"""How far a run is, and how long it will still take."""

from __future__ import annotations

from collections import defaultdict

from studies.runner import Event
from studies.study import Cell

Arms = tuple[str, str]  # labels of a problem and a surrogate


class Progress:
    """Takes a run's events into account.

    Attributes:
        total: Cells to be run, those found finished included.
        done: Cells finished.
        failed: Cells that failed, with the reason.
        running: Cells being run, with the number of their last iteration.
    """

    def __init__(self) -> None:
        self.total = 0
        self.done = 0
        self.failed: dict[Cell, str] = {}
        self.running: dict[Cell, int] = {}
        self._waiting: dict[Cell, int] = {}
        self._seconds: dict[Arms, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))

    def __call__(self, event: Event) -> None:
        """Take an event into account."""
        cell = event.cell
        if cell is None:
            return
        if event.kind == "found":
            self.total += 1
            self._waiting[cell] = event.iteration
            if event.iteration > 0:  # their mean, as if all had taken that
                self._note(cell, event.iteration, event.seconds / event.iteration)
            return
        self._waiting.pop(cell, None)
        if event.kind in ("done", "failed"):
            self.running.pop(cell, None)
            self.done += event.kind == "done"
            if event.kind == "failed":
                self.failed[cell] = event.text
            return
        self.running[cell] = event.iteration
        if event.kind == "iteration" and event.iteration > 0:
            self._note(cell, event.iteration, event.seconds)

    def _note(self, cell: Cell, iteration: int, seconds: float) -> None:
        self._seconds[cell.key[:2]][iteration].append(seconds)

    def seconds_left(self) -> float | None:
        """Seconds until the last cell is done, as many at a time as now; None: no idea yet.

        An iteration takes what the same one has taken in other cells of the same problem and
        surrogate, or else their latest; where there is none yet, the mean over all cells.
        """
        known = {arms: _Pace(times) for arms, times in self._seconds.items()}
        if not known:
            return None
        overall = sum(p.mean for p in known.values()) / len(known)
        left = []
        for cell, iteration in (*self.running.items(), *self._waiting.items()):
            pace = known.get(cell.key[:2])
            rest = range(max(iteration, 0) + 1, cell.iterations + 1)
            left.append(sum(overall if pace is None else pace.at(i) for i in rest))
        return max(sum(left) / max(len(self.running), 1), max(left, default=0.0))


class _Pace:
    """Mean seconds by iteration."""

    def __init__(self, times: dict[int, list[float]]) -> None:
        self.means = {i: sum(ones) / len(ones) for i, ones in times.items()}
        self.mean = sum(self.means.values()) / len(self.means)
        self.latest = self.means[max(self.means)]

    def at(self, iteration: int) -> float:
        return self.means.get(iteration, self.latest)
