"""How often one surrogate ends better than another."""

from __future__ import annotations

import numpy as np
import pandas as pd

from studies.statistics.blocks import Blocks
from studies.statistics.bootstrap import hierarchical_bootstrap


def probability_of_superiority(
    blocks: Blocks,
    *,
    fixed_problems: bool = False,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """The probability that a beats b on a problem drawn from these and a new seed.

    Runs are paired by problem and seed; a tie counts one half. The estimate is the mean over
    problems, each with the same weight, of the share of seeds in which the score of a ended below
    that of b.

    Args:
        blocks: Complete blocks.
        fixed_problems: Make the interval one for these very problems, not for problems like these.
        level: Of the interval.
        resamples: Bootstrap samples.
        seed: Of the bootstrap.

    Returns:
        One row an ordered pair: a, b, probability, low, high, and wins, ties and losses in runs.
        Nothing where there are no complete blocks.
    """
    columns = ["a", "b", "probability", "low", "high", "wins", "ties", "losses"]
    if not blocks.trajectories:
        return pd.DataFrame(columns=columns)
    groups = []
    for t in blocks.trajectories:
        a, b = t.final[:, :, None], t.final[:, None, :]
        groups.append((a < b) + 0.5 * (a == b))
    found = hierarchical_bootstrap(
        groups, fixed_problems=fixed_problems, level=level, resamples=resamples, seed=seed
    )
    every = np.concatenate(groups)
    rows = [
        (
            a, b, found.value[i, j], found.low[i, j], found.high[i, j],
            *(int((every[:, i, j] == outcome).sum()) for outcome in (1.0, 0.5, 0.0)),
        )
        for i, a in enumerate(blocks.surrogates)
        for j, b in enumerate(blocks.surrogates)
        if i != j
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)
