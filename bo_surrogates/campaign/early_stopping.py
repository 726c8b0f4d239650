"""Early stopping: ending a trial whose reports say that it will not be among the best.

A verdict depends on what the trial has reported and on the trials that were *finished when it was
asked*, on nothing else. So in batches it depends neither on the number of workers nor on who is
faster, and a trial that is run again after a crash is judged as it was before.

"percentile" and "threshold" follow the definitions of Ax's strategies of these names
(`ax.early_stopping.strategies`). They are not called: Ax's look at whatever has been reported by
the time they are asked and remember what they were asked before, so their verdicts depend on
timing and cannot be repeated after a crash; and Ax's strategy by models is abstract.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self

from bo_surrogates.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from bo_surrogates.campaign.storage import Report
    from bo_surrogates.campaign.trial import Measurement, Trial
    from bo_surrogates.objective import Objective

Curve = Mapping[float, float]  # value by step

STRATEGIES = ("percentile", "threshold", "learning_curve")
_NEEDS = {"threshold": ("threshold",), "learning_curve": ("final_step",)}


@dataclass(frozen=True)
class EarlyStopping:
    """When a trial is stopped.

    Attributes:
        strategy: "percentile": its latest value is worse than the given percentile of all trials
            at that step; "threshold": it is worse than a fixed value; "learning_curve": it will,
            with high probability, end worse than the best so far.
        metric: Which reported metric is judged; None: the objective.
        direction: "minimize" or "maximize"; None: as the objective (needed for another metric).
        percentile: In (0, 100): so many per cent of the trials are stopped; 50 is median stopping.
        threshold: The fixed value.
        final_step: Where a trial ends by itself.
        probability: With what probability a trial must end worse than the best, in (0, 1).
        min_steps: No trial is stopped before this step.
        min_trials: No trial is stopped before so many have reported at its step (itself
            included), and have been completed; >= 1. Of no effect on "threshold".
        interval: Steps between looks at a trial, > 0; None: at every report.

    Raises:
        InputError: A field out of its range, or one that the strategy needs is missing.
    """

    strategy: Literal["percentile", "threshold", "learning_curve"] = "percentile"
    metric: str | None = None
    direction: Literal["minimize", "maximize"] | None = None
    percentile: float = 50.0
    threshold: float | None = None
    final_step: float | None = None
    probability: float = 0.95
    min_steps: float = 10.0
    min_trials: int = 5
    interval: float | None = None

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise InputError(
                f"early_stopping: unknown strategy {self.strategy!r}"
                f"{did_you_mean(str(self.strategy), STRATEGIES)}; it is one of "
                f"{', '.join(STRATEGIES)}"
            )
        for name, low, high in (
            ("percentile", 0.0, 100.0),
            ("probability", 0.0, 1.0),
            ("min_steps", -math.inf, math.inf),
            ("threshold", -math.inf, math.inf),
            ("final_step", 0.0, math.inf),
            ("interval", 0.0, math.inf),
        ):
            value = getattr(self, name)
            if value is None and name in ("threshold", "final_step", "interval"):
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not low < value < high:
                raise InputError(
                    f"early_stopping: {name} must be a number in ({low:g}, {high:g}), got {value!r}"
                )
            object.__setattr__(self, name, float(value))
        trials = self.min_trials
        if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
            raise InputError(f"early_stopping: min_trials must be an integer >= 1, got {trials!r}")
        if self.direction not in (None, "minimize", "maximize"):
            raise InputError(
                f"early_stopping: direction must be 'minimize' or 'maximize', got "
                f"{self.direction!r}"
            )
        if self.metric is not None and (not isinstance(self.metric, str) or not self.metric):
            raise InputError(f"early_stopping: metric must be a name, got {self.metric!r}")
        for name in _NEEDS.get(self.strategy, ()):
            if getattr(self, name) is None:
                raise InputError(f"early_stopping: strategy {self.strategy!r} needs {name!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`.

        Raises:
            InputError: A field is unknown or out of its range.
        """
        known = [f.name for f in fields(cls)]
        for key in data:
            if key not in known:
                raise InputError(f"early_stopping: unknown key {key!r}{did_you_mean(key, known)}")
        return cls(**data)

    # ---- the verdict -----------------------------------------------------------------------------
    def verdict(
        self, curve: Curve, finished: Sequence[Curve], completed: Sequence[Curve], sign: float
    ) -> str | None:
        """Why a trial is to be stopped after its latest report; None: it goes on.

        Args:
            curve: What it has reported.
            finished: What the trials that were finished when it was asked had reported.
            completed: Those of them that came to their end.
            sign: 1 where larger values are better, -1 where smaller ones are.
        """
        step = max(curve)
        if step < self.min_steps or not self._due(curve):
            return None
        value = curve[step]
        if self.strategy == "threshold" and self.threshold is not None:
            if sign * value >= sign * self.threshold:
                return None
            return f"{value:.6g} is worse than {self.threshold:g}"
        if len(completed) < self.min_trials:
            return None
        if self.strategy == "percentile":
            return self._percentile(value, step, finished, sign)
        return self._extrapolated(curve, completed, sign)

    def _due(self, curve: Curve) -> bool:
        """Whether the latest step is the first at or beyond one of min_steps + k interval."""
        if self.interval is None:
            return True
        latest, *earlier = sorted(curve, reverse=True)
        before = earlier[0] if earlier else -math.inf
        if before < self.min_steps:
            return True
        boundary = self.min_steps + (latest - self.min_steps) // self.interval * self.interval
        return before < boundary

    def _percentile(
        self, value: float, step: float, finished: Sequence[Curve], sign: float
    ) -> str | None:
        import numpy as np

        others = [v for c in finished if (v := interpolate(c, step)) is not None]
        if len(others) + 1 < self.min_trials:
            return None
        q = self.percentile if sign > 0 else 100.0 - self.percentile
        bar = float(np.percentile([*others, value], q))
        if sign * value >= sign * bar:
            return None
        return (
            f"{value:.6g} is worse than {bar:.6g}, the {self.percentile:g}th percentile (from the "
            f"worst) of {len(others) + 1} trials"
        )

    def _extrapolated(self, curve: Curve, completed: Sequence[Curve], sign: float) -> str | None:
        from bo_surrogates.campaign.learning_curve import extrapolate

        final_step = self.final_step
        if final_step is None or max(curve) >= final_step or len(curve) < 2 or min(curve) <= 0:
            return None
        best = max(sign * c[max(c)] for c in completed) * sign
        below = extrapolate(curve, final_step).cdf(best)
        worse = below if sign > 0 else 1.0 - below
        if worse < self.probability:
            return None
        return f"with probability {worse:.3f} it would end worse than the best so far, {best:.6g}"


