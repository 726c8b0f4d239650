"""A campaign as a picture: the Pareto front of two objectives, or the best value so far of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.results import feasible_trials
from bo_surrogates.campaign.trial import Trial
from bo_surrogates.errors import InputError
from bo_surrogates.objective import Objective
from reports.style import BLACK, BLUE, GREY, ORANGE, VERMILION, house_style, new_figure


def draw_campaign(campaign: Campaign) -> Figure:
    """The figure that answers "what has it found?".

    One objective: measured values and the best so far, by trial. Two: all trials and the Pareto
    front, with the trials of the initial design set apart. More: the front in every pair.

    Raises:
        InputError: No trial is completed yet.
    """
    trials = [t for t in campaign.trials if t.status == "completed"]
    if not trials:
        raise InputError(
            f"campaign {campaign.spec.name!r} has no completed trial yet; there is nothing to draw"
        )
    objectives = campaign.spec.objectives
    pairs = [(a, b) for i, a in enumerate(objectives) for b in objectives[i + 1 :]]
    with house_style():
        if not pairs:
            figure = new_figure()
            _draw_best_so_far(figure.add_subplot(), campaign, trials)
        else:
            figure = new_figure(width=6.0 if len(pairs) == 1 else 4.2 * len(pairs))
            for k, (a, b) in enumerate(pairs):
                axes = figure.add_subplot(1, len(pairs), k + 1)
                _draw_front(axes, campaign, trials, a, b, legend=k == 0)
        title = f"{campaign.spec.name}: {len(trials)} trials, surrogate {campaign.spec.surrogate}"
        figure.suptitle(title, fontsize=11)
    return figure


def _label(objective: Objective) -> str:
    unit = f" [{objective.unit}]" if objective.unit else ""
    return f"{objective.name}{unit} ({objective.direction})"


def _feasible(campaign: Campaign) -> set[int]:
    return {t.index for t in feasible_trials(campaign.spec, campaign.trials)}


Place = Callable[[Trial], tuple[float, float]]


def _draw_best_so_far(axes: Axes, campaign: Campaign, trials: Sequence[Trial]) -> None:
    (objective,) = campaign.spec.objectives
    best: list[float] = []
    at: list[int] = []
    feasible = _feasible(campaign)
    for t in trials:
        if t.index in feasible:
            value = objective.value(t.means)
            if best:
                value = objective.sign * max(objective.sign * value, objective.sign * best[-1])
            best.append(value)
            at.append(t.index)
    axes.step(at, best, where="post", color=BLUE, linewidth=2, label="best so far")
    _scatter(axes, campaign, trials, lambda t: (t.index, objective.value(t.means)))
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(_label(objective))
    axes.legend()


def _draw_front(
    axes: Axes,
    campaign: Campaign,
    trials: Sequence[Trial],
    first: Objective,
    second: Objective,
    *,
    legend: bool,
) -> None:
    def place(trial: Trial) -> tuple[float, float]:
        return first.value(trial.means), second.value(trial.means)

    _scatter(axes, campaign, trials, place)
    front = campaign.pareto_front()
    points = sorted(place(t) for t in front)
    if len(campaign.spec.objectives) == 2 and points:
        # Between two points of the front, only what the worse corner dominates is known.
        axes.step(
            [x for x, _ in points], [y for _, y in points],
            where="post" if first.sign < 0 else "pre", color=BLUE, linewidth=1.5, alpha=0.7,
        )  # fmt: skip
    _points(axes, points, s=42, color=BLUE, zorder=4, label="Pareto front")
    if first.reference is not None and second.reference is not None:
        axes.scatter(
            first.reference, second.reference, marker="X", s=60, color=VERMILION, zorder=4,
            label="reference point",
        )  # fmt: skip
    axes.set_xlabel(_label(first))
    axes.set_ylabel(_label(second))
    if legend:
        axes.legend()


def _scatter(axes: Axes, campaign: Campaign, trials: Sequence[Trial], place: Place) -> None:
    """All trials, by where they came from; infeasible ones crossed, those off the target hollow."""
    groups = (
        ("initial design", GREY, lambda t: t.origin == "sobol"),
        ("proposed", ORANGE, lambda t: t.origin not in ("sobol", "manual")),
        ("added by hand", BLACK, lambda t: t.origin == "manual"),
    )
    feasible = _feasible(campaign)
    off = [t for t in trials if not campaign.spec.space.is_at_target(t.parameters)]
    infeasible = [t for t in trials if t.index not in feasible and t not in off]
    for label, colour, belongs in groups:
        members = [place(t) for t in trials if belongs(t) and t.index in feasible]
        _points(axes, members, s=18, color=colour, label=label, zorder=3)
    _points(
        axes, [place(t) for t in infeasible], s=24, marker="x", color=VERMILION,
        linewidths=1.2, label="violates a constraint", zorder=3,
    )  # fmt: skip
    _points(
        axes, [place(t) for t in off], s=18, facecolors="none", edgecolors=GREY, linewidths=0.8,
        label="not at the target fidelity", zorder=2,
    )  # fmt: skip


def _points(axes: Axes, points: Sequence[tuple[float, float]], **look: Any) -> None:
    if points:  # an empty scatter would still stand in the legend
        axes.scatter([x for x, _ in points], [y for _, y in points], **look)
