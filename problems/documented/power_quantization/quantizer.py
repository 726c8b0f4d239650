"""A power quantizer for activations, or whatever else goes through a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bo_surrogates.errors import InputError
from problems.documented.power_quantization.grid import (
    SMALLEST_BOUND,
    check_bits,
    decode,
    encode,
    levels,
)
from problems.documented.quantization import gated


class PowerQuantizer(nn.Module):
    """Rounds to the grid of a power, one bound for the whole tensor.

    The gradient passes unchanged inside the range of the grid and is 0 outside.

    Attributes:
        bound: M, the largest number on the grid.
        exponent: a.
        signed: Whether there are negative numbers on the grid.

    Args:
        bits: 2..8.
        exponent: a > 0.
        signed: See the attribute; `observe` decides it anew.
        clip_ratio: M as a share of the largest magnitude observed.

    Raises:
        InputError: Bits, exponent or clip ratio are out of range.
    """

    bound: Tensor
    exponent: Tensor
    signed: Tensor

    def __init__(
        self, bits: int, exponent: float = 1.0, *, signed: bool = True, clip_ratio: float = 1.0
    ) -> None:
        super().__init__()
        self.bits = check_bits("bits", bits)
        if not exponent > 0:
            raise InputError(f"exponent must be above 0, got {exponent!r}")
        if not 0 < clip_ratio <= 1:
            raise InputError(f"clip_ratio must be in (0, 1], got {clip_ratio!r}")
        self.clip_ratio = clip_ratio
        self.register_buffer("bound", torch.ones(()))
        self.register_buffer("exponent", torch.tensor(float(exponent)))
        self.register_buffer("signed", torch.tensor(signed))

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Set bound and sign by a sample."""
        self.bound.copy_((self.clip_ratio * x.abs().amax()).clamp_min(SMALLEST_BOUND))
        self.signed.copy_((x < 0).any())

    def largest(self) -> Tensor:
        """Q, a scalar."""
        low, high = levels(self.bits, signed=True), levels(self.bits, signed=False)
        return torch.where(self.signed, low, high).to(self.bound.dtype)

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """Integers in x's type; on an unsigned grid the code of a negative number is 0."""
        x = torch.where(self.signed, x, x.clamp_min(0.0))
        return encode(x, self.bound, self.exponent, self.largest())

    def forward(self, x: Tensor) -> Tensor:
        """Numbers on the grid, of x's shape."""
        with torch.no_grad():
            value = decode(self.codes(x), self.bound, self.exponent, self.largest())
            lowest = torch.where(self.signed, -self.bound, 0.0)
            gate = (x <= self.bound) & (x >= lowest)
        return gated(x, value, gate)
