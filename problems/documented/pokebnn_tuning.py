"""Tuning a small PokeBNN: error against arithmetic effort.

The showcase of two objectives of different nature: the effort (ACE) is exact and follows from the
configuration alone, the error is noisy and costs a training. What is tuned is what the paper found
to matter: the bound B of the activations above all, width, depth and the kinds of shortcut; with
the options `search`, also what it left as it was.

Training follows the paper on a small scale: Adam with a linear decay; if wanted, weights
that are not yet binary in a first phase, and distillation from a network that is not quantized.

Source: Zhang et al. 2022, arXiv 2112.00133; the network for small images is this project's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from bo_surrogates.config import choice, flag, integer, real
from bo_surrogates.errors import InputError
from bo_surrogates.space import Choice, Float, Int, Ordered, Parameter, Space, Value, Values
from problems.documented.convnet import ConvNet
from problems.documented.distillation import Distillation
from problems.documented.pokebnn import (
    ACTIVATIONS,
    SHORTCUTS,
    WEIGHT_BOUNDS,
    PokeBNN,
    PokeConfig,
    set_binary_weights,
    small_pokebnn,
)
from problems.documented.teachers import cached_classifier
from problems.documented.training import Hooks, Moment, TrainingConfig
from problems.documented.tuning_problem import TuningConfig, TuningProblem

SEARCHES = ("paper", "layers", "training", "all")
TEACHER = TrainingConfig(epochs=15, learning_rate=5e-3, schedule="cosine", weight_decay=1e-4)


@dataclass(frozen=True)
class PokeBNNTuningConfig(TuningConfig):
    """Options of `pokebnn`.

    Attributes:
        search: What is tuned beside B, width, blocks, shortcuts and learning rate: "paper",
            nothing; "layers", the bits and kinds of the layers, a block's expansion and the
            weights' bound; "training", weight decay, the first phase and the teacher; or "all".
        stem_channels: Channels of the stem.
        squeeze_excite: Whether there are squeeze-excites, where they are not tuned; likewise:
        se_bits: Of their weights and activations; 16 is not quantized.
        se_ratio: Input channels per hidden channel of theirs.
        activation: "dprelu", or a simpler function.
        negative_slope: Its slope below zero at the start.
        bits: Of the layers that are binary in the paper.
        weight_bound: Up to where binary weights learn; see `PokeConfig`.
        stem_bits: Of the first convolution; 16 is not quantized.
        head_bits: Of the linear layer; 16 is not quantized.
        expansion: Output channels of a bottleneck per inner channel.
        float_phase: Share of the training in which weights are not yet binary.
        teacher_weight: Of the teacher's part of the loss; 0: there is no teacher.
        temperature: Of the teacher's probabilities.
    """

    search: str = choice("paper", SEARCHES)
    stem_channels: int = integer(16, 1, 1024)
    squeeze_excite: bool = flag(True)
    se_bits: int = integer(4, 2, 16)
    se_ratio: int = integer(8, 1, 64)
    activation: str = choice("dprelu", ACTIVATIONS)
    negative_slope: float = real(0.25, 0.0, 1.0)
    bits: int = integer(1, 1, 8)
    weight_bound: str = choice("max", WEIGHT_BOUNDS)
    stem_bits: int = integer(8, 2, 16)
    head_bits: int = integer(8, 2, 16)
    expansion: int = integer(4, 1, 16)
    float_phase: float = real(0.0, 0.0, 0.9)
    teacher_weight: float = real(0.0, 0.0, 1.0)
    temperature: float = real(1.0, 0.1, 100.0)


ALWAYS: tuple[Parameter, ...] = (
    Float("activation_bound", 0.3, 12.0, log=True),
    Int("width", 4, 32, log=True, unit="channels"),
    Int("blocks", 1, 4),
    Choice("local_shortcut", SHORTCUTS),
    Choice("block_shortcut", SHORTCUTS),
    Float("learning_rate", 1e-4, 3e-2, log=True),
)
LAYERS: tuple[Parameter, ...] = (
    Ordered("bits", (1, 2, 4)),
    Choice("weight_bound", WEIGHT_BOUNDS, when={"bits": (1,)}),
    Int("expansion", 2, 4),
    Choice("squeeze_excite", (False, True)),
    Ordered("se_bits", (2, 4, 8), when={"squeeze_excite": (True,)}),
    Ordered("se_ratio", (4, 8, 16), when={"squeeze_excite": (True,)}),
    Choice("activation", ACTIVATIONS),
    Float("negative_slope", 0.0, 0.5, when={"activation": ("dprelu", "prelu")}),
    Ordered("stem_bits", (4, 8, 16)),
    Ordered("head_bits", (4, 8, 16)),
)
TRAINING: tuple[Parameter, ...] = (
    Float("weight_decay", 1e-6, 1e-3, log=True),
    Float("float_phase", 0.0, 0.3),
    Float("teacher_weight", 0.0, 1.0),
    Float("temperature", 1.0, 8.0, log=True),
)
# What the paper's network has; the learning rate is that of this small training.
PUBLISHED: Values = {
    "activation_bound": 3.0,
    "width": 12,
    "blocks": 2,
    "local_shortcut": "zeropad",
    "block_shortcut": "tile",
    "learning_rate": 5e-3,
    "bits": 1,
    "weight_bound": "max",
    "expansion": 4,
    "squeeze_excite": True,
    "se_bits": 4,
    "se_ratio": 8,
    "activation": "dprelu",
    "negative_slope": 0.25,
    "stem_bits": 8,
    "head_bits": 8,
    "weight_decay": 5e-5,
    "float_phase": 0.06,
    "teacher_weight": 0.5,
    "temperature": 1.0,
}


class PokeBNNTuning(TuningProblem):
    """See the module's docstring.

    Parameters: `activation_bound` B in standard deviations, `width` f of the bottlenecks, their
    number `blocks`, `local_shortcut` and `block_shortcut`, `learning_rate`, and what the option
    `search` adds. Metrics: `error` and `log_ace`, or others of `TuningProblem`.

    Args:
        config: See `PokeBNNTuningConfig`.
        negate: See `Problem`.
        device: See `TuningProblem`.
    """

    config_class: ClassVar[type[TuningConfig]] = PokeBNNTuningConfig
    config: PokeBNNTuningConfig
    default_objectives: ClassVar[tuple[str, ...]] = ("error", "log_ace")

    def __init__(
        self,
        config: PokeBNNTuningConfig | None = None,
        *,
        negate: bool = False,
        device: str = "cpu",
    ) -> None:
        config = config or PokeBNNTuningConfig()
        parameters = list(ALWAYS)
        parameters += LAYERS if config.search in ("layers", "all") else ()
        parameters += TRAINING if config.search in ("training", "all") else ()
        self.published_default = {p.name: PUBLISHED[p.name] for p in parameters}
        super().__init__(Space(parameters), config, negate=negate, device=device)

    def setting(self, name: str, values: Values) -> Value:
        """A parameter's value where it is tuned and active, else the option of its name."""
        if name in values:
            return values[name]
        found: Value = getattr(self.config, name)
        return found

    def network(self, values: Values) -> PokeBNN:
        """The untrained network at a point; weights from torch's global generator."""
        channels, height, width = self.shape
        if min(height, width) < 4:
            raise InputError(
                f"data = {self.config.data!r}: images of {height} x {width} pixels are too small "
                "for two resolutions; expected at least 4 x 4"
            )
        tuned = {
            name: self.setting(name, values)
            for name in PokeConfig().to_dict()
            if name in values or hasattr(self.config, name)
        }
        return small_pokebnn(
            int(values["width"]),
            int(values["blocks"]),
            PokeConfig.from_dict(tuned),
            channels=channels,
            stem_channels=self.config.stem_channels,
            classes=self.classes,
        )

    def hooks(self, values: Values, network: nn.Module, seed: int) -> Hooks | None:
        """The first phase, and the teacher."""
        phase = float(self.setting("float_phase", values))
        weight = float(self.setting("teacher_weight", values))
        distillation = None
        if weight > 0:
            temperature = float(self.setting("temperature", values))
            distillation = Distillation(self.teacher(), weight, temperature)

        def set_phase(network: nn.Module, moment: Moment) -> None:
            set_binary_weights(network, moment.progress >= phase)

        return Hooks(before_step=set_phase if phase > 0 else None, distillation=distillation)

    def teacher(self) -> nn.Module:
        """A convolutional network that is not quantized, trained once on the training part."""
        data = self.data()
        channels, classes = self.shape[0], self.classes
        architecture: dict[str, Any] = {
            "network": "ConvNet",
            "channels": channels,
            "classes": classes,
        }
        return cached_classifier(
            architecture,
            lambda: ConvNet(channels, classes),
            data,
            TEACHER,
            self.config.training_seed,
            device=self.device,
        )
