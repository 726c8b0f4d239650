"""How near the optimum each surrogate comes in Bayesian optimization.

`OMP_NUM_THREADS=1 python -m benchmarks.regret [--surrogates gp ntk] [--seeds 3]`

Branin with 8 + 22 evaluations and Hartmann-6 with 10 + 30, one point at a time, as a study
(`studies/README.md`): all surrogates of a seed share the initial design, and the acquisition
function is the same. `--run FOLDER` keeps the runs, and does not repeat those that the folder has.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from bo_surrogates.surrogates import SURROGATES
from studies.results import Results
from studies.runner import run_study
from studies.study import ProblemArm, Study

BUDGETS = {"branin": (8, 22), "hartmann6": (10, 30)}  # initial design, iterations
KERNELS = (
    "gp", "ntk", "nngp", "nngp_t", "tp", "dkl", "dkm", "saas", "robust_gp", "svgp", "rff",
    "bandlimited", "mup",
)  # fmt: skip
CELL = ["problem", "surrogate", "seed"]


def rows(results: Results) -> pd.DataFrame:
    """One row a run: regret after half and after all iterations, CPU seconds, failed fits."""
    regret = results.evaluations.groupby([*CELL, "iteration"])["regret"].last().to_dict()
    found = []
    for key, ones in results.iterations.groupby(CELL, sort=False):
        cell = tuple(key)
        last = int(ones["iteration"].max())
        doubtful = ones["diagnostics"].map(lambda d: d.get("converged") == 0.0)
        found.append(
            {
                **dict(zip(CELL, cell, strict=True)),
                "halfway": regret[*cell, last // 2],
                "regret": regret[*cell, last],
                "seconds": ones["cpu_seconds"].mean(),
                "failed": int((doubtful | ones["failed"].notna()).sum()),
            }
        )
    return pd.DataFrame(found)


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
    parser.add_argument("--run", type=Path, help="folder of the runs")
    options = parser.parse_args(arguments)
    study = Study.of(
        [
            ProblemArm(name, name, initial=BUDGETS[name][0], iterations=BUDGETS[name][1])
            for name in options.problems
        ],
        options.surrogates,
        seeds=options.seeds,
        name="regret",
    )
    with tempfile.TemporaryDirectory() as temporary:
        results = run_study(study, options.run or Path(temporary) / "run", resume=True)
    Console().print(markdown(rows(results)), soft_wrap=True)


if __name__ == "__main__":
    main()
