"""Does the evidence choose the bandwidth that a function needs?

`OMP_NUM_THREADS=1 python -m benchmarks.bandwidths [--seeds 6]`

In one input, sin(w x) + cos(0.7 w x^2) / 2 on [-1, 1] at 80 random points with noise of 0.05: the
bandwidth that `bandlimited` chooses, as w grows; the function's frequencies go up to 1.4 w. In two
inputs, sin(12 x_1) + cos(20 x_1 x_2) / 2 at 80 points without noise: the evidence and the error at
500 other points of the kernel's process, bandwidth by bandwidth, variances at the maximum of the
evidence (Li et al. 2023, arXiv 2008.08427, whose claim is that the bandwidth has to grow with the
complexity of the function).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from statistics import median

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize
from torch import Tensor

from bo_surrogates.kernels.random_features import BandlimitedFourierFeatures
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates import SURROGATES

COMPLEXITIES = (8.0, 16.0, 32.0, 64.0)
BANDWIDTHS = (1.0, 3.0, 6.0, 10.0, 15.0, 20.0, 30.0, 60.0)
ACTIVATIONS = {"cos": "cube", "tanh": "ball"}  # with the domain of the weights
POINTS, TEST, NOISE = 80, 500, 0.05
LEAST_NOISE = 1e-6  # variance, of outcomes of unit variance


def points(n: int, d: int, seed: int) -> tuple[Tensor, torch.Generator]:
    """Uniform in [-1, 1]^d, and the generator they are of."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "bandwidths"))
    return 2.0 * torch.rand(n, d, generator=generator, dtype=torch.float64) - 1.0, generator


def chosen(w: float, activation: str, seed: int) -> float:
    """The bandwidth that the evidence chooses in one input."""
    X, generator = points(POINTS, 1, seed)
    Y = torch.sin(w * X) + 0.5 * torch.cos(0.7 * w * X.square())
    Y = Y + NOISE * torch.randn(Y.shape, generator=generator, dtype=torch.float64)
    config = {"activation": activation, "domain": ACTIVATIONS[activation]}
    bounds = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    model = SURROGATES["bandlimited"].build(X, Y, bounds=bounds, config=config, seed=seed)
    return torch.as_tensor(model.log_scales).exp().item()


def evidence_and_error(bandwidth: float, seed: int) -> tuple[float, float]:
    """Log evidence a point, and root mean square error elsewhere, in two inputs."""
    X, _ = points(POINTS + TEST, 2, seed)
    f = torch.sin(12.0 * X[:, 0]) + 0.5 * torch.cos(20.0 * X[:, 0] * X[:, 1])
    y, truth = f[:POINTS] - f[:POINTS].mean(), f[POINTS:] - f[:POINTS].mean()
    x = (X + 1.0) / 2.0
    scales = torch.full((2,), bandwidth, dtype=torch.float64)
    K = BandlimitedFourierFeatures("cube").kernel(x, x[:POINTS], scales)
    if K is None:
        raise TypeError("the kernel has no closed form")
    values, vectors = np.linalg.eigh(K[:POINTS].numpy())
    white = vectors.T @ y.numpy()

    def negative_evidence(logs: np.ndarray) -> float:
        variances = np.exp(logs[0]) * values.clip(0.0) + np.exp(logs[1])
        return 0.5 * float((white**2 / variances + np.log(2.0 * math.pi * variances)).sum())

    bounds = [(-7.0, 7.0), (math.log(LEAST_NOISE), 2.0)]
    starts = [np.array([0.0, noise]) for noise in (-9.0, -5.0, -1.0)]
    found = min(
        (minimize(negative_evidence, s, method="L-BFGS-B", bounds=bounds) for s in starts),
        key=lambda result: result.fun,
    )
    variance, noise = np.exp(found.x)
    weights = vectors @ (white * variance / (variance * values.clip(0.0) + noise))
    error = K[POINTS:] @ torch.from_numpy(weights) - truth
    return -found.fun / POINTS, error.square().mean().sqrt().item()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=6)
    seeds = range(parser.parse_args(arguments).seeds)
    torch.set_num_threads(1)
    console = Console(width=120)
    table = Table(title="bandwidth chosen: median (smallest, largest)", box=None)
    for column in ("activation", *(f"w = {w:g}" for w in COMPLEXITIES)):
        table.add_column(column, justify="right")
    for activation in ACTIVATIONS:
        cells = []
        for w in COMPLEXITIES:
            found = [chosen(w, activation, seed) for seed in seeds]
            cells.append(f"{median(found):.3g} ({min(found):.3g}, {max(found):.3g})")
        table.add_row(activation, *cells)
    console.print(table)
    results = {b: [evidence_and_error(b, seed) for seed in seeds] for b in BANDWIDTHS}
    table = Table(title="two inputs, by bandwidth: medians, and in how many seeds best", box=None)
    for column in ("bandwidth", "log evidence a point", "best", "error", "best"):
        table.add_column(column, justify="right")
    by_evidence = [max(BANDWIDTHS, key=lambda b: results[b][i][0]) for i in seeds]
    by_error = [min(BANDWIDTHS, key=lambda b: results[b][i][1]) for i in seeds]
    for b in BANDWIDTHS:
        evidences, errors = zip(*results[b], strict=True)
        table.add_row(
            f"{b:g}", f"{median(evidences):.2f}", str(by_evidence.count(b)),
            f"{median(errors):.3f}", str(by_error.count(b)),
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main()
