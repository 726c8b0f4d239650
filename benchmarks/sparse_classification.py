"""Sparse variational inference of a classifier of digits: what the choice of active weights buys.

    OMP_NUM_THREADS=1 python -m benchmarks.sparse_classification [--steps 900] [--members 3]

A network 64-100-100-10 (ReLU), every weight matrix at one density, biases without uncertainty, on
scikit-learn's digits (`problems/documented/data.py`). Per density: active sets that change, by two
criteria, and those of the start. Each member is a repetition with its own start, predicted from
its own draws: accuracy, mean negative log-likelihood and expected calibration error (15 bins) on
the test images are averages over members.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from bo_surrogates.inference.ssvi import (
    Budget,
    Replacement,
    State,
    init,
    sparse_scales,
    train,
    uniform_groups,
)
from bo_surrogates.networks import BatchedMLP
from bo_surrogates.networks.local_reparameterization import sampled_forward
from problems.documented.data import LabelledData, load_data

DRAWS = 32  # of a member's weights, for its predictions
BATCH = 128
BINS = 15


@dataclass(frozen=True)
class Scores:
    """Of one member on the test images.

    Attributes:
        accuracy: Share of images classified correctly.
        nll: Mean negative log-likelihood, in nats.
        ece: Expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3).
    """

    accuracy: float
    nll: float
    ece: float


def fit(
    data: LabelledData,
    density: float,
    replacement: Replacement,
    *,
    members: int = 3,
    steps: int = 900,
    width: int = 100,
    kl_weight: float = 0.1,
    learning_rate: float = 5e-3,
    seed: int = 0,
) -> tuple[BatchedMLP, State]:
    """Train all members.

    Args:
        data: Images; training uses minibatches of 128.
        density: Share of active weights in every matrix.
        replacement: Of active weights.
        members: Repetitions, trained at once.
        steps: Adam steps.
        width: Hidden units in each of two layers.
        kl_weight: beta.
        learning_rate: Of means and of standard deviations.
        seed: Of starts, minibatches and noise.
    """
    X, labels = data.train_x.flatten(start_dim=1), data.train_y
    network = BatchedMLP(X.shape[-1], data.classes, width, 2, "relu")
    groups = uniform_groups(network, density, dense_first=False)
    scales = sparse_scales(network, network.scales(1.5, 1.5, output_scale=1.5), groups).float()
    unit = sparse_scales(network, network.scales(bias_scale=1e-3), groups)
    generator = torch.Generator().manual_seed(seed)
    std = network.pack(
        [
            layer._replace(bias=torch.zeros_like(layer.bias))
            for layer in network.unpack(0.05 * scales.unsqueeze(0))
        ]
    )
    start = init(network.draw(members, unit, generator, X.dtype), std, groups, generator)

    def loss(mean: Tensor, std: Tensor) -> Tensor:
        batch = torch.randint(len(X), (BATCH,), generator=generator)
        logits = sampled_forward(network, mean, std, X[batch], generator)
        repeated = labels[batch].repeat(members)
        total = functional.cross_entropy(logits.flatten(end_dim=1), repeated, reduction="sum")
        return total * (len(X) / BATCH)

    budget = Budget(steps, learning_rate, learning_rate, kl_weight, replacement=replacement)
    return network, train(loss, start, scales, groups, budget).state


def probabilities(network: BatchedMLP, state: State, X: Tensor, seed: int = 0) -> Tensor:
    """Predictive probabilities `K x n x classes` of each member: means over its draws.

    Args:
        network: Shape of the members.
        state: Their approximate posterior.
        X: `n x d` inputs.
        seed: Of the draws.
    """
    members = len(state.mean)
    theta = state.draw(DRAWS * members, torch.Generator().manual_seed(seed))
    draws = network.forward(theta, X).softmax(dim=-1)
    return draws.unflatten(0, (DRAWS, members)).mean(dim=0)


def score(predicted: Tensor, labels: Tensor) -> Scores:
    """Scores of probabilities `n x classes`."""
    confidence, guess = predicted.max(dim=-1)
    right = (guess == labels).double()
    bins = (confidence * BINS).long().clamp_max(BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.float64)
    gaps.index_add_(0, bins, right - confidence.double())
    likelihood = predicted.gather(-1, labels.unsqueeze(-1))
    return Scores(
        right.mean().item(),
        -likelihood.double().log().mean().item(),
        (gaps.abs().sum() / len(labels)).item(),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--densities", nargs="+", type=float, default=[1.0, 0.1, 0.05, 0.02])
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    data = load_data("digits")
    # Nothing is tuned here, so that all images that are not trained on are tested on.
    X = torch.cat([data.validation_x, data.test_x]).flatten(start_dim=1)
    labels = torch.cat([data.validation_y, data.test_y])
    shown = Table(box=None, header_style="bold")
    for column in ("density", "active sets", "accuracy", "NLL", "ECE", "CPU s"):
        shown.add_column(column, justify="left" if column == "active sets" else "right")
    kinds = {
        "by SNR of |weight|": Replacement(interval=30),
        "by |mean|": Replacement(interval=30, criterion="mean"),
        "of the start": Replacement(fraction=0.0),
    }
    for density in options.densities:
        for kind, replacement in kinds.items():
            if density == 1 and replacement.fraction > 0:
                continue  # nothing to replace
            start = time.process_time()
            network, state = fit(
                data, density, replacement, members=options.members, steps=options.steps,
                seed=options.seed,
            )  # fmt: skip
            seconds = time.process_time() - start
            scores = [score(p, labels) for p in probabilities(network, state, X)]
            means = [
                sum(getattr(s, name) for s in scores) / len(scores)
                for name in ("accuracy", "nll", "ece")
            ]
            shown.add_row(
                f"{density:g}", "all" if density == 1 else kind,
                *[f"{value:.3f}" for value in means], f"{seconds:.1f}",
            )  # fmt: skip
    Console().print(shown)


if __name__ == "__main__":
    main()
