"""How near the optimum each surrogate comes in Bayesian optimization.

`OMP_NUM_THREADS=1 python -m benchmarks.regret [--surrogates gp ntk] [--seeds 3]`

Branin with 8 + 22 evaluations and Hartmann-6 with 10 + 30, one point at a time; all surrogates of a
seed share the initial design and the acquisition function (`studies/comparison.py`). `--rows FILE`
keeps finished runs, one line each, and does not repeat those the file has.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from bo_surrogates.errors import FitWarning
from bo_surrogates.surrogates import SURROGATES
from studies.comparison import compare

BUDGETS = {"branin": (8, 22), "hartmann6": (10, 30)}  # initial design, iterations
KERNELS = (
    "gp", "ntk", "nngp", "nngp_t", "tp", "dkl", "dkm", "saas", "robust_gp", "svgp", "rff",
    "bandlimited", "mup",
)  # fmt: skip


def measure(problem: str, surrogate: str, seed: int) -> dict[str, Any]:
    """One run: regret after half and after all of its evaluations, CPU seconds, failed fits."""
    torch.set_num_threads(1)
    initial, iterations = BUDGETS[problem]
    start = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = compare(
            [problem], [surrogate], seeds=[seed], iterations=iterations, initial=initial
        )
    regret = table["regret"].tolist()
    return {
        "problem": problem, "surrogate": surrogate, "seed": seed,
        "halfway": regret[initial + iterations // 2 - 1], "regret": regret[-1],
        "seconds": (time.process_time() - start) / iterations,
        "failed": sum(issubclass(w.category, FitWarning) for w in caught),
    }  # fmt: skip


def markdown(rows: pd.DataFrame) -> str:
    """Each run's final regret by problem, the smallest mean rank first, and CPU seconds."""
    final = rows.pivot_table(index="surrogate", columns=["problem", "seed"], values="regret")
    order = final.rank().mean(axis=1).sort_values()
    problems = list(rows["problem"].unique())
    lines = [
        "| surrogate | mean rank | "
        + " | ".join(f"{p}: regrets | halfway | CPU s" for p in problems)
        + " | failed fits |",
        "|---" * (3 + 3 * len(problems)) + "|",
    ]
    for name, rank in order.items():
        cells = [f"`{name}`", f"{rank:.1f}"]
        mine = rows[rows["surrogate"] == name]
        for problem in problems:
            r = mine[mine["problem"] == problem].sort_values("seed")
            cells.append(", ".join(f"{v:.2g}" for v in r["regret"]))
            cells.append(f"{r['halfway'].median():.2g}")
            cells.append(f"{r['seconds'].median():.2f}")
        lines.append("| " + " | ".join([*cells, str(int(mine["failed"].sum()))]) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--surrogates", nargs="+", default=list(KERNELS), choices=list(SURROGATES))
    parser.add_argument("--problems", nargs="+", default=list(BUDGETS), choices=list(BUDGETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=Path, help="file of finished runs")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    if options.rows is not None and options.rows.exists():
        rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    known = {(r["problem"], r["surrogate"], r["seed"]) for r in rows}
    for problem in options.problems:
        for surrogate in options.surrogates:
            for seed in range(options.seeds):
                if (problem, surrogate, seed) in known:
                    continue
                rows.append(measure(problem, surrogate, seed))
                if options.rows is not None:
                    with options.rows.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
    Console().print(markdown(pd.DataFrame(rows)), soft_wrap=True)


if __name__ == "__main__":
    main()
