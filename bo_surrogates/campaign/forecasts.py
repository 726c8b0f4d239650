"""What the surrogate expected of each trial when it proposed it, beside what came of it.

The plainest test of a surrogate's uncertainty: its predictions were made before the outcomes were
known, one step ahead, at the points that mattered. Reading them needs no fit, and no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

from bo_surrogates.campaign.trial import Trial

LEVEL = 0.9
FEWEST = 5  # forecasts below which a share says nothing


@dataclass(frozen=True)
class Forecast:
    """A metric of one trial, expected and measured.

    Attributes:
        trial: Its index.
        measured: What came of it.
        mean: What was expected.
        stdv: Standard deviation of a measurement around that.
    """

    trial: int
    measured: float
    mean: float
    stdv: float

    @property
    def score(self) -> float:
        """How many standard deviations the measurement lies above what was expected."""
        if self.stdv > 0:
            return (self.measured - self.mean) / self.stdv
        return 0.0 if self.measured == self.mean else math.copysign(math.inf, self.measured)

    def inside(self, level: float = LEVEL) -> bool:
        """Whether the measurement lies in the central interval of a normal forecast."""
        return abs(self.score) <= half_width(level)


def half_width(level: float = LEVEL) -> float:
    """Of the central interval of a normal distribution, in standard deviations."""
    return NormalDist().inv_cdf(0.5 + level / 2)


def forecasts(trials: Iterable[Trial], metric: str) -> list[Forecast]:
    """The forecasts of a metric that the surrogate made for completed trials, by trial.

    The standard deviation is that of a measurement where it was recorded; else of the noise-free
    outcome, with the measurement's own standard error added where that is known.
    """
    found = []
    for t in trials:
        mean = t.diagnostics.get(f"predicted:{metric}")
        if t.status != "completed" or mean is None or metric not in t.measurements:
            continue
        m = t.measurements[metric]
        stdv = t.diagnostics.get(f"predicted_noisy_sd:{metric}")
        if stdv is None:
            stdv = math.hypot(t.diagnostics.get(f"predicted_sd:{metric}", 0.0), m.sem or 0.0)
        found.append(Forecast(t.index, m.mean, mean, stdv))
    return found


def coverage(found: Iterable[Forecast], level: float = LEVEL) -> float | None:
    """Share of the measurements inside their intervals; None where they are too few to tell."""
    inside = [f.inside(level) for f in found]
    return sum(inside) / len(inside) if len(inside) >= FEWEST else None
