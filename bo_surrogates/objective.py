"""What is measured and what is wanted of it: objectives and outcome constraints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from bo_surrogates.errors import InputError, did_you_mean

Direction = Literal["minimize", "maximize"]
Noise = Literal["none", "known", "inferred"]
NOISES = ("none", "known", "inferred")


def _check_metric(name: object) -> None:
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"a metric's name must be a non-empty string, got {name!r}")


@dataclass(frozen=True)
class Objective:
    """A metric, or a weighted sum of metrics, to be minimized or maximized.

        Objective("yield", "maximize")
        Objective("profit", "maximize", weights={"yield": 12.0, "cost": -1.0})

    Args:
        name: The metric's name; of a weighted sum, a name of its own.
        direction: "minimize" or "maximize".
        reference: With several objectives, the worst value still of interest (the coordinate
            of the hypervolume's reference point), in the objective's units; inferred if None.
        unit: For display only.
        weights: Of a weighted sum: by metric, in units of the objective per unit of the metric.
            Each metric is measured and modelled by itself; only the sum is optimized.
    """

    name: str
    direction: Direction = "minimize"
    reference: float | None = None
    unit: str = ""
    weights: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _check_metric(self.name)
        self._check_weights()
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

    def _check_weights(self) -> None:
        if not isinstance(self.weights, Mapping):
            raise InputError(
                f"objective {self.name!r}: weights must be a table of metrics and numbers, "
                f"got {self.weights!r}"
            )
        for metric, weight in self.weights.items():
            _check_metric(metric)
            if not _finite(weight) or weight == 0:
                raise InputError(
                    f"objective {self.name!r}: the weight of {metric!r} must be a finite number "
                    f"other than 0, got {weight!r}"
                )
        if self.name in self.weights:
            raise InputError(
                f"objective {self.name!r}: a weighted sum needs a name that is none of its metrics'"
            )
        object.__setattr__(self, "weights", {k: float(w) for k, w in self.weights.items()})

    @property
    def terms(self) -> Mapping[str, float]:
        """The weights by metric; of a single metric, 1."""
        return self.weights or {self.name: 1.0}

    def value(self, measured: Mapping[str, float]) -> float:
        """The objective's value where these metrics were measured."""
        return math.fsum(weight * measured[m] for m, weight in self.terms.items())

    @property
    def sign(self) -> float:
        """+1 to maximize, -1 to minimize: `sign * value` is always maximized."""
        return 1.0 if self.direction == "maximize" else -1.0


@dataclass(frozen=True)
class OutcomeConstraint:
    """A bound on a metric: `metric <= bound` or `metric >= bound`.

        OutcomeConstraint("impurity", "<=", 0.02)
        OutcomeConstraint("impurity", "<=", 5.0, relative=True)    # impurity <= baseline + 5 %

    Args:
        metric: The metric's name.
        op: "<=" or ">=".
        bound: In the metric's units; of a relative constraint, the percent by which the metric
            may lie above (below, if negative) what was measured at the baseline.
        relative: Whether the bound is relative to a baseline: b + bound / 100 |b| with b the
            baseline's value. So "+ 5 %" lies above and "- 5 %" below also where b is negative.
    """

    metric: str
    op: Literal["<=", ">="]
    bound: float
    relative: bool = False

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
        if not isinstance(self.relative, bool):
            raise InputError(
                f"constraint on {self.metric!r}: relative must be true or false, "
                f"got {self.relative!r}"
            )

    def slack(self, value: float) -> float:
        """Not negative where the constraint holds.

        Raises:
            InputError: The constraint is relative; see `resolve`.
        """
        if self.relative:
            raise InputError(f"constraint '{self}' holds or not only once its baseline is known")
        return self.bound - value if self.op == "<=" else value - self.bound

    def __str__(self) -> str:
        if not self.relative:
            return f"{self.metric} {self.op} {self.bound:g}"
        return f"{self.metric} {self.op} baseline {'-+'[self.bound >= 0]} {abs(self.bound):g} %"


def resolve(
    constraints: Iterable[OutcomeConstraint], baseline: Mapping[str, float] | None
) -> tuple[OutcomeConstraint, ...]:
    """The same constraints, relative ones made absolute.

    Args:
        constraints: Of both kinds.
        baseline: What was measured at the baseline, by metric; None if nothing yet.

    Raises:
        InputError: A relative constraint's metric was not measured at the baseline, or is 0
            there.
    """
    resolved = []
    for c in constraints:
        if c.relative:
            if baseline is None or c.metric not in baseline:
                raise InputError(
                    f"constraint '{c}' needs the baseline's {c.metric!r}, which has not been "
                    "measured"
                )
            value = baseline[c.metric]
            if value == 0:
                raise InputError(
                    f"constraint '{c}': {c.metric!r} is 0 at the baseline, and a percentage of 0 "
                    "says nothing; write the bound as a number in the metric's units"
                )
            c = replace(c, bound=value + c.bound / 100 * abs(value), relative=False)
        resolved.append(c)
    return tuple(resolved)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def metric_names(
    objectives: Sequence[Objective], constraints: Sequence[OutcomeConstraint] = ()
) -> tuple[str, ...]:
    """The metrics that must be measured: the objectives', then the constraints' further ones."""
    names = [metric for o in objectives for metric in o.terms]
    names += [c.metric for c in constraints]
    return tuple(dict.fromkeys(names))


def feasible(values: Mapping[str, float], constraints: Sequence[OutcomeConstraint]) -> bool:
    """Whether measured values satisfy all constraints, none of them relative."""
    return all(c.slack(values[c.metric]) >= 0 for c in constraints)
