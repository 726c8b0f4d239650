"""Every architecture of FBNet's small space, trained: the ground truth behind `fbnet_table`.

    nice python -m benchmarks.fbnet_table --output FILE [--seeds 1] [--workers 2]

The 400 points of `fbnet_architecture` at five epochs and else its default options, each trained
once a seed: the errors on the validation and on the test part, and the latency in the table. A row
is what `fbnet_architecture` gives with that `training_seed` and without noise. The file is
rewritten as the trainings end; the same command goes on where it was stopped, or to more seeds.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from bo_surrogates.errors import InputError
from bo_surrogates.space import Values
from problems import PROBLEMS
from problems.documented.fbnet_table import EPOCHS
from problems.documented.fbnet_tuning import FBNetArchitectureTuning

ERRORS = ("validation_error", "test_error")
EVERY = 10  # trainings between two writings of the file


@lru_cache(maxsize=1)
def problem() -> FBNetArchitectureTuning:
    """The problem that is enumerated; each process makes it once."""
    made = PROBLEMS["fbnet_architecture"].make(epochs=EPOCHS)
    if not isinstance(made, FBNetArchitectureTuning):
        raise InputError("fbnet_architecture has been registered anew")
    return made


def train(architecture: tuple[str, ...], seed: int) -> dict[str, object]:
    """One row: the architecture, the seed, both errors and the latency."""
    values: Values = dict(zip(problem().space.names, architecture, strict=True))
    network = problem().train_best(values, seed)
    scores = {part: problem().scores(network, values, part) for part in ("validation", "test")}
    return {
        **values,
        "seed": seed,
        "validation_error": scores["validation"]["error"],
        "test_error": scores["test"]["error"],
        "table_latency": round(scores["test"]["table_latency"], 6),
    }


def enumerate_all(path: Path, seeds: Iterable[int], workers: int) -> pd.DataFrame:
    """Train what the file does not hold yet, and write it.

    Args:
        path: A CSV file, made if need be.
        seeds: Of the trainings; all architectures with one before the next.
        workers: Processes.

    Raises:
        InputError: The file is no such table.
    """
    names = list(problem().space.names)
    table = pd.DataFrame()
    if path.exists():
        table = pd.read_csv(path)
        if list(table.columns) != [*names, "seed", *ERRORS, "table_latency"]:
            raise InputError(f"{path} is no table of architectures; name another file")
    known = set(map(tuple, table[[*names, "seed"]].to_numpy().tolist())) if len(table) else set()
    space = problem().macro({})
    tasks = [(a, s) for s in seeds for a in space.architectures() if (*a, s) not in known]
    print(f"{len(known)} trainings are there, {len(tasks)} to do")
    # "spawn": torch's threads do not survive a fork.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        rows = []
        for done, future in enumerate(as_completed(pool.submit(train, *t) for t in tasks), 1):
            rows.append(future.result())
            if len(rows) == EVERY or done == len(tasks):
                table = pd.concat([table, pd.DataFrame(rows)]).sort_values(["seed", *names])
                write(path, table)
                rows = []
                print(f"{done} of {len(tasks)}", flush=True)
    return table


def write(path: Path, table: pd.DataFrame) -> None:
    """Whoever reads the file sees the old one or the new one."""
    part = path.with_suffix(".part")
    table.to_csv(part, index=False, float_format="%.8g")
    os.replace(part, path)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    table = enumerate_all(options.output, range(options.seeds), options.workers)
    for error in ERRORS:
        means = table.groupby(list(problem().space.names))[error].mean()
        print(f"{error}: {means.min():.4f} to {means.max():.4f}, median {means.median():.4f}")


if __name__ == "__main__":
    main()
