"""Curves over evaluations: scores of one problem, and what is averaged over problems."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from studies.statistics.blocks import Blocks
from studies.statistics.bootstrap import Estimate, Within, hierarchical_bootstrap

STEPS = 50  # of the budget after the initial design


def regret_curves(
    evaluations: pd.DataFrame,
    cells: pd.DataFrame,
    *,
    value: str = "score",
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Median, quartiles and a bootstrap interval of the median over seeds, by evaluation.

    A curve is over the seeds that are done, so that it does not jump where one of them ends; over
    those begun, as far as all of them are, where none is done. The interval is the bootstrap's by
    percentiles. It lies within the range of the seeds, which holds the median of so many as n seeds
    with probability 1 - 2^(1 - n): with five seeds no interval of this kind is surer than 94 %.

    Args:
        evaluations: As of a run; the column `value` may be NaN or infinite.
        cells: As of a run.
        value: The column.
        level: Of the interval, in (0, 1).
        resamples: Bootstrap samples.
        seed: Of the bootstrap.

    Returns:
        One row an evaluation, problem and surrogate, from the end of the initial design on:
        problem, surrogate, evaluation, n_initial, seeds, finished (whether of seeds that are done),
        median, q25, q75, low, high. Values that are NaN count as infinitely bad.
    """
    state = cells[["problem", "surrogate", "seed", "state"]]
    joined = evaluations.merge(state, on=["problem", "surrogate", "seed"])
    parts = []
    for (problem, surrogate), group in joined.groupby(["problem", "surrogate"], sort=False):
        finished = (group["state"] == "done").any()
        mine = group[group["state"] == "done"] if finished else group
        table = mine.pivot(index="seed", columns="evaluation", values=value)
        lengths = mine.groupby("seed")["evaluation"].max()
        if finished:  # where a finite space was exhausted there was nothing left to try
            table = table.ffill(axis=1)
        length = int(lengths.max() if finished else lengths.min())
        n_initial = int(mine["n_initial"].iloc[0])
        every = table.columns.to_numpy(dtype=int)
        kept = every[(every >= min(n_initial, length)) & (every <= length)]
        data = table[list(kept)].to_numpy(dtype=float)
        low, high = median_interval(data, level=level, resamples=resamples, seed=seed)
        q25, median, q75 = quartiles(data)
        parts.append(
            pd.DataFrame(
                {
                    "problem": problem, "surrogate": surrogate, "evaluation": kept,
                    "n_initial": n_initial, "seeds": len(data), "finished": bool(finished),
                    "median": median, "q25": q25, "q75": q75, "low": low, "high": high,
                }
            )
        )  # fmt: skip
    columns = (
        "problem", "surrogate", "evaluation", "n_initial", "seeds", "finished", "median", "q25",
        "q75", "low", "high",
    )  # fmt: skip
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


# What is infinitely bad stands as this, whose interpolation with finite values has a value.
_HUGE, _BEYOND = 1e150, 1e100


def _bounded(data: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(np.where(np.isnan(data), np.inf, data), -_HUGE, _HUGE)


def _unbounded(found: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(found) > _BEYOND, np.copysign(np.inf, found), found)


def quartiles(data: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lower quartile, median and upper quartile over the first axis.

    NaN counts as infinite, and what lies between a finite and an infinite value is infinite.
    """
    return _unbounded(np.asarray(np.quantile(_bounded(data), [0.25, 0.5, 0.75], axis=0)))


def median_interval(
    data: NDArray[np.float64], *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile bootstrap interval of the median over the first axis; NaN of a single value.

    Args:
        data: `seeds x ...`; may be infinite, NaN counts as such.
        level: Of the interval.
        resamples: Bootstrap samples.
        seed: Of the bootstrap.
    """
    if len(data) < 2:
        nothing = np.full(data.shape[1:], np.nan)
        return nothing, nothing
    found = stats.bootstrap(
        (_bounded(data),), np.median, axis=0, confidence_level=level, n_resamples=resamples,
        method="percentile", vectorized=True, batch=100, rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return _unbounded(np.asarray(found.low)), _unbounded(np.asarray(found.high))


def normalized_regret_curves(
    blocks: Blocks,
    *,
    within: Within = "median",
    fixed_problems: bool = False,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Normalized regret (`Trajectories.normalized`) over the share of the budget that is spent.

    The mean over problems of the median over seeds; linear, so that a problem solved to one part in
    a million counts little more than one solved to a hundredth.

    Returns:
        One row a share and surrogate: surrogate, share in [0, 1] of the evaluations after the
        initial design, normalized, low, high.
    """
    shares = np.linspace(0, 1, STEPS + 1)
    groups = [t.normalized[:, :, t.at(shares)] for t in blocks.trajectories]
    return _averaged(
        blocks, groups, "normalized", shares,
        within=within, fixed_problems=fixed_problems, level=level, resamples=resamples, seed=seed,
    )  # fmt: skip


def average_rank_curves(
    blocks: Blocks,
    *,
    fixed_problems: bool = False,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean over problems of the mean over seeds of ranks within blocks, over the share spent.

    Returns:
        One row a share and surrogate: surrogate, share, rank, low, high.
    """
    shares = np.linspace(0, 1, STEPS + 1)
    groups = [
        stats.rankdata(t.scores[:, :, t.at(shares)], axis=1).astype(float)
        for t in blocks.trajectories
    ]
    return _averaged(
        blocks, groups, "rank", shares,
        within="mean", fixed_problems=fixed_problems, level=level, resamples=resamples, seed=seed,
    )  # fmt: skip


def _averaged(
    blocks: Blocks,
    groups: list[NDArray[np.float64]],
    name: str,
    shares: NDArray[np.float64],
    *,
    within: Within,
    fixed_problems: bool,
    level: float,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    columns = ["surrogate", "share", name, "low", "high"]
    if not groups:
        return pd.DataFrame(columns=columns)
    found: Estimate = hierarchical_bootstrap(
        groups, within=within, fixed_problems=fixed_problems, level=level, resamples=resamples,
        seed=seed,
    )  # fmt: skip
    k = len(blocks.surrogates)
    return pd.DataFrame(
        {
            "surrogate": np.repeat(list(blocks.surrogates), len(shares)),
            "share": np.tile(shares, k),
            name: found.value.ravel(),
            "low": found.low.ravel(),
            "high": found.high.ravel(),
        }
    )
