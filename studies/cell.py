"""One cell of a study: the loop, and what is noted of each of its iterations.

Nothing is fitted twice for the notes: the one-step-ahead scores and the recommendation come from
the model that proposed the batch. Only after the last iteration one more model is fitted, for the
last recommendation: the one with which a further iteration would begin.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from bo_surrogates.acquisition.goals import outcome_scales
from bo_surrogates.analysis.predictive_scores import PointScores, score_points
from bo_surrogates.errors import FitWarning, RunError
from bo_surrogates.loop import NUMERICAL_FAILURES, RANDOM, Iteration, Proposal, Run, fit, run
from bo_surrogates.seeding import derive_seed
from problems.base import Problem
from studies.cell_file import CellRecord, CellWriter, read_cell
from studies.course import Course, Facts
from studies.memory import peak_mb, reset_peak
from studies.study import Cell

LOCK_SECONDS = 5.0  # for the worker of a run that was killed to be gone, too

OnIteration = Callable[[int, float], object]  # number and seconds of an iteration that is stored


def run_cell(cell: Cell, path: Path, lock: Path, on_iteration: OnIteration) -> int:
    """Run a cell to its end, from where its file leaves off.

    Args:
        cell: Of a resolved study.
        path: Its file.
        lock: File whose lock says who writes the cell.
        on_iteration: Told of each iteration that is stored; first, of the last one found.

    Returns:
        The number of iterations after the initial design.

    Raises:
        RunError: Another process writes the cell, or its file cannot be written or is damaged.
        Exception: Whatever the problem or the surrogate raises.
    """
    try:
        with FileLock(lock, timeout=LOCK_SECONDS):
            return _run(cell, path, on_iteration)
    except Timeout:
        raise RunError(
            f"{path.name} is being written by another process; wait until that has ended"
        ) from None


def _run(cell: Cell, path: Path, on_iteration: OnIteration) -> int:
    record = read_cell(path, cell)
    writer = CellWriter(path, cell, record)
    problem = cell.problem.make()
    notes = _Notes(cell, problem, writer, on_iteration)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FitWarning)  # it is among the diagnostics
            start = notes.resume(record, problem)
            result = run(
                problem,
                surrogate=cell.surrogate.surrogate,
                config=cell.surrogate.config,
                acquisition=cell.acquisition,
                iterations=cell.iterations,
                initial=cell.problem.initial,
                q=cell.problem.q or 1,
                seed=cell.seed,
                start=start,
                random_where_failed=True,
                on_iteration=notes,
            )
            done = len(result.iterations) - 1
            if done not in record.ends or not record.is_finished(cell.iterations):
                writer.append(notes.end(result, exhausted=done < cell.iterations))
            return done
    finally:
        writer.close()


class _Notes:
    """Writes down what is worth knowing of each iteration."""

    def __init__(
        self, cell: Cell, problem: Problem, writer: CellWriter, on_iteration: OnIteration
    ) -> None:
        self.cell = cell
        self.space = problem.space
        self.course = Course(problem, Facts.of(cell.problem, problem))
        self.writer = writer
        self.on_iteration = on_iteration
        self.X: list[Tensor] = []
        self.Y: list[Tensor] = []
        self.began = self.cpu = 0.0

    def resume(self, record: CellRecord, problem: Problem) -> Run | None:
        """The run so far, as the loop continues it."""
        iterations = []
        for stored in record.iterations:
            X, Y = (torch.tensor(stored[key], dtype=torch.float64) for key in ("X", "Y"))
            truth = stored.get("truth")
            self._take(X, Y, None if truth is None else torch.tensor(truth, dtype=torch.float64))
            iterations.append(Iteration(X, Y, stored["seconds"], stored.get("failed")))
        self.on_iteration(record.done, 0.0)
        self._begin()
        return Run(problem.objectives, tuple(iterations)) if iterations else None

    def __call__(self, iteration: Iteration, proposal: Proposal | None) -> None:
        """Note an iteration."""
        if not torch.isfinite(iteration.Y).all():
            raise RunError(
                f"the problem gave a value that is not finite at {iteration.X.tolist()}: "
                f"{iteration.Y.tolist()}"
            )
        number = len(self.X)
        if proposal is None:
            seen: dict[str, Any] = {"scores": None, "diagnostics": {}, "inferred": None}
        else:
            seen = self._seen_by(proposal.model, iteration)
        n = sum(map(len, self.X))
        reached = self._take(iteration.X, iteration.Y)
        known = {k: float(v) for k, v in iteration.seconds.items()}
        elapsed = time.perf_counter() - self.began
        overhead = max(elapsed - sum(known.values()), 0.0)
        self.writer.append(
            {
                "iteration": number,
                "n": n,
                "X": iteration.X.tolist(),
                "Y": iteration.Y.tolist(),
                **reached,
                **seen,
                "seconds": {**known, "overhead": overhead},
                "cpu_seconds": time.process_time() - self.cpu,
                "peak_memory_mb": round(peak_mb(), 1),
                "failed": iteration.failure,
            }
        )
        self.on_iteration(number, elapsed)
        # What writing takes counts as overhead of the next iteration: this line cannot tell.
        self.began += elapsed
        self.cpu = time.process_time()
        reset_peak()

    def _begin(self) -> None:
        self.began, self.cpu = time.perf_counter(), time.process_time()
        reset_peak()

    def _take(self, X: Tensor, Y: Tensor, truth: Tensor | None = None) -> dict[str, Any]:
        self.X.append(X)
        self.Y.append(Y)
        return self.course.add(X, Y, truth)

    def _seen_by(self, model: Any, iteration: Iteration) -> dict[str, Any]:
        """What a model that has not seen the batch makes of it, and of what it has seen."""
        models = list(getattr(model, "models", [model]))
        batch = self.space.to_model(self.space.impute(iteration.X))
        _, scales = outcome_scales(torch.cat(self.Y))
        seed = derive_seed(self.cell.seed, "scores", len(self.X))
        scores = [
            score_points(one, batch, iteration.Y[:, [i]], scales[i], seed)
            for i, one in enumerate(models)
        ]
        return {
            "scores": _scores(scores),
            "diagnostics": _diagnostics(models, self.course.facts.metrics),
            "inferred": self._inferred(models),
        }

    def _inferred(self, models: list[Any]) -> float | None:
        with torch.no_grad():
            Z = self.space.to_model(self.space.impute(torch.cat(self.X)))
            means = torch.cat([one.marginals(Z)[0] for one in models], dim=-1)
        return self.course.inferred(means)

    def end(self, result: Run, *, exhausted: bool) -> dict[str, Any]:
        """What closes the cell: what is recommended after its last iteration."""
        done = len(result.iterations) - 1
        start = time.perf_counter()
        inferred, failed = None, None
        if self.course.can_infer and self.cell.surrogate.surrogate != RANDOM:
            try:
                # The seed with which the loop would fit the model of the next iteration.
                seed = derive_seed(derive_seed(self.cell.seed, done + 1), "fit")
                model = fit(
                    self.space, self.space.impute(result.X), result.Y,
                    surrogate=self.cell.surrogate.surrogate, config=self.cell.surrogate.config,
                    seed=seed,
                )  # fmt: skip
                inferred = self._inferred(list(getattr(model, "models", [model])))
            except NUMERICAL_FAILURES as error:
                failed = f"{type(error).__name__}: {error}"
        return {
            "end": done,
            "exhausted": exhausted,
            "inferred": inferred,
            "seconds": {"fit": time.perf_counter() - start},
            "failed": failed,
        }


def _scores(outcomes: list[PointScores]) -> dict[str, list[list[float | None]]]:
    """Each score as a list of outcomes, of lists of points; None where it is not finite."""
    return {
        name: [[v if _is_finite(v) else None for v in getattr(o, name).tolist()] for o in outcomes]
        for name in ("nlpd", "crps", "pit")
    }


def _diagnostics(models: list[Any], metrics: tuple[str, ...]) -> dict[str, float]:
    """Scalars of the fits; of several outcomes, each under its own name beside `converged`."""
    found = {"converged": float(all(m.diagnostics.converged for m in models))}
    for model, metric in zip(models, metrics, strict=True):
        values: Mapping[str, float] = model.diagnostics.values
        prefix = "" if len(models) == 1 else f"{metric}: "
        found |= {f"{prefix}{k}": float(v) for k, v in values.items() if _is_finite(v)}
    return found


def _is_finite(value: object) -> bool:
    """Whether JSON has it: a number that is neither NaN nor infinite."""
    return isinstance(value, int | float) and math.isfinite(value)
