"""Step sizes of a chain, and what is recorded of it: constant, decreasing, or in cycles."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from bo_surrogates.errors import InputError


class Schedule(NamedTuple):
    """Steps of chains and what is recorded of them.

    Attributes:
        sizes: Each step's size, as a part of the largest.
        noisy: Whether the step has noise.
        recorded: Numbers of the steps after which the position is recorded, rising.
    """

    sizes: tuple[float, ...]
    noisy: tuple[bool, ...]
    recorded: tuple[int, ...]


def decreasing(samples: int, thinning: int, decay: float = 0.0) -> Schedule:
    """Step sizes (1 + t / T)^-decay with T a tenth of the steps (Welling and Teh 2011, section 2).

    Averages over a chain of unequal steps weight a position by its step; here positions are
    recorded at equal intervals of the sum of step sizes instead, and weigh the same. With decay 0
    all steps are the same.

    Args:
        samples: Positions recorded, >= 1.
        thinning: Steps for each of them, >= 1.
        decay: In [0, 1]; above 1/2 and up to 1 the bias vanishes with the number of steps.
    """
    steps = samples * thinning
    sizes = tuple((1.0 + 10.0 * t / steps) ** -decay for t in range(steps))
    times = torch.tensor(sizes, dtype=torch.float64).cumsum(dim=0)
    marks = times[-1] * torch.arange(1, samples + 1, dtype=torch.float64) / samples
    # A mark and the sum that reaches it may differ by rounding.
    recorded = torch.searchsorted(times * (1.0 + 1e-9), marks).clamp_max(steps - 1)
    return Schedule(sizes, (True,) * steps, tuple(recorded.tolist()))


def cyclical(samples: int, thinning: int, cycles: int, exploration: float) -> Schedule:
    """Cosine cycles (Zhang et al. 2020, arXiv 1902.03932, equation 1 and algorithm 1).

    Step t of a cycle of L has the size (cos(pi t / L) + 1) / 2. The first `exploration` L steps
    have no noise; at equal intervals of the rest positions are recorded, the last at the end.

    Args:
        samples: Positions recorded, at least one a cycle.
        thinning: Steps for each of them, exploration included, >= 1.
        cycles: >= 1.
        exploration: Part of a cycle without noise, in [0, 1).

    Raises:
        InputError: Fewer positions than cycles.
    """
    if samples < cycles:
        raise InputError(
            f"{samples} samples are too few for {cycles} cycles; raise samples or lower cycles"
        )
    sizes: list[float] = []
    noisy: list[bool] = []
    recorded: list[int] = []
    for cycle in range(cycles):
        kept = samples * (cycle + 1) // cycles - samples * cycle // cycles
        length = kept * thinning
        quiet = min(int(exploration * length), length - kept)
        first = len(sizes)
        sizes += [0.5 * (math.cos(math.pi * t / length) + 1.0) for t in range(length)]
        noisy += [t >= quiet for t in range(length)]
        recorded += [first + quiet + (length - quiet) * (i + 1) // kept - 1 for i in range(kept)]
    return Schedule(tuple(sizes), tuple(noisy), tuple(recorded))
