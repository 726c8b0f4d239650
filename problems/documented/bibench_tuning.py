"""Tuning a small binary network: which operator, with which gradient, in which architecture.

The operator is a parameter like the others, and those of one operator only are tuned where it is
chosen: the bound of the clipped gradient, ReCU's quantiles, FDA's frequency and terms, BiPer's
frequency. A comparison of operators at one learning rate measures the learning rate; here every
operator meets its own.

Training is Adam or SGD on the cross-entropy, binary from the first step, or from weights trained in
full precision first (`pretrained`).

Source: Qin et al. 2023, BiBench, ICML, arXiv 2301.11233; the network for small images is this
project's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from torch import nn

from bo_surrogates.config import choice, flag, integer
from bo_surrogates.objective import Objective
from bo_surrogates.seeding import derive_seed
from bo_surrogates.space import Choice, Float, Int, Ordered, Parameter, Space, Value, Values
from problems.documented.bibench import (
    ACTIVATIONS,
    SKIPS,
    MakeConv,
    SmallBinaryNet,
    binary_conv,
    deployed,
    float_conv,
    periodic_conv,
)
from problems.documented.binarization import OPERATORS, anneal, clamp_latent_weights
from problems.documented.corruptions import corrupted_errors
from problems.documented.training import Hooks, Moment, Stages, Trainer, Training, TrainingConfig
from problems.documented.tuning_problem import TuningConfig, TuningProblem

FULL_PRECISION = "float"
CLIPPED = tuple(
    name for name, c in OPERATORS.items() if c.input_estimator in ("clip", "half_shift")
)
HIGH_PRECISION = ("none", "first", "last", "ends")
SEARCHES = ("operators", "all")


@dataclass(frozen=True)
class BiBenchTuningConfig(TuningConfig):
    """Options of `bibench`.

    Attributes:
        search: What is tuned beside the operator, its own parameters, width, depth, bits and the
            learning rate: "operators", nothing; "all", also the topology, the activation, the
            optimizer, weight decay and pretraining.
        skip: Around what shortcuts are, where they are not tuned; likewise:
        activation: "hardtanh" or "rprelu".
        optimizer: "adam" or "sgd".
        pretrained: Whether the first half of the epochs trains the twin in full precision.
        clamp_weights: Whether latent weights are kept within [-1, 1], as in the original BNN.
    """

    epochs: int = integer(12, 1, 10_000)
    search: str = choice("operators", SEARCHES)
    skip: str = choice("each", SKIPS)
    activation: str = choice("hardtanh", ACTIVATIONS)
    optimizer: str = choice("adam", ("adam", "sgd"))
    pretrained: bool = flag(False)
    clamp_weights: bool = flag(False)


ALWAYS: tuple[Parameter, ...] = (
    Choice("operator", (*OPERATORS, FULL_PRECISION)),
    Float("input_bound", 0.3, 5.0, log=True, when={"operator": CLIPPED}),
    Float("first_tau", 0.6, 0.95, when={"operator": ("recu",)}),
    Float("last_tau", 0.9, 0.999, when={"operator": ("recu",)}),
    Float("omega", 0.02, 0.5, log=True, when={"operator": ("fda",)}),
    Int("first_terms", 3, 15, when={"operator": ("fda",)}),
    Int("last_terms", 5, 30, when={"operator": ("fda",)}),
    Float("frequency", 1.0, 100.0, log=True, when={"operator": ("biper",)}),
    Int("width", 8, 64, log=True, unit="channels"),
    Int("depth", 2, 8),
    Choice("high_precision", HIGH_PRECISION),
    Ordered("stem_bits", (4, 8, 16)),
    Ordered("head_bits", (4, 8, 16)),
    Float("learning_rate", 1e-4, 1e-1, log=True),
)
ALL: tuple[Parameter, ...] = (
    Choice("skip", SKIPS),
    Choice("activation", ACTIVATIONS),
    Choice("optimizer", ("adam", "sgd")),
    Float("weight_decay", 1e-6, 1e-3, log=True),
    Choice("pretrained", (False, True)),
)
# Bi-Real's operator, the paper's protocol; the learning rate is that of this small training.
PUBLISHED: Values = {
    "operator": "bireal",
    "width": 16,
    "depth": 4,
    "high_precision": "none",
    "stem_bits": 16,
    "head_bits": 16,
    "learning_rate": 5e-3,
    "skip": "each",
    "activation": "hardtanh",
    "optimizer": "adam",
    "weight_decay": 1e-4,
    "pretrained": False,
}


class BiBenchTuning(TuningProblem):
    """See the module's docstring.

    Parameters: `operator`, one of `OPERATORS` or "float"; its own (`input_bound`, `first_tau`,
    `last_tau`, `omega`, `first_terms`, `last_terms`, `frequency`); `width` and `depth` of the
    convolutions between stem and head; which of them stay in full precision (`high_precision`);
    `stem_bits`, `head_bits`, `learning_rate`, and what the option `search` adds. Metrics: `error`
    and `log_ace`, others of `TuningProblem`, or `corruption_gap`, by how much the error grows on
    corrupted inputs.

    Args:
        config: See `BiBenchTuningConfig`.
        negate: See `Problem`.
        device: See `TuningProblem`.
    """

    config_class: ClassVar[type[TuningConfig]] = BiBenchTuningConfig
    config: BiBenchTuningConfig
    default_objectives: ClassVar[tuple[str, ...]] = ("error", "log_ace")
    own_metrics: ClassVar[Mapping[str, Objective]] = {
        "corruption_gap": Objective("corruption_gap", reference=0.5)
    }

    def __init__(
        self,
        config: BiBenchTuningConfig | None = None,
        *,
        negate: bool = False,
        device: str = "cpu",
    ) -> None:
        config = config or BiBenchTuningConfig()
        parameters = [*ALWAYS, *(ALL if config.search == "all" else ())]
        self.published_default = {
            p.name: PUBLISHED[p.name] for p in parameters if p.name in PUBLISHED
        }
        super().__init__(Space(parameters), config, negate=negate, device=device)

    def setting(self, name: str, values: Values) -> Value:
        """A parameter's value where it is tuned and active, else the option of its name."""
        if name in values:
            return values[name]
        found: Value = getattr(self.config, name)
        return found

    def make_conv(self, values: Values) -> MakeConv:
        """Makes the convolutions between stem and head."""
        operator = str(values["operator"])
        if operator == FULL_PRECISION:
            return float_conv
        if operator == "biper":
            return periodic_conv(float(values["frequency"]))
        names = OPERATORS[operator].to_dict()
        changes = {name: value for name, value in values.items() if name in names}
        return binary_conv(OPERATORS[operator].replace(**changes))

    def network(self, values: Values) -> SmallBinaryNet:
        """The untrained network at a point; weights from torch's global generator."""
        return self._network(values, self.make_conv(values))

    def _network(self, values: Values, make_conv: MakeConv) -> SmallBinaryNet:
        depth = int(values["depth"])
        ends = {"none": (), "first": (0,), "last": (depth - 1,), "ends": (0, depth - 1)}
        return SmallBinaryNet(
            self.shape,
            self.classes,
            int(values["width"]),
            depth,
            make_conv,
            skip=str(self.setting("skip", values)),
            activation=str(self.setting("activation", values)),
            float_layers=ends[str(values["high_precision"])],
            stem_bits=int(values["stem_bits"]),
            head_bits=int(values["head_bits"]),
        )

    def recipe(self, values: Values) -> TrainingConfig:
        """See `TuningProblem.recipe`."""
        optimizer = str(self.setting("optimizer", values))
        return super().recipe(values).replace(optimizer=optimizer, schedule="cosine")

    def hooks(self, values: Values, network: nn.Module, seed: int) -> Hooks | None:
        """What is annealed, and the clamp."""
        clamp = clamp_latent_weights if self.config.clamp_weights else None
        return Hooks(before_step=_anneal, after_step=clamp)

    def trainer(self, values: Values, seed: int) -> Trainer:
        """Two trainings one after the other where the first is in full precision."""
        epochs = self.epochs(values)
        if not self.setting("pretrained", values) or epochs < 2:
            return super().trainer(values, seed)
        x, y = self.data().part("train")
        first = epochs // 2

        def train_twin(_: nn.Module | None) -> Trainer:
            twin = self.seeded(lambda: self._network(values, float_conv), seed)
            return Training(twin, x, y, self.recipe(values).replace(epochs=first), seed)

        def train_binary(twin: nn.Module | None) -> Trainer:
            network = self.seeded(lambda: self.network(values), seed)
            if twin is not None:
                network.load_state_dict(twin.state_dict(), strict=False)
            recipe = self.recipe(values).replace(epochs=epochs - first)
            hooks = self.hooks(values, network, seed)
            return Training(network, x, y, recipe, derive_seed(seed, "binary"), hooks)

        return Stages([train_twin, train_binary], [first, epochs - first])

    def latency(self, network: nn.Module) -> float:
        """See `TuningProblem.latency`; on a CPU, of the network on bits."""
        return super().latency(deployed(network, self.data().validation_x[:1]))

    def scores(self, network: nn.Module, values: Values, part: str) -> dict[str, float]:
        """See `TuningProblem.scores`; with the corruption gap where it is a metric."""
        found = super().scores(network, values, part)
        if "corruption_gap" in self.metrics:
            x, y = self.data().part(part)
            errors = corrupted_errors(network, x, y, seed=self.config.data_seed)
            found["corruption_gap"] = fmean(errors.values()) - found["error"]
        return found


def _anneal(network: nn.Module, moment: Moment) -> None:
    anneal(network, moment.epoch, moment.epochs)
