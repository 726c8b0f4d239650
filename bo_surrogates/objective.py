"""What is measured and what is wanted of it: objectives and outcome constraints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bo_surrogates.errors import InputError, did_you_mean

Direction = Literal["minimize", "maximize"]


def _check_metric(name: object) -> None:
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"a metric's name must be a non-empty string, got {name!r}")


@dataclass(frozen=True)
class Objective:
    """A metric to be minimized or maximized.

    Args:
        name: The metric's name.
        direction: "minimize" or "maximize".
        reference: With several objectives, the worst value still of interest (the coordinate
            of the hypervolume's reference point), in the metric's units; inferred if None.
        unit: For display only.
    """

    name: str
    direction: Direction = "minimize"
    reference: float | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        _check_metric(self.name)
        if self.direction not in ("minimize", "maximize"):
            hint = did_you_mean(self.direction, ("minimize", "maximize"))
            raise InputError(
                f"objective {self.name!r}: direction must be 'minimize' or 'maximize', "
                f"got {self.direction!r}{hint}"
            )
        if self.reference is not None and not _finite(self.reference):
            raise InputError(
                f"objective {self.name!r}: reference must be a finite number, "
                f"got {self.reference!r}"
            )

    @property
    def sign(self) -> float:
        """+1 to maximize, -1 to minimize: `sign * value` is always maximized."""
        return 1.0 if self.direction == "maximize" else -1.0


@dataclass(frozen=True)
class OutcomeConstraint:
    """A bound on a metric: `metric <= bound` or `metric >= bound`."""

    metric: str
    op: Literal["<=", ">="]
    bound: float

    def __post_init__(self) -> None:
        _check_metric(self.metric)
        if self.op not in ("<=", ">="):
            raise InputError(
                f"constraint on {self.metric!r}: op must be '<=' or '>=', got {self.op!r}"
            )
        if not _finite(self.bound):
            raise InputError(
                f"constraint on {self.metric!r}: bound must be a finite number, got {self.bound!r}"
            )

    def slack(self, value: float) -> float:
        """Not negative where the constraint holds."""
        return self.bound - value if self.op == "<=" else value - self.bound

    def __str__(self) -> str:
        return f"{self.metric} {self.op} {self.bound:g}"


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def metric_names(
    objectives: Sequence[Objective], constraints: Sequence[OutcomeConstraint] = ()
) -> tuple[str, ...]:
    """The metrics that must be measured: the objectives', then the constraints' further ones."""
    names = [o.name for o in objectives]
    names += [c.metric for c in constraints]
    return tuple(dict.fromkeys(names))


def feasible(values: Mapping[str, float], constraints: Sequence[OutcomeConstraint]) -> bool:
    """Whether measured values satisfy all constraints."""
    return all(c.slack(values[c.metric]) >= 0 for c in constraints)
