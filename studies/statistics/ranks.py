"""Average ranks and their tests: Friedman, Nemenyi, Wilcoxon with Holm's correction.

The unit of a test decides what it is about. With `unit="problem"` a block is a problem, its value
the median over seeds: the question is whether surrogates differ over problems like these, and as
many problems as there are is how much is known about it. With `unit="run"` a block is a problem and
a seed: under the hypothesis that on each of these problems all surrogates are alike, ranks within
every such block are exchangeable and blocks independent, so the test is valid, but what it finds
holds for these problems and says nothing of others.

References: Demšar (2006), Statistical comparisons of classifiers over multiple data sets, JMLR 7.
Benavoli, Corani and Mangili (2016), Should we really use post-hoc tests based on mean-ranks?, JMLR
17: why Wilcoxon's test, which does not depend on the other surrogates, stands beside Nemenyi's.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from studies.statistics.blocks import Blocks

Unit = Literal["problem", "run"]


@dataclass(frozen=True)
class RankComparison:
    """Ranks of surrogates over blocks, and whether they differ by more than chance.

    Attributes:
        unit: What a block is.
        ranks: `blocks x surrogates`, 1 the best, ties at their mean.
        average: Mean rank by surrogate, the best first.
        friedman: Friedman's statistic, corrected for ties; NaN with fewer than three surrogates.
        p_value: Of the hypothesis that all surrogates are alike, by permuting ranks within blocks:
            exact where there are at most `resamples` permutations, else by as many random ones
            (the chi-square approximation is poor for few blocks).
        concordance: Kendall's W in [0, 1]: 1 if all blocks rank alike.
        nemenyi: p-values of Nemenyi's test, surrogates x surrogates; NaN with fewer than two
            blocks.
        wilcoxon: p-values of Wilcoxon's signed-rank test on normalized regret, by Holm's method for
            all pairs; NaN likewise.
        critical_difference: Of mean ranks, by Nemenyi's test; NaN likewise.
        alpha: Level of the tests.
        least_wilcoxon: The smallest p-value that the corrected Wilcoxon test can give with so many
            blocks and surrogates.
    """

    unit: Unit
    ranks: pd.DataFrame
    average: pd.Series
    friedman: float
    p_value: float
    concordance: float
    nemenyi: pd.DataFrame
    wilcoxon: pd.DataFrame
    critical_difference: float
    alpha: float
    least_wilcoxon: float

    @property
    def nemenyi_can_tell(self) -> bool:
        """Whether ranks could differ by more than the critical difference at all."""
        return bool(self.critical_difference <= len(self.average) - 1)

    @property
    def wilcoxon_can_tell(self) -> bool:
        """Whether any difference could be significant by the corrected Wilcoxon test at all."""
        return self.least_wilcoxon <= self.alpha


def compare_ranks(
    blocks: Blocks,
    *,
    unit: Unit = "problem",
    alpha: float = 0.05,
    resamples: int = 9999,
    seed: int = 0,
) -> RankComparison | None:
    """Rank surrogates within blocks by their final score, and test the ranks.

    Args:
        blocks: Complete blocks.
        unit: What a block of the tests is.
        alpha: Level of the tests, in (0, 1).
        resamples: Permutations of Friedman's test.
        seed: Of the permutations.

    Returns:
        None with fewer than two surrogates, or without a complete block.
    """
    by_problem = unit == "problem"
    scores = blocks.medians() if by_problem else blocks.final()
    normalized = blocks.medians(normalized=True) if by_problem else blocks.final(normalized=True)
    count, k = scores.shape
    if k < 2 or count < 1:
        return None
    ranks = scores.rank(axis=1)
    names = list(scores.columns)
    unknown = pd.DataFrame(np.nan, index=names, columns=names)
    pairs = k * (k - 1) // 2
    return RankComparison(
        unit=unit,
        ranks=ranks,
        average=ranks.mean().sort_values(kind="stable"),
        friedman=_friedman(ranks),
        p_value=friedman_permutation_test(ranks, resamples, seed),
        concordance=_concordance(ranks),
        nemenyi=_nemenyi(ranks) if count > 1 else unknown,
        wilcoxon=_wilcoxon(normalized) if count > 1 else unknown,
        critical_difference=_critical_difference(count, k, alpha) if count > 1 else float("nan"),
        alpha=alpha,
        least_wilcoxon=min(1.0, pairs * 2.0 ** (1 - count)),
    )


def _friedman(ranks: pd.DataFrame) -> float:
    if ranks.shape[1] < 3 or _tied(ranks):
        return float("nan")
    return float(stats.friedmanchisquare(*ranks.to_numpy().T).statistic)


def _tied(ranks: pd.DataFrame) -> bool:
    """Whether every block holds the same value throughout."""
    return bool((ranks.nunique(axis=1) == 1).all())


def _spread(*ranks: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Sum of squared rank sums: Friedman's statistic but for what permuting leaves alone."""
    sums = np.stack([r.sum(axis=axis) for r in ranks])
    return (sums**2).sum(axis=0)


