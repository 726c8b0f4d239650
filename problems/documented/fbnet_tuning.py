"""Tuning FBNet's networks: the architecture itself, or the search that finds it by gradients.

`FBNetArchitectureTuning` varies the blocks one by one and trains each architecture from scratch:
what a differentiable search replaces. `FBNetSearchTuning` varies the search: every point is a
search by gradients (see `fbnet.search`) and the training, from scratch, of what it has found. Both
measure the error of the trained network against its latency in the table, by default counted in
thousands of MACs, or measured on a machine and kept in a file.

Source: Wu et al. 2019, FBNet, CVPR, arXiv 1812.03443; the spaces for small images are this
project's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from bo_surrogates.config import choice, flag, integer, real, text
from bo_surrogates.errors import InputError
from bo_surrogates.objective import Objective
from bo_surrogates.seeding import derive_seed
from bo_surrogates.space import Choice, Float, Int, Ordered, Parameter, Space, Values
from problems.documented.cost import NetworkCost, count_cost
from problems.documented.fbnet.blocks import BITS, SKIP, at_bits
from problems.documented.fbnet.latency import LatencyTable, counted_table
from problems.documented.fbnet.macro import SPACES, FBNet, MacroSpace
from problems.documented.fbnet.search import (
    DERIVATIONS,
    LOSSES,
    SearchConfig,
    SearchThenTrain,
)
from problems.documented.fbnet.supernet import SAMPLING, SuperNet
from problems.documented.training import SCHEDULES, Trainer, TrainingConfig
from problems.documented.tuning_problem import COSTS, TuningConfig, TuningProblem

LATENCY = "table_latency"


@dataclass(frozen=True)
class FBNetTuningConfig(TuningConfig):
    """Options that both problems share.

    Attributes:
        network: The macro-architecture: "small" (4 layers, 400 architectures), "three_stages" (9
            layers, for about 32 x 32 pixels) or "paper" (22 layers, for 224 x 224).
        latency_table: A file of latencies, as `LatencyTable.save` writes it; empty: thousands of
            MACs.
        table_latency_budget: Where given, what the latency must not exceed, in the table's unit.
        learning_rate: Of the training from scratch, where it is not tuned.
        schedule: Of that rate: the paper's is "step", to a tenth after each quarter.
    """

    epochs: int = integer(8, 1, 10_000)
    network: str = choice("small", tuple(SPACES))
    latency_table: str = text("")
    table_latency_budget: float | None = real(None, 1.0, math.inf, optional=True)
    learning_rate: float = real(0.1, 1e-8, 10.0)
    schedule: str = choice("cosine", SCHEDULES)


class FBNetTuning(TuningProblem):
    """What both problems share: the metric `table_latency`, its reference and its budget."""

    config: FBNetTuningConfig
    default_objectives: ClassVar[tuple[str, ...]] = ("error", LATENCY)
    own_metrics: ClassVar[Mapping[str, Objective]] = {LATENCY: Objective(LATENCY)}

    def macro(self, values: Values) -> MacroSpace:
        """The space of networks at a point."""
        return SPACES[self.config.network](
            self.shape,
            self.classes,
            channel_multiplier=float(values.get("channel_multiplier", 1.0)),
            resolution=None if "resolution" not in values else int(values["resolution"]),
        )

    def table(self, space: MacroSpace) -> LatencyTable:
        """The latencies of a space's blocks.

        Raises:
            InputError: The configured file cannot be read, or is of other shapes.
        """
        if not self.config.latency_table:
            return counted_table(space)
        return LatencyTable.load(self.config.latency_table)

    def largest(self) -> MacroSpace:
        """The space in which the dearest networks are."""
        return self.macro({})

    def limits(self) -> dict[str, float]:
        """See `TuningProblem.limits`; and the budget of latency."""
        budget = self.config.table_latency_budget
        return {**super().limits(), **({} if budget is None else {LATENCY: budget})}

    def references(self) -> Mapping[str, float]:
        """Of the network that is slowest in every layer, a little above it."""
        space = self.largest()
        rows = self.table(space).rows(space)
        slowest = tuple(
            layer.candidates[row.index(max(row))]
            for layer, row in zip(space.layers, rows, strict=True)
        )
        counted = counted_table(space).rows(space)
        dearest = tuple(
            layer.candidates[row.index(max(row))]
            for layer, row in zip(space.layers, counted, strict=True)
        )
        cost = count_cost(FBNet(space, dearest), self.shape)
        return {
            LATENCY: float(math.ceil(self.table(space).latency(space, slowest))),
            **{
                name: math.floor(10 * math.log10(max(count(cost), 1)) + 1) / 10
                for name, count in COSTS.items()
            },
        }

    def recipe(self, values: Values) -> TrainingConfig:
        """Of the training from scratch: SGD with momentum 0.9."""
        return (
            super()
            .recipe(values)
            .replace(
                optimizer="sgd",
                learning_rate=float(values.get("learning_rate", self.config.learning_rate)),
                schedule=self.config.schedule,
                milestones=(0.25, 0.5, 0.75),
            )
        )

    def scores(self, network: nn.Module, values: Values, part: str) -> dict[str, float]:
        """See `TuningProblem.scores`; and the latency, of a supernet that of its most probable
        architecture."""
        if not isinstance(network, FBNet | SuperNet):
            raise InputError(f"expected a network of FBNet's, got {type(network).__name__}")
        found = super().scores(network, values, part)
        space = network.space
        found[LATENCY] = self.table(space).latency(space, network.architecture)
        return found


@dataclass(frozen=True)
class FBNetArchitectureTuningConfig(FBNetTuningConfig):
    """Options of `fbnet_architecture`.

    Attributes:
        search: What is tuned: "blocks"; or "all", also each block's bits, the channels, the
            resolution and the learning rate.
    """

    search: str = choice("blocks", ("blocks", "all"))


class FBNetArchitectureTuning(FBNetTuning):
    """See the module's docstring.

    Parameters: `layer_1`, `layer_2`, ..., the blocks' names (see `fbnet.blocks`); and with
    search = "all" `bits_1`, ... where the block is no skip, `channel_multiplier`, `resolution` and
    `learning_rate`. Metrics: `error` and `table_latency`, or others of `TuningProblem`.

    The published default is the widest block in every layer, MobileNetV2's choice, from which the
    paper sets out.

    Args:
        config: See `FBNetArchitectureTuningConfig`.
        negate: See `Problem`.
        device: See `TuningProblem`.
    """

    config_class: ClassVar[type[TuningConfig]] = FBNetArchitectureTuningConfig
    config: FBNetArchitectureTuningConfig

    def __init__(
        self,
        config: FBNetArchitectureTuningConfig | None = None,
        *,
        negate: bool = False,
        device: str = "cpu",
    ) -> None:
        config = config or FBNetArchitectureTuningConfig()
        self.config = config
        self._check_data()
        space = self.macro({})
        parameters: list[Parameter] = []
        self.published_default = {}
        for number, layer in enumerate(space.layers, 1):
            parameters.append(Choice(f"layer_{number}", layer.candidates))
            widest = [c for c in layer.candidates if c.startswith("k3")][-1]
            self.published_default[f"layer_{number}"] = widest
            if config.search == "all":
                blocks = tuple(c for c in layer.candidates if c != SKIP)
                when = {f"layer_{number}": blocks} if SKIP in layer.candidates else {}
                parameters.append(Ordered(f"bits_{number}", BITS, when=when))
                self.published_default[f"bits_{number}"] = max(BITS)
        if config.search == "all":
            side = max(self.shape[1:])
            parameters += [
                Float("channel_multiplier", 0.5, 2.0, log=True),
                Int("resolution", max(side // 2, 1), 2 * side, log=True, unit="pixels"),
                Float("learning_rate", 1e-3, 1.0, log=True),
            ]
            self.published_default |= {
                "channel_multiplier": 1.0,
                "resolution": side,
                "learning_rate": config.learning_rate,
            }
        super().__init__(Space(parameters), config, negate=negate, device=device)

    def macro(self, values: Values) -> MacroSpace:
        """See the base; at any bits where they are tuned."""
        space = super().macro(values)
        return space.with_bits() if self.config.search == "all" and values else space

    def largest(self) -> MacroSpace:
        """At the upper bounds of channels and resolution."""
        if self.config.search == "blocks":
            return self.macro({})
        return self.macro({"channel_multiplier": 2.0, "resolution": 2 * max(self.shape[1:])})

    def architecture(self, values: Values) -> tuple[str, ...]:
        """The blocks' names at a point."""
        numbers = range(1, len(self.macro({}).layers) + 1)
        return tuple(
            at_bits(str(values[f"layer_{i}"]), int(values.get(f"bits_{i}", max(BITS))))
            for i in numbers
        )

    def network(self, values: Values) -> FBNet:
        """The untrained network at a point; weights from torch's global generator."""
        return FBNet(self.macro(values), self.architecture(values))


