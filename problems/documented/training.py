"""How documented networks are trained: reproducibly, epoch by epoch, to be resumed at any of them.

    training = Training(network, x, y, TrainingConfig(epochs=10), seed=0)
    run(training)

What an epoch draws at random (the order of the data, augmentations, a network's own noise) follows
from the seed and the epoch's number. So the state between epochs is the weights, the optimizer's
moments and two lists of numbers, and a training that is killed and resumed ends as it would have.

Longer recipes are put together: `Stages` runs trainings one after the other, `Alternating` in turns
(two optimizers on one network).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from bo_surrogates.config import Config, choice, integer, real, reals
from bo_surrogates.errors import InputError, RunError
from bo_surrogates.seeding import derive_seed, fixed_seed
from problems.documented.augmentation import augment
from problems.documented.distillation import Distillation, Distiller
from problems.documented.schedules import learning_rate_factor

OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("linear", "cosine", "step", "constant")
DECAYED = ("all", "weights")


@dataclass(frozen=True)
class TrainingConfig(Config):
    """How a classifier is trained.

    Attributes:
        epochs: Passes over the training set.
        batch_size: Inputs a step; what does not fill a last batch is left out of that epoch.
        optimizer: "adam" or "sgd".
        learning_rate: Step size at its largest.
        momentum: Of "sgd", or Adam's first decay rate.
        beta2: Adam's second decay rate.
        weight_decay: L2 penalty added to the gradient.
        decayed: What has it: "all" parameters, or "weights" of two and more dimensions (not
            biases, normalizations and slopes).
        schedule: "linear" or "cosine" (to 0 at the last step), "step" or "constant".
        milestones: Of "step": shares of the training after which the rate falls.
        step_factor: Of "step": by which it falls.
        warmup: Share of the training in which the rate rises from 0.
        label_smoothing: Share of a label that goes to all classes alike.
        gradient_norm: What longer gradients are cut to; None: nothing is cut.
        flip: Whether training images are mirrored at random, left to right.
        crop: Pixels by which training images are shifted at random, at most, zeros moving in.
    """

    epochs: int = integer(10, 1, 10_000)
    batch_size: int = integer(64, 2, 65_536)
    optimizer: str = choice("adam", OPTIMIZERS)
    learning_rate: float = real(5e-3, 1e-8, 10.0, log=True)
    momentum: float = real(0.9, 0.0, 0.999_999)
    beta2: float = real(0.99, 0.0, 0.999_999)
    weight_decay: float = real(0.0, 0.0, 1.0)
    decayed: str = choice("all", DECAYED)
    schedule: str = choice("linear", SCHEDULES)
    milestones: tuple[float, ...] = reals((0.5, 0.75), 0.0, 1.0)
    step_factor: float = real(0.1, 0.0, 1.0)
    warmup: float = real(0.0, 0.0, 0.99)
    label_smoothing: float = real(0.0, 0.0, 0.99)
    gradient_norm: float | None = real(None, 1e-12, math.inf, optional=True)
    flip: bool = choice(False, (False, True))
    crop: int = integer(0, 0, 64)


@dataclass(frozen=True)
class Moment:
    """Where in a training a step is: what quantities that change in its course depend on.

    Attributes:
        epoch: Epochs done, from 0.
        epochs: In all.
        step: Steps done, from 0.
        steps: In all.
    """

    epoch: int
    epochs: int
    step: int
    steps: int

    @property
    def progress(self) -> float:
        """Share of the steps that are done, in [0, 1)."""
        return self.step / self.steps

    @property
    def epoch_progress(self) -> float:
        """Share of the epochs that are done, in [0, 1)."""
        return self.epoch / self.epochs


@dataclass(frozen=True)
class Rule:
    """How one parameter is trained.

    Attributes:
        rate: Its learning rate, as a multiple of the configured one.
        weight_decay: Its own; None: the configured one.
    """

    rate: float = 1.0
    weight_decay: float | None = None


Rules = Callable[[str, nn.Parameter], Rule | None]  # by name; None: the parameter is not trained


@dataclass(frozen=True)
class Hooks:
    """What a method adds to the training.

    Attributes:
        rules: How each parameter is trained.
        before_step: Told the moment before every step: sets what is annealed.
        after_step: Called after every step, without gradients: projects weights, for example.
        penalty: Added to the loss.
        loss: Instead of the cross-entropy: of the network, inputs and labels.
        distillation: What is learnt from a teacher beside the labels.
        memory: What the method remembers from step to step, in buffers: a part of the state.
    """

    rules: Rules | None = None
    before_step: Callable[[nn.Module, Moment], None] | None = None
    after_step: Callable[[nn.Module], None] | None = None
    penalty: Callable[[nn.Module, Moment], Tensor] | None = None
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None
    distillation: Distillation | None = None
    memory: nn.Module | None = None


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


@dataclass(frozen=True)
class State:
    """A training between two epochs, as what can be stored without pickle.

    Attributes:
        tensors: By name.
        facts: Plain data, such as JSON holds.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def part(self, name: str) -> State:
        """What `joined` has put there."""
        prefix = name + "."
        tensors = {k[len(prefix) :]: v for k, v in self.tensors.items() if k.startswith(prefix)}
        return State(tensors, self.facts[name])


