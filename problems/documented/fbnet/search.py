"""Searching an architecture by gradients, and training what has been found from scratch.

Weights and logits learn in turns, an epoch of each, on parts of the training data of their own: the
weights by SGD on the cross-entropy, the logits by Adam on a loss that knows the latency,

    product    CE alpha (ln LAT)^beta         (the paper's)
    additive   CE + lambda ln LAT             (of many later implementations)

both of the masks that the cross-entropy is computed with. In the paper the weights' loss has the
latency's factor too. It does not depend on the weights and changes nothing but the length of their
steps, so it is left to their learning rate here, which otherwise would mean something else at every
alpha and beta. The logits rest for the first epochs; the temperature falls by a factor an epoch.

    trainer = search(space, counted_table(space), x, y, SearchConfig(), seed=0)
    run(trainer)
    architecture = trainer.network.architecture

The supernet's own error says little of an architecture's: its normalizations have seen mixtures of
all candidates. `SearchThenTrain` goes on with the architecture's training from scratch.

Source: Wu et al. 2019, FBNet, CVPR, arXiv 1812.03443, section 3.2 and equation 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bo_surrogates.config import Config, choice, integer, real
from bo_surrogates.errors import InputError
from bo_surrogates.seeding import derive_seed, fixed_seed
from problems.documented.fbnet.latency import LatencyTable
from problems.documented.fbnet.macro import Architecture, FBNet, MacroSpace
from problems.documented.fbnet.supernet import SAMPLING, SuperNet
from problems.documented.training import (
    Alternating,
    Epoch,
    Hooks,
    Moment,
    Rule,
    State,
    Training,
    TrainingConfig,
    joined,
)

LOSSES = ("product", "additive")
DERIVATIONS = ("argmax", "sample")
LOGITS = "logits."


@dataclass(frozen=True)
class SearchConfig(Config):
    """How an architecture is searched.

    The paper's, at ImageNet: 90 epochs, logits_rate 0.01, weights_rate 0.1, temperature_decay
    exp(-0.045) = 0.956. The defaults are for a search of a dozen epochs.

    Attributes:
        epochs: Of the search.
        warmup: Share of them before the logits are trained.
        loss: Of the logits: "product" or "additive".
        alpha: Factor of the product: it moves no minimum, and Adam takes little note of it.
        beta: Its exponent: the pressure of latency; 0: none.
        penalty: lambda of the additive loss.
        temperature: tau in the first epoch.
        temperature_decay: Its factor from one epoch to the next.
        sampling: "soft" or "straight-through"; see `SuperNet`.
        logits_rate: Learning rate of the logits (Adam).
        logits_weight_decay: Their L2 penalty.
        logits_batch_size: Inputs a step on them.
        weights_rate: Learning rate of the weights (SGD with momentum 0.9, cosine).
        weights_weight_decay: Their L2 penalty.
        batch_size: Inputs a step on them.
        split: Share of the data that the weights learn from; the rest is the logits'.
        derivation: Of the architecture: "argmax", the most probable one, or "sample", the best of
            `samples` drawn, by the loss on the logits' data with the supernet's weights.
        samples: See `derivation`.
    """

    epochs: int = integer(12, 1, 10_000)
    warmup: float = real(0.2, 0.0, 1.0)
    loss: str = choice("product", LOSSES)
    alpha: float = real(0.2, 1e-6, 1e3, log=True)
    beta: float = real(0.6, 0.0, 100.0)
    penalty: float = real(0.1, 0.0, 100.0)
    temperature: float = real(5.0, 1e-3, 100.0, log=True)
    temperature_decay: float = real(0.84, 0.01, 1.0)
    sampling: str = choice("soft", SAMPLING)
    logits_rate: float = real(0.05, 1e-8, 10.0, log=True)
    logits_weight_decay: float = real(5e-4, 0.0, 1.0)
    logits_batch_size: int = integer(32, 2, 65_536)
    weights_rate: float = real(0.05, 1e-8, 10.0, log=True)
    weights_weight_decay: float = real(1e-4, 0.0, 1.0)
    batch_size: int = integer(64, 2, 65_536)
    split: float = real(0.8, 0.05, 0.95)
    derivation: str = choice("argmax", DERIVATIONS)
    samples: int = integer(6, 1, 1000)


def latency_loss(cross_entropy: Tensor, latency: Tensor, config: SearchConfig) -> Tensor:
    """The loss of the logits, from the cross-entropy in nats and a latency above 1."""
    log_latency = latency.log().to(cross_entropy.dtype)
    if config.loss == "product":
        return cross_entropy * config.alpha * log_latency**config.beta
    return cross_entropy + config.penalty * log_latency


def drawn_loss(network: nn.Module, x: Tensor, y: Tensor, config: SearchConfig) -> Tensor:
    """The logits' loss on a batch, of one draw that both output and latency are of.

    Raises:
        InputError: The network is no supernet.
    """
    supernet = _supernet(network)
    masks = supernet.draw()
    cross_entropy = functional.cross_entropy(supernet(x, masks), y)
    return latency_loss(cross_entropy, supernet.latency(masks), config)


def split_data(x: Tensor, y: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the weights' data and of the logits', at least 2 each; disjoint.

    Raises:
        InputError: There are fewer than 4.
    """
    if len(x) < 4:
        raise InputError(f"a search takes at least 4 inputs, got {len(x)}")
    first = min(max(round(share * len(x)), 2), len(x) - 2)
    generator = torch.Generator().manual_seed(derive_seed(seed, "split"))
    order = torch.randperm(len(x), generator=generator).to(y.device)
    return order[:first], order[first:]


