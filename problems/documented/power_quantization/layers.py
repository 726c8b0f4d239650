"""Layers whose weights are codes of a power grid, made from layers that are trained already."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bo_surrogates.errors import InputError
from problems.documented.cost import FLOAT_BITS, UNQUANTIZED_BITS, LayerCost
from problems.documented.power_quantization.grid import (
    bounds,
    check_bits,
    decode,
    encode,
    levels,
    spread,
)
from problems.documented.power_quantization.quantizer import PowerQuantizer

QUANTIZABLE = (nn.Linear, nn.Conv2d)


class PowerLayer(nn.Module):
    """Base of `PowerLinear` and `PowerConv2d`.

    Weights and inputs share the exponent, so that a product of theirs follows from the product of
    their codes. Weights are seen as rows, one for each output channel.

    Attributes:
        codes: `outputs x inputs`, int8, the inputs of a convolution channel by channel.
        bound: M of the weights, see `grid.bounds`.
        exponent: a, a scalar.
        bias: Not quantized, or None.
        inputs: Quantizes the inputs; None: they are left as they are.

    Args:
        layer: The trained layer, not changed.
        weight_bits: 2..8.
        input_bits: 2..8, or 16: not quantized.
        granularity: See `grid.bounds`.
        clip_ratio: M of the weights as a share of the largest.
        input_clip_ratio: M of the inputs likewise.

    Raises:
        InputError: Something is out of range.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        layer: nn.Linear | nn.Conv2d,
        weight_bits: int,
        input_bits: int = UNQUANTIZED_BITS,
        *,
        granularity: str = "channel",
        clip_ratio: float = 1.0,
        input_clip_ratio: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight_bits = check_bits("weight_bits", weight_bits)
        self.input_bits = input_bits
        self.granularity = granularity
        rows = layer.weight.detach().flatten(1)
        self.bound = nn.Parameter(bounds(rows, granularity, clip_ratio), requires_grad=False)
        # A parameter of integers: it is what the network stores, though nothing learns it.
        self.codes = nn.Parameter(torch.zeros_like(rows, dtype=torch.int8), requires_grad=False)
        self.exponent = nn.Parameter(rows.new_ones(()), requires_grad=False)
        self.bias = (
            None
            if layer.bias is None
            else nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
        )
        self.inputs: PowerQuantizer | None = None
        if input_bits != UNQUANTIZED_BITS:
            check_bits("input_bits (or 16: not quantized)", input_bits)
            quantizer = PowerQuantizer(input_bits, clip_ratio=input_clip_ratio)
            self.inputs = quantizer.to(device=rows.device, dtype=rows.dtype)
        self.round_to_nearest(layer.weight, 1.0)

    @property
    def largest(self) -> int:
        """Q of the weights."""
        return levels(self.weight_bits)

    def spread_bound(self) -> Tensor:
        """M, broadcasting with the codes."""
        return spread(self.bound, self.codes.shape[1], self.granularity)

    def set_exponent(self, exponent: float) -> None:
        """Of weights and inputs."""
        self.exponent.fill_(exponent)
        if self.inputs is not None:
            self.inputs.exponent.fill_(exponent)

    @torch.no_grad()
    def round_to_nearest(self, weight: Tensor, exponent: float) -> None:
        """Give every weight the code nearest to it.

        Args:
            weight: Of the trained layer.
            exponent: The grid's.
        """
        self.set_exponent(exponent)
        self.codes.copy_(encode(weight.flatten(1), self.spread_bound(), exponent, self.largest))

    def rows(self) -> Tensor:
        """The quantized weights, `outputs x inputs`."""
        codes = self.codes.to(self.bound.dtype)
        return decode(codes, self.spread_bound(), self.exponent, self.largest)

    def quantized_inputs(self, x: Tensor) -> Tensor:
        """The inputs as they are multiplied."""
        return x if self.inputs is None else self.inputs(x)

    def patches(self, x: Tensor) -> Tensor:
        """What the rows are multiplied with, `groups x positions x inputs`."""
        raise NotImplementedError

    @property
    def groups(self) -> int:
        """Groups of channels that are not mixed."""
        return 1

    @property
    def table_entries(self) -> int:
        """Entries of the table of a product's magnitude, Q_w Q_x + 1 (inputs taken to be
        unsigned); of the weights' magnitudes, Q_w + 1, where inputs are not quantized."""
        if self.inputs is None:
            return self.largest + 1
        return self.largest * levels(self.input_bits, signed=False) + 1

    def layer_costs(self, inputs: tuple[Tensor, ...], output: Tensor) -> Sequence[LayerCost]:
        """See `cost.CountsOwnCost`."""
        terms = self.codes.shape[1]
        macs = output.numel() * terms
        return [LayerCost("", macs, self.weight_bits, self.input_bits, 0, terms)]

    def stored_bits(self) -> int:
        """b bits a code; 32 a bound, also the inputs', an exponent and a bias."""
        numbers = self.bound.numel() + 1 + (0 if self.bias is None else self.bias.numel())
        numbers += 0 if self.inputs is None else 1
        return self.codes.numel() * self.weight_bits + numbers * FLOAT_BITS


