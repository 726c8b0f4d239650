"""The tables of a report, as data frames: written as CSV, some of them shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from reports.study.analysis import Analysis, rows_of
from studies.statistics import RankComparison


def all_tables(analysis: Analysis) -> dict[str, pd.DataFrame]:
    """By file name without the ending."""
    results = analysis.results
    tables = {
        "summary": summary(analysis),
        "problems": by_problem(analysis),
        "pairs": pairs(analysis),
        "convergence": analysis.curves,
        "seconds": analysis.timed,
        "normalized_regret": analysis.normalized,
        "average_rank": analysis.ranks,
        "performance_profiles": pd.concat(
            [p.assign(target=t) for t, p in analysis.profiles.items()], ignore_index=True
        ),
        "coverage": analysis.coverage,
        "pit": results.pit,
        "cells": results.cells,
        "failed_fits": failed_fits(analysis),
        "left_out": analysis.blocks.left_out,
        "carried_forward": analysis.blocks.carried,
        "diagnostics": diagnostics(analysis),
    }
    for comparison in (analysis.by_problem, analysis.by_run):
        if comparison is not None:
            tables[f"ranks_by_{comparison.unit}"] = comparison.ranks.reset_index()
    return tables


def summary(analysis: Analysis) -> pd.DataFrame:
    """One row a surrogate, the best first: rank, normalized regret, calibration, cost, failures."""
    table = pd.DataFrame({"surrogate": analysis.order}).set_index("surrogate")
    if analysis.main is not None:
        table["average_rank"] = analysis.main.average
    last = analysis.normalized[analysis.normalized["share"] == 1].set_index("surrogate")
    for name in ("normalized", "low", "high"):
        table["normalized_regret" + ("" if name == "normalized" else f"_{name}")] = last[name]
    levels = analysis.coverage.set_index(["surrogate", "level"])["coverage"].unstack("level")
    for level in levels:
        table[f"coverage_{100 * float(str(level)):g}"] = levels[level]
    table = table.join(analysis.scores.set_index("surrogate"))
    cost = analysis.cost.set_index("surrogate")
    names = [
        "seconds", "fit_seconds", "acquisition_seconds", "cpu_seconds", "overhead",
        "peak_memory_mb",
    ]  # fmt: skip
    table = table.join(cost[names].rename(columns={"seconds": "seconds_an_iteration"}))
    steps = analysis.results.iterations
    table["failed_fits"] = steps.groupby("surrogate")["failed"].count()
    cells = analysis.results.cells
    table["failed_runs"] = (cells["state"] == "failed").groupby(cells["surrogate"]).sum()
    return table.reset_index()


def by_problem(analysis: Analysis) -> pd.DataFrame:
    """One row a problem and surrogate: where runs ended, by medians and quartiles over seeds."""
    last = analysis.curves.groupby(["problem", "surrogate"], sort=False).last().reset_index()
    rows: list[dict[str, Any]] = []
    inferred = _inferred(analysis)
    for one in rows_of(last):
        problem, surrogate = str(one.problem), str(one.surrogate)
        sign = analysis.value_sign(problem)
        ends = {"median": one.median, "q25": one.q25, "q75": one.q75, "low": one.low,
                "high": one.high}  # fmt: skip
        if sign < 0:
            ends = {
                "median": -one.median, "q25": -one.q75, "q75": -one.q25, "low": -one.high,
                "high": -one.low,
            }  # fmt: skip
        rows.append(
            {
                "problem": problem,
                "surrogate": surrogate,
                "value": analysis.value_name(problem),
                **ends,
                "inferred_regret": inferred.get((problem, surrogate)),
                "evaluations": one.evaluation,
                "seeds": one.seeds,
                "finished": one.finished,
            }
        )
    table = pd.DataFrame(rows)
    scores = last.set_index(["problem", "surrogate"])["median"]
    table["rank"] = scores.groupby(level="problem", sort=False).rank().to_numpy()
    return table


def _inferred(analysis: Analysis) -> Mapping[tuple[str, str], float]:
    """Median regret of the points that the surrogates would recommend."""
    runs = analysis.results.evaluations
    last = runs.groupby(["problem", "surrogate", "seed"], sort=False)["inferred_regret"].last()
    done = analysis.results.cells.query("state == 'done'").set_index(
        ["problem", "surrogate", "seed"]
    )
    found = last[last.index.isin(done.index)].groupby(level=[0, 1], sort=False).median().dropna()
    return dict(zip(found.index.to_list(), found.to_list(), strict=True))


def pairs(analysis: Analysis) -> pd.DataFrame:
    """One row an ordered pair: probability of superiority, and p-values by unit of the tests."""
    table = analysis.superiority
    for comparison in (analysis.by_problem, analysis.by_run):
        if comparison is None:
            continue
        for name in ("nemenyi", "wilcoxon"):
            values = getattr(comparison, name)
            table = table.assign(
                **{
                    f"{name}_p_by_{comparison.unit}": [
                        values.loc[a, b] for a, b in zip(table["a"], table["b"], strict=True)
                    ]
                }
            )
    return table


def failed_fits(analysis: Analysis) -> pd.DataFrame:
    """One row a surrogate, problem and reason: how many fits failed."""
    steps = analysis.results.iterations
    bad = steps[steps["failed"].notna()]
    counts = bad.groupby(["surrogate", "problem", "failed"], sort=False).size()
    return counts.rename("fits").reset_index().rename(columns={"failed": "reason"})


def diagnostics(analysis: Analysis) -> pd.DataFrame:
    """One row a surrogate and diagnostic: quartiles over all fits."""
    rows = [
        (one.surrogate, name, float(value))
        for one in rows_of(analysis.results.iterations)
        for name, value in (one.diagnostics or {}).items()
        if isinstance(value, int | float)
    ]
    long = pd.DataFrame(rows, columns=["surrogate", "diagnostic", "value"])
    groups = long.groupby(["surrogate", "diagnostic"], sort=False)["value"]
    quantiles = {"median": 0.5, "q25": 0.25, "q75": 0.75}
    table = pd.DataFrame({name: groups.quantile(q) for name, q in quantiles.items()})
    return table.assign(least=groups.min(), largest=groups.max()).reset_index()


def rank_tests(comparison: RankComparison) -> pd.DataFrame:
    """Nemenyi's p-values above the diagonal, Wilcoxon's below, the best surrogate first."""
    order = list(comparison.average.index)
    upper = comparison.nemenyi.loc[order, order]
    lower = comparison.wilcoxon.loc[order, order]
    table = upper.copy()
    for i, a in enumerate(order):
        for j, b in enumerate(order):
            table.loc[a, b] = float("nan") if i == j else (upper if i < j else lower).loc[a, b]
    return table
