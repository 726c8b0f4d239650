"""Seconds of maximizing an acquisition function over networks of finite width.

`python -m benchmarks.acquisition [--networks 64 512] [--width 64] [--rounds 5] [--json FOLDER]`

qLogEI, q = 1, 8 restarts from 128 raw samples, over an ensemble of networks drawn from the
posterior by `hmc` (Hartmann-6, 20 points, two hidden layers). Only the acquisition is timed. The
reference is the smallest number of networks.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from benchmarks.timing import measure, report, summarize
from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.acquisition.defaults import make_acquisition
from bo_surrogates.acquisition.optimize import maximize
from bo_surrogates.design import sobol_design
from bo_surrogates.loop import _standardized
from bo_surrogates.surrogates import SURROGATES
from problems import PROBLEMS

POINTS = 20
BUDGET = AcquisitionConfig(name="qlogei", num_restarts=8, raw_samples=128, maxiter=100)


def case(networks: int, width: int) -> Callable[[int], Mapping[str, Callable[[], object]]]:
    """The acquisition with a number of networks."""
    problem = PROBLEMS["hartmann6"].make(negate=True)
    chains = 16
    config = {
        "width": width, "draws": networks, "chains": chains, "warmup": 20,
        "samples": max(-(-networks // chains), 4), "max_r_hat": 100.0, "min_ess": 0.0,
    }  # fmt: skip

    def work(seed: int) -> Mapping[str, Callable[[], object]]:
        X = sobol_design(problem.space, POINTS, seed)
        Y = problem(X).unsqueeze(-1)
        model = SURROGATES["hmc"].build(X, Y, bounds=problem.bounds, config=config, seed=seed)

        def acquire() -> None:
            function = make_acquisition(
                _standardized(model), config=BUDGET, weights=torch.ones(1, 1).double(),
                X_baseline=X, seed=seed,
            )  # fmt: skip
            maximize(function, problem.space, 1, BUDGET, X)

        return {"acquisition": acquire}

    return work


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--networks", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="folder to write the figures to")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    cases = {f"{k} networks": case(k, arguments.width) for k in arguments.networks}
    first = next(iter(cases))
    rows = summarize(measure(cases, arguments.rounds), first)
    path = None if arguments.json is None else arguments.json / "acquisition.json"
    report(f"qLogEI over networks of width {arguments.width}", rows, first, path)


if __name__ == "__main__":
    main()
