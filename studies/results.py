"""What a run has given, as tables.

results = load("runs/quick")
results.evaluations          # one row an evaluation
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from studies.cell_file import CellRecord, DamagedCell
from studies.course import Facts
from studies.run_folder import RunFolder
from studies.study import Cell, Study

CELL = ["problem", "surrogate", "seed"]
EVALUATIONS = [
    *CELL, "iteration", "evaluation", "n_initial", "values", "feasible", "best", "inferred",
    "regret", "inferred_regret", "score", "hypervolume", "seconds",
]  # fmt: skip
ITERATIONS = [
    *CELL, "iteration", "n", "fit_seconds", "acquisition_seconds", "evaluation_seconds",
    "overhead_seconds", "cpu_seconds", "peak_memory_mb", "nlpd", "crps", "coverage_50",
    "coverage_90", "diagnostics", "failed",
]  # fmt: skip
PIT = [*CELL, "iteration", "outcome", "pit"]
CELLS = [*CELL, "state", "iterations", "reason"]
WHOLE = ("seed", "iteration", "iterations", "evaluation", "n_initial", "n", "outcome")
OTHER = (
    "problem",
    "surrogate",
    "values",
    "feasible",
    "diagnostics",
    "failed",
    "state",
    "reason",
)  # neither whole numbers nor other ones


@dataclass(frozen=True)
class Results:
    """The tables of a run; each row belongs to a problem and a surrogate (labels) and a seed.

    Attributes:
        study: Resolved.
        environment: Versions, hardware, commands.
        facts: About the problems, by label.
        evaluations: One row an evaluation: `iteration` (0 is the initial design of `n_initial`
            points), `evaluation` (1, 2, ...), `values` (outcomes in the order of the metrics) and
            `feasible`, as observed; `best` feasible objective value so far in its own sign (NaN for
            several objectives, and before there is one); `inferred`: the noise-free value of the
            observed point that the posterior mean, given all evaluations up to the end of the
            batch, holds best (NaN where unknown); `regret` >= 0: of the noise-free value where
            `best` was observed (of `best`, where that is not known), or the largest known
            hypervolume less `hypervolume` (NaN where the optimum is not known); `inferred_regret`;
            `score`, to be minimized, of what a user would take: the regret where it is known
            (with noise, after the initial design, `inferred_regret` where there is a model: the
            best of noisy observations is a lucky one), else `best` less its sign or `hypervolume`
            less its sign; `seconds` of fits, acquisition and evaluations up to the
            end of the batch.
        iterations: One row an iteration after the initial design: `n` observations before it;
            seconds, and `cpu_seconds` of all of it; `peak_memory_mb`; one-step-ahead predictive
            scores, means over the batch and the outcomes, in standard deviations of the outcomes
            before it; `diagnostics`; `failed`: why a random batch was taken, or None.
        pit: One row a predicted observation: `pit` in [0, 1].
        cells: `state` ("done", "partial", "missing", "failed"), iterations done, and the reason.
        not_begun: What `begun` has left out: labels of "problems" and "surrogates", and "seeds".
    """

    study: Study
    environment: Mapping[str, Any]
    facts: Mapping[str, Facts]
    evaluations: pd.DataFrame
    iterations: pd.DataFrame
    pit: pd.DataFrame
    cells: pd.DataFrame
    not_begun: Mapping[str, tuple[object, ...]] = field(default_factory=dict)

    def begun(self) -> Results:
        """The part of the study whose runs have begun: what has no run at all is left out.

        A study may be run in part (`study run --surrogate gp --seeds 3`), and then what was run is
        what is to be told. Everything, where nothing has begun.
        """
        cells, study = self.cells, self.study
        some = cells[(cells["state"] != "missing") | cells["reason"].notna()]
        if some.empty:
            return self
        problems, surrogates, seeds = (set(some[name]) for name in CELL)
        kept = (
            cells["problem"].isin(problems)
            & cells["surrogate"].isin(surrogates)
            & cells["seed"].isin(seeds)
        )
        left_out = {
            "problems": tuple(p.label for p in study.problems if p.label not in problems),
            "surrogates": tuple(s.label for s in study.surrogates if s.label not in surrogates),
            "seeds": tuple(seed for seed in study.seeds if seed not in seeds),
        }
        part = replace(
            study,
            problems=tuple(p for p in study.problems if p.label in problems),
            surrogates=tuple(s for s in study.surrogates if s.label in surrogates),
            seeds=tuple(seed for seed in study.seeds if seed in seeds),
        )
        return replace(
            self,
            study=part,
            facts={label: known for label, known in self.facts.items() if label in problems},
            cells=cells[kept].reset_index(drop=True),
            not_begun={kind: names for kind, names in left_out.items() if names},
        )

    def summary(self) -> pd.DataFrame:
        """Where each surrogate has ended on each problem, over its seeds.

        Returns:
            One row a problem and surrogate, those of a problem by their median: `seeds` with at
            least an initial design; quartiles of the last `score` (`score_q25`, `score_median`,
            `score_q75`); median seconds an iteration of fits and of acquisition.
        """
        arms = ["problem", "surrogate"]
        last = self.evaluations.groupby(CELL, sort=False)["score"].last().reset_index()
        groups = last.groupby(arms, sort=False)["score"]
        levels = {"score_q25": 0.25, "score_median": 0.5, "score_q75": 0.75}
        table = pd.DataFrame({name: groups.quantile(q) for name, q in levels.items()})
        table.insert(0, "seeds", groups.size())
        seconds = self.iterations.groupby(arms)[["fit_seconds", "acquisition_seconds"]].median()
        table = table.join(seconds).reset_index()
        place = {p.label: i for i, p in enumerate(self.study.problems)}
        return table.sort_values(
            ["problem", "score_median"],
            key=lambda column: column.map(place) if column.name == "problem" else column,
            ignore_index=True,
        )


def load(run: str | Path) -> Results:
    """Read a run's folder; a run that is still going on can be read, too.

    Raises:
        InputError: The folder holds no run.
        RunError: What it holds cannot be read.
    """
    folder = RunFolder(run)
    study, facts = folder.read_study()
    evaluations: list[dict[str, Any]] = []
    iterations: list[dict[str, Any]] = []
    pit: list[dict[str, Any]] = []
    cells = []
    for cell in study.cells:
        key = dict(zip(CELL, cell.key, strict=True))
        try:
            record = folder.read_cell(cell)
        except DamagedCell as error:
            reason = f"its file is damaged: {error}; --resume sets it aside and runs the cell again"
            # Not "failed": the surrogate is not to blame, and statistics wait for the cell.
            cells.append({**key, "state": "missing", "iterations": 0, "reason": reason})
            continue
        cells.append({**key, **state_of(cell, record)})
        known = facts[cell.problem.label]
        evaluations += [{**key, **row} for row in _evaluations(record, known)]
        for stored in record.iterations[1:]:
            iterations.append({**key, **_iteration(stored)})
            pit += [{**key, **row} for row in _pit(stored)]
    return Results(
        study,
        folder.read_environment(),
        facts,
        _frame(evaluations, EVALUATIONS),
        _frame(iterations, ITERATIONS),
        _frame(pit, PIT),
        _frame(cells, CELLS),
    )


def _frame(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    """A table whose columns have their types where it is empty, too."""
    types = {c: int if c in WHOLE else float for c in columns if c not in OTHER}
    return pd.DataFrame(rows, columns=columns).astype(types)


def state_of(cell: Cell, record: CellRecord) -> dict[str, Any]:
    """How far a cell is: `state`, `iterations`, `reason`."""
    if record.error is not None:
        state = "failed"
    elif record.is_finished(cell.iterations):
        state = "done"
    else:
        state = "partial" if record.iterations else "missing"
    return {"state": state, "iterations": max(record.done, 0), "reason": record.error}


def _evaluations(record: CellRecord, facts: Facts) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    seconds = 0.0
    for number, stored in enumerate(record.iterations):
        taken = stored["seconds"]
        seconds += sum(taken.get(k, 0.0) for k in ("fit", "acquisition", "evaluation"))
        # The model that knows this batch is that of the next iteration, or of the end.
        after = record.iterations[number + 1 : number + 2] or [record.ends.get(number, {})]
        inferred = _number(after[0].get("inferred"))
        for i, values in enumerate(stored["Y"]):
            best, hypervolume = _number(stored["best"][i]), _number(stored["hypervolume"][i])
            regret = _regret(facts, _number(stored["incumbent"][i]), hypervolume)
            recommended = _regret(facts, inferred, math.nan)
            settled = regret
            if facts.noisy and number and not math.isnan(recommended):
                settled = recommended
            rows.append(
                {
                    "iteration": number,
                    "evaluation": len(rows) + 1,
                    "n_initial": len(record.iterations[0]["Y"]),
                    "values": values,
                    "feasible": stored["feasible"][i],
                    "best": best,
                    "inferred": inferred,
                    "regret": regret,
                    "inferred_regret": recommended,
                    "score": _score(facts, settled, best, hypervolume),
                    "hypervolume": hypervolume,
                    "seconds": seconds,
                }
            )
    return rows


def _regret(facts: Facts, value: float, hypervolume: float) -> float:
    """Not below 0 where what is known to be best is beaten."""
    if len(facts.signs) > 1:
        largest = facts.max_hypervolume
        return math.nan if largest is None else _positive(largest - hypervolume)
    return (
        math.nan if facts.optimum is None else _positive(facts.signs[0] * (facts.optimum - value))
    )


def _positive(value: float) -> float:
    return value if math.isnan(value) else max(value, 0.0)


def _score(facts: Facts, regret: float, best: float, hypervolume: float) -> float:
    if len(facts.signs) > 1:
        return regret if facts.max_hypervolume is not None else -hypervolume
    return regret if facts.optimum is not None else -facts.signs[0] * best


def _iteration(stored: Mapping[str, Any]) -> dict[str, Any]:
    seconds = stored["seconds"]
    parts = ("fit", "acquisition", "evaluation", "overhead")
    pit = _flat(stored["scores"], "pit")
    return {
        "iteration": stored["iteration"],
        "n": stored["n"],
        **{f"{part}_seconds": float(seconds.get(part, 0.0)) for part in parts},
        "cpu_seconds": _number(stored.get("cpu_seconds")),
        "peak_memory_mb": stored["peak_memory_mb"],
        "nlpd": _mean(_flat(stored["scores"], "nlpd")),
        "crps": _mean(_flat(stored["scores"], "crps")),
        "coverage_50": _mean([float(abs(p - 0.5) <= 0.25) for p in pit]),
        "coverage_90": _mean([float(abs(p - 0.5) <= 0.45) for p in pit]),
        "diagnostics": stored["diagnostics"],
        "failed": stored["failed"],
    }


def _pit(stored: Mapping[str, Any]) -> list[dict[str, Any]]:
    outcomes = (stored["scores"] or {}).get("pit", [])
    return [
        {"iteration": stored["iteration"], "outcome": i, "pit": p}
        for i, points in enumerate(outcomes)
        for p in points
        if p is not None
    ]


def _flat(scores: Mapping[str, Any] | None, name: str) -> list[float]:
    return [_number(v) for outcome in (scores or {}).get(name, []) for v in outcome]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
