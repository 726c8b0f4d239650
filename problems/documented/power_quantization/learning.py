"""The learning of one layer's codes, a few steps at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from problems.documented.power_quantization.configuration import STEPS, CalibrationConfig
from problems.documented.power_quantization.grid import EXPONENTS, real_codes
from problems.documented.power_quantization.layers import PowerLayer
from problems.documented.power_quantization.observation import Moments, moments
from problems.documented.power_quantization.rounding import AdaptiveRounding, FreeCodes, Rounding


class LayerLearning:
    """One layer and its variables while it is learnt.

    Args:
        layer: Of the quantized network: gets the best codes and exponent so far.
        weight: In full precision.
        exponent: To start from.
        inputs: What goes into the layer, not yet quantized.
        outputs: What should come out, its bias not yet added.
        config: The method and its step sizes.
    """

    def __init__(
        self,
        layer: PowerLayer,
        weight: Tensor,
        exponent: float,
        inputs: Tensor,
        outputs: Tensor,
        config: CalibrationConfig,
    ) -> None:
        self.layer, self.inputs, self.outputs = layer, inputs, outputs
        bound, largest = layer.spread_bound().double(), layer.largest
        start = real_codes(weight.detach().flatten(1).double(), bound, exponent, largest)
        self.rounding: Rounding
        if config.method == "adaround":
            weight_of_penalty = config.rounding_penalty
            self.rounding = AdaptiveRounding(
                start, exponent, bound, largest, weight=weight_of_penalty
            )
            groups = [{"params": [self.rounding.v], "lr": config.lr_rounding}]
        else:
            self.rounding = FreeCodes(
                start,
                exponent,
                bound,
                largest,
                first_sharpness=config.first_sharpness,
                last_sharpness=config.last_sharpness,
                exponents=EXPONENTS,
            )
            groups = [{"params": [self.rounding.u], "lr": config.lr_codes}]
            if config.method == "nupes-u+a":
                groups.append({"params": [self.rounding.a], "lr": config.lr_exponent})
        self.optimizer = torch.optim.Adam(groups)
        self.moments, self._moments_at = self._moments(exponent), exponent
        self.best = float(self.moments.error(layer.rows().double()))

    def _moments(self, exponent: float) -> Moments:
        """With inputs quantized at this exponent: the layer's own is that of its best codes."""
        quantizer = self.layer.inputs
        if quantizer is None:
            return moments(self.layer, self.inputs, self.outputs)
        kept = quantizer.exponent.clone()
        quantizer.exponent.fill_(exponent)
        found = moments(self.layer, self.inputs, self.outputs)
        quantizer.exponent.copy_(kept)
        return found

    @property
    def relative_error(self) -> float:
        """Of the best codes so far."""
        return self.best / self.moments.power if self.moments.power > 0 else self.best

    def learn(self, progress: float, share: float) -> None:
        """`STEPS` steps, then a look at the rounded codes.

        Args:
            progress: Share of the layer's steps that are done.
            share: Of these steps in them.
        """
        for step in range(STEPS):
            now = progress + share * step / STEPS
            loss = self.moments.error(self.rounding.weights(now))
            penalty = self.rounding.penalty(now)
            self.optimizer.zero_grad()
            (loss if penalty is None else loss + penalty).backward()
            self.optimizer.step()
            self.rounding.project()
        codes, exponent = self.rounding.hard()
        if self.layer.inputs is not None and self._moments_at != exponent:
            self.moments, self._moments_at = self._moments(exponent), exponent
        kept = self.layer.codes.clone(), float(self.layer.exponent)
        with torch.no_grad():
            self.layer.codes.copy_(codes)
            self.layer.set_exponent(exponent)
            error = float(self.moments.error(self.layer.rows().double()))
            if error < self.best or math.isnan(error):  # the caller refuses what is not a number
                self.best = error
            else:
                self.layer.codes.copy_(kept[0])
                self.layer.set_exponent(kept[1])

    @torch.no_grad()
    def correct_bias(self) -> None:
        """Give the outputs the mean that they should have."""
        if self.layer.bias is None:
            return
        found = self._moments(float(self.layer.exponent))
        means = self.layer.rows().double().reshape(found.cross.shape) @ found.mean_input[..., None]
        shift = found.mean_output - means[..., 0]
        self.layer.bias.add_(shift.flatten().to(self.layer.bias.dtype))

    def tensors(self) -> dict[str, Tensor]:
        """All that the steps to come depend on."""
        found = dict(self.rounding.variables())
        found["best"] = torch.tensor(self.best, dtype=torch.float64)
        for number, quantities in self.optimizer.state_dict()["state"].items():
            for name, value in quantities.items():
                found[f"adam.{number}.{name}"] = torch.as_tensor(value)
        return found

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Continue from what `tensors` gave."""
        for name, variable in self.rounding.variables().items():
            variable.copy_(tensors[name])
        adam: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "adam":
                number, _, quantity = rest.partition(".")
                adam.setdefault(int(number), {})[quantity] = value.clone()
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": adam, "param_groups": groups})
        self.best = float(tensors["best"])
        self._moments_at = self.rounding.hard()[1]
        self.moments = self._moments(self._moments_at)
