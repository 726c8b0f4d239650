"""A documented network's scores along one parameter, the others at the published default.

    python -m benchmarks.sweep pokebnn activation_bound 0.5 1 2 3 5 10 --seeds 6
    python -m benchmarks.sweep tinynet pixels 16 21 26 --at depth=0.7917 --set ratio=0.25

Every value is trained with the same seeds. Means of the scores on the test part and of the costs,
standard errors, and in how many seeds each value has the least error.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from problems import PROBLEMS
from problems.documented.tuning_problem import TuningProblem

METRIC = "error"


def parsed(text: str) -> Any:
    """A number, true or false; a word as it is."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def pairs(texts: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE arguments."""
    return {name: parsed(value) for name, _, value in (text.partition("=") for text in texts)}


def summary(values: Sequence[float]) -> str:
    """Mean and standard error."""
    sem = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{mean(values):.4f} ± {sem:.4f}"


def main() -> None:
    """Train and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("problem")
    parser.add_argument("parameter")
    parser.add_argument("values", nargs="+", type=parsed)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--at", nargs="+", default=[], metavar="NAME=VALUE", help="of parameters")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="of options")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    problem = PROBLEMS[arguments.problem].make(**pairs(arguments.set))
    if not isinstance(problem, TuningProblem):
        parser.error(f"{arguments.problem} is not a documented network")
    scores: dict[Any, list[dict[str, float]]] = {}
    for value in arguments.values:
        point = problem.published_default | pairs(arguments.at) | {arguments.parameter: value}
        values = problem.space.validate(point)
        scores[value] = [
            problem.scores(problem.train_best(values, seed=seed), values, "test")
            for seed in range(arguments.seeds)
        ]
    least = [
        min(scores, key=lambda value: scores[value][seed][METRIC])
        for seed in range(arguments.seeds)
    ]
    metrics = list(scores[arguments.values[0]][0])
    table = Table(arguments.parameter, *metrics, "least error", box=None, header_style="bold")
    for value, found in scores.items():
        cells = [summary([score[metric] for score in found]) for metric in metrics]
        table.add_row(str(value), *cells, f"{least.count(value)} of {len(least)}")
    Console().print(table)


if __name__ == "__main__":
    main()
