"""How calibrated the surrogates are, and what a fit costs.

    python -m benchmarks.calibration [--surrogates gp hmc] [--seeds 4] [--json FILE] [--readme]
    python -m benchmarks.calibration --surrogates nngp nngp:deep --first-seed 100 \
        --config nngp:deep '{"depth": 6}'

A surrogate may be measured several times, with a configuration for each name after a colon.

Four functions, for each seed a fresh training set and 400 test observations: Branin (30 points) and
Hartmann-6 (60 points), observed with a noise of 1 % of their spread; and two noisy functions of one
input (20 points), a sine with a gap in the data and a ramp with a step in it. Asked for by name,
two functions of many inputs (100 points, noise of 1 %): a sum of waves of one of 50 inputs each,
and "polydraw", a sum of products of four of 200 inputs each (Li et al. 2023, arXiv 2305.20028).
Scores are those of `bo_surrogates/analysis/predictive_scores.py`, means over seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from bo_surrogates.analysis.predictive_scores import score
from bo_surrogates.design import sobol_design
from bo_surrogates.errors import FitWarning
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates import SURROGATES
from problems import PROBLEMS
from reports.readme import between

README = Path(__file__).parent.parent / "bo_surrogates" / "surrogates" / "README.md"
BEGIN = "<!-- calibration: begin (python -m benchmarks.calibration --readme) -->"
END = "<!-- calibration: end -->"
TEST_POINTS = 400
SCORES = ("nlpd", "crps", "coverage", "rmse")


@dataclass(frozen=True)
class Data:
    """Training and test observations of one function."""

    X: Tensor
    Y: Tensor
    X_test: Tensor
    Y_test: Tensor
    bounds: Tensor


def of_problem(name: str, n: int, seed: int) -> Data:
    """A registered problem on a Sobol design, with noise of 1 % of its standard deviation."""
    problem = PROBLEMS[name].make()
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise"))
    X = sobol_design(problem.space, n, seed)
    X_test = sobol_design(problem.space, TEST_POINTS, derive_seed(seed, "test"))
    Y, Y_test = problem(X).unsqueeze(-1), problem(X_test).unsqueeze(-1)
    noise = 0.01 * Y_test.std()

    def observed(values: Tensor) -> Tensor:
        return values + noise * torch.randn(values.shape, generator=generator).to(values)

    return Data(X, observed(Y), X_test, observed(Y_test), problem.bounds)


def of_one_input(
    function: Callable[[Tensor], Tensor], noise: float, gap: tuple[float, float], n: int, seed: int
) -> Data:
    """A function on [0, 1], observed with noise outside a gap and tested everywhere."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(k: int) -> Tensor:
        return torch.rand(k, 1, generator=generator, dtype=torch.float64)

    def observed(X: Tensor) -> Tensor:
        normal = torch.randn(X.shape, generator=generator, dtype=torch.float64)
        return function(X) + noise * normal

    low, high = gap
    X = uniform(n) * (1.0 - (high - low))
    X = torch.where(low < X, X + (high - low), X)
    X_test = uniform(TEST_POINTS)
    return Data(X, observed(X), X_test, observed(X_test), torch.tensor([[0.0], [1.0]]).double())


def sine(X: Tensor) -> Tensor:
    """Two periods."""
    return torch.sin(4.0 * torch.pi * X)


def step(X: Tensor) -> Tensor:
    """A ramp that jumps up at 0.6."""
    return X + 2.0 * (X > 0.6)


def waves(X: Tensor) -> Tensor:
    """A sum over inputs of sines of up to one period, with amplitudes that fall as 1 / sqrt(j)."""
    j = torch.arange(1, X.shape[-1] + 1).to(X)
    return (torch.sin(2.0 * torch.pi * X * (j % 7 + 1) / 7.0) / j.sqrt()).sum(-1, keepdim=True)


