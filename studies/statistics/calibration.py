"""Were the predictions right: coverage of central intervals, and probability integral transforms.

Each prediction is of a batch before it was observed. A predicted outcome's transform (PIT) is the
predictive distribution function at what was observed; of a calibrated surrogate it is uniform, and
a central interval of probability p holds the observation where |PIT - 1/2| <= p/2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from studies.statistics.bootstrap import hierarchical_bootstrap


def coverage(
    pit: pd.DataFrame,
    levels: Sequence[float] = (0.5, 0.9),
    *,
    fixed_problems: bool = True,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """The share of observations within central predictive intervals.

    The mean over problems of the mean over runs. Predictions of one run are of nearly the same
    model on nearly the same data, hence far from independent: a binomial interval that counts them
    one by one is too narrow. The interval resamples whole runs instead; the binomial one (Wilson's)
    stands beside it, as the least that the uncertainty can be.

    Args:
        pit: One row a predicted outcome: problem, surrogate, seed, pit in [0, 1].
        levels: Probabilities of the intervals, in (0, 1).
        fixed_problems: Resample runs within these problems; else problems too.
        confidence: Of the intervals.
        resamples: Bootstrap samples.
        seed: Of the bootstrap.

    Returns:
        One row a surrogate and level: surrogate, level, coverage, low, high, binomial_low,
        binomial_high, predictions, runs. Without a bootstrap interval (NaN) where there is one run
        a problem.
    """
    rows = []
    for surrogate, mine in pit.dropna(subset=["pit"]).groupby("surrogate", sort=False):
        distance = (mine["pit"] - 0.5).abs().to_numpy()
        # One part in 10^12 is rounding, where a PIT stands on the end of an interval.
        inside = distance[:, None] <= np.array(levels) / 2 + 1e-12
        runs = (
            pd.DataFrame(inside, index=[mine["problem"], mine["seed"]])
            .groupby(level=[0, 1], sort=False)
            .mean()
        )
        groups = [g.to_numpy(dtype=float) for _, g in runs.groupby(level=0, sort=False)]
        found = hierarchical_bootstrap(
            groups, fixed_problems=fixed_problems, level=confidence, resamples=resamples, seed=seed
        )
        single = all(len(g) == 1 for g in groups) and (fixed_problems or len(groups) == 1)
        for k, level in enumerate(levels):
            binomial = stats.binomtest(int(inside[:, k].sum()), len(mine)).proportion_ci(
                confidence, method="wilson"
            )
            rows.append(
                {
                    "surrogate": surrogate, "level": level, "coverage": found.value[k],
                    "low": np.nan if single else found.low[k],
                    "high": np.nan if single else found.high[k],
                    "binomial_low": binomial.low, "binomial_high": binomial.high,
                    "predictions": len(mine), "runs": len(runs),
                }
            )  # fmt: skip
    columns = (
        "surrogate", "level", "coverage", "low", "high", "binomial_low", "binomial_high",
        "predictions", "runs",
    )  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True)
class PITHistogram:
    """Counts of probability integral transforms, as densities.

    Attributes:
        edges: Of the bins, from 0 to 1.
        density: By bin; 1 for a calibrated surrogate.
        low: Lower end of the band of a calibrated surrogate.
        high: Upper end.
        predictions: How many transforms.
    """

    edges: NDArray[np.float64]
    density: NDArray[np.float64]
    low: float
    high: float
    predictions: int


def pit_histogram(
    pit: Sequence[float] | NDArray[np.float64], bins: int = 10, confidence: float = 0.95
) -> PITHistogram:
    """A histogram with the band that holds all bins at once if the transforms are uniform.

    The band is binomial, by Šidák's level for each bin. It takes predictions as independent; those
    of one run are not, so a histogram that leaves it by little is no proof.

    Args:
        pit: In [0, 1]; NaN is left out.
        bins: Of equal width.
        confidence: That all bins are within the band.
    """
    values = np.asarray(pit, dtype=float)
    values = values[~np.isnan(values)]
    counts, edges = np.histogram(values, bins=bins, range=(0.0, 1.0))
    count = max(len(values), 1)
    tail = (1 - confidence ** (1 / bins)) / 2
    law = stats.binom(count, 1 / bins)
    scale = bins / count
    low, high = float(law.ppf(tail)) * scale, float(law.ppf(1 - tail)) * scale
    return PITHistogram(edges, counts * scale, low, high, len(values))


def predictive_scores(iterations: pd.DataFrame) -> pd.DataFrame:
    """Negative log predictive density and CRPS, one step ahead, in standardized units.

    The mean over problems of the median over iterations: a single observation far outside of all
    predictions would decide a mean.

    Returns:
        One row a surrogate: surrogate, nlpd, crps.
    """
    names = ["nlpd", "crps"]
    of = iterations.groupby(["surrogate", "problem"], sort=False)[names].median()
    return of.groupby(level="surrogate", sort=False).mean().reset_index()
