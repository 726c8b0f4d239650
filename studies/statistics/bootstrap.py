"""Intervals of averages over problems: problems are resampled, then seeds within each.

Seeds of one problem say how surely its value is known, not what another problem would give; an
interval that resamples all runs alike takes ten seeds of one problem for ten problems. Resampling
at both levels (Davison and Hinkley, 1997, section 3.8) gives an interval of the average over
problems like these. With fewer than about ten problems it is too narrow, as every bootstrap of so
few is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bo_surrogates.errors import InputError

Within = Literal["mean", "median"]


@dataclass(frozen=True)
class Estimate:
    """A statistic and its percentile interval, arrays of one shape.

    Attributes:
        value: Of the data.
        low: Lower end.
        high: Upper end.
    """

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def hierarchical_bootstrap(
    groups: Sequence[NDArray[np.float64]],
    *,
    within: Within = "mean",
    fixed_problems: bool = False,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """The mean over problems of a mean or median over seeds, with a bootstrap interval.

    Args:
        groups: A problem each, `seeds x ...`; the number of seeds may differ.
        within: What is taken over the seeds of a problem.
        fixed_problems: Resample seeds only: an interval of the average over these very problems.
        level: Of the interval, in (0, 1).
        resamples: Bootstrap samples, >= 1.
        seed: Of the resampling.

    Raises:
        InputError: No problem, or a problem without seeds.
    """
    if not groups or any(len(g) == 0 for g in groups):
        raise InputError("a bootstrap over problems needs one problem at least, each with a seed")
    reduce = np.mean if within == "mean" else np.median
    rng = np.random.default_rng(seed)
    total = np.zeros((resamples, *groups[0].shape[1:]))
    for slot in range(len(groups)):
        of = rng.integers(len(groups), size=resamples)
        chosen = np.full(resamples, slot) if fixed_problems else of
        for which, group in enumerate(groups):
            mine = np.flatnonzero(chosen == which)
            picked = rng.integers(len(group), size=(len(mine), len(group)))
            # In pieces: curves of many surrogates need much memory at once.
            for part in np.array_split(np.arange(len(mine)), -(-len(mine) // 250) or 1):
                total[mine[part]] += reduce(group[picked[part]], axis=1)
    draws = total / len(groups)
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    value = np.mean([reduce(g, axis=0) for g in groups], axis=0)
    return Estimate(value, low, high)