def joined(parts: Mapping[str, State], facts: Mapping[str, Any]) -> State:
    """One state of several, and further facts."""
    tensors = {f"{name}.{k}": v for name, part in parts.items() for k, v in part.tensors.items()}
    return State(tensors, {**facts, **{name: part.facts for name, part in parts.items()}})


class Trainer(Protocol):
    """Something that trains a network epoch by epoch.

    Attributes:
        network: As far as it has come; in evaluation mode between epochs.
        epochs: In all.
        epoch: Done so far.
    """

    epochs: int
    epoch: int

    @property
    def network(self) -> nn.Module:
        """See the class."""

    def run_epoch(self) -> Epoch:
        """Train for one epoch.

        Raises:
            RunError: The training has diverged.
        """

    def state(self) -> State:
        """All that the epochs to come depend on."""

    def restore(self, state: State) -> None:
        """Continue where `state` was taken, of a trainer made by the same call."""


def run(trainer: Trainer, on_epoch: Callable[[Epoch], None] | None = None) -> list[float]:
    """Train to the end; what the hook raises ends the training.

    Returns:
        The mean loss of every epoch run.

    Raises:
        RunError: The training has diverged.
    """
    losses = []
    while trainer.epoch < trainer.epochs:
        epoch = trainer.run_epoch()
        losses.append(epoch.loss)
        if on_epoch is not None:
            on_epoch(epoch)
    return losses


