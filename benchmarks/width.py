"""What training does as networks grow wider: three checks of the maximal update parametrization.

`OMP_NUM_THREADS=1 python -m benchmarks.width [--seeds 4] [--largest 2048]`

1. Coordinate check: log-log slopes with the width of what three steps of gradient descent move, the
   last hidden layer and the function, two hidden tanh layers.
2. The limit of linear networks: relative error of trained networks of finite width.
3. Transfer: the best learning rate of Adam on scikit-learn's digits (two hidden ReLU layers, 60
   steps of 64 images) at each width, in the standard and in the maximal update parametrization.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional

from bo_surrogates.networks import BatchedMLP
from bo_surrogates.networks.abc_parametrization import (
    MAXIMAL_UPDATE,
    NEURAL_TANGENT,
    STANDARD,
    Parametrization,
    adam_rates,
)
from bo_surrogates.networks.linear_limit import LinearNetwork, infinite_width, of_width
from bo_surrogates.seeding import derive_seed

PARAMETRIZATIONS = {
    "standard": STANDARD,
    "tangent": NEURAL_TANGENT,
    "maximal update": MAXIMAL_UPDATE,
}
BASE = 64  # width
EXPONENTS = range(-13, -2)  # of the learning rates, powers of 2


def powers(low: int, high: int, factor: int) -> list[int]:
    """low, low * factor, ..., at most high."""
    widths = [low]
    while widths[-1] * factor <= high:
        widths.append(widths[-1] * factor)
    return widths


def slope(widths: Sequence[int], values: Sequence[float]) -> float:
    """Of the least-squares line through the logarithms."""
    n, v = torch.tensor(widths).double().log(), torch.tensor(values).double().log()
    n = n - n.mean()
    return ((n @ v) / (n @ n)).item()


def coordinate_check(
    parametrization: Parametrization, widths: Sequence[int], seeds: int
) -> tuple[list[float], list[float]]:
    """Root mean square moves of features and function in three steps, one number a width."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(32, 8, generator=generator)
    Y = (X[:, :1] * X[:, 1:2]).sin()
    features, functions = [], []
    for width in widths:
        network = BatchedMLP(8, 1, width, 2)
        multiplier = parametrization.multipliers(network, BASE).float()
        scales = parametrization.start_scales(network, BASE, network.scales(1.0, 1.4, 1.0, 0.3))
        rate = 0.02 * parametrization.learning_rate(network, BASE)
        moved = torch.zeros(2)
        for seed in range(seeds):
            generator = torch.Generator().manual_seed(derive_seed(seed, "start"))
            w = network.draw(1, scales, generator, torch.float32)
            start = _look(network, multiplier * w, X)
            for _ in range(3):
                w.requires_grad_()
                loss = (network.forward(multiplier * w, X) - Y).square().mean()
                (gradient,) = torch.autograd.grad(loss, w)
                w = (w - rate * gradient).detach()
            end = _look(network, multiplier * w, X)
            moved += torch.stack([(b - a).square().mean() for a, b in zip(start, end, strict=True)])
        root = (moved / seeds).sqrt().tolist()
        features.append(root[0])
        functions.append(root[1])
    return features, functions


def _look(network: BatchedMLP, theta: Tensor, X: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return network.features(theta, X.unsqueeze(0)), network.forward(theta, X)


def errors_of_finite_widths(widths: Sequence[int], seeds: int) -> list[float]:
    """Relative error of the function of linear networks after 60 steps, one number a width."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(50, 10, generator=generator, dtype=torch.float64)
    Y = X @ torch.randn(10, 3, generator=generator, dtype=torch.float64)

    def trained(network: LinearNetwork) -> Tensor:
        for _ in range(60):
            network = network.step(lambda net: (net(X) - Y).square().mean(), 0.03)
        return network(X)

    start = infinite_width(10, 3)
    exact = trained(start)
    found = []
    for width in widths:
        squares = 0.0
        for seed in range(seeds):
            finite = of_width(start, width, torch.Generator().manual_seed(derive_seed(seed, width)))
            squares += ((trained(finite) - exact).norm() / exact.norm()).item() ** 2
        found.append((squares / seeds) ** 0.5)
    return found


def digits() -> tuple[Tensor, Tensor]:
    """1200 images, standardized, and their classes."""
    data = load_digits()
    X = torch.from_numpy(data.data).float()
    X = (X - X.mean(dim=0)) / X.std(dim=0).clamp_min(1e-6)
    return X[:1200], torch.from_numpy(data.target)[:1200]


def batches(n: int, size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Indices, drawn anew when all were used."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < size:
            order = torch.randperm(n, generator=generator)
        yield order[:size]
        order = order[size:]


def training_loss(width: int, rate: float, maximal_update: bool, seed: int) -> float:
    """Mean cross-entropy over the images after 60 steps of Adam."""
    X, labels = digits()
    network = BatchedMLP(64, 10, width, 2, "relu")
    scales = network.scales(1.4, 1.4)
    rates = torch.ones(network.num_parameters)
    if maximal_update:
        factors = MAXIMAL_UPDATE.multipliers(network, BASE)
        scales = factors * MAXIMAL_UPDATE.start_scales(network, BASE, scales)
        rates = adam_rates(network, BASE).float()
    generator = torch.Generator().manual_seed(derive_seed(seed, "start"))
    start = network.draw(1, scales, generator, torch.float32)
    move = torch.zeros_like(start).requires_grad_()
    optimizer = torch.optim.Adam([move], lr=rate, eps=1e-12)
    for batch in batches(len(X), 64, 60, derive_seed(seed, "batches")):
        optimizer.zero_grad()
        logits = network.forward(start + rates * move, X[batch]).squeeze(0)
        functional.cross_entropy(logits, labels[batch]).backward()
        optimizer.step()
    with torch.no_grad():
        logits = network.forward(start + rates * move, X).squeeze(0)
    return functional.cross_entropy(logits, labels).item()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--largest", type=int, default=2048, help="width")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = Console()

    widths = powers(128, options.largest, 4)
    shown = Table(title=f"Slopes with the width, {widths}", box=None, header_style="bold")
    for column in ("parametrization", "features", "function"):
        shown.add_column(column)
    for name, parametrization in PARAMETRIZATIONS.items():
        moves = coordinate_check(parametrization, widths, options.seeds)
        shown.add_row(name, *(f"{slope(widths, m):+.2f}" for m in moves))
    console.print(shown)

    wide = powers(64, 16_384, 4)
    errors = errors_of_finite_widths(wide, options.seeds)
    shown = Table(title="Linear networks: error against the limit", box=None, header_style="bold")
    for width in wide:
        shown.add_column(str(width))
    shown.add_column("slope")
    shown.add_row(*(f"{e:.4f}" for e in errors), f"{slope(wide, errors):+.2f}")
    console.print(shown)

    widths = powers(BASE, options.largest, 4)
    shown = Table(
        title="Digits: best log2 of Adam's learning rate, and its loss",
        box=None,
        header_style="bold",
    )
    shown.add_column("parametrization")
    for width in widths:
        shown.add_column(str(width))
    for name in ("standard", "maximal update"):
        cells = []
        for width in widths:
            losses = [training_loss(width, 2.0**e, name != "standard", 0) for e in EXPONENTS]
            best = min(range(len(losses)), key=losses.__getitem__)
            cells.append(f"{EXPONENTS[best]}, {losses[best]:.4f}")
        shown.add_row(name, *cells)
    console.print(shown)


if __name__ == "__main__":
    main()
