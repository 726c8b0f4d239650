"""What a run has reached after each evaluation: best value, hypervolume, recommendation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from botorch.utils.multi_objective.hypervolume import Hypervolume
from botorch.utils.multi_objective.pareto import is_non_dominated
from torch import Tensor

from bo_surrogates.objective import Objective, OutcomeConstraint
from problems import PROBLEMS
from problems.base import Problem
from studies.study import ProblemArm


@dataclass(frozen=True)
class Facts:
    """What is known of a problem, for readers of its runs.

    Attributes:
        metrics: Names of the outcomes.
        signs: Of each objective: 1 to maximize, -1 to minimize.
        objectives: Their names.
        constraints: As text.
        dim: Number of inputs.
        optimum: Best known value of a single objective.
        max_hypervolume: Largest known hypervolume of several objectives.
        noisy: Whether observations are.
        noiseless_known: Whether the noise-free value of an observed point is recorded.
    """

    metrics: tuple[str, ...]
    signs: tuple[float, ...]
    objectives: tuple[str, ...]
    constraints: tuple[str, ...]
    dim: int
    optimum: float | None
    max_hypervolume: float | None
    noisy: bool
    noiseless_known: bool

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From plain data, where tuples are lists."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**plain)

    @classmethod
    def of(cls, arm: ProblemArm, problem: Problem) -> Self:
        """The facts of a problem that the arm made."""
        entry = PROBLEMS[arm.problem]
        noise = problem.noise_std
        added = any(noise) if isinstance(noise, list) else bool(noise)
        noisy = added or "noisy" in entry.tags
        return cls(
            metrics=tuple(problem.metrics),
            signs=tuple(o.sign for o in problem.objectives),
            objectives=tuple(o.name for o in problem.objectives),
            constraints=tuple(map(str, problem.constraints)),
            dim=problem.dim,
            optimum=None if problem.optimum is None else problem.optimum.value,
            max_hypervolume=problem.max_hv,
            noisy=noisy,
            # A noise-free value costs one more evaluation, and only then.
            noiseless_known=not noisy or entry.cost == "< 1 s",
        )


class Course:
    """Follows a run, evaluation by evaluation.

    Args:
        problem: What is optimized.
        facts: About it.
    """

    def __init__(self, problem: Problem, facts: Facts) -> None:
        self.problem = problem
        self.facts = facts
        self.objectives: Sequence[Objective] = problem.objectives
        self.constraints: Sequence[OutcomeConstraint] = problem.constraints
        rows = [[o.terms.get(m, 0.0) for m in facts.metrics] for o in self.objectives]
        self._weights = torch.tensor(rows, dtype=torch.float64)
        self._signs = torch.tensor(facts.signs, dtype=torch.float64)
        self._best = math.nan  # in the objective's own sign
        self._incumbent = math.nan  # the noise-free value where `best` was observed
        self._hypervolume = 0.0
        self._truth: list[Tensor] = []  # of each evaluation: its noise-free metrics
        if len(self.objectives) > 1:
            references = [o.sign * float(o.reference or 0.0) for o in self.objectives]
            self._reference = torch.tensor(references, dtype=torch.float64)
            self._front = torch.empty(0, len(references), dtype=torch.float64)

    def add(self, X: Tensor, Y: Tensor, truth: Tensor | None = None) -> dict[str, Any]:
        """Take a batch into account.

        Args:
            X: `q x d` problem coordinates.
            Y: `q x k` outcomes.
            truth: `q x k` noise-free outcomes, where they are known already.

        Returns:
            `best`, `incumbent`, `hypervolume` and `feasible` after each of the q evaluations (None
            where there is none), and `truth` where it is known and not Y.
        """
        if truth is None:
            truth = self._noiseless(X, Y)
        self._truth += list(Y if truth is None else truth)
        steps: dict[str, list[Any]] = {
            key: [] for key in ("best", "incumbent", "hypervolume", "feasible")
        }
        for y, t in zip(Y, Y if truth is None else truth, strict=True):
            feasible = bool(self._feasible(y))
            if feasible and len(self.objectives) == 1:
                self._improve(y, t)
            elif feasible:
                self._extend(self._merits(t))
            several = len(self.objectives) > 1
            steps["feasible"].append(feasible)
            steps["best"].append(_or_none(self._best))
            steps["incumbent"].append(_or_none(self._incumbent))
            steps["hypervolume"].append(self._hypervolume if several else None)
        known = {} if truth is None or not self.facts.noisy else {"truth": truth.tolist()}
        return {**steps, **known}

    def _noiseless(self, X: Tensor, Y: Tensor) -> Tensor | None:
        if not self.facts.noisy:
            return Y
        if not self.facts.noiseless_known:
            return None
        with torch.no_grad():
            return self.problem._true_metrics(X).to(Y)

    @property
    def can_infer(self) -> bool:
        """Whether `inferred` can tell anything."""
        return len(self.objectives) == 1 and self.facts.noiseless_known

    def inferred(self, means: Tensor) -> float | None:
        """The noise-free value of the point that a model holds best among those observed.

        Args:
            means: `n x k` posterior means of the first n evaluations.

        Returns:
            In the objective's own sign; None where it cannot be known, with several objectives, and
            where the model holds no point feasible or holds one so that is not.
        """
        if not self.can_infer:
            return None
        held = self._feasible(means)
        if not held.any():
            return None
        merits = self._merits(means).squeeze(-1)
        best = merits.where(held, torch.full_like(merits, -math.inf)).argmax()
        truth = self._truth[int(best)]
        return self._values(truth).item() if self._feasible(truth) else None

    # ---- values ----------------------------------------------------------------------------------
    def _values(self, Y: Tensor) -> Tensor:
        """Outcomes `... x k` to objectives `... x m`, in their own signs."""
        return Y.double() @ self._weights.T

    def _merits(self, Y: Tensor) -> Tensor:
        """Outcomes `... x k` to objectives `... x m`, all to be maximized."""
        return self._values(Y) * self._signs

    def _feasible(self, Y: Tensor) -> Tensor:
        """Outcomes `... x k` to `...` booleans."""
        held = torch.ones(Y.shape[:-1], dtype=torch.bool)
        for c in self.constraints:
            values = Y[..., self.facts.metrics.index(c.metric)]
            held &= values <= c.bound if c.op == "<=" else values >= c.bound
        return held

    def _improve(self, y: Tensor, truth: Tensor) -> None:
        value = self._values(y).item()
        if math.isnan(self._best) or self.objectives[0].sign * (value - self._best) > 0:
            self._best = value
            self._incumbent = self._values(truth).item()

    def _extend(self, merits: Tensor) -> None:
        """Take a point into the front, if it belongs there."""
        if not (merits > self._reference).all() or (self._front >= merits).all(dim=-1).any():
            return
        front = torch.cat([self._front, merits.unsqueeze(0)])
        self._front = front[is_non_dominated(front)]
        self._hypervolume = Hypervolume(self._reference).compute(self._front)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
