"""Do cheap evaluations pay? Regret at equal cost, with the fidelity chosen and at the target only.

    python -m benchmarks.fidelity --problem augmented_branin --target-evaluations 25 --seeds 5

The augmented problems against the plain ones, which cost as much an evaluation as the target does;
each begins with its own initial design. Regret is that of the best value measured at the target.
"""

from __future__ import annotations

import argparse
import time

import torch

from bo_surrogates.loop import Run, run
from problems import PROBLEMS
from problems.base import Problem

PLAIN = {"augmented_branin": "branin", "augmented_hartmann6": "hartmann6"}
SHARES = (0.25, 0.5, 0.75, 1.0)  # of the cost, at which the regret is shown


def spend(problem: Problem, unit: float, limit: float, surrogate: str, seed: int) -> Run:
    """Run until a cost is spent; `unit` is the cost of one evaluation without a fidelity."""
    result = run(problem, surrogate=surrogate, iterations=0, seed=seed)
    while float(result.cost[-1]) * unit < limit:
        done = len(result.iterations)
        result = run(problem, surrogate=surrogate, iterations=done, seed=seed, start=result)
    return result


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problem", choices=[*PLAIN], default="augmented_branin")
    parser.add_argument("--surrogate", default="gp")
    parser.add_argument("--fixed-cost", type=float, default=0.1)
    parser.add_argument("--target-evaluations", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    augmented = PROBLEMS[options.problem].make(fixed_cost=options.fixed_cost)
    plain = PROBLEMS[PLAIN[options.problem]].make()
    at_target = options.fixed_cost + 1.0
    limit = options.target_evaluations * at_target
    optimum = torch.tensor(augmented.optimal_value, dtype=torch.float64)
    heads = " ".join(f"{f'at {share:.0%}':>9}" for share in SHARES)
    print(f"{'':15} {heads} {'all at 100%':45} {'trials':>7} {'target':>7} {'CPU s':>6}")
    for label, problem, unit in (("target only", plain, at_target), ("fidelity", augmented, 1.0)):
        start, rows, trials, targets = time.process_time(), [], [], []
        for seed in range(options.seeds):
            result = spend(problem, unit, limit, options.surrogate, seed)
            regret = (result.best - optimum).abs()
            cost = result.cost * unit
            within = [int((cost <= share * limit * (1 + 1e-9)).sum()) - 1 for share in SHARES]
            rows.append([float(regret[k]) if k >= 0 else float("nan") for k in within])
            trials.append(within[-1] + 1)
            targets.append(int(result.at_target[: within[-1] + 1].sum()))
        seconds = (time.process_time() - start) / options.seeds
        table = torch.tensor(rows)
        medians = " ".join(f"{m:9.3g}" for m in table.median(dim=0).values.tolist())
        final = ", ".join(f"{r:.3g}" for r in table[:, -1].tolist())
        counts = f"{sum(trials) / len(trials):7.1f} {sum(targets) / len(targets):7.1f}"
        print(f"{label:15} {medians} {final:45} {counts} {seconds:6.1f}", flush=True)


if __name__ == "__main__":
    main()
