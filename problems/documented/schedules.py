"""How a quantity changes in the course of a training: pure functions of how far it is.

Nothing is remembered between calls, so that a resumed training goes on as it would have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def linear(start: float, end: float, progress: float) -> float:
    """From `start` at progress 0 to `end` at 1, along a straight line."""
    return start + (end - start) * progress


def geometric(start: float, end: float, progress: float) -> float:
    """From `start` to `end`, both above 0, by the same factor in equal times.

    A Gumbel softmax's temperature and the slope of a soft rounding change like this.
    """
    return float(start * (end / start) ** progress)


def cosine(start: float, end: float, progress: float) -> float:
    """Half a wave from `start` to `end` (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * progress))


def exponential(start: float, end: float, progress: float) -> float:
    """A exp(progress) + B, with A and B such that it leads from `start` to `end`.

    ReCU's and BiPer's (Xu et al. 2021, arXiv 2103.12369; Vargas et al. 2024, arXiv 2404.01278).
    """
    scale = (end - start) / (math.e - 1.0)
    return scale * math.exp(progress) + start - scale


def steps(factor: float, at: Sequence[float], progress: float) -> float:
    """`factor` to the power of how many of the progresses `at` have been reached."""
    return float(factor ** sum(progress >= milestone for milestone in at))


def learning_rate_factor(
    schedule: str,
    step: int,
    of: int,
    *,
    warmup: float = 0.0,
    milestones: Sequence[float] = (),
    step_factor: float = 0.1,
) -> float:
    """What a learning rate is multiplied by at a step.

    Args:
        schedule: "constant"; "linear" or "cosine", to 0 at the end; or "step", by `step_factor` at
            every milestone.
        step: The step's number, from 0.
        of: Steps in all.
        warmup: Share of the steps in which the factor rises in a straight line to what the
            schedule says; in [0, 1).
        milestones: Shares of the steps, in (0, 1).
        step_factor: See `schedule`.
    """
    progress = step / of
    match schedule:
        case "linear":
            factor = linear(1.0, 0.0, progress)
        case "cosine":
            factor = cosine(1.0, 0.0, progress)
        case "step":
            factor = steps(step_factor, milestones, progress)
        case _:
            factor = 1.0
    return factor * min((step + 1) / (warmup * of), 1.0) if warmup > 0 else factor