def friedman_permutation_test(ranks: pd.DataFrame, resamples: int = 9999, seed: int = 0) -> float:
    """The p-value of Friedman's test by permuting ranks within blocks; of two surrogates, the sign
    test's.

    Args:
        ranks: `blocks x surrogates`.
        resamples: Permutations; all of them where there are no more.
        seed: Of the permutations.
    """
    if len(ranks) < 2 or _tied(ranks):
        return 1.0
    statistic: Any = _spread
    result = stats.permutation_test(
        tuple(ranks.to_numpy().T), statistic, permutation_type="samples", vectorized=True,
        alternative="greater", n_resamples=resamples, batch=1000,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(result.pvalue)


def _concordance(ranks: pd.DataFrame) -> float:
    """Kendall's W, corrected for ties (Siegel and Castellan, 1988, section 9.4)."""
    count, k = ranks.shape
    sums = ranks.sum()
    ties = sum(
        ((c**3 - c).sum() for c in (np.unique(row, return_counts=True)[1] for row in ranks.values)),
        0.0,
    )
    most = count**2 * (k**3 - k) - count * ties
    return float(12 * ((sums - sums.mean()) ** 2).sum() / most) if most > 0 else float("nan")


def _nemenyi(ranks: pd.DataFrame) -> pd.DataFrame:
    from scikit_posthocs import posthoc_nemenyi_friedman

    found = posthoc_nemenyi_friedman(ranks.to_numpy())
    return pd.DataFrame(found.to_numpy(), index=ranks.columns, columns=ranks.columns)


def _critical_difference(count: int, k: int, alpha: float) -> float:
    quantile = float(stats.studentized_range.isf(alpha, k, np.inf))
    return quantile / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * count))


def _wilcoxon(normalized: pd.DataFrame) -> pd.DataFrame:
    """Holm-corrected p-values; surrogates that never differ have 1."""
    from scikit_posthocs import posthoc_wilcoxon
    from statsmodels.stats.multitest import multipletests

    names = list(normalized.columns)
    long = normalized.melt(var_name="surrogate", value_name="score")
    with warnings.catch_warnings():
        # Pairs that are equal in all blocks divide zero by zero; their p-value is 1 below.
        warnings.simplefilter("ignore", RuntimeWarning)
        raw = posthoc_wilcoxon(long, val_col="score", group_col="surrogate").fillna(1.0)
    pairs = list(combinations(range(len(names)), 2))
    values = raw.loc[names, names].to_numpy(copy=True)
    corrected = multipletests([values[i, j] for i, j in pairs], method="holm")[1]
    for (i, j), p in zip(pairs, corrected, strict=True):
        values[i, j] = values[j, i] = p
    return pd.DataFrame(values, index=names, columns=names)


@dataclass(frozen=True)
class RankingDependence:
    """Whether the ranking depends on the problem.

    Attributes:
        within: Mean rank correlation of two seeds of the same problem.
        between: Mean rank correlation of two runs of different problems.
        p_value: Of the hypothesis that the ranking does not depend on the problem.
    """

    within: float
    between: float
    p_value: float


def ranking_dependence(
    blocks: Blocks, *, resamples: int = 9999, seed: int = 0
) -> RankingDependence | None:
    """Compare how alike rankings are within problems and between them.

    Were the ranking the same on all problems, rankings of two seeds of one problem would be no more
    alike than those of two problems, and which problem a run belongs to could be permuted. The
    statistic is the difference of the two mean correlations of ranks (Spearman's).

    Returns:
        None with fewer than two surrogates or problems, or without two seeds of a problem.
    """
    if len(blocks.surrogates) < 2:
        return None
    final = blocks.final()
    ranks = stats.rankdata(final.to_numpy(), axis=1)
    labels = np.unique(final.index.get_level_values("problem"), return_inverse=True)[1]
    upper = np.triu_indices(len(labels), 1)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1)
    similar = (centred @ centred.T)[upper]
    # All tied: no ranking to agree with, as far from one order as from its reverse.
    scale = np.outer(norm, norm)[upper]
    similar = np.divide(similar, scale, out=np.zeros_like(similar), where=scale > 0).round(12)

    def difference(label: NDArray[np.intp], axis: int = -1) -> Any:
        first, second = np.take(label, upper[0], axis), np.take(label, upper[1], axis)
        same = first == second
        inside = same.sum(axis=axis)
        total = (similar * same).sum(axis=axis)
        return total / inside - (similar.sum() - total) / (len(similar) - inside)

    same = labels[upper[0]] == labels[upper[1]]
    if not same.any() or same.all():
        return None
    result = stats.permutation_test(
        (labels,), difference, permutation_type="pairings", vectorized=True,
        alternative="greater", n_resamples=resamples, batch=500, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return RankingDependence(
        float(similar[same].mean()), float(similar[~same].mean()), float(result.pvalue)
    )
