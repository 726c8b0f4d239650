"""One iteration of the loop: fit and acquisition, every surrogate against plain BoTorch.

    OMP_NUM_THREADS=1 python -m benchmarks.iteration --n 20 100 --rounds 7
    python -m benchmarks.iteration --n 1000 --rounds 1 --surrogates gp nngp rff
    python -m benchmarks.iteration --n 1000 --rounds 1 --surrogates nngp --fit-only --no-peer
    python -m benchmarks.iteration --n 100 --q 10 --surrogates ensemble \
        --config ensemble '{"members": 10, "depth": 3, "width": 128}' \
        --budget '{"num_restarts": 2, "raw_samples": 16, "maxiter": 10}'
    python -m benchmarks.iteration --n 100 1000 --rounds 3 --device cuda

Hartmann-6 with n Sobol points, q candidates, noisy log expected improvement. The peer is
`SingleTaskGP`, `fit_gpytorch_mll` and `optimize_acqf` with the same budget: the default one, or
`--budget`. Candidates are found one after the other, each with the whole budget. What is done once
a process (imports, compilers) is done before, in an iteration at 20 points that is not counted.
With `--device cuda` the points lie on the GPU, and every part waits for what it started there;
compare wall-clock seconds then, as the GPU's own are not the process's.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.transforms import Normalize, Standardize
from botorch.optim import optimize_acqf
from botorch.sampling.normal import SobolQMCNormalSampler
from gpytorch.mlls import ExactMarginalLogLikelihood

from benchmarks.timing import Work, measure, report, summarize
from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.acquisition.defaults import make_acquisition
from bo_surrogates.acquisition.optimize import maximize
from bo_surrogates.design import sobol_design
from bo_surrogates.surrogates import SURROGATES
from problems import PROBLEMS

DEFAULT = AcquisitionConfig()
CPU = torch.device("cpu")
PEER = "botorch"
WARM_UP_POINTS = 20


def ours(
    name: str,
    n: int,
    q: int = 1,
    config: Mapping[str, Any] | None = None,
    budget: AcquisitionConfig = DEFAULT,
    device: torch.device = CPU,
) -> Callable[[int], Mapping[str, Callable[[], object]]]:
    """Fit and acquisition of a registered surrogate."""
    problem = PROBLEMS["hartmann6"].make(negate=True)

    def work(seed: int) -> Mapping[str, Callable[[], object]]:
        X = sobol_design(problem.space, n, seed)
        Y = problem(X).unsqueeze(-1).to(device)
        X = X.to(device)
        made = {}

        def fit() -> None:
            made["model"] = SURROGATES[name].build(
                X, Y, bounds=problem.bounds.to(device), config=config, seed=seed
            )

        def acquire() -> None:
            function = make_acquisition(
                made["model"], config=budget, X_baseline=X, seed=seed,
                weights=torch.ones(1, 1, dtype=torch.float64, device=device),
            )  # fmt: skip
            maximize(function, problem.space, q, budget, X)

        return {"fit": fit, "acquisition": acquire}

    return work


def botorch(
    n: int, q: int = 1, budget: AcquisitionConfig = DEFAULT, device: torch.device = CPU
) -> Callable[[int], Mapping[str, Callable[[], object]]]:
    """The same by BoTorch alone."""
    problem = PROBLEMS["hartmann6"].make(negate=True)

    def work(seed: int) -> Mapping[str, Callable[[], object]]:
        X = sobol_design(problem.space, n, seed)
        Y = problem(X).unsqueeze(-1).to(device)
        X = X.to(device)
        made = {}

        def fit() -> None:
            model = SingleTaskGP(
                X, Y, input_transform=Normalize(6, bounds=problem.bounds.to(device)),
                outcome_transform=Standardize(1),
            )  # fmt: skip
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
            made["model"] = model

        def acquire() -> None:
            function = qLogNoisyExpectedImprovement(
                made["model"], X_baseline=X, prune_baseline=True,
                sampler=SobolQMCNormalSampler(torch.Size([budget.mc_samples]), seed=seed),
            )  # fmt: skip
            optimize_acqf(
                function, bounds=problem.bounds.to(device), q=q, sequential=True,
                num_restarts=budget.num_restarts,
                raw_samples=budget.raw_samples, options={"maxiter": budget.maxiter},
            )  # fmt: skip

        return {"fit": fit, "acquisition": acquire}

    return work


def waiting(work: Work) -> Work:
    """The same, each part waiting for the GPU."""

    def finished(run: Callable[[], object]) -> Callable[[], None]:
        def both() -> None:
            run()
            torch.cuda.synchronize()

        return both

    return lambda seed: {part: finished(run) for part, run in work(seed).items()}


def fit_only(work: Work) -> Work:
    """The same without the acquisition."""
    return lambda seed: {"fit": work(seed)["fit"]}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, nargs="+", default=[20, 100], help="training points")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--surrogates", nargs="+", default=list(SURROGATES))
    parser.add_argument("--q", type=int, default=1, help="candidates")
    parser.add_argument(
        "--config", nargs=2, action="append", default=[], metavar=("NAME", "JSON"),
        help="a surrogate's configuration, as JSON",
    )  # fmt: skip
    parser.add_argument("--fit-only", action="store_true", help="leave the acquisition out")
    parser.add_argument(
        "--peer", action=argparse.BooleanOptionalAction, default=True, help=f"{PEER}, for ratios"
    )
    parser.add_argument("--budget", default="{}", help="of the acquisition, as JSON")
    parser.add_argument("--device", type=torch.device, default=CPU, help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="folder to write the figures to")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    configs = {name: json.loads(text) for name, text in arguments.config}
    q, budget = arguments.q, AcquisitionConfig(**json.loads(arguments.budget))
    device = arguments.device

    def cases(n: int) -> dict[str, Work]:
        found = {
            name: ours(name, n, q, configs.get(name), budget, device)
            for name in arguments.surrogates
        }
        if arguments.peer:
            found = {PEER: botorch(n, q, budget, device)} | found
        if arguments.fit_only:
            found = {name: fit_only(work) for name, work in found.items()}
        if device.type == "cuda":
            found = {name: waiting(work) for name, work in found.items()}
        return found

    measure(cases(WARM_UP_POINTS), 1, warm_up=0)
    for n in arguments.n:
        rows = summarize(measure(cases(n), arguments.rounds, warm_up=0), PEER)
        path = (
            None
            if arguments.json is None
            else arguments.json / f"iteration_{device}_n{n}_q{q}.json"
        )
        report(f"one iteration on Hartmann-6, n = {n}, q = {q}, {device}", rows, PEER, path)


if __name__ == "__main__":
    main()