class Training:
    """The training of a classifier in place, on the device it is on.

    With the same network and seed the result is the same: on a CPU within `limited_threads(1)` in
    every bit, on a GPU up to the rounding of its atomic sums.

    Args:
        network: Maps inputs to `n x classes` logits.
        x: `n x ...` inputs, on the network's device.
        y: `n` class numbers.
        config: See `TrainingConfig`.
        seed: Of the order of the inputs and all else that is random.
        hooks: See `Hooks`.

    Raises:
        InputError: There are fewer inputs than a batch needs, or no parameter is trained.
    """

    def __init__(
        self,
        network: nn.Module,
        x: Tensor,
        y: Tensor,
        config: TrainingConfig,
        seed: int,
        hooks: Hooks | None = None,
    ) -> None:
        if len(x) < 2:
            raise InputError(f"training takes at least 2 inputs, got {len(x)}")
        self.network, self.config, self.seed = network, config, seed
        self.hooks = hooks or Hooks()
        self.x, self.y = x, y
        self.epochs, self.epoch = config.epochs, 0
        self.batch_size = min(config.batch_size, len(x))
        self.steps = config.epochs * (len(x) // self.batch_size)
        groups = _groups(network, config, self.hooks.rules)
        if config.optimizer == "adam":
            betas = (config.momentum, config.beta2)
            self.optimizer: torch.optim.Optimizer = torch.optim.Adam(
                groups, betas=betas, foreach=True
            )
        else:
            self.optimizer = torch.optim.SGD(groups, momentum=config.momentum, foreach=True)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        augmented = config.flip or config.crop > 0
        self.distiller = (
            None
            if self.hooks.distillation is None
            else Distiller(self.hooks.distillation, network, None if augmented else x)
        )

    def run_epoch(self) -> Epoch:
        """See `Trainer.run_epoch`."""
        self.network.train()
        with fixed_seed(derive_seed(self.seed, "epoch", self.epoch)):
            order = torch.randperm(len(self.x)).to(self.x.device)
            batches = order[: len(order) // self.batch_size * self.batch_size]
            total = torch.zeros((), device=self.x.device)
            count = 0
            for indices in batches.split(self.batch_size):
                total += self._step(indices, self.epoch * (len(order) // self.batch_size) + count)
                count += 1
        self.network.eval()
        self.epoch += 1
        loss = total.item() / count
        finite = all(bool(p.isfinite().all()) for p in self.network.parameters())
        if not (math.isfinite(loss) and finite):
            raise RunError(
                f"training diverged in epoch {self.epoch} (loss {loss}); "
                f"lower the learning rate ({self.config.learning_rate:g})"
            )
        return Epoch(self.epoch, loss, self.network)

    def _step(self, indices: Tensor, step: int) -> Tensor:
        moment = Moment(self.epoch, self.epochs, step, self.steps)
        config, hooks = self.config, self.hooks
        factor = learning_rate_factor(
            config.schedule,
            step,
            self.steps,
            warmup=config.warmup,
            milestones=config.milestones,
            step_factor=config.step_factor,
        )
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        if hooks.before_step is not None:
            hooks.before_step(self.network, moment)
        x = augment(self.x[indices], flip=config.flip, crop=config.crop)
        self.network.zero_grad()  # of all parameters: those not trained here get gradients too
        loss = self._loss(x, self.y[indices], indices)
        if hooks.penalty is not None:
            loss = loss + hooks.penalty(self.network, moment)
        loss.backward()
        if config.gradient_norm is not None:
            trained = [p for g in self.optimizer.param_groups for p in g["params"]]
            nn.utils.clip_grad_norm_(trained, config.gradient_norm)
        self.optimizer.step()
        if hooks.after_step is not None:
            with torch.no_grad():
                hooks.after_step(self.network)
        return loss.detach()

    def _loss(self, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        if self.hooks.loss is not None:
            return self.hooks.loss(self.network, x, y)
        smoothing = self.config.label_smoothing
        if self.distiller is None:
            return functional.cross_entropy(self.network(x), y, label_smoothing=smoothing)
        return self.distiller.loss(x, y, indices, smoothing)

    def state(self) -> State:
        """See `Trainer.state`."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            for name, value in moments.items():
                if value is not None:
                    tensors[f"optimizer.{number}.{name}"] = torch.as_tensor(value)
        if self.hooks.memory is not None:
            tensors |= {f"memory.{k}": v for k, v in self.hooks.memory.state_dict().items()}
        copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        return State(copies, {"epoch": self.epoch})

    def restore(self, state: State) -> None:
        """See `Trainer.restore`."""
        moments: dict[int, dict[str, Tensor]] = {}
        weights, memory = {}, {}
        for name, tensor in state.tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "network":
                weights[rest] = tensor
            elif kind == "memory":
                memory[rest] = tensor
            else:
                number, _, quantity = rest.partition(".")
                moments.setdefault(int(number), {})[quantity] = tensor.clone()
        self.network.load_state_dict(weights)
        self.network.eval()
        if self.hooks.memory is not None:
            self.hooks.memory.load_state_dict(memory)
        now = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"state": moments, "param_groups": now["param_groups"]})
        self.epoch = int(state.facts["epoch"])


def _groups(
    network: nn.Module, config: TrainingConfig, rules: Rules | None
) -> list[dict[str, Any]]:
    """The optimizer's parameter groups: one for each rate and weight decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        rule = Rule() if rules is None else rules(name, parameter)
        if rule is None or not parameter.requires_grad:
            continue
        decay = config.weight_decay if rule.weight_decay is None else rule.weight_decay
        if rule.weight_decay is None and config.decayed == "weights" and parameter.ndim < 2:
            decay = 0.0
        groups.setdefault((rule.rate, decay), []).append(parameter)
    if not groups:
        raise InputError("there is nothing to train: no parameter of the network is to be changed")
    return [
        {"params": parameters, "lr": config.learning_rate * rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


class Stages:
    """Trainings one after the other, as one.

    Args:
        stages: Each makes a trainer, given the network that the one before has trained (the first:
            None). It is made when its turn comes, and again when a state is restored.
        epochs: Of all stages together, by stage.

    Raises:
        InputError: No stage has an epoch.
    """

    def __init__(
        self, stages: Sequence[Callable[[nn.Module | None], Trainer]], epochs: Sequence[int]
    ) -> None:
        kept = [(make, n) for make, n in zip(stages, epochs, strict=True) if n > 0]
        if not kept:
            raise InputError(f"a training needs at least one epoch, got stages of {list(epochs)}")
        self._stages = [make for make, _ in kept]
        self._ends = [sum(n for _, n in kept[: i + 1]) for i in range(len(kept))]
        self.epochs, self.epoch = self._ends[-1], 0
        self._number = 0
        self._current = self._stages[0](None)

    @property
    def network(self) -> nn.Module:
        """Of the current stage."""
        return self._current.network

    def run_epoch(self) -> Epoch:
        """See `Trainer.run_epoch`."""
        if self.epoch == self._ends[self._number]:
            self._number += 1
            self._current = self._stages[self._number](self._current.network)
        epoch = self._current.run_epoch()
        self.epoch += 1
        return Epoch(self.epoch, epoch.loss, epoch.network)

    def state(self) -> State:
        """See `Trainer.state`."""
        facts = {"epoch": self.epoch, "stage": self._number}
        return joined({"current": self._current.state()}, facts)

    def restore(self, state: State) -> None:
        """See `Trainer.restore`."""
        self._number, self.epoch = int(state.facts["stage"]), int(state.facts["epoch"])
        current = self._stages[0](None)
        for make in self._stages[1 : self._number + 1]:
            current = make(current.network)
        current.restore(state.part("current"))
        self._current = current


class Alternating:
    """Trainings of one network that take turns, an epoch of each.

    Each has its own data, optimizer and parameters (by `Hooks.rules`), as when the weights and the
    architecture of a network are learnt in turns.

    Args:
        trainings: On the same network and with as many epochs.
        starts: The epoch, from 0, at which each begins to take part; 0 if None. What starts late
            skips its own first epochs, schedule included.
    """

    def __init__(self, trainings: Sequence[Training], starts: Sequence[int] | None = None) -> None:
        self.trainings = list(trainings)
        self.starts = [0] * len(self.trainings) if starts is None else list(starts)
        self.network = self.trainings[0].network
        self.epochs, self.epoch = self.trainings[0].epochs, 0
        for training in self.trainings:
            if training.network is not self.network or training.epochs != self.epochs:
                raise InputError("alternating trainings must share a network and have equal epochs")

    def run_epoch(self) -> Epoch:
        """See `Trainer.run_epoch`; the loss is the first training's."""
        losses = []
        for training, start in zip(self.trainings, self.starts, strict=True):
            training.epoch = self.epoch
            if self.epoch >= start:
                losses.append(training.run_epoch().loss)
        self.epoch += 1
        return Epoch(self.epoch, losses[0], self.network)

    def state(self) -> State:
        """See `Trainer.state`."""
        parts = {str(i): training.state() for i, training in enumerate(self.trainings)}
        return joined(parts, {"epoch": self.epoch})

    def restore(self, state: State) -> None:
        """See `Trainer.restore`."""
        for i, training in enumerate(self.trainings):
            training.restore(state.part(str(i)))
        self.epoch = int(state.facts["epoch"])


@torch.no_grad()
def error_rate(network: nn.Module, x: Tensor, y: Tensor, batch_size: int = 1024) -> float:
    """Share of inputs that the network, in evaluation mode, assigns to a wrong class."""
    network.eval()
    wrong = 0
    for batch, target in zip(x.split(batch_size), y.split(batch_size), strict=True):
        wrong += int((network(batch).argmax(dim=-1) != target).sum())
    return wrong / len(x)