@dataclass(frozen=True)
class FBNetSearchTuningConfig(FBNetTuningConfig):
    """Options of `fbnet_search`.

    Attributes:
        limit: Training inputs at most.
        search_epochs: Of the search; `epochs` are those of the training from scratch.
        search_batch_size: Inputs a step on the weights,
        logits_batch_size: and on the logits.
        samples: Architectures drawn, of which the best is kept, where `derivation` is "sample".
        mixed_precision: Whether every candidate may have 2, 4, 8 or 16 bits.
    """

    search_epochs: int = integer(12, 1, 10_000)
    search_batch_size: int = integer(64, 2, 65_536)
    logits_batch_size: int = integer(32, 2, 65_536)
    samples: int = integer(6, 1, 1000)
    mixed_precision: bool = flag(False)


class FBNetSearchTuning(FBNetTuning):
    """See the module's docstring.

    Parameters: `loss`, with `alpha` and `beta` of the product (`beta` only where `pressed`, else 0:
    no pressure of latency) or `penalty`, the additive one's factor; `temperature` of the Gumbel
    softmax at first and its `temperature_decay` an epoch; `logits_rate`, `logits_weight_decay` and
    `warmup`, the share of epochs before the logits are trained; `weights_rate`; `split`, the share
    of the training data that the weights learn from; `sampling`, soft or straight-through;
    `derivation` of the architecture. Metrics: `error` and `table_latency` of the architecture
    found, trained from scratch, or others of `TuningProblem`. While the search lasts, what is
    reported is the most probable architecture with the supernet's weights, which is no estimate of
    the result.

    Args:
        config: See `FBNetSearchTuningConfig`.
        negate: See `Problem`.
        device: See `TuningProblem`.
    """

    config_class: ClassVar[type[TuningConfig]] = FBNetSearchTuningConfig
    config: FBNetSearchTuningConfig
    cost_is_known: ClassVar[bool] = False
    reduced: ClassVar[Mapping[str, Any]] = {
        "epochs": 1, "search_epochs": 2, "train_fraction": 0.1, "limit": 100, "batch_size": 32,
    }  # fmt: skip

    def __init__(
        self,
        config: FBNetSearchTuningConfig | None = None,
        *,
        negate: bool = False,
        device: str = "cpu",
    ) -> None:
        config = config or FBNetSearchTuningConfig()
        # Published but for the rates and the decay of the temperature, those of a short search.
        self.published_default = {
            "loss": "product",
            "alpha": 0.2,
            "pressed": True,
            "beta": 0.6,
            "temperature": 5.0,
            "temperature_decay": 0.84,
            "logits_rate": 0.05,
            "logits_weight_decay": 5e-4,
            "warmup": 0.2,
            "weights_rate": 0.05,
            "split": 0.8,
            "sampling": "soft",
            "derivation": "argmax",
        }
        product = {"loss": ("product",)}
        space = Space(
            [
                Choice("loss", LOSSES),
                Float("alpha", 0.02, 2.0, log=True, when=product),
                Choice("pressed", (False, True), when=product),
                Float("beta", 0.1, 8.0, log=True, when={"pressed": (True,)}),
                Float("penalty", 1e-3, 1.0, log=True, when={"loss": ("additive",)}),
                Float("temperature", 1.0, 10.0, log=True),
                Float("temperature_decay", 0.7, 0.99),
                Float("logits_rate", 1e-3, 0.3, log=True),
                Float("logits_weight_decay", 0.0, 1e-2),
                Float("warmup", 0.0, 0.5),
                Float("weights_rate", 5e-3, 0.3, log=True),
                Float("split", 0.5, 0.9),
                Choice("sampling", SAMPLING),
                Choice("derivation", DERIVATIONS),
            ]
        )
        super().__init__(space, config, negate=negate, device=device)

    def macro(self, values: Values) -> MacroSpace:
        """See the base; at any bits where precision is mixed."""
        space = super().macro(values)
        return space.with_bits() if self.config.mixed_precision else space

    def search_config(self, values: Values) -> SearchConfig:
        """The search at a point."""
        defaults = SearchConfig()
        names = set(defaults.to_dict()) - {"epochs"}  # as a fidelity, those of the training
        given = {name: value for name, value in values.items() if name in names}
        if values.get("pressed") is False:
            given["beta"] = 0.0
        return defaults.replace(
            **given,
            epochs=self.config.search_epochs,
            batch_size=self.config.search_batch_size,
            logits_batch_size=self.config.logits_batch_size,
            samples=self.config.samples,
        )

    def trainer(self, values: Values, seed: int) -> Trainer:
        """The search, then the training of what it has found."""
        space = self.macro(values)
        x, y = self.data().part("train")
        return SearchThenTrain(
            space,
            self.table(space),
            x,
            y,
            self.search_config(values),
            self.recipe(values),
            derive_seed(seed, "search"),
        )

    def check(self, values: Values) -> None:
        """The table, the split and the parameters' ranges."""
        space = self.macro(values)
        self.table(space).rows(space)
        self.search_config(values)

    def cost(self, values: Values) -> NetworkCost:
        """See `TuningProblem.cost`.

        Raises:
            InputError: Always: only the search finds the architecture.
        """
        raise InputError(
            "what a point of this problem costs is known after the search: "
            "network_cost(train_best(values, seed), values)"
        )

    def network_cost(self, network: nn.Module, values: Values) -> NetworkCost:
        """See the base; of a supernet that of its most probable architecture."""
        if isinstance(network, SuperNet):
            network = FBNet(network.space, network.architecture)
        return count_cost(network, self.shape)

    def details(self, network: nn.Module) -> dict[str, Any]:
        """The architecture found."""
        if not isinstance(network, FBNet):
            raise InputError(f"expected a network of FBNet's, got {type(network).__name__}")
        return {"architecture": list(network.architecture)}

    def rebuild(self, values: Values, details: Mapping[str, Any]) -> FBNet:
        """See `TuningProblem.rebuild`."""
        return FBNet(self.macro(values), details["architecture"])
