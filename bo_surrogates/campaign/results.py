"""What came out of a campaign: the best trial, the Pareto front and its hypervolume."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bo_surrogates.campaign.baseline import absolute_constraints, baseline_values
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import DATA, Trial
from bo_surrogates.errors import InputError
from bo_surrogates.objective import feasible


def feasible_trials(spec: CampaignSpec, trials: Iterable[Trial]) -> list[Trial]:
    """The completed trials whose measured values satisfy all outcome constraints.

    Those at the target, where the space has a fidelity. None, while relative constraints wait for
    their baseline. Data that were kept although they are outside the space are not among them.

    Raises:
        InputError: A metric with a relative constraint is 0 at the baseline.
    """
    trials = list(trials)
    if any(c.relative for c in spec.constraints) and baseline_values(spec, trials) is None:
        return []
    constraints = absolute_constraints(spec, trials)
    return [
        t
        for t in trials
        if t.status == "completed"
        and spec.space.is_at_target(t.parameters)
        and (t.origin != DATA or spec.space.contains(t.parameters))
        and feasible(t.means, constraints)
    ]


def best(spec: CampaignSpec, trials: Iterable[Trial]) -> Trial | None:
    """The feasible trial with the best measured value of the one objective.

    Raises:
        InputError: The campaign has several objectives; see `pareto_front`.
    """
    if len(spec.objectives) != 1:
        raise InputError(
            f"campaign {spec.name!r} has {len(spec.objectives)} objectives, hence no single best "
            "trial; use pareto_front()"
        )
    (objective,) = spec.objectives
    candidates = feasible_trials(spec, trials)
    return max(candidates, key=lambda t: objective.sign * objective.value(t.means), default=None)


def pareto_front(spec: CampaignSpec, trials: Iterable[Trial]) -> list[Trial]:
    """The feasible trials that no other feasible trial dominates, by the first objective.

    With one objective, the best trial alone (and its equals).
    """
    candidates = feasible_trials(spec, trials)
    signed = [_signed(spec, t) for t in candidates]
    front = [
        t
        for t, v in zip(candidates, signed, strict=True)
        if not any(_dominates(w, v) for w in signed)
    ]
    return sorted(front, key=lambda t: spec.objectives[0].value(t.means))


@dataclass(frozen=True)
class ReferencePoint:
    """The corner from which the hypervolume is measured.

    Attributes:
        values: By objective, in the metrics' units.
        inferred: The objectives for which no value was given; theirs follow from the front, so
            hypervolumes of a growing campaign compare only where nothing is inferred.
    """

    values: Mapping[str, float]
    inferred: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(
            f"{name} = {value:g}{' (inferred)' if name in self.inferred else ''}"
            for name, value in self.values.items()
        )


def reference_point(
    spec: CampaignSpec, trials: Iterable[Trial], given: Mapping[str, float] | None = None
) -> ReferencePoint | None:
    """The given reference values, the objectives' own, and the rest inferred from the front.

    Inferred as the acquisition function's are (BoTorch's rule, Ishibuchi et al. 2011): a tenth of
    the front's range beyond its worst value.

    Args:
        spec: The campaign.
        trials: Its trials.
        given: By objective; comes before the objective's own.

    Returns:
        None where a value would have to be inferred, but no trial is feasible yet.

    Raises:
        InputError: A given name is no objective.
    """
    given = given or {}
    for name in given:
        if name not in [o.name for o in spec.objectives]:
            raise InputError(
                f"reference: {name!r} is no objective; the objectives are "
                f"{', '.join(o.name for o in spec.objectives)}"
            )
    values = {o.name: given.get(o.name, o.reference) for o in spec.objectives}
    missing = tuple(name for name, value in values.items() if value is None)
    if missing:
        import torch
        from botorch.utils.multi_objective.hypervolume import infer_reference_point

        front = [_signed(spec, t) for t in pareto_front(spec, trials)]
        if not front:
            return None
        points = torch.tensor(front, dtype=torch.float64)
        # BoTorch's smallest range is an absolute number: the rule is applied at unit scale.
        scale = points.abs().amax(dim=0).clamp_min(1e-300)
        inferred = (infer_reference_point(points / scale) * scale).tolist()
        for o, value in zip(spec.objectives, inferred, strict=True):
            if o.name in missing:
                values[o.name] = o.sign * value
    return ReferencePoint({k: float(v) for k, v in values.items() if v is not None}, missing)


def hypervolume(
    spec: CampaignSpec, trials: Sequence[Trial], given: Mapping[str, float] | None = None
) -> float:
    """Hypervolume of the Pareto front, in the product of the objectives' units.

    Args:
        spec: The campaign.
        trials: Its trials.
        given: Reference values by objective; see `reference_point`.
    """
    reference = reference_point(spec, trials, given)
    if reference is None:
        return 0.0
    point = [o.sign * reference.values[o.name] for o in spec.objectives]
    front = [_signed(spec, t) for t in pareto_front(spec, trials)]
    inside = [v for v in front if all(a > b for a, b in zip(v, point, strict=True))]
    if not inside:
        return 0.0
    import torch
    from botorch.utils.multi_objective.box_decompositions.dominated import DominatedPartitioning

    return float(
        DominatedPartitioning(
            ref_point=torch.tensor(point, dtype=torch.float64),
            Y=torch.tensor(inside, dtype=torch.float64),
        ).compute_hypervolume()
    )


def _signed(spec: CampaignSpec, trial: Trial) -> tuple[float, ...]:
    """The objectives' values, each to be maximized."""
    return tuple(o.sign * o.value(trial.means) for o in spec.objectives)


def _dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    pairs = list(zip(a, b, strict=True))
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)
