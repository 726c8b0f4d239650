"""Results as a run is loaded as, with a known truth: for tests of statistics and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bo_surrogates.surrogates import SURROGATES
from studies.course import Facts
from studies.results import Results
from studies.study import ProblemArm, Study, SurrogateArm


def make_frames(
    problems: Sequence[str] = ("branin", "hartmann6"),
    surrogates: Mapping[str, float] | Sequence[str] = ("gp", "nngp", "dkl"),
    seeds: int = 4,
    initial: int = 5,
    iterations: int = 12,
    q: int = 1,
    unknown: Sequence[str] = (),
    several: Sequence[str] = (),
    states: Mapping[tuple[str, str, int], tuple[str, int]] | None = None,
    seed: int = 0,
) -> dict[str, pd.DataFrame]:
    """Runs whose regret falls exponentially, at a rate that differs by surrogate.

    Args:
        problems: Labels.
        surrogates: Labels, with the rate at which each descends; or labels only.
        seeds: How many.
        initial: Points of the initial design, shared by the surrogates of a seed.
        iterations: Batches after it.
        q: Points a batch.
        unknown: Problems whose optimum is unknown.
        several: Problems with two objectives.
        states: Cells that are not done: (problem, surrogate, seed) to a state and how many of the
            iterations are recorded, -1 for nothing at all.
        seed: Of all.

    Returns:
        evaluations, iterations, pit and cells.
    """
    rng = np.random.default_rng(seed)
    rates = (
        dict(surrogates)
        if isinstance(surrogates, Mapping)
        else {s: 0.05 * (k + 1) for k, s in enumerate(surrogates)}
    )
    evaluations, steps, pit, cells = [], [], [], []
    for problem in problems:
        for s in range(seeds):
            start = np.exp(rng.normal(size=initial)) + 1.0
            for surrogate, rate in rates.items():
                state, done = (states or {}).get((problem, surrogate, s), ("done", iterations))
                reason = "no convergence" if state == "failed" else None
                cells.append((problem, surrogate, s, state, max(done, 0), reason))
                if done < 0:
                    continue
                n = done * q
                later = start.min() * np.exp(-rate * np.cumsum(rng.exponential(size=n)))
                regret = np.minimum.accumulate(np.concatenate([start, later]))
                best = 3.0 - regret if problem in unknown or problem in several else regret - 1.0
                multiple, hidden = problem in several, problem in unknown
                seconds = np.cumsum(rng.exponential(0.2 + rate, size=done)) if done else []
                for e in range(len(regret)):
                    iteration = 0 if e < initial else (e - initial) // q + 1
                    evaluations.append(
                        {
                            "problem": problem, "surrogate": surrogate, "seed": s,
                            "iteration": iteration, "evaluation": e + 1, "n_initial": initial,
                            "values": [regret[e]], "feasible": True,
                            "best": np.nan if multiple else best[e], "inferred": np.nan,
                            "regret": np.nan if hidden else regret[e],
                            "inferred_regret": np.nan if hidden or multiple else 1.1 * regret[e],
                            "score": -best[e] if hidden else regret[e],
                            "hypervolume": best[e] if multiple else np.nan,
                            "seconds": 0.01 if iteration == 0 else 0.01 + seconds[iteration - 1],
                        }
                    )  # fmt: skip
                for i in range(done):
                    transforms = rng.beta(1.0 + rate, 1.0 + rate, size=q)
                    pit += [(problem, surrogate, s, i + 1, 0, p) for p in transforms]
                    steps.append(
                        {
                            "problem": problem, "surrogate": surrogate, "seed": s,
                            "iteration": i + 1, "n": initial + i * q,
                            "fit_seconds": rng.exponential(0.2 + rate),
                            "acquisition_seconds": rng.exponential(0.1),
                            "evaluation_seconds": 0.001, "overhead_seconds": 0.01,
                            "cpu_seconds": 0.3 + rate, "peak_memory_mb": 300.0 + 100 * rate,
                            "nlpd": 1.0 + rng.normal(),
                            "crps": rng.exponential(0.4),
                            "coverage_50": float(np.mean(abs(transforms - 0.5) <= 0.25)),
                            "coverage_90": float(np.mean(abs(transforms - 0.5) <= 0.45)),
                            "diagnostics": {"steps": 100.0 + i},
                            "failed": "not positive definite" if i == 3 and s == 0 else None,
                        }
                    )  # fmt: skip
    return {
        "evaluations": pd.DataFrame(evaluations),
        "iterations": pd.DataFrame(steps),
        "pit": pd.DataFrame(
            pit, columns=["problem", "surrogate", "seed", "iteration", "outcome", "pit"]
        ),
        "cells": pd.DataFrame(
            cells, columns=["problem", "surrogate", "seed", "state", "iterations", "reason"]
        ),
    }


def make_results(
    problems: Sequence[str] = ("branin", "hartmann6"),
    surrogates: Mapping[str, float] | Sequence[str] = ("gp", "nngp", "dkl"),
    seeds: int = 4,
    **settings: Any,
) -> Results:
    """The same as the results of a study; see `make_frames`.

    Labels that are no registered surrogate stand for `gp`.
    """
    frames = make_frames(problems, surrogates, seeds, **settings)
    unknown, several = settings.get("unknown", ()), settings.get("several", ())
    study = Study(
        name="Synthetic",
        problems=tuple(
            ProblemArm(p, "branin", initial=settings.get("initial", 5), q=settings.get("q", 1),
                       iterations=settings.get("iterations", 12))
            for p in problems
        ),
        surrogates=tuple(
            SurrogateArm(s, s if s in SURROGATES else "gp") for s in surrogates
        ),
        seeds=tuple(range(seeds)),
    )  # fmt: skip
    facts = {
        p: Facts(
            metrics=("f", "g")[: 1 + (p in several)],
            signs=(1.0, 1.0) if p in several else (1.0 if p in unknown else -1.0,),
            objectives=("f", "g")[: 1 + (p in several)],
            constraints=(),
            dim=2,
            optimum=None if p in unknown or p in several else -1.0,
            max_hypervolume=None if p in unknown or p not in several else 3.0,
            noisy=False,
            noiseless_known=True,
        )
        for p in problems
    }
    environment = {
        "started": "2026-01-01T00:00:00+00:00",
        "command": "bo-surrogates study run synthetic.toml",
        "versions": {"python": "3.11", "torch": "2.13"},
        "cores": 2,
        "resumed": [],
    }
    return Results(study, environment, facts, **frames)
