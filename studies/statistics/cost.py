"""What quality costs: seconds an iteration, and regret against wall-clock time."""

from __future__ import annotations

import numpy as np
import pandas as pd

from studies.statistics.bootstrap import hierarchical_bootstrap
from studies.statistics.curves import median_interval, quartiles

POINTS = 80  # of a curve against time
LEAST = 1e-6  # seconds: what takes less has no logarithm worth averaging, and is shown as 0


def cost_per_iteration(
    iterations: pd.DataFrame, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Seconds of fit and acquisition an iteration: geometric mean over problems.

    Of the medians over iterations of each run, and of those the median over seeds. The interval
    resamples seeds within these problems. Only what ran side by side on one machine compares.

    Returns:
        One row a surrogate: surrogate, seconds, low, high, fit_seconds, acquisition_seconds (both
        geometric means likewise), cpu_seconds (of whole iterations, likewise: where other work ran
        on the machine, these compare better), overhead (share of an iteration that is neither fit,
        acquisition nor evaluation), peak_memory_mb.
    """
    rows = []
    total = iterations.assign(total=iterations["fit_seconds"] + iterations["acquisition_seconds"])
    names = ["total", "fit_seconds", "acquisition_seconds", "cpu_seconds"]
    for surrogate, mine in total.groupby("surrogate", sort=False):
        runs = mine.groupby(["problem", "seed"], sort=False)[names].median().clip(lower=LEAST)
        groups = [np.log(g.to_numpy()) for _, g in runs.groupby(level=0, sort=False)]
        found = hierarchical_bootstrap(
            groups, within="median", fixed_problems=True, level=level, resamples=resamples,
            seed=seed,
        )  # fmt: skip
        spent = mine[["total", "evaluation_seconds", "overhead_seconds"]].sum()
        rows.append(
            {
                "surrogate": surrogate,
                "seconds": np.exp(found.value[0]),
                "low": np.exp(found.low[0]),
                "high": np.exp(found.high[0]),
                "fit_seconds": _seconds(found.value[1]),
                "acquisition_seconds": _seconds(found.value[2]),
                "cpu_seconds": _seconds(found.value[3]),
                "overhead": spent["overhead_seconds"] / max(spent.sum(), 1e-9),
                "peak_memory_mb": mine["peak_memory_mb"].max(),
            }
        )
    columns = (
        "surrogate", "seconds", "low", "high", "fit_seconds", "acquisition_seconds", "cpu_seconds",
        "overhead", "peak_memory_mb",
    )  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _seconds(logarithm: float) -> float:
    seconds = float(np.exp(logarithm))
    return seconds if seconds > LEAST * (1 + 1e-9) else 0.0


def regret_against_seconds(
    evaluations: pd.DataFrame,
    cells: pd.DataFrame,
    *,
    value: str = "score",
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Median over finished seeds of what had been reached after so many seconds.

    Seconds are those of fits, acquisition and evaluations. A curve begins when all seeds have their
    initial design, and ends when half of them have ended; those that ended earlier stand where they
    ended.

    Returns:
        One row a time, problem and surrogate: problem, surrogate, seconds, seeds, median, q25, q75,
        low, high. Surrogates without a finished run on a problem are left out there.
    """
    done = cells.loc[cells["state"] == "done", ["problem", "surrogate", "seed"]]
    joined = evaluations.merge(done, on=["problem", "surrogate", "seed"])
    parts = []
    for (problem, surrogate), mine in joined.groupby(["problem", "surrogate"], sort=False):
        runs = [g.sort_values("evaluation") for _, g in mine.groupby("seed", sort=False)]
        first = max(g.loc[g["iteration"] == 0, "seconds"].max() for g in runs)
        last = np.median([g["seconds"].iloc[-1] for g in runs])
        later = mine.loc[mine["iteration"] > 0, "seconds"]
        first = max(first, float(later.min()) / 2) if len(later) else first  # time 0 has no log
        if not 0 < first < last:
            continue
        times = np.geomspace(first, last, POINTS)
        data = np.array(
            [
                g[value].to_numpy(dtype=float)[
                    np.searchsorted(g["seconds"].to_numpy(), times * (1 + 1e-12), "right") - 1
                ]
                for g in runs
            ]
        )
        low, high = median_interval(data, level=level, resamples=resamples, seed=seed)
        q25, median, q75 = quartiles(data)
        parts.append(
            pd.DataFrame(
                {
                    "problem": problem, "surrogate": surrogate, "seconds": times,
                    "seeds": len(runs), "median": median, "q25": q25, "q75": q75, "low": low,
                    "high": high,
                }
            )
        )  # fmt: skip
    columns = ("problem", "surrogate", "seconds", "seeds", "median", "q25", "q75", "low", "high")
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
