"""PowerQuant: the exponent with the least error of the weights, found without data.

    a* = argmin_a sum over layers of || W - W_a ||_p

where W_a is W rounded to the grid of exponent a. With finer grids the sum is close to convex in a,
yet rounding makes it rough: it is evaluated on a grid of exponents, and the neighbourhood of the
best is searched by Brent's method.

Source: Yvinec et al. 2023, PowerQuant, ICLR, arXiv 2301.09858, equation 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from bo_surrogates.errors import InputError
from problems.documented.power_quantization.grid import (
    EXPONENTS,
    bounds,
    check_bits,
    decode,
    encode,
    levels,
    spread,
)

STEP = 0.05  # of the first grid; 1 is on it


def weight_error(
    weight: Tensor,
    exponent: float,
    bits: int,
    *,
    granularity: str = "channel",
    clip_ratio: float = 1.0,
    p: float = 2.0,
) -> float:
    """|| W - W_a ||_p of a weight, `outputs x ...`; other arguments as for `search_exponent`."""
    rows = weight.detach().flatten(1)
    bound = spread(bounds(rows, granularity, clip_ratio), rows.shape[1], granularity)
    largest = levels(bits)
    found = decode(encode(rows, bound, exponent, largest), bound, exponent, largest)
    return float(torch.linalg.vector_norm(rows - found, ord=p))


def search_exponent(
    weights: Sequence[Tensor],
    bits: int | Sequence[int],
    *,
    granularity: str = "channel",
    clip_ratio: float = 1.0,
    p: float = 2.0,
    low: float = EXPONENTS[0],
    high: float = EXPONENTS[1],
) -> float:
    """PowerQuant's exponent for the given weights together.

    Give the weights of all layers for one exponent of the network, those of one for its own.

    Args:
        weights: Each `outputs x ...`.
        bits: 2..8, of all weights or of each.
        granularity: Of the bounds, see `grid.bounds`.
        clip_ratio: See `grid.bounds`.
        p: Of the norm, at least 1.
        low: Least exponent, above 0.
        high: Largest exponent; at least 1, so that the result is never worse than uniform.

    Returns:
        a*; where several are equally good, the one nearest to 1.

    Raises:
        InputError: Something is out of range, or there are no weights.
    """
    if not weights:
        raise InputError("there are no weights to search an exponent for")
    if not 0 < low <= 1 <= high < math.inf:
        raise InputError(f"exponents must have 0 < low <= 1 <= high, got {low!r} and {high!r}")
    if not p >= 1:
        raise InputError(f"p must be at least 1, got {p!r}")
    each = [bits] * len(weights) if isinstance(bits, int) else list(bits)
    if len(each) != len(weights):
        raise InputError(f"bits must be one number or {len(weights)}, got {len(each)}")
    for number in each:
        check_bits("bits", number)

    def total(exponent: float) -> float:
        return sum(
            weight_error(w, exponent, b, granularity=granularity, clip_ratio=clip_ratio, p=p)
            for w, b in zip(weights, each, strict=True)
        )

    below = np.arange(1.0, low - 1e-9, -STEP)
    above = np.arange(1.0 + STEP, high + 1e-9, STEP)
    grid = sorted({low, high, *below.tolist(), *above.tolist()}, key=lambda a: abs(a - 1.0))
    errors = {a: total(a) for a in grid}
    best = min(grid, key=errors.__getitem__)  # the first of equals
    around = (max(low, best - STEP), min(high, best + STEP))
    fine = minimize_scalar(total, bounds=around, method="bounded", options={"xatol": 1e-3})
    return float(fine.x) if fine.fun < errors[best] else float(best)
