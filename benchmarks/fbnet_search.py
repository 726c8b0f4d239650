"""What beta and alpha do in FBNet's search: the latency of what is found, over seeds.

    OMP_NUM_THREADS=1 python -m benchmarks.fbnet_search [--seeds 3] [--limit 300] [--train]

The search of `fbnet_search` in the space of 400 architectures, at its published default but for
alpha and beta of the product loss: the expected latency under the probabilities found, the latency
of the most probable architecture, and with --train its error after training from scratch. Means
and standard errors over seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import pandas as pd

from bo_surrogates.errors import InputError
from bo_surrogates.threads import limited_threads
from problems import PROBLEMS
from problems.documented.fbnet.search import search
from problems.documented.fbnet.supernet import SuperNet
from problems.documented.fbnet_tuning import FBNetArchitectureTuning, FBNetSearchTuning
from problems.documented.training import run

CASES = ((0.2, 0.0), (0.2, 0.6), (0.2, 2.0), (0.2, 6.0), (0.02, 2.0), (2.0, 2.0))  # alpha, beta


def measure(seeds: Iterable[int], limit: int | None, *, train: bool) -> pd.DataFrame:
    """One row a case and seed."""
    problem = PROBLEMS["fbnet_search"].make(limit=limit)
    trained = PROBLEMS["fbnet_architecture"].make(limit=limit)
    if not isinstance(problem, FBNetSearchTuning) or not isinstance(
        trained, FBNetArchitectureTuning
    ):
        raise InputError("fbnet_search or fbnet_architecture has been registered anew")
    space = problem.macro({})
    table = problem.table(space)
    default = problem.search_config(problem.published_default)
    rows = []
    for seed in seeds:
        for alpha, beta in CASES:
            config = default.replace(alpha=alpha, beta=beta)
            with limited_threads(1):
                trainer = search(space, table, *problem.data().part("train"), config, seed)
                run(trainer)
            found = trainer.network
            if not isinstance(found, SuperNet):
                raise InputError("the search has lost its supernet")
            row = {
                "alpha": alpha,
                "beta": beta,
                "seed": seed,
                "expected latency": found.expected_latency(),
                "latency": table.latency(space, found.architecture),
            }
            if train:
                names = trained.space.names
                point = dict(zip(names, found.architecture, strict=True))
                row["error"] = trained.evaluate(point, seed)["error"]
            rows.append(row)
            print(row, flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--train", action="store_true")
    options = parser.parse_args()
    table = measure(range(options.seeds), options.limit, train=options.train)
    by_case = table.drop(columns="seed").groupby(["alpha", "beta"])
    print(by_case.agg(["mean", "sem"]).round(3).to_string())


if __name__ == "__main__":
    main()
