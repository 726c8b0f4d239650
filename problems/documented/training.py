"""How documented classifiers are trained: Adam on the cross-entropy, reproducibly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bo_surrogates.config import Config, choice, integer, real
from bo_surrogates.errors import RunError
from bo_surrogates.seeding import derive_seed


@dataclass(frozen=True)
class TrainingConfig(Config):
    """How a classifier is trained.

    Attributes:
        epochs: Passes over the training set.
        batch_size: Images a step; what does not fill a last batch is left out of that epoch.
        learning_rate: Adam's step size at the start.
        weight_decay: L2 penalty added to the gradient.
        beta2: Adam's second decay rate; the first is 0.9.
        schedule: "linear" (to 0 at the last step) or "constant".
    """

    epochs: int = integer(10, 1, 10_000)
    batch_size: int = integer(64, 2, 65_536)
    learning_rate: float = real(5e-3, 1e-8, 10.0, log=True)
    weight_decay: float = real(0.0, 0.0, 1.0)
    beta2: float = real(0.99, 0.0, 0.999_999)
    schedule: str = choice("linear", ("linear", "constant"))


@dataclass(frozen=True)
class Epoch:
    """What a per-epoch hook is told.

    Attributes:
        number: Epochs done, from 1.
        loss: Mean training loss over this epoch's steps, in nats.
        network: The network in training.
    """

    number: int
    loss: float
    network: nn.Module


def train(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    config: TrainingConfig,
    seed: int,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[float]:
    """Train a classifier in place, on the device it is on.

    Args:
        network: Maps images to `n x classes` logits.
        images: `n x ...`, on the network's device.
        labels: `n` class numbers.
        config: See `TrainingConfig`.
        seed: Of the order of the images. With the same network and seed the result is the same;
            on a CPU, whatever the number of threads, within `limited_threads(1)`; on a GPU up to
            the rounding of its atomic sums.
        on_epoch: Called after every epoch; what it raises ends the training.

    Returns:
        The mean loss of every epoch.

    Raises:
        RunError: The loss is no longer finite.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "order of images"))
    batch_size = min(config.batch_size, len(images))
    batches = len(images) // batch_size
    optimizer = torch.optim.Adam(
        network.parameters(),
        lr=config.learning_rate,
        betas=(0.9, config.beta2),
        weight_decay=config.weight_decay,
        foreach=True,
    )
    step, steps = 0, config.epochs * batches
    losses = []
    network.train()
    for epoch in range(1, config.epochs + 1):
        order = torch.randperm(len(images), generator=generator).to(images.device)
        total = torch.zeros((), device=images.device)
        for batch in order[: batches * batch_size].split(batch_size):
            if config.schedule == "linear":
                optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - step / steps)
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            total += loss.detach()
            step += 1
        losses.append(total.item() / batches)
        if not math.isfinite(losses[-1]):
            raise RunError(
                f"training diverged in epoch {epoch} (loss {losses[-1]}); "
                f"lower the learning rate ({config.learning_rate:g})"
            )
        if on_epoch is not None:
            on_epoch(Epoch(epoch, losses[-1], network))
            network.train()
    network.eval()
    return losses


@torch.no_grad()
def error_rate(network: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 1024) -> float:
    """Share of images that the network, in evaluation mode, assigns to a wrong class."""
    network.eval()
    wrong = 0
    for batch, target in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        wrong += int((network(batch).argmax(dim=-1) != target).sum())
    return wrong / len(images)