def search(
    space: MacroSpace, table: LatencyTable, x: Tensor, y: Tensor, config: SearchConfig, seed: int
) -> Alternating:
    """The training of a supernet, not begun; its network is a `SuperNet`.

    Args:
        space: Where to search.
        table: Of latencies.
        x: `n x channels x h x w` images, on the device on which to train.
        y: `n` class numbers.
        config: See `SearchConfig`.
        seed: Of initial weights, the split, and all draws.

    Raises:
        InputError: The table lacks an entry, or there are too few images.
    """
    with fixed_seed(derive_seed(seed, "initial weights")):
        supernet = SuperNet(
            space, table.rows(space), temperature=config.temperature, sampling=config.sampling
        ).to(x.device)
    of_weights, of_logits = split_data(x, y, config.split, seed)

    def set_temperature(network: nn.Module, moment: Moment) -> None:
        # By the epoch's number, so that a search that is resumed goes on as it would have.
        decayed = config.temperature * config.temperature_decay**moment.epoch
        _supernet(network).temperature = decayed

    weights = Training(
        supernet,
        x[of_weights],
        y[of_weights],
        TrainingConfig(
            epochs=config.epochs,
            batch_size=config.batch_size,
            optimizer="sgd",
            learning_rate=config.weights_rate,
            weight_decay=config.weights_weight_decay,
            schedule="cosine",
        ),
        derive_seed(seed, "weights"),
        Hooks(
            rules=lambda name, _: None if name.startswith(LOGITS) else Rule(),
            before_step=set_temperature,
        ),
    )
    logits = Training(
        supernet,
        x[of_logits],
        y[of_logits],
        TrainingConfig(
            epochs=config.epochs,
            batch_size=config.logits_batch_size,
            optimizer="adam",
            learning_rate=config.logits_rate,
            beta2=0.999,
            weight_decay=config.logits_weight_decay,
            schedule="constant",
        ),
        derive_seed(seed, "logits"),
        Hooks(
            rules=lambda name, _: Rule() if name.startswith(LOGITS) else None,
            before_step=set_temperature,
            loss=lambda network, x, y: drawn_loss(network, x, y, config),
        ),
    )
    return Alternating([weights, logits], [0, round(config.warmup * config.epochs)])


