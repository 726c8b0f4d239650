"""Every kernel surrogate on every problem, at points as the end of a run has them.

    python -m benchmarks.covariances                                  # all, at 20 points
    python -m benchmarks.covariances --n 60 --surrogates gp tp --problems hartmann6 rover

Half of the points fill the space; a quarter are among these once more; the others are a millionth
of the way from one to another. Covariance matrices are then singular to rounding. A surrogate is
fitted to the first outcome, and predicts at observed and other points jointly. What is told is the
largest jitter (`bo_surrogates/inference/cholesky.py`), and any failure; with one, the exit code
is 1.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from bo_surrogates.config import Config
from bo_surrogates.design import sobol_design
from bo_surrogates.inference.cholesky import recorded_jitter
from bo_surrogates.loop import NUMERICAL_FAILURES, describe, fit
from bo_surrogates.seeding import derive_seed
from bo_surrogates.space import Space
from bo_surrogates.surrogates import SURROGATES
from problems import PROBLEMS

KERNELS = [name for name, e in SURROGATES.items() if e.capabilities.posterior != "ensemble"]
NEAR = 1e-6


@dataclass(frozen=True)
class Outcome:
    """What came of one surrogate on one problem.

    Attributes:
        surrogate: Its name.
        problem: Its name.
        jitter: The largest that was added, in the fit and in the predictions.
        failure: What failed; None if nothing did.
        seconds: CPU seconds.
    """

    surrogate: str
    problem: str
    jitter: float
    failure: str | None
    seconds: float


def crowded(space: Space, n: int, seed: int) -> Tensor:
    """`n x d` points in problem coordinates, of which half crowd about the others."""
    spread = sobol_design(space, -(-n // 2), seed)
    repeated = spread[torch.arange(n // 4) % len(spread)]
    left = n - len(spread) - len(repeated)
    near = spread[torch.arange(left) % len(spread)].clone()
    columns = space.continuous_inds
    near[:, columns] += (
        NEAR * (spread.roll(1, 0)[torch.arange(left) % len(spread)] - near)[:, columns]
    )
    return torch.cat([spread, repeated, near])


def observe(problem: str, n: int, seed: int) -> tuple[Space, Tensor, Tensor]:
    """The space of a problem, and its first outcome at crowded points, `n x d` and `n x 1`."""
    described = describe(PROBLEMS[problem].make())
    X = described.space.impute(crowded(described.space, n, derive_seed(seed, "points")))
    return described.space, X, described.observe(X, derive_seed(seed, "noise"))[:, :1].to(X)


def examine(
    surrogate: str,
    problem: str,
    data: tuple[Space, Tensor, Tensor],
    config: Config | Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Outcome:
    """Fit, predict at observed and other points jointly, and sample."""
    space, X, Y = data
    start, failure = time.process_time(), None
    with recorded_jitter() as jitter, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            model: Any = fit(space, X, Y, surrogate=surrogate, config=config, seed=seed)
            others = sobol_design(space, 4, derive_seed(seed, "others"))
            posterior = model.posterior(space.to_model(torch.cat([X[-4:], X[:2], others])))
            samples = posterior.rsample(torch.Size([4]))
            numbers = (posterior.mean, posterior.variance, samples)
            if not all(torch.isfinite(part).all() for part in numbers):
                failure = "predictions that are not finite"
            elif (posterior.variance < 0).any():
                failure = "negative variances"
        except NUMERICAL_FAILURES as error:
            failure = f"{type(error).__name__}: {error}"
    return Outcome(surrogate, problem, jitter.largest, failure, time.process_time() - start)


def report(outcomes: Sequence[Outcome]) -> None:
    """Print a row a surrogate, and each failure."""
    table = Table(box=None, header_style="bold")
    table.add_column("surrogate")
    for column in ("problems", "with jitter", "largest", "CPU s a problem", "failed"):
        table.add_column(column, justify="right")
    for name in dict.fromkeys(o.surrogate for o in outcomes):
        own = [o for o in outcomes if o.surrogate == name]
        table.add_row(
            name, f"{len(own)}", f"{sum(o.jitter > 0 for o in own)}",
            f"{max(o.jitter for o in own):.0e}",
            f"{sum(o.seconds for o in own) / len(own):.2f}",
            f"{sum(o.failure is not None for o in own)}",
        )  # fmt: skip
    Console().print(table)
    for o in outcomes:
        if o.failure is not None:
            print(f"{o.surrogate} on {o.problem}: {o.failure}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Examine and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--surrogates", nargs="+", default=KERNELS, choices=list(SURROGATES))
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    outcomes = []
    for problem in track(options.problems, console=Console(stderr=True)):
        data = observe(problem, options.n, options.seed)
        for surrogate in options.surrogates:
            outcomes.append(examine(surrogate, problem, data, seed=options.seed))
    report(outcomes)
    sys.exit(any(o.failure is not None for o in outcomes))


if __name__ == "__main__":
    main()
