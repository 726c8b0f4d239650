"""Does learning across tasks pay, and does it take learnt features?

    OMP_NUM_THREADS=1 python -m benchmarks.meta_learning [--seeds 3] [--widths 16 64 1024]

Few-shot classification: a task has five new classes with one example each to adapt to, by one step
of gradient descent, and ten each to be judged by. First-order MAML learns the weights that a task
starts from on 40 classes (the gradient after the step is applied before it); accuracies are those
on 20 other classes. The networks are linear, f(x) = V U x: of finite width in the maximal update
parametrization, of infinite width in it (`networks/linear_limit.py`), and in the kernel limit,
whose features U stand still, which leaves a linear classifier (Yang and Hu 2021, arXiv 2011.14522,
section 7, there on Omniglot).

A class is a point in six dimensions, its examples are spread about it by 0.35; 20 further
dimensions of standard deviation 1.2 tell nothing of the class. All are rotated into 64 inputs of
mean norm 1: a metric that leaves the 20 out has to be learnt.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from bo_surrogates.networks.linear_limit import LinearNetwork, infinite_width, of_width
from bo_surrogates.seeding import derive_seed

INPUTS, LATENT, NUISANCE = 64, 6, 20
CLASSES, META_TRAIN = 60, 40
WAYS, QUERIES = 5, 10
INNER_RATE, META_RATE, CLIP = 5.0, 0.2, 0.5
TEST_TASKS = 400


@dataclass(frozen=True)
class Tasks:
    """T tasks.

    Attributes:
        support: `T x 5 x d`, one example of each class, in order.
        query: `T x 50 x d`, ten of each, in order.
    """

    support: Tensor
    query: Tensor

    def support_loss(self, network: LinearNetwork) -> Tensor:
        """Cross-entropy, the mean of a task, summed over tasks."""
        return cross_entropy(network(self.support))

    def query_loss(self, network: LinearNetwork) -> Tensor:
        """See `support_loss`."""
        return cross_entropy(network(self.query))


def labels(logits: Tensor) -> Tensor:
    """The classes of examples in order, `T x n`."""
    each = logits.shape[-2] // WAYS
    return torch.arange(WAYS).repeat_interleave(each).expand(logits.shape[:-1])


def cross_entropy(logits: Tensor) -> Tensor:
    """The mean of a task, summed over tasks, of `T x n x 5` logits."""
    total = functional.cross_entropy(logits.mT, labels(logits), reduction="sum")
    return total / logits.shape[-2]


class World:
    """Classes, and tasks made of them."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(derive_seed(seed, "world"))
        self.prototypes = self.normal(CLASSES, LATENT)
        self.rotation = torch.linalg.qr(self.normal(INPUTS, LATENT + NUISANCE)).Q
        self.size = 1.0
        self.size = self.tasks(100, range(META_TRAIN)).query.norm(dim=-1).mean().item()

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def tasks(self, count: int, classes: range) -> Tasks:
        """Random tasks of some of the classes."""
        order = torch.rand(count, len(classes), generator=self.generator).argsort(dim=-1)
        chosen = self.prototypes[order[:, :WAYS] + classes.start].unsqueeze(-2)
        shape = (count, WAYS, 1 + QUERIES)
        latent = chosen + 0.35 * self.normal(*shape, LATENT)
        all_of_them = torch.cat([latent, 1.2 * self.normal(*shape, NUISANCE)], dim=-1)
        X = all_of_them @ self.rotation.mT / self.size
        return Tasks(X[..., 0, :], X[..., 1:, :].flatten(1, 2))


def adapt(network: LinearNetwork, tasks: Tasks, kernel: bool) -> LinearNetwork:
    """One step for each task from the same weights; in the kernel limit of V alone."""
    T = len(tasks.support)
    copies = LinearNetwork(*(part.expand(T, *part.shape) for part in network))
    moved = copies.step(tasks.support_loss, INNER_RATE)
    return moved._replace(U=copies.U) if kernel else moved


def meta_train(
    network: LinearNetwork, world: World, iterations: int, batch: int, kernel: bool = False
) -> LinearNetwork:
    """First-order MAML.

    Args:
        network: Where it begins.
        world: Whose first 40 classes are learnt from.
        iterations: Steps on the starting weights.
        batch: Tasks a step.
        kernel: Whether U stands still.
    """
    for _ in range(iterations):
        tasks = world.tasks(batch, range(META_TRAIN))
        adapted = adapt(network, tasks, kernel)
        after = adapted.step(tasks.query_loss, 1.0)
        gradients = [(a - b).mean(dim=0) for a, b in zip(adapted, after, strict=True)]
        if kernel:
            gradients[0] = torch.zeros_like(gradients[0])
        norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt().item()
        rate = META_RATE * min(1.0, CLIP / max(norm, 1e-12))
        network = LinearNetwork(*(w - rate * g for w, g in zip(network, gradients, strict=True)))
    return network


def accuracy(network: LinearNetwork, tasks: Tasks, kernel: bool = False) -> float:
    """Share of the queries that are classified correctly after adapting."""
    logits = adapt(network, tasks, kernel)(tasks.query)
    return (logits.argmax(dim=-1) == labels(logits)).double().mean().item()


def starts(widths: Sequence[int], seed: int) -> dict[str, LinearNetwork]:
    """Networks before any training, the kernel limit first."""
    limit = infinite_width(INPUTS, WAYS)
    generator = torch.Generator().manual_seed(derive_seed(seed, "weights"))
    linear = LinearNetwork(
        torch.eye(INPUTS, dtype=torch.float64), torch.zeros(WAYS, INPUTS, dtype=torch.float64)
    )
    finite = {f"width {n}": of_width(limit, n, generator) for n in widths}
    return {"kernel limit": linear, **finite, "infinite width": limit}


def run(
    widths: Sequence[int], seed: int, iterations: int, batch: int, test_tasks: int = TEST_TASKS
) -> dict[str, list[float]]:
    """Accuracy before and after training across tasks, of each network on the same tasks."""
    found = {}
    for name, network in starts(widths, seed).items():
        world, kernel = World(seed), name == "kernel limit"
        test = world.tasks(test_tasks, range(META_TRAIN, CLASSES))
        trained = meta_train(network, world, iterations, batch, kernel)
        found[name] = [accuracy(one, test, kernel) for one in (network, trained)]
    return found


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 64, 1024])
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8, help="tasks a step")
    options = parser.parse_args()
    runs = [
        run(options.widths, seed, options.iterations, options.batch)
        for seed in range(options.seeds)
    ]
    table = Table(title=f"accuracy on new classes, mean of {options.seeds} seeds", box=None)
    for column in ("network", "untrained", "trained across tasks", "smallest", "largest"):
        table.add_column(column, justify="right")
    for name in runs[0]:
        before, after = (torch.tensor([r[name][i] for r in runs]) for i in (0, 1))
        values = (before.mean(), after.mean(), after.min(), after.max())
        table.add_row(name, *(f"{v:.3f}" for v in values))
    Console().print(table)


if __name__ == "__main__":
    main()
