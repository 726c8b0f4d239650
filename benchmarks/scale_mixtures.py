"""Does a random scale help? Scale mixtures beside the Gaussian processes they are mixtures of.

`python -m benchmarks.scale_mixtures [--seeds 20] [--tasks ...] [--json FILE]`

Few observations, where the scale is least known, and observations with heavy-tailed noise (t of 2.5
degrees of freedom), in training and test alike. Each seed is a fresh data set and 400 test
observations. Scores are those of `bo_surrogates/analysis/predictive_scores.py`; NLPD and CRPS are
means of the difference to `nngp` on the same data, with its standard error.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.calibration import Data, of_one_input, of_problem, sine
from bo_surrogates.analysis.predictive_scores import score
from bo_surrogates.errors import FitWarning
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates import SURROGATES

PEER = "nngp"
CASES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "nngp": ("nngp", {}),
    "nngp_t": ("nngp_t", {}),
    "nngp_t, df 3": ("nngp_t", {"df": 3.0}),
    "nngp_t, df 1e6": ("nngp_t", {"df": 1e6}),
    "nngp_t, burr": ("nngp_t", {"law": "burr"}),
    "nngp_t, log-normal": ("nngp_t", {"law": "log-normal"}),
    "gp": ("gp", {}),
    "tp": ("tp", {}),
}


def with_heavy_tails(make: Callable[[int], Data], scale: float, seed: int) -> Data:
    """Noise of t with 2.5 degrees of freedom, in standard deviations of the test observations."""
    data = make(seed)
    generator = torch.Generator().manual_seed(derive_seed(seed, "heavy tails"))
    factor = scale * data.Y_test.std()

    def noise(Y: Tensor) -> Tensor:
        normal = torch.randn(Y.shape, generator=generator, dtype=torch.float64)
        gamma = torch._standard_gamma(torch.full_like(normal, 1.25), generator=generator)
        return factor * normal * (1.25 / gamma).sqrt()

    return Data(
        data.X, data.Y + noise(data.Y), data.X_test, data.Y_test + noise(data.Y_test), data.bounds
    )


small_sine = partial(of_one_input, sine, 0.1, (0.0, 0.0), 7)
quiet_sine = partial(of_one_input, sine, 0.0, (0.0, 0.0), 20)
TASKS: dict[str, Callable[[int], Data]] = {
    "sine, 7 points": small_sine,
    "branin, 10 points": partial(of_problem, "branin", 10),
    "hartmann6, 20 points": partial(of_problem, "hartmann6", 20),
    "sine, 20 points, t noise": partial(with_heavy_tails, quiet_sine, 0.2),
    "branin, 30 points, t noise": partial(
        with_heavy_tails, partial(of_problem, "branin", 30), 0.2
    ),
}  # fmt: skip


def measure(case: str, task: str, seed: int) -> dict[str, Any]:
    """Fit one configuration to one data set, and score it."""
    data = TASKS[task](seed)
    name, config = CASES[case]
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        model = SURROGATES[name].build(data.X, data.Y, bounds=data.bounds, seed=seed, config=config)
    seconds = time.process_time() - start
    scores = asdict(score(model, data.X_test, data.Y_test))
    return {"case": case, "task": task, "seed": seed, **scores, "fit_seconds": seconds}


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """By task and case: mean scores, differences to `PEER` with standard errors, median seconds."""
    rows = rows.sort_values("seed", kind="stable")
    peer: dict[Any, pd.DataFrame] = dict(iter(rows[rows["case"] == PEER].groupby("task")))
    table = []
    for (task, case), group in rows.groupby(["task", "case"], sort=False):
        row: dict[str, Any] = {"task": task, "case": case, "coverage": group["coverage"].mean(),
                               "fit_seconds": group["fit_seconds"].median()}  # fmt: skip
        for name in ("nlpd", "crps"):
            difference = group[name].to_numpy() - peer[task][name].to_numpy()
            row[name] = difference.mean()
            row[f"{name}_error"] = difference.std(ddof=1) / math.sqrt(len(difference))
            row[f"{name}_mean"] = group[name].mean()
        table.append(row)
    return pd.DataFrame(table)


def report(table: pd.DataFrame) -> None:
    """Print one table a task."""
    for task, group in table.groupby("task", sort=False):
        shown = Table(title=str(task), box=None, header_style="bold")
        shown.add_column("surrogate")
        for column in ("NLPD", f"less {PEER}'s", "CRPS", f"less {PEER}'s", "coverage", "fit CPU s"):
            shown.add_column(column, justify="right")
        for _, r in group.iterrows():
            differences = [
                f"{r[name]:+.3f} ± {r[f'{name}_error']:.3f}" for name in ("nlpd", "crps")
            ]
            shown.add_row(
                r["case"], f"{r['nlpd_mean']:.3f}", differences[0], f"{r['crps_mean']:.3f}",
                differences[1], f"{r['coverage']:.3f}", f"{r['fit_seconds']:.2f}",
            )  # fmt: skip
        Console(width=110).print(shown)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="file to write the summary to")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cases = list(dict.fromkeys([PEER, *options.cases]))
    rows = [
        measure(case, task, seed)
        for task in options.tasks
        for seed in range(options.seeds)
        for case in cases
    ]
    table = summarize(pd.DataFrame(rows))
    report(table)
    if options.json is not None:
        table.to_json(options.json, orient="records", indent=1)


if __name__ == "__main__":
    main()
