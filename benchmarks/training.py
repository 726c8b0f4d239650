"""One training of each documented network's published default, on the CPU and on a GPU.

    python -m benchmarks.training --devices cpu cuda
    python -m benchmarks.training --devices cpu cuda --problems pokebnn fbnet --epochs 2 --rounds 3

Evaluations are whole: training, tuning and test, at the problem's own options but `--epochs`, the
devices in turn, after one of a single epoch that is not counted. Compare wall-clock seconds.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping

import torch

from benchmarks.timing import Work, measure, report, summarize
from problems import PROBLEMS
from problems.documented.tuning_problem import TuningProblem

TRAINED = [n for n, e in PROBLEMS.items() if issubclass(e.problem_class, TuningProblem)]


def training(name: str, device: str, epochs: int | None) -> Work:
    """An evaluation of the published default, as a case to time."""
    options = {"device": device} | ({} if epochs is None else {"epochs": epochs})
    problem = PROBLEMS[name].make(**options)
    if not isinstance(problem, TuningProblem):
        raise TypeError(f"{name} is no tuning problem")
    problem.data()

    def work(seed: int) -> Mapping[str, Callable[[], object]]:
        def run() -> None:
            problem.evaluate(problem.published_default, seed=seed)
            if device.startswith("cuda"):
                torch.cuda.synchronize()

        return {"evaluation": run}

    return work


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--problems", nargs="+", default=TRAINED, choices=TRAINED, metavar="NAME")
    parser.add_argument("--devices", nargs="+", default=["cpu", "cuda"])
    parser.add_argument("--epochs", type=int, help="instead of the problem's own")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    devices = arguments.devices
    for name in arguments.problems:
        measure({device: training(name, device, 1) for device in devices}, 1, warm_up=0)
        cases = {device: training(name, device, arguments.epochs) for device in devices}
        rows = summarize(measure(cases, arguments.rounds, warm_up=0), devices[0])
        report(f"{name}, one evaluation of the published default", rows, devices[0])


if __name__ == "__main__":
    main()