@torch.no_grad()
def derive(
    supernet: SuperNet, x: Tensor, y: Tensor, config: SearchConfig, seed: int
) -> Architecture:
    """The architecture that a search has found.

    Args:
        supernet: After the search, in evaluation mode.
        x: Of `config.derivation` "sample": what the samples are judged on, the logits' data.
        y: Class numbers.
        config: See `SearchConfig.derivation`.
        seed: Of the samples.
    """
    if config.derivation == "argmax":
        return supernet.architecture
    generator = torch.Generator(x.device).manual_seed(derive_seed(seed, "samples"))
    # Each architecture once, in the order in which they were drawn.
    drawn = list(dict.fromkeys(supernet.sample(generator) for _ in range(config.samples)))

    def loss(architecture: Sequence[str]) -> float:
        masks = supernet.one_hot(architecture)
        cross_entropy = functional.cross_entropy(supernet.extract(architecture)(x), y)
        return float(latency_loss(cross_entropy, supernet.latency(masks), config))

    return min(drawn, key=loss)


class SearchThenTrain:
    """A search, and then the training of what it has found, from scratch, as one trainer.

    Args:
        space: Where to search.
        table: Of latencies.
        x: `n x channels x h x w` images, on the device on which to train.
        y: `n` class numbers.
        config: Of the search.
        recipe: Of the training from scratch, on all images.
        seed: Of both.

    Raises:
        InputError: See `search`.
    """

    def __init__(
        self,
        space: MacroSpace,
        table: LatencyTable,
        x: Tensor,
        y: Tensor,
        config: SearchConfig,
        recipe: TrainingConfig,
        seed: int,
    ) -> None:
        self.space, self.x, self.y = space, x, y
        self.config, self.recipe, self.seed = config, recipe, seed
        self.epochs, self.epoch = config.epochs + recipe.epochs, 0  # of both together
        self._search = search(space, table, x, y, config, seed)
        self._training: Training | None = None

    @property
    def network(self) -> nn.Module:
        """The supernet, then the network of the architecture found."""
        return self._search.network if self._training is None else self._training.network

    def run_epoch(self) -> Epoch:
        """See `Trainer.run_epoch`."""
        if self._search.epoch < self._search.epochs:
            epoch = self._search.run_epoch()
            self.epoch = epoch.number
            return epoch
        if self._training is None:
            _, held = split_data(self.x, self.y, self.config.split, self.seed)
            supernet = _supernet(self._search.network)
            found = derive(supernet, self.x[held], self.y[held], self.config, self.seed)
            self._training = self._from_scratch(found)
        epoch = self._training.run_epoch()
        self.epoch = self._search.epochs + epoch.number
        return Epoch(self.epoch, epoch.loss, epoch.network)

    def state(self) -> State:
        """See `Trainer.state`; when the search is over, its supernet is no part of it."""
        if self._training is None:
            return joined({"search": self._search.state()}, {})
        network = self._training.network
        if not isinstance(network, FBNet):
            raise InputError(f"expected an FBNet, got {type(network).__name__}")
        facts = {"architecture": list(network.architecture)}
        return joined({"training": self._training.state()}, facts)

    def restore(self, state: State) -> None:
        """See `Trainer.restore`."""
        if "architecture" not in state.facts:
            self._search.restore(state.part("search"))
            self.epoch = self._search.epoch
            return
        self._search.epoch = self._search.epochs
        self._training = self._from_scratch(tuple(state.facts["architecture"]))
        self._training.restore(state.part("training"))
        self.epoch = self._search.epochs + self._training.epoch

    def _from_scratch(self, architecture: Architecture) -> Training:
        with fixed_seed(derive_seed(self.seed, "initial weights", "found")):
            network = FBNet(self.space, architecture).to(self.x.device)
        return Training(network, self.x, self.y, self.recipe, derive_seed(self.seed, "training"))


def _supernet(network: nn.Module) -> SuperNet:
    if not isinstance(network, SuperNet):
        raise InputError(f"expected a SuperNet, got {type(network).__name__}")
    return network
