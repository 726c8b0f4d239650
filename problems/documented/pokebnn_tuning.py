"""Tuning a small PokeBNN on handwritten digits: error against arithmetic effort.

The showcase of two objectives of different nature: the effort (ACE) is exact and follows from the
configuration alone, the error is noisy and costs a training. What is tuned is what the paper found
to matter: the bound B of the activations above all, width, depth and the kinds of shortcut.

The training is shorter and plainer than the paper's: cross-entropy instead of distillation from a
teacher, weights binary from the first step, Adam with a linear decay.

Source: Zhang et al. 2022, arXiv 2112.00133; the network for 8 x 8 digits is this project's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from bo_surrogates.config import choice, flag, integer, real
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.space import Choice, Float, Int, Space, Values
from problems.documented.cost import NetworkCost, count_cost
from problems.documented.pokebnn import (
    ACTIVATIONS,
    SHORTCUTS,
    PokeBNN,
    PokeConfig,
    digits_pokebnn,
)
from problems.documented.training import Epoch
from problems.documented.tuning_problem import TuningConfig, TuningProblem

WORST_ERROR = 0.5  # the reference point's; chance is 0.9


@dataclass(frozen=True)
class PokeBNNTuningConfig(TuningConfig):
    """Options of `pokebnn`.

    Attributes:
        stem_channels: Channels of the stem.
        squeeze_excite: Whether there are squeeze-excites.
        se_bits: Of their weights and activations; 16 is not quantized.
        activation: "dprelu", or a simpler function.
        negative_slope: Its slope below zero at the start.
        bits: Of the layers that are binary in the paper.
        stem_bits: Of the first convolution; 16 is not quantized.
        head_bits: Of the linear layer; 16 is not quantized.
        ace_budget: Where given, the error is the only objective and the network's ACE must not
            exceed the budget.
    """

    stem_channels: int = integer(16, 1, 1024)
    squeeze_excite: bool = flag(True)
    se_bits: int = integer(4, 2, 16)
    activation: str = choice("dprelu", ACTIVATIONS)
    negative_slope: float = real(0.25, 0.0, 1.0)
    bits: int = integer(1, 1, 8)
    stem_bits: int = integer(8, 2, 16)
    head_bits: int = integer(8, 2, 16)
    ace_budget: float | None = real(None, 1.0, math.inf, optional=True)


class PokeBNNTuning(TuningProblem):
    """See the module's docstring.

    Parameters: `activation_bound` B in standard deviations, `width` f of the bottlenecks, their
    number `blocks`, `local_shortcut` and `block_shortcut`, `learning_rate`. Metrics: `error`, the
    share of wrong test images, and `log_ace`, log10 of the network's ACE.

    Args:
        config: See `PokeBNNTuningConfig`.
        negate: See `Problem`.
        device: See `TuningProblem`.
    """

    config_class: ClassVar[type[TuningConfig]] = PokeBNNTuningConfig
    config: PokeBNNTuningConfig

    def __init__(
        self,
        config: PokeBNNTuningConfig | None = None,
        *,
        negate: bool = False,
        device: str = "cpu",
    ) -> None:
        config = config or PokeBNNTuningConfig()
        space = Space(
            [
                Float("activation_bound", 0.3, 12.0, log=True),
                Int("width", 4, 32, log=True, unit="channels"),
                Int("blocks", 1, 4),
                Choice("local_shortcut", SHORTCUTS),
                Choice("block_shortcut", SHORTCUTS),
                Float("learning_rate", 1e-4, 3e-2, log=True),
            ]
        )
        if config.ace_budget is None:
            super().__init__(
                space,
                [
                    Objective("error", reference=WORST_ERROR),
                    Objective("log_ace", reference=largest_log_ace(config, space)),
                ],
                config=config,
                negate=negate,
                device=device,
            )
        else:
            super().__init__(
                space,
                [Objective("error")],
                constraints=[OutcomeConstraint("log_ace", "<=", math.log10(config.ace_budget))],
                config=config,
                negate=negate,
                device=device,
            )

    def network(self, values: Values) -> PokeBNN:
        """The untrained network at a point; weights from torch's global generator."""
        return make_network(self.config, values)

    def cost(self, values: Values) -> NetworkCost:
        """The exact cost at a point, without training."""
        return count_cost(self.network(values), (1, 8, 8))

    def measure(
        self, values: Values, seed: int, on_epoch: Callable[[Epoch], None] | None = None
    ) -> dict[str, float]:
        """See `TuningProblem.measure`."""
        network, error = self.train_classifier(
            lambda: self.network(values), float(values["learning_rate"]), seed, on_epoch
        )
        return {"error": error, "log_ace": math.log10(count_cost(network, (1, 8, 8)).ace)}


@lru_cache(maxsize=32)
def largest_log_ace(options: PokeBNNTuningConfig, space: Space) -> float:
    """The reference value of `log_ace`: the largest network's, rounded up to a tenth so that this
    network still counts."""
    largest = count_cost(make_network(options, space.decode(space.bounds[1])), (1, 8, 8))
    return math.floor(10 * math.log10(largest.ace) + 1) / 10


def make_network(options: PokeBNNTuningConfig, values: Values) -> PokeBNN:
    """The network of a configuration and a point."""
    layers = PokeConfig(
        activation_bound=float(values["activation_bound"]),
        bits=options.bits,
        local_shortcut=str(values["local_shortcut"]),
        block_shortcut=str(values["block_shortcut"]),
        squeeze_excite=options.squeeze_excite,
        se_bits=options.se_bits,
        activation=options.activation,
        negative_slope=options.negative_slope,
        stem_bits=options.stem_bits,
        head_bits=options.head_bits,
    )
    return digits_pokebnn(
        int(values["width"]), int(values["blocks"]), layers, stem_channels=options.stem_channels
    )
