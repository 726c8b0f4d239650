"""All statistics of a run that its report shows, computed once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from studies.results import Results
from studies.statistics import (
    Blocks,
    RankComparison,
    average_rank_curves,
    compare_ranks,
    complete_blocks,
    cost_per_iteration,
    coverage,
    normalized_regret_curves,
    performance_profile,
    predictive_scores,
    probability_of_superiority,
    ranking_dependence,
    regret_against_seconds,
    regret_curves,
)
from studies.statistics.ranks import RankingDependence

TARGETS = (0.1, 0.01)  # normalized regret at which a problem counts as solved


@dataclass(frozen=True)
class Analysis:
    """What the data say.

    Attributes:
        results: Of the run.
        blocks: The complete ones.
        by_problem: Ranks with problems as the unit; None with one surrogate or no complete block.
        by_run: Ranks with runs as the unit.
        dependence: Of the ranking on the problem; None where there is too little to say.
        superiority: By pair.
        curves: Of each problem, over evaluations.
        timed: Of each problem, over seconds.
        normalized: Over problems.
        ranks: Over problems.
        profiles: By target.
        coverage: Of predictive intervals.
        scores: NLPD and CRPS.
        cost: Seconds an iteration.
    """

    results: Results
    blocks: Blocks
    by_problem: RankComparison | None
    by_run: RankComparison | None
    dependence: RankingDependence | None
    superiority: pd.DataFrame
    curves: pd.DataFrame
    timed: pd.DataFrame
    normalized: pd.DataFrame
    ranks: pd.DataFrame
    profiles: dict[float, pd.DataFrame]
    coverage: pd.DataFrame
    scores: pd.DataFrame
    cost: pd.DataFrame

    @property
    def surrogates(self) -> tuple[str, ...]:
        """Labels, in the study's order."""
        return tuple(s.label for s in self.results.study.surrogates)

    @property
    def problems(self) -> tuple[str, ...]:
        """Labels, in the study's order."""
        return tuple(p.label for p in self.results.study.problems)

    @property
    def main(self) -> RankComparison | None:
        """The ranks that the answer is about: over problems, where there are several."""
        return self.by_problem if len(self.blocks.problems) > 1 else self.by_run

    @property
    def order(self) -> tuple[str, ...]:
        """Labels, the best first; in the study's order where nothing is ranked."""
        return self.surrogates if self.main is None else tuple(self.main.average.index)

    @property
    def unfinished(self) -> pd.DataFrame:
        """The cells that have not ended."""
        cells = self.results.cells
        return cells[cells["state"].isin(["partial", "missing"])]

    def value_name(self, problem: str) -> str:
        """What curves of a problem show."""
        facts = self.results.facts[problem]
        if len(facts.signs) > 1:
            return "hypervolume" if facts.max_hypervolume is None else "hypervolume regret"
        if facts.optimum is not None:
            return "regret"
        return f"best value ({'maximize' if facts.signs[0] > 0 else 'minimize'})"

    def value_sign(self, problem: str) -> float:
        """What scores are multiplied by to be what curves show."""
        facts = self.results.facts[problem]
        if len(facts.signs) > 1:
            return 1.0 if facts.max_hypervolume is not None else -1.0
        return 1.0 if facts.optimum is not None else -facts.signs[0]


def rows_of(frame: pd.DataFrame) -> Iterator[Any]:
    """Rows as named tuples."""
    return frame.itertuples(index=False)


def analyse(results: Results, *, seed: int = 0) -> Analysis:
    """Compute all statistics of a run.

    Args:
        results: With one evaluation at least.
        seed: Of bootstraps and permutations.
    """
    blocks = complete_blocks(results.evaluations, results.cells)
    several = len(blocks.problems) > 1
    # Of one problem nothing can be said about others: intervals are then over its seeds.
    return Analysis(
        results=results,
        blocks=blocks,
        by_problem=compare_ranks(blocks, unit="problem", seed=seed) if several else None,
        by_run=compare_ranks(blocks, unit="run", seed=seed),
        dependence=ranking_dependence(blocks, seed=seed),
        superiority=probability_of_superiority(blocks, seed=seed),
        curves=regret_curves(results.evaluations, results.cells, seed=seed),
        timed=regret_against_seconds(results.evaluations, results.cells, seed=seed),
        normalized=normalized_regret_curves(blocks, seed=seed),
        ranks=average_rank_curves(blocks, seed=seed),
        profiles={t: performance_profile(blocks, t) for t in TARGETS},
        coverage=coverage(results.pit, seed=seed),
        scores=predictive_scores(results.iterations),
        cost=cost_per_iteration(results.iterations, seed=seed),
    )