class PowerLinear(PowerLayer):
    """A linear layer; arguments as for `PowerLayer`."""

    def forward(self, x: Tensor) -> Tensor:
        """`... x inputs` to `... x outputs`."""
        return functional.linear(self.quantized_inputs(x), self.rows(), self.bias)

    def patches(self, x: Tensor) -> Tensor:
        """See `PowerLayer.patches`."""
        return x.reshape(1, -1, x.shape[-1])


class PowerConv2d(PowerLayer):
    """A convolution padded with zeros; arguments as for `PowerLayer`."""

    def __init__(
        self,
        layer: nn.Linear | nn.Conv2d,
        weight_bits: int,
        input_bits: int = UNQUANTIZED_BITS,
        *,
        granularity: str = "channel",
        clip_ratio: float = 1.0,
        input_clip_ratio: float = 1.0,
    ) -> None:
        if not isinstance(layer, nn.Conv2d):
            raise InputError(f"PowerConv2d is made of a Conv2d, got {type(layer).__name__}")
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise InputError(
                f"a convolution must be padded with zeros by a number of pixels to be quantized; "
                f"got padding={layer.padding!r}, padding_mode={layer.padding_mode!r}"
            )
        super().__init__(
            layer,
            weight_bits,
            input_bits,
            granularity=granularity,
            clip_ratio=clip_ratio,
            input_clip_ratio=input_clip_ratio,
        )
        self.kernel_size = (layer.kernel_size[0], layer.kernel_size[1])
        self.stride = (layer.stride[0], layer.stride[1])
        self.padding = (int(layer.padding[0]), int(layer.padding[1]))
        self.dilation = (layer.dilation[0], layer.dilation[1])
        self._groups = layer.groups

    @property
    def groups(self) -> int:
        """See `PowerLayer.groups`."""
        return self._groups

    def forward(self, x: Tensor) -> Tensor:
        """`n x channels x h x w` to `n x outputs x h' x w'`."""
        weight = self.rows().reshape(len(self.codes), -1, *self.kernel_size)
        x = self.quantized_inputs(x)
        return functional.conv2d(
            x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )

    def patches(self, x: Tensor) -> Tensor:
        """See `PowerLayer.patches`; positions are images, then rows, then columns."""
        columns = functional.unfold(
            x, self.kernel_size, self.dilation, self.padding, self.stride
        )  # n x (groups, inputs) x positions
        split = columns.reshape(len(x), self.groups, self.codes.shape[1], -1)
        return split.permute(1, 0, 3, 2).flatten(1, 2)


def power_layer(
    layer: nn.Module, weight_bits: int, input_bits: int, **options: object
) -> nn.Module:
    """The quantized twin of a linear layer or convolution; arguments as for `PowerLayer`.

    With 16 `weight_bits` the layer is returned as it is, and is counted at 16 bits.
    """
    if weight_bits == UNQUANTIZED_BITS:
        layer.weight_bits = layer.input_bits = UNQUANTIZED_BITS  # type: ignore[assignment]
        return layer
    kind = PowerConv2d if isinstance(layer, nn.Conv2d) else PowerLinear
    return kind(layer, weight_bits, input_bits, **options)  # type: ignore[arg-type]


def fold_normalizations(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode where each batch normalization that follows a convolution in a
    `torch.nn.Sequential` has become part of its weights and bias, as is usual before quantization.
    """
    folded = copy.deepcopy(network).eval()
    for module in list(folded.modules()):
        if not isinstance(module, nn.Sequential):
            continue
        names = list(module._modules)
        for name, following in pairwise(names):
            conv, norm = module._modules[name], module._modules[following]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                if norm.running_mean is None:
                    continue
                module._modules[name] = fuse_conv_bn_eval(conv, norm)
                module._modules[following] = nn.Identity()
    return folded.requires_grad_(False)
