"""Statistics of comparison studies: pure functions of the frames that a run is loaded as.

What is compared are complete blocks (`blocks.py`): a problem and a seed, whose initial design all
surrogates share. Intervals of aggregates resample problems, then seeds (`bootstrap.py`); tests are
SciPy's and scikit-posthocs' (`ranks.py`).
"""

from studies.statistics.blocks import Blocks, Trajectories, complete_blocks
from studies.statistics.bootstrap import Estimate, hierarchical_bootstrap
from studies.statistics.calibration import PITHistogram, coverage, pit_histogram, predictive_scores
from studies.statistics.cost import cost_per_iteration, regret_against_seconds
from studies.statistics.curves import average_rank_curves, normalized_regret_curves, regret_curves
from studies.statistics.profiles import evaluations_to_target, performance_profile
from studies.statistics.ranks import RankComparison, compare_ranks, ranking_dependence
from studies.statistics.superiority import probability_of_superiority

__all__ = [
    "Blocks", "Estimate", "PITHistogram", "RankComparison", "Trajectories", "average_rank_curves",
    "compare_ranks", "complete_blocks", "cost_per_iteration", "coverage", "evaluations_to_target",
    "hierarchical_bootstrap", "normalized_regret_curves", "performance_profile", "pit_histogram",
    "predictive_scores", "probability_of_superiority", "ranking_dependence",
    "regret_against_seconds", "regret_curves",
]  # fmt: skip
