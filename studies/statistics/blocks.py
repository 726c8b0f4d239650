"""What is compared: complete blocks of runs, their scores and normalized regret.

A block is a problem and a seed. Its surrogates start from the same initial design, so they are
compared within it. A block counts once each surrogate has ended there; one that still waits for a
surrogate is left out for all, because to compare runs of different seeds is to compare luck.

A failed cell is no missing value: what failed might have been hard, and to leave it out would
reward failing. It keeps what it had reached, for the rest of the budget; a cell that recorded
nothing has the initial design of its block, which is what its user would be left with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bo_surrogates.errors import InputError

ENDED = ("done", "failed")


@dataclass(frozen=True)
class Trajectories:
    """Scores of the complete blocks of one problem.

    Attributes:
        problem: Its label.
        surrogates: Labels.
        seeds: Of the complete blocks.
        n_initial: Evaluations of the initial design.
        scores: `seeds x surrogates x evaluations`, to be minimized; infinite as long as no feasible
            point was observed.
        optimum_known: Whether the scores are regrets.
    """

    problem: str
    surrogates: tuple[str, ...]
    seeds: tuple[int, ...]
    n_initial: int
    scores: NDArray[np.float64]
    optimum_known: bool

    @property
    def final(self) -> NDArray[np.float64]:
        """`seeds x surrogates` scores at the end of the budget."""
        return self.scores[:, :, -1]

    @property
    def normalized(self) -> NDArray[np.float64]:
        """`seeds x surrogates x evaluations` normalized regret: the share not yet gained.

        (score - lowest) / (initial - lowest), where `initial` is the score of the block's initial
        design and `lowest` is the optimum's, 0, where it is known, and the lowest score of any
        complete block of the problem where it is not. So 1 is the initial design and 0 the optimum;
        a value above 1 is possible where noise misleads. Without a feasible point it is 1; where
        the initial design has none, `initial` is the largest score observed in the block. Where the
        initial design cannot be improved on, it is 0 at the lowest score and 1 above.
        """
        finite = np.isfinite(self.scores)
        known = np.where(finite, self.scores, np.nan)
        if not finite.any():
            return np.ones_like(self.scores)
        lowest = 0.0 if self.optimum_known else np.nanmin(known)
        initial = np.median(self.scores[:, :, self.n_initial - 1], axis=1)
        largest = np.max(np.where(finite, self.scores, -np.inf), axis=(1, 2))
        gap = (np.where(np.isfinite(initial), initial, largest) - lowest)[:, None, None]
        above = known - lowest
        ratio = np.divide(above, gap, out=np.where(above > 0, 1.0, 0.0), where=gap > 0)
        return np.where(finite, ratio, 1.0)

    def at(self, shares: NDArray[np.float64]) -> NDArray[np.intp]:
        """Positions along the evaluations, for shares in [0, 1] of the budget after the design."""
        rest = self.scores.shape[-1] - self.n_initial
        # A share that is a whole number of evaluations but for rounding counts as such.
        return self.n_initial - 1 + np.floor(shares * rest + 1e-9).astype(np.intp)


@dataclass(frozen=True)
class Blocks:
    """The complete blocks of a run, and what is not among them.

    Attributes:
        surrogates: Labels, in the study's order.
        trajectories: A problem each, in the study's order; problems without a complete block are
            left out.
        left_out: One row a block left out: problem, seed, and the reason.
        carried: One row a failed cell that is counted with what it had reached: problem, surrogate,
            seed, evaluations recorded, and the reason of the failure.
    """

    surrogates: tuple[str, ...]
    trajectories: tuple[Trajectories, ...]
    left_out: pd.DataFrame
    carried: pd.DataFrame

    @property
    def problems(self) -> tuple[str, ...]:
        """Labels of the problems that have complete blocks."""
        return tuple(t.problem for t in self.trajectories)

    @property
    def runs(self) -> int:
        """How many complete blocks there are."""
        return sum(len(t.seeds) for t in self.trajectories)

    def medians(self, normalized: bool = False) -> pd.DataFrame:
        """Median over seeds at the end of the budget, `problems x surrogates`."""
        rows = [
            np.median(t.normalized[:, :, -1] if normalized else t.final, axis=0)
            for t in self.trajectories
        ]
        return self._frame(rows, pd.Index(self.problems, name="problem"))

    def final(self, normalized: bool = False) -> pd.DataFrame:
        """What each run ended with, `(problem, seed) x surrogates`."""
        rows = [t.normalized[:, :, -1] if normalized else t.final for t in self.trajectories]
        keys = [(t.problem, seed) for t in self.trajectories for seed in t.seeds]
        index = pd.MultiIndex.from_tuples(keys, names=["problem", "seed"])
        return self._frame([run for problem in rows for run in problem], index)

    def _frame(self, rows: list[NDArray[np.float64]], index: pd.Index) -> pd.DataFrame:
        data = np.array(rows, dtype=float).reshape(len(index), len(self.surrogates))
        return pd.DataFrame(data, index, list(self.surrogates))


def complete_blocks(
    evaluations: pd.DataFrame, cells: pd.DataFrame, surrogates: Sequence[str] | None = None
) -> Blocks:
    """Scores of the blocks in which every surrogate has ended.

    Args:
        evaluations: One row an evaluation: problem, surrogate, seed, evaluation (1, 2, ...),
            n_initial, score (NaN as long as nothing feasible was observed), and regret (NaN where
            the optimum is unknown).
        cells: One row a cell: problem, surrogate, seed, state (done, partial, missing or failed),
            reason.
        surrogates: Only these are compared; all if None.

    Raises:
        InputError: A surrogate that the run does not have.
    """
    have = tuple(dict.fromkeys(cells["surrogate"]))
    chosen = have if surrogates is None else tuple(surrogates)
    if unknown := [s for s in chosen if s not in have]:
        raise InputError(f"no surrogate {unknown[0]!r} in this run; it has {', '.join(have)}")
    recorded = {
        key: group.sort_values("evaluation")
        for key, group in evaluations.groupby(["problem", "seed", "surrogate"], sort=False)
    }
    state = {
        (c.problem, c.seed, c.surrogate): (c.state, c.reason) for c in cells.itertuples(index=False)
    }
    left_out, carried, found = [], [], []
    for problem, group in cells.groupby("problem", sort=False):
        length = _budget(evaluations, group)
        seeds, scores, n_initial = [], [], 0
        for seed in dict.fromkeys(group["seed"]):
            keys = [(problem, seed, s) for s in chosen]
            waiting = [k[2] for k in keys if state.get(k, ("missing", None))[0] not in ENDED]
            start = next((recorded[k] for k in keys if k in recorded), None)
            if waiting or start is None:
                reason = f"waits for {', '.join(waiting)}" if waiting else "nothing was recorded"
                left_out.append({"problem": problem, "seed": seed, "reason": reason})
                continue
            n_initial = int(start["n_initial"].iloc[0])
            for key in keys:
                if state[key][0] == "failed":
                    count = len(recorded.get(key, ()))
                    carried.append((problem, key[2], seed, count, state[key][1]))
            design = start[start["evaluation"] <= n_initial]
            seeds.append(int(seed))
            scores.append([_padded(recorded.get(k, design)["score"], length) for k in keys])
        if seeds:
            known = evaluations.loc[evaluations["problem"] == problem, "regret"].notna().any()
            found.append(
                Trajectories(
                    str(problem), chosen, tuple(seeds), n_initial, np.array(scores), bool(known)
                )
            )
    return Blocks(
        chosen,
        tuple(found),
        pd.DataFrame(left_out, columns=["problem", "seed", "reason"]),
        pd.DataFrame(carried, columns=["problem", "surrogate", "seed", "evaluations", "reason"]),
    )


def _budget(evaluations: pd.DataFrame, cells: pd.DataFrame) -> int:
    """Evaluations of a full run of a problem: all that are done have as many."""
    mine = evaluations[evaluations["problem"] == cells["problem"].iloc[0]]
    done = cells.loc[cells["state"] == "done", ["surrogate", "seed"]]
    full = mine.merge(done, on=["surrogate", "seed"]) if len(done) else mine
    return 0 if full.empty else int(full["evaluation"].max())


def _padded(scores: pd.Series, length: int) -> NDArray[np.float64]:
    values = scores.fillna(np.inf).to_numpy(dtype=float)[:length]
    return np.pad(values, (0, length - len(values)), mode="edge")
