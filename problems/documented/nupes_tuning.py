"""Tuning a quantization after training: how many bits each layer has, and how codes are found.

A network is trained once (and cached); an evaluation quantizes it by the rounding of NUPES,
AdaRound or to the nearest code, calibrated on some of the training inputs, in seconds. The error,
or what changed at the logits, stands against the bits to store the network. Whose bits matter most
differs between layers: one integer a layer is the space of mixed precision. The noise of the
problem is which inputs it is calibrated on.

Source: Yvinec, Dapogny and Bailly 2023, NUPES, arXiv 2308.05600; Yvinec et al. 2023, PowerQuant,
ICLR, arXiv 2301.09858; the networks and the data are this project's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bo_surrogates.config import choice, flag, integer, real
from bo_surrogates.errors import InputError
from bo_surrogates.objective import Objective
from bo_surrogates.seeding import derive_seed, fixed_seed
from bo_surrogates.space import Choice, Float, Int, Ordered, Parameter, Space, Value, Values
from problems.documented.convnet import ConvNet
from problems.documented.mlp import MLP
from problems.documented.power_quantization import (
    GRANULARITIES,
    GRIDS,
    METHODS,
    Calibration,
    CalibrationConfig,
    PowerLayer,
    fold_normalizations,
    layers_in_order,
    quantized_like,
)
from problems.documented.power_quantization.grid import EXPONENTS
from problems.documented.teachers import cached_classifier
from problems.documented.training import Trainer, TrainingConfig, error_rate
from problems.documented.tuning_problem import TuningConfig, TuningProblem

NETWORKS = ("mlp", "convnet")
SEARCHES = ("bits", "method", "all")
GIVEN = "given"  # the grid whose exponent is a parameter


@dataclass(frozen=True)
class NupesTuningConfig(TuningConfig):
    """Options of `nupes`.

    Attributes:
        epochs: A layer learns for 20 times as many steps.
        batch_size: Of the training of the network that is quantized.
        network: That network: "mlp" (hidden layers of `width`) or "convnet" (images only).
        width: Units of the MLP's two hidden layers; channels of the first convolutions.
        teacher_epochs: For how many epochs it is trained, once.
        search: What is tuned: "bits", those of each layer's weights and of all inputs; "method",
            also the rounding and its step sizes, the grid and its exponent, granularity, clip ratio
            and the number of inputs; "all", also the bits of each layer's inputs, each layer's
            exponent, and the rest of the rounding's parameters.
        error_increase_limit: Where given, by how much the error may exceed that of the network in
            full precision, as an outcome constraint; 0.01 is one point.
        method: See `CalibrationConfig`, where it is not tuned; likewise:
        grid: "uniform", "net", "layers", or "given": `exponent`.
        exponent: Of all layers, with the grid "given".
        norm: p of the search of exponents.
        granularity: Of the weights' bounds.
        clip_ratio: Of the weights' bounds.
        calibration_size: Inputs; all training inputs where there are fewer.
        lr_codes: Of NUPES' codes.
        lr_exponent: Of its exponents.
        first_sharpness: Of its soft rounding.
        last_sharpness: Of its soft rounding.
        lr_rounding: Of AdaRound.
        rounding_penalty: Of AdaRound.
        bias_correction: Whether biases are corrected.
    """

    epochs: int = integer(30, 1, 10_000)
    network: str = choice("mlp", NETWORKS)
    width: int = integer(64, 1, 4096)
    teacher_epochs: int = integer(60, 1, 10_000)
    search: str = choice("method", SEARCHES)
    error_increase_limit: float | None = real(None, 0.0, 1.0, optional=True)
    method: str = choice("nupes-u+a", METHODS)
    grid: str = choice("net", (*GRIDS, GIVEN))
    exponent: float = real(1.0, *EXPONENTS)
    norm: float = real(2.0, 1.0, 4.0)
    granularity: str = choice("channel", GRANULARITIES)
    clip_ratio: float = real(1.0, 0.1, 1.0)
    calibration_size: int = integer(512, 1, 1_000_000)
    lr_codes: float = real(5e-2, 1e-6, 1.0)
    lr_exponent: float = real(5e-3, 1e-6, 1.0)
    first_sharpness: float = real(1.5, 1e-2, 100.0)
    last_sharpness: float = real(20.0, 1e-2, 100.0)
    lr_rounding: float = real(5e-2, 1e-6, 1.0)
    rounding_penalty: float = real(1.0, 0.0, 1000.0)
    bias_correction: bool = flag(False)


FREE = ("nupes-u", "nupes-u+a")
SEARCHED = ("net", "layers")
INPUT_BITS = (2, 3, 4, 6, 8, 16)
METHOD: tuple[Parameter, ...] = (
    Choice("method", METHODS),
    Float("lr_codes", 1e-3, 2e-1, log=True, when={"method": FREE}),
    Float("lr_exponent", 1e-4, 5e-2, log=True, when={"method": ("nupes-u+a",)}),
    Float("lr_rounding", 5e-3, 2e-1, log=True, when={"method": ("adaround",)}),
    Choice("grid", (*GRIDS, GIVEN)),
    Float("norm", 1.0, 4.0, when={"grid": SEARCHED}),
    Choice("granularity", GRANULARITIES),
    Float("clip_ratio", 0.4, 1.0),
    Int("calibration_size", 32, 1024, log=True, unit="inputs"),
)
REST: tuple[Parameter, ...] = (
    Float("first_sharpness", 0.5, 4.0, log=True, when={"method": FREE}),
    Float("last_sharpness", 5.0, 50.0, log=True, when={"method": FREE}),
    Float("rounding_penalty", 1e-2, 10.0, log=True, when={"method": ("adaround",)}),
    Choice("bias_correction", (False, True)),
)
EPOCHS = Int("epochs", 5, 100, log=True, when={"method": ("adaround", *FREE)})


class NupesTuning(TuningProblem):
    """See the module's docstring.

    Parameters: `weight_bits_1`, ... of each layer as the network goes; `input_bits` (16: not
    quantized), or `input_bits_1`, ...; `method`, "rtn", "adaround", "nupes-u" or "nupes-u+a"; its
    step sizes; the `grid` and its `exponent` or `norm`; `granularity`, `clip_ratio`,
    `calibration_size`, and what the option `search` adds. Metrics: `error`, `log_bits`, others of
    `TuningProblem`, or `logit_mse`, the squared difference of the logits to the network in full
    precision, relative to the variance of its logits; `error_increase` over that network's; and
    `log_table_entries`, entries of all layers' tables of products (decimal logarithm).

    Args:
        config: See `NupesTuningConfig`.
        negate: See `Problem`.
        device: See `TuningProblem`.
    """

    config_class: ClassVar[type[TuningConfig]] = NupesTuningConfig
    config: NupesTuningConfig
    default_objectives: ClassVar[tuple[str, ...]] = ("error", "log_bits")
    own_metrics: ClassVar[Mapping[str, Objective]] = {
        "logit_mse": Objective("logit_mse", reference=1.0),
        "error_increase": Objective("error_increase", reference=0.5),
        "log_table_entries": Objective("log_table_entries", reference=6.0),
    }
    takes_images: ClassVar[bool | None] = None
    reduced: ClassVar[Mapping[str, Any]] = {
        "epochs": 2, "train_fraction": 0.1, "batch_size": 32, "teacher_epochs": 3, "width": 16,
    }  # fmt: skip

    def __init__(
        self,
        config: NupesTuningConfig | None = None,
        *,
        negate: bool = False,
        device: str = "cpu",
    ) -> None:
        self.config = config = config or NupesTuningConfig()
        self.layers = 3 if config.network == "mlp" else 5
        numbers = range(1, self.layers + 1)
        parameters: list[Parameter] = [Int(f"weight_bits_{i}", 2, 8) for i in numbers]
        everything = config.search == "all"
        names = [f"input_bits_{i}" for i in numbers] if everything else ["input_bits"]
        parameters += [Ordered(name, INPUT_BITS) for name in names]
        if config.search != "bits":
            parameters += METHOD
            exponents = [f"exponent_{i}" for i in numbers] if everything else ["exponent"]
            parameters += [Float(name, *EXPONENTS, when={"grid": (GIVEN,)}) for name in exponents]
        if everything:
            parameters += REST
            # As a fidelity, epochs are added by the base, and active whatever the method.
            parameters += [] if config.fidelity == "epochs" else [EPOCHS]
        self.published_default = _published(parameters)
        super().__init__(Space(parameters), config, negate=negate, device=device)

    def setting(self, name: str, values: Values) -> Value:
        """A parameter's value where it is tuned and active, else the option of its name."""
        if name in values:
            return values[name]
        found: Value = getattr(self.config, name)
        return found

    def limits(self) -> dict[str, float]:
        """See `TuningProblem.limits`; with that of the error's increase."""
        most = self.config.error_increase_limit
        return super().limits() | ({} if most is None else {"error_increase": most})

    # ---- the network in full precision -----------------------------------------------------------
    def original(self) -> nn.Module:
        """The network to be quantized, trained once on the training part, normalizations folded."""
        config = self.config
        architecture: dict[str, Any] = {
            "network": config.network,
            "shape": list(self.shape),
            "classes": self.classes,
            "width": config.width,
        }
        training = TrainingConfig(
            epochs=config.teacher_epochs,
            batch_size=config.batch_size,
            weight_decay=config.weight_decay,
            schedule="cosine",
        )
        trained = cached_classifier(
            architecture,
            self._untrained,
            self.data(),
            training,
            config.training_seed,
            device=self.device,
        )
        return fold_normalizations(trained)

    def _untrained(self) -> nn.Module:
        config = self.config
        if config.network == "mlp":
            return MLP(self.shape, self.classes, (config.width, config.width))
        if len(self.shape) != 3:
            raise InputError(
                f"network = 'convnet' takes images, and data = {config.data!r} is a table; "
                "use network = 'mlp'"
            )
        return ConvNet(self.shape[0], self.classes, config.width)

    # ---- what is done at a point -----------------------------------------------------------------
    def calibration_config(self, values: Values) -> CalibrationConfig:
        """How the network is quantized at a point."""
        names = set(CalibrationConfig().to_dict()) - {"input_clip_ratio", "epochs", "grid"}
        grid = str(self.setting("grid", values))
        return CalibrationConfig(
            epochs=self.epochs(values),
            grid="uniform" if grid == GIVEN else grid,
            **{name: self.setting(name, values) for name in names},  # type: ignore[arg-type]
        )

    def weight_bits(self, values: Values) -> list[int]:
        """Of each layer."""
        return [int(values[f"weight_bits_{i}"]) for i in range(1, self.layers + 1)]

    def input_bits(self, values: Values) -> list[int]:
        """Of each layer; 16: not quantized."""
        if "input_bits" in values:
            return [int(values["input_bits"])] * self.layers
        return [int(values[f"input_bits_{i}"]) for i in range(1, self.layers + 1)]

    def exponents(self, values: Values) -> list[float] | None:
        """Of each layer, where they are given."""
        if self.setting("grid", values) != GIVEN:
            return None
        names = [f"exponent_{i}" for i in range(1, self.layers + 1)]
        if names[0] in values:
            return [float(values[name]) for name in names]
        return [float(self.setting("exponent", values))] * self.layers

    def network(self, values: Values) -> nn.Module:
        """The quantized network of untrained weights: of the right shapes and bits."""
        untrained = fold_normalizations(self._untrained())
        order = layers_in_order(untrained, torch.zeros(2, *self.shape))
        config = self.calibration_config(values)
        bits = self.weight_bits(values), self.input_bits(values)
        return quantized_like(untrained, order, *bits, config)

    def trainer(self, values: Values, seed: int) -> Trainer:
        """The calibration, on training inputs drawn by the seed."""
        return Calibration(
            self.original(),
            self.calibration_inputs(values, seed),
            self.calibration_config(values),
            self.weight_bits(values),
            self.input_bits(values),
            self.exponents(values),
        )

    def calibration_inputs(self, values: Values, seed: int) -> Tensor:
        """Without labels, `n x ...`."""
        x, _ = self.data().part("train")
        number = min(int(self.setting("calibration_size", values)), len(x))
        with fixed_seed(derive_seed(seed, "calibration inputs")):
            chosen = torch.randperm(len(x))[:number]
        return x[chosen.to(x.device)]

    def scores(self, network: nn.Module, values: Values, part: str) -> dict[str, float]:
        """See `TuningProblem.scores`; with the own metrics that are asked for."""
        found = super().scores(network, values, part)
        compared = {"logit_mse", "error_increase"} & set(self.metrics)
        if compared:
            x, y = self.data().part(part)
            original = self.original()
            if "error_increase" in compared:
                found["error_increase"] = found["error"] - error_rate(original, x, y)
            if "logit_mse" in compared:
                found["logit_mse"] = logit_mse(network, original, x)
        if "log_table_entries" in self.metrics:
            entries = sum(m.table_entries for m in network.modules() if isinstance(m, PowerLayer))
            found["log_table_entries"] = torch.tensor(float(entries)).log10().item()
        return found


@torch.no_grad()
def logit_mse(network: nn.Module, original: nn.Module, x: Tensor) -> float:
    """Mean squared difference of the logits, relative to the variance of the original's over the
    inputs, both summed over classes."""
    expected = torch.cat([original(batch) for batch in x.split(1024)])
    found = torch.cat([network(batch) for batch in x.split(1024)])
    difference = float((found - expected).square().sum())
    squares = float((expected - expected.mean(dim=0)).square().sum())
    return difference / squares


def _published(parameters: Sequence[Parameter]) -> Values:
    """W4A8 in every layer, and what else is tuned as the options are by default."""
    default = NupesTuningConfig()
    values: Values = {"grid": default.grid, "method": default.method}
    for parameter in parameters:
        kind = parameter.name.rstrip("0123456789").rstrip("_")
        if kind == "weight_bits":
            values[parameter.name] = 4
        elif kind == "input_bits":
            values[parameter.name] = 8
        elif all(values.get(parent) in allowed for parent, allowed in parameter.when.items()):
            values[parameter.name] = getattr(default, kind)
    return {p.name: values[p.name] for p in parameters if p.name in values}
