"""Quantizing a trained network, layer after layer, on inputs without labels.

    quantized = quantize(network, x, CalibrationConfig(method="nupes-u+a"), weight_bits=4)

A layer's inputs come from the layers before it, already quantized; its outputs should be those of
the network in full precision. What the rounding is while it is learnt does not count: every
20 steps the codes are rounded and the best so far kept, the codes nearest to the weights among
them, so that learning never does worse than they do (on these inputs).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

from torch import Tensor, nn

from bo_surrogates.errors import InputError, RunError
from problems.documented.cost import UNQUANTIZED_BITS
from problems.documented.power_quantization.configuration import CalibrationConfig
from problems.documented.power_quantization.grid import EXPONENTS
from problems.documented.power_quantization.layers import PowerLayer, power_layer
from problems.documented.power_quantization.learning import LayerLearning
from problems.documented.power_quantization.observation import layers_in_order, observed
from problems.documented.power_quantization.search import search_exponent
from problems.documented.training import Epoch, State, joined, run

Bits = int | Sequence[int]


def quantized_like(
    network: nn.Module,
    order: Sequence[str],
    weight_bits: Bits,
    input_bits: Bits = UNQUANTIZED_BITS,
    config: CalibrationConfig | None = None,
) -> nn.Module:
    """A copy whose layers are on uniform grids, each weight at the nearest code, not calibrated.

    Args:
        network: It is not changed.
        order: The layers' names, see `observation.layers_in_order`.
        weight_bits: 2..8 of all layers, or of each; a layer of 16 is left as it is.
        input_bits: Likewise; 16: inputs are not quantized.
        config: Granularity and clip ratios.

    Raises:
        InputError: Bits are out of range, or not one for each layer.
    """
    config = config or CalibrationConfig()
    result = copy.deepcopy(network).eval().requires_grad_(False)
    each = (_each("weight_bits", weight_bits, order), _each("input_bits", input_bits, order))
    for name, wide, narrow in zip(order, *each, strict=True):
        try:
            layer = power_layer(
                result.get_submodule(name),
                wide,
                narrow,
                granularity=config.granularity,
                clip_ratio=config.clip_ratio,
                input_clip_ratio=config.input_clip_ratio,
            )
        except InputError as error:
            raise InputError(f"layer {name!r}: {error}") from None
        result.set_submodule(name, layer)
    return result


def _each(what: str, bits: Bits, order: Sequence[str]) -> list[int]:
    if isinstance(bits, int):
        return [bits] * len(order)
    if len(bits) != len(order):
        raise InputError(
            f"{what} must be one number, or one for each of the {len(order)} layers "
            f"({', '.join(order)}); got {len(bits)}"
        )
    return list(bits)


class Calibration:
    """Quantization epoch by epoch, a `training.Trainer`.

    The steps of all layers, one layer after the other, are split evenly: after an epoch the layers
    so far are learnt, and the others have the nearest codes. Everything follows from the arguments.

    Attributes:
        network: As far as it has come.

    Args:
        network: The trained network, on any device; it is not changed. Normalizations that should
            become part of the weights are folded before (`layers.fold_normalizations`).
        x: `n x ...` inputs to calibrate on, on the network's device.
        config: See `CalibrationConfig`.
        weight_bits: See `quantized_like`.
        input_bits: See `quantized_like`.
        exponents: Of all layers or of each, instead of those of `config.grid`.

    Raises:
        InputError: Something is out of range, or the network cannot be quantized.
    """

    def __init__(
        self,
        network: nn.Module,
        x: Tensor,
        config: CalibrationConfig | None = None,
        weight_bits: Bits = 4,
        input_bits: Bits = UNQUANTIZED_BITS,
        exponents: float | Sequence[float] | None = None,
    ) -> None:
        if len(x) == 0:
            raise InputError("calibration takes at least 1 input, got 0")
        self.config = config = config or CalibrationConfig()
        self.original = copy.deepcopy(network).eval().requires_grad_(False)
        self.x = x
        order = layers_in_order(self.original, x)
        self.network = quantized_like(self.original, order, weight_bits, input_bits, config)
        layers = {name: self.network.get_submodule(name) for name in order}
        self.layers = {k: m for k, m in layers.items() if isinstance(m, PowerLayer)}
        if not self.layers:
            raise InputError("every layer has 16 weight bits: there is nothing to quantize")
        self.names = list(self.layers)
        self.epochs = 1 if config.method == "rtn" else config.epochs
        self.epoch = 0
        for name, a in zip(self.names, self._exponents(exponents), strict=True):
            self.layers[name].round_to_nearest(self._weight(name), a)
        self.start = {name: float(self.layers[name].exponent) for name in self.names}
        for name in self.names:
            self._look_at(name)
        self._current: LayerLearning | None = None

    def _weight(self, name: str) -> Tensor:
        weight: Tensor = self.original.get_parameter(f"{name}.weight")
        return weight

    def _exponents(self, given: float | Sequence[float] | None) -> list[float]:
        config, names = self.config, self.names
        if given is not None:
            each = [given] * len(names) if isinstance(given, int | float) else list(given)
            low, high = EXPONENTS
            if len(each) != len(names) or not all(low <= a <= high for a in each):
                raise InputError(
                    f"exponents must be one number, or one for each of the {len(names)} quantized "
                    f"layers, in [{low:g}, {high:g}]; got {given!r}"
                )
            return [float(a) for a in each]
        if config.grid == "uniform":
            return [1.0] * len(names)
        weights = [self._weight(name) for name in names]
        if not all(bool(w.isfinite().all()) for w in weights):
            raise RunError("the network to quantize has weights that are no finite numbers")
        bits = [self.layers[name].weight_bits for name in names]

        def search(these: slice) -> float:
            return search_exponent(
                weights[these],
                bits[these],
                granularity=config.granularity,
                clip_ratio=config.clip_ratio,
                p=config.norm,
            )

        if config.grid == "net":
            return [search(slice(None))] * len(names)
        return [search(slice(i, i + 1)) for i in range(len(names))]

    def _look_at(self, name: str) -> Tensor:
        """The layer's inputs, by which its quantizer of inputs is set."""
        inputs = observed(self.network, name, self.x, "inputs")
        quantizer = self.layers[name].inputs
        if quantizer is not None:
            quantizer.observe(inputs)
        return inputs

    def _learning(self, number: int) -> LayerLearning:
        name = self.names[number]
        layer = self.layers[name]
        inputs = self._look_at(name)
        outputs = observed(self.original, name, self.x, "outputs")
        original = self.original.get_submodule(name)
        if isinstance(original.bias, Tensor):
            shape = (-1, 1, 1) if outputs.ndim == 4 else (-1,)
            outputs = outputs - original.bias.reshape(shape)
        weight = self._weight(name)
        return LayerLearning(layer, weight, self.start[name], inputs, outputs, self.config)

    def run_epoch(self) -> Epoch:
        """See `Trainer.run_epoch`; the loss is the mean, over the layers learnt in this epoch, of
        the squared error of the rounded layer's outputs, relative to the outputs."""
        losses = []
        per_layer = self.epochs
        first = self.epoch * len(self.names)
        for chunk in range(first, first + len(self.names)):
            number, part = divmod(chunk, per_layer)
            if part == 0 or self._current is None:
                self._current = self._learning(number)
            if self.config.method != "rtn":
                self._current.learn(part / per_layer, 1.0 / per_layer)
            losses.append(self._current.relative_error)
            if part == per_layer - 1 and self.config.bias_correction:
                self._current.correct_bias()
        self.epoch += 1
        loss = sum(losses) / len(losses)
        if not math.isfinite(loss):
            raise RunError(
                f"calibration diverged in epoch {self.epoch} (relative error {loss}); lower "
                f"lr_codes ({self.config.lr_codes:g}) or look at the network and its inputs"
            )
        return Epoch(self.epoch, loss, self.network)

    def state(self) -> State:
        """See `Trainer.state`."""
        parts = {"network": self.network.state_dict()}
        parts["learning"] = {} if self._current is None else self._current.tensors()
        copies = {
            part: State({name: tensor.detach().clone() for name, tensor in tensors.items()})
            for part, tensors in parts.items()
        }
        return joined(copies, {"epoch": self.epoch})

    def restore(self, state: State) -> None:
        """See `Trainer.restore`."""
        self.network.load_state_dict(state.part("network").tensors)
        self.epoch = int(state.facts["epoch"])
        self._current = None
        number, part = divmod(self.epoch * len(self.names), self.epochs)
        if part > 0:
            self._current = self._learning(number)
            self._current.load(state.part("learning").tensors)


def quantize(
    network: nn.Module,
    x: Tensor,
    config: CalibrationConfig | None = None,
    weight_bits: Bits = 4,
    input_bits: Bits = UNQUANTIZED_BITS,
    exponents: float | Sequence[float] | None = None,
) -> nn.Module:
    """The quantized network, in evaluation mode; arguments and errors as for `Calibration`.

    Raises:
        RunError: The calibration diverged.
    """
    calibration = Calibration(network, x, config, weight_bits, input_bits, exponents)
    run(calibration)
    return calibration.network.eval()
