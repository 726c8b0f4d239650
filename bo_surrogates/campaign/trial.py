"""A trial: one point of the search space, what was measured there, and how it went."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self

from bo_surrogates.errors import InputError
from bo_surrogates.space import Values

Status = Literal["running", "completed", "abandoned", "stopped"]

DATA = "data"  # the origin of measurements that the campaign did not ask for


@dataclass(frozen=True)
class Measurement:
    """A measured metric.

    Attributes:
        mean: Its value, finite.
        sem: Standard error of the value, >= 0; None if unknown, 0 if exact.
    """

    mean: float
    sem: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("value", self.mean), ("standard error", self.sem)):
            if value is None and name == "standard error":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"a measurement's {name} must be a number, got {value!r}")
            if not math.isfinite(value):
                raise InputError(f"a measurement's {name} must be finite, got {value!r}")
        if self.sem is not None and self.sem < 0:
            raise InputError(f"a measurement's standard error must be >= 0, got {self.sem!r}")
        object.__setattr__(self, "mean", float(self.mean))
        if self.sem is not None:
            object.__setattr__(self, "sem", float(self.sem))

    @classmethod
    def from_replicates(cls, values: Sequence[float]) -> Self:
        """The mean of repeated measurements and its standard error s / sqrt(r).

        s is the sample standard deviation (r - 1 in the denominator), so the error holds whatever
        varies between replicates; of one measurement it is unknown.

        Raises:
            InputError: No value, or one that is not finite.
        """
        if not values:
            raise InputError("replicates: at least one value is needed")
        for value in values:
            cls(value)
        sem = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        return cls(statistics.fmean(values), sem)

    def __str__(self) -> str:
        return f"{self.mean:.6g}" + (f" ± {self.sem:.2g}" if self.sem else "")


@dataclass(frozen=True)
class Trial:
    """One row of a campaign.

    Attributes:
        index: 0, 1, 2, ... in the order of asking.
        parameters: Values by name.
        status: "running" until told; then "completed", "abandoned" with a reason, or "stopped"
            early: it has no final value, so it is never the best and no surrogate is fitted to
            it, but its point is not proposed again.
        origin: "first" (a first point of the campaign), "sobol", the surrogate's name, "manual", or
            "data" (measured before the campaign, or elsewhere; it informs the surrogate and costs
            no budget).
        measurements: By metric; empty unless completed.
        reason: Why the trial was abandoned or stopped.
        seconds: Time spent in "fit", "acquisition" (per batch asked, on its first trial) and
            "evaluation".
        diagnostics: Figures of the surrogate's fit behind the trial, and "predicted:<metric>",
            what it expected, "predicted_sd:<metric>", the standard deviation of the noise-free
            outcome, and "predicted_noisy_sd:<metric>", that of a measurement.
        created: When it was asked, UTC.
        finished: When it was told, UTC.
        attempt: How often it has been started: 1, or more where it was evaluated anew.
    """

    index: int
    parameters: Values
    status: Status
    origin: str
    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    reason: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    created: datetime | None = None
    finished: datetime | None = None
    attempt: int = 1

    def value(self, metric: str) -> float:
        """The measured mean of a metric."""
        return self.measurements[metric].mean

    @property
    def means(self) -> dict[str, float]:
        """The measured mean of each metric."""
        return {metric: m.mean for metric, m in self.measurements.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-able, from which `from_dict` makes an equal trial."""
        return {
            "trial": self.index,
            "status": self.status,
            "origin": self.origin,
            "parameters": dict(self.parameters),
            "metrics": {k: {"mean": m.mean, "sem": m.sem} for k, m in self.measurements.items()},
            "reason": self.reason,
            "seconds": dict(self.seconds),
            "diagnostics": dict(self.diagnostics),
            "created": None if self.created is None else self.created.isoformat(),
            "finished": None if self.finished is None else self.finished.isoformat(),
            "attempt": self.attempt,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trial:
        """Inverse of `to_dict`, also after a trip through JSON.

        Raises:
            InputError: This is not a trial's data.
        """
        try:
            created, finished = data["created"], data["finished"]
            return cls(
                index=data["trial"],
                parameters=dict(data["parameters"]),
                status=data["status"],
                origin=data["origin"],
                measurements={
                    k: Measurement(m["mean"], m["sem"]) for k, m in data["metrics"].items()
                },
                reason=data["reason"],
                seconds=dict(data["seconds"]),
                diagnostics=dict(data["diagnostics"]),
                created=None if created is None else datetime.fromisoformat(created),
                finished=None if finished is None else datetime.fromisoformat(finished),
                attempt=data.get("attempt", 1),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"this is not a trial's data: {type(error).__name__}: {error}"
            ) from error


def budgeted(trials: Iterable[Trial]) -> list[Trial]:
    """Those that count against the budget: all but data."""
    return [t for t in trials if t.origin != DATA]