class LearningCurves:
    """What trials have reported of the metric that early stopping judges.

    Args:
        rule: When a trial is stopped.
        objective: The campaign's.
        trials: All so far.
        progress: What they have reported.
    """

    def __init__(
        self,
        rule: EarlyStopping,
        objective: Objective,
        trials: Sequence[Trial],
        progress: Mapping[int, Sequence[Report]],
    ) -> None:
        self.rule = rule
        self.metric = rule.metric or objective.name
        direction = rule.direction or objective.direction
        self.sign = 1.0 if direction == "maximize" else -1.0
        self.trials = {t.index: t for t in trials}
        self.curves: dict[int, dict[float, float]] = {
            index: {r.step: r.measurement.mean for r in reports if r.metric == self.metric}
            for index, reports in progress.items()
            if self.trials[index].status != "running"
        }

    def begin(self, trial: Trial) -> None:
        """A trial is under way, from its first step."""
        self.trials[trial.index] = trial
        self.curves[trial.index] = {}

    def end(self, trial: Trial) -> None:
        """A trial is finished."""
        self.trials[trial.index] = trial

    def forget(self, index: int) -> None:
        """A trial begins anew."""
        self.curves[index] = {}

    def judge(self, index: int, step: float, measured: Mapping[str, Measurement]) -> str | None:
        """Why a trial is to stop; None: it goes on."""
        if self.metric not in measured:
            return None
        curve = self.curves[index]
        curve[step] = measured[self.metric].mean
        before = [t for t in self.trials.values() if self._was_finished(t, index)]
        return self.rule.verdict(
            curve,
            [self.curves[t.index] for t in before],
            [self.curves[t.index] for t in before if t.status == "completed"],
            self.sign,
        )

    def _was_finished(self, trial: Trial, index: int) -> bool:
        """Whether a trial has a curve and was finished when another was asked."""
        asked = self.trials[index].created
        return (
            trial.status in ("completed", "stopped")
            and bool(self.curves.get(trial.index))
            and trial.finished is not None
            and asked is not None
            and trial.finished < asked
        )


def interpolate(curve: Curve, step: float) -> float | None:
    """A curve's value at a step, linear between reports; None outside their range."""
    if step in curve:
        return curve[step]
    below = max((s for s in curve if s < step), default=None)
    above = min((s for s in curve if s > step), default=None)
    if below is None or above is None:
        return None
    weight = (step - below) / (above - below)
    return (1 - weight) * curve[below] + weight * curve[above]
