"""The grid of a power: codes z in {-Q..Q} that stand for sgn(z) M (|z| / Q)^(1/a).

A number x is given the code sgn(x) round(Q (|x| / M)^a), a > 0 the exponent. a = 1 is symmetric
uniform quantization; with a < 1 the grid is finer near 0, as a -> 0 like that of logarithms. The
signed grid of b bits has Q = 2^(b-1) - 1, not a level more below zero: a power has no use for one
whose mirror image is missing. The unsigned one, for what follows a ReLU, has Q = 2^b - 1.

The maps x -> x^a are the continuous automorphisms of the positive numbers under multiplication, so
a product of two numbers on such grids is a function of the product of their codes; a sum is not
(`tables.py`).

Source: Yvinec et al. 2023, PowerQuant, ICLR, arXiv 2301.09858.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bo_surrogates.errors import InputError

GRANULARITIES = ("tensor", "channel", "group16", "group32")
EXPONENTS = (0.2, 1.5)  # what is searched and learnt
BITS = (2, 8)
SMALLEST_BOUND = 1e-12  # so that a row of zeros stays one

Number = float | int | Tensor


def check_bits(name: str, bits: int) -> int:
    """The bits, where a grid can have so many.

    Raises:
        InputError: Not in 2..8.
    """
    low, high = BITS
    if isinstance(bits, bool) or not isinstance(bits, int) or not low <= bits <= high:
        raise InputError(f"{name} must be an integer in {low}..{high}, got {bits!r}")
    return bits


def levels(bits: int, signed: bool = True) -> int:
    """Q: the largest code of b bits."""
    return 2 ** (bits - 1) - 1 if signed else 2**bits - 1


def real_codes(x: Tensor, bound: Number, exponent: Number, largest: Number) -> Tensor:
    """sgn(x) Q (|x| / M)^a, not rounded, at most Q in magnitude.

    Args:
        x: Any shape.
        bound: M > 0, broadcasts with x.
        exponent: a > 0, broadcasts with x.
        largest: Q.
    """
    return x.sign() * (largest * (x.abs() / bound).clamp(max=1.0).pow(exponent))


def encode(x: Tensor, bound: Number, exponent: Number, largest: Number) -> Tensor:
    """The codes of the nearest levels *of the power*, as integers in x's type; a tie goes to the
    even code. Arguments as for `real_codes`."""
    return real_codes(x, bound, exponent, largest).round()


def decode(codes: Tensor, bound: Number, exponent: Number, largest: Number) -> Tensor:
    """sgn(z) M (|z| / Q)^(1/a); arguments as for `real_codes`.

    Codes need not be integers; `rounding.power_decode` is the same with gradients.
    """
    return codes.sign() * (bound * (codes.abs() / largest).pow(1.0 / exponent))


def bounds(rows: Tensor, granularity: str = "channel", clip_ratio: float = 1.0) -> Tensor:
    """M = clip ratio times the largest magnitude of a tensor, of a row, or of a part of a row.

    Args:
        rows: `outputs x inputs`: a weight, a row for each output channel.
        granularity: "tensor", "channel", or "groupN", N successive inputs of a row (the last group
            of a row may be shorter).
        clip_ratio: In (0, 1]; what is larger than M is moved to it.

    Returns:
        `outputs x 1`, `1 x 1` for "tensor", or `outputs x groups`; see `spread`.

    Raises:
        InputError: An unknown granularity, or a clip ratio outside (0, 1].
    """
    if not 0 < clip_ratio <= 1:
        raise InputError(f"clip_ratio must be in (0, 1], got {clip_ratio!r}")
    size = group_size(granularity)
    magnitudes = rows.detach().abs()
    if granularity == "tensor":
        largest = magnitudes.amax().reshape(1, 1)
    elif size is None:
        largest = magnitudes.amax(dim=1, keepdim=True)
    else:
        missing = -rows.shape[1] % size
        padded = torch.nn.functional.pad(magnitudes, (0, missing))
        largest = padded.reshape(len(rows), -1, size).amax(dim=2)
    return (clip_ratio * largest).clamp_min(SMALLEST_BOUND)


def group_size(granularity: str) -> int | None:
    """N of "groupN"; None of "tensor" and "channel".

    Raises:
        InputError: None of the three.
    """
    if granularity in ("tensor", "channel"):
        return None
    digits = granularity.removeprefix("group")
    if granularity.startswith("group") and digits.isdecimal() and int(digits) > 0:
        return int(digits)
    raise InputError(
        f"granularity must be 'tensor', 'channel' or 'groupN' such as 'group16', "
        f"got {granularity!r}"
    )


def spread(bound: Tensor, inputs: int, granularity: str) -> Tensor:
    """Bounds so that they broadcast with `outputs x inputs`."""
    size = group_size(granularity)
    if size is None:
        return bound
    return bound.repeat_interleave(size, dim=1)[:, :inputs]
