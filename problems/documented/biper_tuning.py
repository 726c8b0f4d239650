"""Tuning BiPer: the frequency of the weights' sine, and how its two stages are trained.

The first stage trains weights that are sines, the second, from where the first has come and with
an optimizer of its own, their signs. Each has a learning rate, a weight decay and a penalty on
the sines' amplitude. With no first stage weights are signs from the beginning. Until the second
stage, what is reported of a training is the error of a network whose weights are not binary yet.

Source: Vargas et al. 2024, BiPer, CVPR, arXiv 2404.01278; the network for small images is this
project's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from torch import Tensor, nn

from bo_surrogates.config import choice, integer
from bo_surrogates.objective import Objective
from bo_surrogates.seeding import derive_seed
from bo_surrogates.space import Choice, Float, Int, Space, Values
from problems.documented.bibench import SmallBinaryNet, deployed, periodic_conv
from problems.documented.binarization import amplitude_penalty, set_stage
from problems.documented.binarization.biper import quantization_errors
from problems.documented.training import Hooks, Moment, Stages, Trainer, Training, TrainingConfig
from problems.documented.tuning_problem import TuningConfig, TuningProblem

STAGES = (1, 2)


@dataclass(frozen=True)
class BiPerTuningConfig(TuningConfig):
    """Options of `biper`.

    Attributes:
        decayed: What has weight decay: "all" parameters, or "weights" of convolutions and layers.
    """

    epochs: int = integer(14, 1, 10_000)
    decayed: str = choice("weights", ("all", "weights"))


class BiPerTuning(TuningProblem):
    """See the module's docstring.

    Parameters: `frequency` in radians per unit of weight; `init_std_scale`, the standard deviation
    of initial weights in Kaiming's; `first_stage`, the share of epochs in the first stage;
    `learning_rate_1`, `weight_decay_1`, `penalty_1` and the same with 2, by stage, the penalties
    only where `penalized`; `input_estimator` and `input_bound`, the gradient of the inputs' sign;
    `width`, `depth`, `optimizer`. Metrics: `error` and `log_ops`, others of `TuningProblem`, or
    `quantization_error`, the mean over layers.

    Args:
        config: See `BiPerTuningConfig`.
        negate: See `Problem`.
        device: See `TuningProblem`.
    """

    config_class: ClassVar[type[TuningConfig]] = BiPerTuningConfig
    config: BiPerTuningConfig
    default_objectives: ClassVar[tuple[str, ...]] = ("error", "log_ops")
    own_metrics: ClassVar[Mapping[str, Objective]] = {
        "quantization_error": Objective("quantization_error", reference=0.25)
    }

    def __init__(
        self,
        config: BiPerTuningConfig | None = None,
        *,
        negate: bool = False,
        device: str = "cpu",
    ) -> None:
        config = config or BiPerTuningConfig()
        # Published, but for learning rates and architecture, which are those of a small training.
        self.published_default = {
            "frequency": 20.0,
            "init_std_scale": 1.0,
            "first_stage": 0.6,
            "learning_rate_1": 5e-3,
            "learning_rate_2": 1e-3,
            "weight_decay_1": 1e-4,
            "weight_decay_2": 1e-6,
            "penalized": True,
            "penalty_1": 0.037,
            "penalty_2": 0.047,
            "input_estimator": "poly",
            "width": 16,
            "depth": 4,
            "optimizer": "adam",
        }
        space = Space(
            [
                Float("frequency", 1.0, 100.0, log=True),
                Float("init_std_scale", 0.25, 4.0, log=True),
                Float("first_stage", 0.0, 0.9),
                *(Float(f"learning_rate_{s}", 1e-4, 1e-1, log=True) for s in STAGES),
                *(Float(f"weight_decay_{s}", 1e-6, 1e-2, log=True) for s in STAGES),
                Choice("penalized", (False, True)),
                *(
                    Float(f"penalty_{s}", 1e-3, 1.0, log=True, when={"penalized": (True,)})
                    for s in STAGES
                ),
                Choice("input_estimator", ("poly", "clip")),
                Float("input_bound", 0.3, 5.0, log=True, when={"input_estimator": ("clip",)}),
                Int("width", 8, 64, log=True, unit="channels"),
                Int("depth", 2, 10),
                Choice("optimizer", ("adam", "sgd")),
            ]
        )
        super().__init__(space, config, negate=negate, device=device)

    def network(self, values: Values) -> SmallBinaryNet:
        """The untrained network at a point, in the second stage."""
        make_conv = periodic_conv(
            float(values["frequency"]),
            float(values["init_std_scale"]),
            str(values["input_estimator"]),
            float(values.get("input_bound", 1.0)),
        )
        width, depth = int(values["width"]), int(values["depth"])
        return SmallBinaryNet(self.shape, self.classes, width, depth, make_conv)

    def trainer(self, values: Values, seed: int) -> Trainer:
        """The two stages."""
        epochs = self.epochs(values)
        first = min(round(float(values["first_stage"]) * epochs), epochs - 1)
        x, y = self.data().part("train")

        def stage(number: int, network: nn.Module | None, length: int) -> Trainer:
            if network is None:
                network = self.seeded(lambda: self.network(values), seed)
            set_stage(network, number)
            recipe = TrainingConfig(
                epochs=length,
                batch_size=self.config.batch_size,
                optimizer=str(values["optimizer"]),
                learning_rate=float(values[f"learning_rate_{number}"]),
                weight_decay=float(values[f"weight_decay_{number}"]),
                decayed=self.config.decayed,
                schedule="cosine",
            )
            hooks = Hooks()
            if values["penalized"]:
                factor = float(values[f"penalty_{number}"])

                def penalty(network: nn.Module, moment: Moment) -> Tensor:
                    return factor * amplitude_penalty(network)

                hooks = Hooks(penalty=penalty)
            return Training(network, x, y, recipe, derive_seed(seed, "stage", number), hooks)

        return Stages(
            [
                lambda network: stage(1, network, first),
                lambda network: stage(2, network, epochs - first),
            ],
            [first, epochs - first],
        )

    def latency(self, network: nn.Module) -> float:
        """See `TuningProblem.latency`; on a CPU, of the network on bits."""
        return super().latency(deployed(network, self.data().validation_x[:1]))

    def scores(self, network: nn.Module, values: Values, part: str) -> dict[str, float]:
        """See `TuningProblem.scores`; and the quantization error."""
        return {
            **super().scores(network, values, part),
            "quantization_error": fmean(quantization_errors(network)),
        }
