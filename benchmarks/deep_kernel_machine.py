"""How much a deep kernel machine is to learn: nu, with one outcome and with many that share it.

`OMP_NUM_THREADS=1 python -m benchmarks.deep_kernel_machine [--seeds 4] [--outcomes 1 10]`

Outcome j is a_j sin(5 x_1) sign(x_2 - 1/2) + b_j x_3 of four inputs, with a_j and b_j drawn from
N(0, 1) (a_1 = b_1 = 1) and noise of 0.1, at 40 points. The objective is that of the search, in the
parameters' maximum, an outcome and a point; NLPD and RMSE are of 400 test observations of each
outcome, in its standard deviations.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from torch import Tensor

from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates import SURROGATES
from bo_surrogates.surrogates.dkm import DKM

NU = (1.0, 10.0, 100.0, 1e3, 1e4)


def draw(outcomes: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training inputs and outcomes, test inputs and outcomes."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "step times sine"))
    a, b = torch.randn(2, outcomes, generator=generator, dtype=torch.float64)
    a[0] = b[0] = 1.0
    X = torch.rand(440, 4, generator=generator, dtype=torch.float64)
    f = (torch.sin(5.0 * X[:, :1]) * (X[:, 1:2] - 0.5).sign()) * a + X[:, 2:3] * b
    Y = f + 0.1 * torch.randn(f.shape, generator=generator, dtype=torch.float64)
    return X[:40], Y[:40], X[40:], Y[40:]


def measure(outcomes: int, nu: float, kernel: str, iterations: int, seed: int) -> dict[str, Any]:
    """One fit and its scores."""
    X, Y, X_test, Y_test = draw(outcomes, seed)
    start = time.process_time()
    config = {"nu": nu, "kernel": kernel, "iterations": iterations}
    model = SURROGATES["dkm"].build(X, Y, config=config, seed=seed)
    seconds = time.process_time() - start
    if not isinstance(model, DKM):
        raise TypeError(f"expected a DKM, got {type(model).__name__}")
    scale = Y_test.std(dim=0)
    with torch.no_grad():
        density = model.log_predictive_density(X_test, Y_test) + scale.log()
        error = (model.posterior(X_test).mean - Y_test) / scale
        objective = model.train().objective().item() / Y.numel()
    return {
        "outcomes": outcomes, "kernel": kernel, "nu": nu, "objective": objective,
        "nlpd": -density.mean().item(), "rmse": error.square().mean().sqrt().item(),
        "divergence": model.diagnostics.values["divergence"], "seconds": seconds,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--outcomes", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--kernels", nargs="+", default=["se"])
    parser.add_argument("--iterations", type=int, default=300)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = [
        measure(m, nu, kernel, options.iterations, seed)
        for m in options.outcomes
        for kernel in options.kernels
        for nu in NU
        for seed in range(options.seeds)
    ]
    table = pd.DataFrame(rows).groupby(["outcomes", "kernel", "nu"]).mean().reset_index()
    Console().print(table.to_string(index=False, float_format=lambda v: f"{v:.3g}"))


if __name__ == "__main__":
    main()
