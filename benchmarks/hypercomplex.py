"""What hypercomplex layers cost in error: n against parameters, and the initialization.

    OMP_NUM_THREADS=1 python -m benchmarks.hypercomplex [--seeds 5]

The small network of `phnn`, 300 digits, 20 epochs; errors are those of the test part. A real
network of half the width stands beside the hypercomplex ones, and n = 4 without normalizations with
either initialization.
"""

from __future__ import annotations

import argparse
import math
import statistics

from bo_surrogates.space import Values
from problems.documented.phnn_tuning import COMPONENTS, PHNNTuning, PHNNTuningConfig


def case(config: PHNNTuningConfig, changes: Values, seeds: int) -> tuple[int, int, list[float]]:
    """Parameters, MACs and the test errors of a point."""
    problem = PHNNTuning(config)
    point = {**problem.published_default, **changes}
    if point["n"] not in (2, 4):
        del point["algebra"]
    values = problem.space.validate(point)
    cost = problem.cost(values)
    networks = (problem.train_best(values, seed) for seed in range(seeds))
    errors = [problem.scores(network, values, "test")["error"] for network in networks]
    return cost.parameters, cost.total_macs, errors


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    plain = PHNNTuningConfig()
    bare = plain.replace(normalized=False)
    cases: dict[str, tuple[PHNNTuningConfig, Values]] = {
        **{f"n = {n}": (plain, {"n": n}) for n in COMPONENTS},
        "n = 1, half the width": (plain, {"n": 1, "width": 12}),
        "n = 4, quaternions": (plain, {"n": 4, "algebra": "fixed"}),
        "n = 4, no normalization": (bare, {"n": 4}),
        "n = 4, no normalization, xavier": (bare.replace(init="xavier"), {"n": 4}),
    }
    print("| case | parameters | MACs | test error, % |\n|---|---|---|---|")
    for name, (config, changes) in cases.items():
        parameters, macs, errors = case(config, changes, options.seeds)
        mean = 100 * statistics.fmean(errors)
        sem = 100 * statistics.stdev(errors) / math.sqrt(len(errors)) if len(errors) > 1 else 0.0
        print(f"| {name} | {parameters:,} | {macs:,} | {mean:.1f} +- {sem:.1f} |", flush=True)


if __name__ == "__main__":
    main()
