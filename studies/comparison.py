"""Surrogates compared on problems: the same initial designs, the same acquisition, several seeds.

table = compare(["branin"], ["gp", "nngp"], seeds=range(3), iterations=20)
summary = summarize(table)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.errors import InputError
from bo_surrogates.loop import Run, run
from bo_surrogates.surrogates import SURROGATES
from problems import PROBLEMS
from problems.base import Problem


def compare(
    problems: Sequence[str],
    surrogates: Sequence[str],
    *,
    seeds: Iterable[int],
    iterations: int,
    initial: int | None = None,
    q: int = 1,
    configs: Mapping[str, Mapping[str, Any]] | None = None,
    acquisition: AcquisitionConfig | None = None,
    on_run: Callable[[str, str, int, Run], None] | None = None,
) -> pd.DataFrame:
    """Run each surrogate on each problem with each seed.

    All surrogates of a seed share the initial design; the acquisition function and its
    optimizer's budget are the same for all, because they move results more than surrogates do.

    Args:
        problems: Registered names; each with one objective.
        surrogates: Registered names.
        seeds: One run for each.
        iterations: Batches after the initial design.
        initial: Points of the initial design; 2 (d + 1) if None.
        q: Points a batch.
        configs: Configuration by surrogate; the defaults where missing.
        acquisition: Held fixed; the default if None.
        on_run: Told of each finished run.

    Returns:
        One row an evaluation: problem, surrogate, seed, evaluation (1, 2, ...), value, best so far,
        regret (best so far less the known optimum, >= 0; NaN where none is known), and the seconds
        of fit and acquisition of its batch (0 for the initial design).

    Raises:
        InputError: An unknown name, or a problem with several objectives; nothing is run then.
    """
    made = {name: PROBLEMS[name].make() for name in problems}
    for name, problem in made.items():
        if len(problem.objectives) != 1:
            raise InputError(
                f"problem {name!r} has {len(problem.objectives)} objectives; a comparison by "
                "regret takes problems with one"
            )
    configured = {
        name: SURROGATES[name].configure((configs or {}).get(name)) for name in surrogates
    }
    rows: list[dict[str, Any]] = []
    for problem_name, problem in made.items():
        for seed in seeds:
            for surrogate, config in configured.items():
                result = run(
                    problem, surrogate=surrogate, config=config, acquisition=acquisition,
                    iterations=iterations, initial=initial, q=q, seed=seed,
                )  # fmt: skip
                if on_run is not None:
                    on_run(problem_name, surrogate, seed, result)
                rows += _rows(problem_name, surrogate, seed, result, _optimum(problem))
    return pd.DataFrame(rows)


def _optimum(problem: Problem) -> float:
    """In the objective's own sign, NaN where unknown."""
    return float("nan") if problem.optimum is None else problem.optimum.value


def _rows(
    problem: str, surrogate: str, seed: int, result: Run, optimum: float
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    sign = result.objectives[0].sign
    best = result.best.tolist()
    for iteration in result.iterations:
        for value in iteration.Y[:, 0].tolist():
            n = len(rows)
            rows.append(
                {
                    "problem": problem,
                    "surrogate": surrogate,
                    "seed": seed,
                    "evaluation": n + 1,
                    "value": value,
                    "best": best[n],
                    "regret": sign * (optimum - best[n]),
                    "fit_seconds": iteration.seconds.get("fit", 0.0),
                    "acquisition_seconds": iteration.seconds.get("acquisition", 0.0),
                }
            )
    return rows


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Final regret (or best value) over seeds: median and quartiles by problem and surrogate.

    Args:
        table: From `compare`.

    Returns:
        One row a problem and surrogate, best median first: regret's median and quartiles, median
        seconds of fit and of acquisition an iteration, and the number of seeds.
    """
    last = table.groupby(["problem", "surrogate", "seed"], sort=False).last().reset_index()
    proposed = table[table["fit_seconds"] > 0]
    groups = last.groupby(["problem", "surrogate"], sort=False)
    levels = {"regret_q25": 0.25, "regret_median": 0.5, "regret_q75": 0.75}
    summary = pd.DataFrame({name: groups["regret"].quantile(q) for name, q in levels.items()})
    seconds = proposed.groupby(["problem", "surrogate"])[["fit_seconds", "acquisition_seconds"]]
    summary = summary.join(seconds.median()).join(groups.size().rename("seeds"))
    return summary.reset_index().sort_values(["problem", "regret_median"], ignore_index=True)