def polydraw(X: Tensor) -> Tensor:
    """Products of four inputs d / 4 apart, each less a constant drawn once from N(0, 1)."""
    d = X.shape[-1]
    generator = torch.Generator().manual_seed(2)
    c = torch.randn(d, generator=generator, dtype=torch.float64).to(X)
    return (X - c).unflatten(-1, (4, d // 4)).prod(dim=-2).sum(-1, keepdim=True)


def of_many_inputs(function: Callable[[Tensor], Tensor], d: int, n: int, seed: int) -> Data:
    """A function on the unit cube on uniform points, with noise of 1 % of its deviation."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "many inputs"))

    def uniform(k: int) -> Tensor:
        return torch.rand(k, d, generator=generator, dtype=torch.float64)

    X, X_test = uniform(n), uniform(TEST_POINTS)
    Y, Y_test = function(X), function(X_test)
    noise = 0.01 * Y_test.std()

    def observed(values: Tensor) -> Tensor:
        return values + noise * torch.randn(values.shape, generator=generator, dtype=torch.float64)

    bounds = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, d)
    return Data(X, observed(Y), X_test, observed(Y_test), bounds)


FUNCTIONS: dict[str, Callable[[int], Data]] = {
    "branin": partial(of_problem, "branin", 30),
    "hartmann6": partial(of_problem, "hartmann6", 60),
    "sine with a gap": partial(of_one_input, sine, 0.2, (0.4, 0.6), 20),
    "ramp with a step": partial(of_one_input, step, 0.1, (0.0, 0.0), 20),
    "50 waves": partial(of_many_inputs, waves, 50, 100),
    "polydraw, 200 inputs": partial(of_many_inputs, polydraw, 200, 100),
}
STANDARD = list(FUNCTIONS)[:4]  # what the table in the README is of


def measure(task: tuple[str, dict[str, Any], str, int]) -> dict[str, Any]:
    """Fit one surrogate to one data set, and score it."""
    name, config, function, seed = task
    torch.set_num_threads(1)
    data = FUNCTIONS[function](seed)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # counted below
        model = SURROGATES[name.split(":")[0]].build(
            data.X, data.Y, bounds=data.bounds, config=config, seed=seed
        )
    seconds = time.process_time() - start
    scores = asdict(score(model, data.X_test, data.Y_test))
    return {
        "surrogate": name, "function": function, "seed": seed, **scores, "fit_seconds": seconds,
        "failed": not model.diagnostics.converged,
    }  # fmt: skip


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds by function and surrogate, median seconds, and the count of failed fits.

    The scores of "all" functions are means of the functions' means.
    """
    groups = rows.groupby(["function", "surrogate"], sort=False)
    table = groups[list(SCORES)].mean()
    table["fit_seconds"] = groups["fit_seconds"].median()
    table["failed"] = groups["failed"].sum()
    over_all = table.groupby("surrogate", sort=False).agg(
        dict.fromkeys((*SCORES, "fit_seconds"), "mean") | {"failed": "sum"}
    )
    over_all.index = pd.MultiIndex.from_product([["all"], over_all.index], names=table.index.names)
    return pd.concat([table, over_all]).reset_index()


def markdown(table: pd.DataFrame) -> str:
    """The scores over all functions, best CRPS first, with each function's NLPD and coverage."""
    functions = [f for f in table["function"].unique() if f != "all"]
    by = table.set_index(["surrogate", "function"])
    ranked = table[table["function"] == "all"].sort_values("crps")["surrogate"]
    header = ["surrogate", "CRPS", "NLPD", "90 % coverage", *functions, "fit s", "failed"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for name in ranked:
        a = by.loc[(name, "all")]
        cells = [f"`{name}`", f"{a['crps']:.3f}", f"{a['nlpd']:.2f}", f"{a['coverage']:.2f}"]
        cells += [
            f"{by.loc[(name, f), 'nlpd']:.2f} / {by.loc[(name, f), 'coverage']:.2f}"
            for f in functions
        ]
        cells += [f"{a['fit_seconds']:.2f}", f"{int(a['failed'])}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(table: pd.DataFrame) -> None:
    """Print one table a function, best CRPS first."""
    for function, group in table.groupby("function", sort=False):
        shown = Table(title=str(function), box=None, header_style="bold")
        shown.add_column("surrogate")
        columns = ("NLPD", "CRPS", "coverage", "RMSE", "fit CPU s", "failed")
        for column in columns:
            shown.add_column(column, justify="right")
        for _, r in group.sort_values("crps").iterrows():
            shown.add_row(
                r["surrogate"], f"{r['nlpd']:.3f}", f"{r['crps']:.4f}", f"{r['coverage']:.3f}",
                f"{r['rmse']:.3f}", f"{r['fit_seconds']:.2f}", f"{int(r['failed'])}",
            )  # fmt: skip
        Console().print(shown)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--surrogates", nargs="+", default=list(SURROGATES))
    parser.add_argument("--functions", nargs="+", default=STANDARD, choices=list(FUNCTIONS))
    parser.add_argument("--seeds", type=int, default=4, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--config", nargs=2, action="append", default=[], metavar=("NAME", "JSON"),
        help="a surrogate's configuration, as JSON",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="file to write the summary to")
    parser.add_argument("--readme", action="store_true", help=f"write the summary to {README.name}")
    options = parser.parse_args(arguments)
    configs = {name: json.loads(text) for name, text in options.config}
    first = options.first_seed
    tasks = [
        (s, configs.get(s, {}), f, seed)
        for f in options.functions
        for seed in range(first, first + options.seeds)
        for s in options.surrogates
    ]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        rows = pd.DataFrame(pool.map(measure, tasks))
    table = summarize(rows)
    report(table)
    if options.readme:
        README.write_text(between(README.read_text(), BEGIN, END, markdown(table)))
    if options.json is not None:
        table.to_json(options.json, orient="records", indent=1)


if __name__ == "__main__":
    main()
