"""Quantizers of two bits and more with straight-through gradients, and the layers that use them.

Each quantizer maps a tensor and a bound to values on a grid; the gradient passes unchanged where
the input is inside the range that the grid covers and is 0 outside. No gradient goes to the bound.

Source: Abdolrashidi et al. 2021, arXiv 2105.03536, as in Zhang et al. 2022, PokeBNN, arXiv
2112.00133. One bit: `problems.documented.binarization`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from problems.documented.cost import UNQUANTIZED_BITS

SMALLEST_BOUND = 1e-12  # so that a channel of zeros stays one


class _Gated(torch.autograd.Function):
    """A given value in the forward pass, the identity times a gate in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, gate: Tensor) -> Tensor:
        ctx.save_for_backward(gate)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (gate,) = ctx.saved_tensors
        return gradient * gate, None, None


def gated(x: Tensor, value: Tensor, gate: Tensor) -> Tensor:
    """`value` in the forward pass; in the backward pass the gradient to `x` is the output's times
    `gate`, and none goes to the other two. All three of one shape."""
    result: Tensor = _Gated.apply(x, value, gate)
    return result


def quantize_signed(x: Tensor, bound: Tensor, bits: int) -> Tensor:
    """Round to the 2^b - 1 multiples of bound / (2^(b-1) - 1) in [-bound, bound].

    Args:
        x: Any shape.
        bound: Above 0, broadcasts with x.
        bits: b >= 2.
    """
    with torch.no_grad():
        levels = 2 ** (bits - 1) - 1
        step = bound / levels
        scaled = x / step
        value = torch.floor(scaled.clamp(-levels, levels) + 0.5) * step
        gate = scaled.abs() <= levels
    return gated(x, value, gate)


def quantize_unsigned(x: Tensor, bound: Tensor, bits: int) -> Tensor:
    """Round down to the 2^b multiples of bound / 2^b in [0, bound).

    Args and gradient as for `quantize_signed`.
    """
    with torch.no_grad():
        step = bound / 2**bits
        scaled = torch.floor(x / step)
        value = scaled.clamp(0, 2**bits - 1) * step
        gate = (scaled >= 0) & (scaled < 2**bits)
    return gated(x, value, gate)


def channel_bound(weight: Tensor) -> Tensor:
    """max |w| of every output channel (the first dimension), detached, broadcasting with it."""
    largest = weight.detach().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
    return largest.clamp_min(SMALLEST_BOUND)


class InputQuantizer(nn.Module):
    """b-bit quantization of activations, the bound a running mean of the batches' max |x|.

    The mean over batches, not one batch's maximum, is used in training too, so that training and
    evaluation see the same grid.

    Args:
        bits: b >= 2.
        signed: Whether inputs may be negative.
        momentum: Weight of the past.
    """

    maximum: Tensor
    batches: Tensor

    def __init__(self, bits: int, signed: bool = True, momentum: float = 0.9) -> None:
        super().__init__()
        self.bits = bits
        self.signed = signed
        self.momentum = momentum
        self.register_buffer("maximum", torch.zeros(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Quantize, any shape."""
        current = x.detach().abs().amax().clamp_min(SMALLEST_BOUND)
        known = self.batches > 0
        bound = torch.where(known, self.maximum, current)
        if self.training:
            bound = torch.lerp(current, bound, self.momentum)
            self.maximum.copy_(bound)
            self.batches.add_(1)
        quantize = quantize_signed if self.signed else quantize_unsigned
        return quantize(x, bound, self.bits)


class QuantizedConv2d(nn.Conv2d):
    """A convolution with b-bit weights (per output channel) and b-bit inputs.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel_size: Side of the kernel.
        bits: Of weights and inputs; 16 leaves both as they are.
        signed: Whether inputs may be negative.
        stride: Step of the kernel.
        groups: Groups of channels.
        bias: Whether there is one (not quantized).
        same: Pad with zeros to ceil(size / stride) outputs; False: no padding.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bits: int,
        signed: bool = True,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        same: bool = True,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride=stride, groups=groups, bias=bias
        )
        self.weight_bits = self.input_bits = bits
        self.same = same
        self.input_quantizer = (
            InputQuantizer(bits, signed) if bits < UNQUANTIZED_BITS else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """`n x in_channels x h x w` to `n x out_channels x h' x w'`."""
        x = self.input_quantizer(x)
        weight = self.weight
        if self.weight_bits < UNQUANTIZED_BITS:
            weight = quantize_signed(weight, channel_bound(weight), self.weight_bits)
        if self.same:
            x = pad_same(x, self.kernel_size[0], self.stride[0])
        return functional.conv2d(x, weight, self.bias, self.stride, groups=self.groups)


class QuantizedLinear(nn.Linear):
    """A linear layer with b-bit weights (per output) and signed b-bit inputs.

    Args:
        in_features: Inputs.
        out_features: Outputs.
        bits: Of weights and inputs; 16 leaves both as they are.
    """

    def __init__(self, in_features: int, out_features: int, *, bits: int) -> None:
        super().__init__(in_features, out_features)
        self.weight_bits = self.input_bits = bits
        self.input_quantizer = InputQuantizer(bits) if bits < UNQUANTIZED_BITS else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`... x in_features` to `... x out_features`."""
        weight = self.weight
        if self.weight_bits < UNQUANTIZED_BITS:
            weight = quantize_signed(weight, channel_bound(weight), self.weight_bits)
        return functional.linear(self.input_quantizer(x), weight, self.bias)


def pad_same(x: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Zeros around the last two dimensions so that ceil(size / stride) windows fit.

    Where their number is odd the larger half goes to the end, as in XLA's "SAME".
    """
    widths = same_padding(x.shape[-2], x.shape[-1], kernel_size, stride)
    return functional.pad(x, widths) if any(widths) else x


def same_padding(height: int, width: int, kernel_size: int, stride: int) -> list[int]:
    """The widths that `pad_same` adds: left, right, above, below."""
    widths: list[int] = []
    for size in (width, height):
        windows = -(-size // stride)
        total = max((windows - 1) * stride + kernel_size - size, 0)
        widths += [total // 2, total - total // 2]
    return widths
