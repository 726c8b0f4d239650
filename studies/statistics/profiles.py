"""Performance profiles: how many problems a surrogate solves, and how much later than the best.

References: Dolan and Moré (2002), Benchmarking optimization software with performance profiles,
Mathematical Programming 91. Moré and Wild (2009), Benchmarking derivative-free optimization
algorithms, SIAM J. Optim. 20, whose test of convergence, equation (2.2), is the target here.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from studies.statistics.blocks import Blocks


def evaluations_to_target(blocks: Blocks, target: float = 0.1) -> pd.DataFrame:
    """Evaluations after the initial design until the normalized regret is at most `target`.

    Args:
        blocks: Complete blocks.
        target: Share of the initial design's regret, in (0, 1).

    Returns:
        `(problem, seed) x surrogates`; infinite where the budget did not suffice, at least 1.
    """
    table = blocks.final(normalized=True)
    rows = []
    for t in blocks.trajectories:
        reached = t.normalized[:, :, t.n_initial - 1 :] <= target
        first = np.where(reached.any(axis=-1), reached.argmax(axis=-1).astype(float), np.inf)
        rows.append(np.maximum(first, 1.0))
    return pd.DataFrame(np.concatenate(rows) if rows else [], table.index, table.columns)


def performance_profile(blocks: Blocks, target: float = 0.1) -> pd.DataFrame:
    """The share of blocks solved within a factor of the evaluations of the best surrogate there.

    Every problem has the same weight, whatever its number of complete blocks.

    Args:
        blocks: Complete blocks.
        target: Of `evaluations_to_target`.

    Returns:
        One row a factor and surrogate: surrogate, factor >= 1 (where the profile steps up), and
        share of blocks with that factor or less.
    """
    needed = evaluations_to_target(blocks, target)
    if needed.empty:
        return pd.DataFrame(columns=["surrogate", "factor", "share"])
    best = needed.min(axis=1)
    ratio = needed.div(best.where(np.isfinite(best), 1.0), axis=0)
    problem = needed.index.get_level_values("problem")
    weight = 1.0 / (pd.Series(problem).map(pd.Series(problem).value_counts()) * problem.nunique())
    factors = np.unique(np.append(ratio.to_numpy()[np.isfinite(ratio.to_numpy())], 1.0))
    parts = [
        pd.DataFrame(
            {
                "surrogate": name,
                "factor": factors,
                "share": (ratio[name].to_numpy()[:, None] <= factors).T @ weight.to_numpy(),
            }
        )
        for name in needed
    ]
    return pd.concat(parts, ignore_index=True)
