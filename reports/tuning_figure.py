"""A tuning campaign as a picture: what it found beside random search and the published default."""

from __future__ import annotations

from itertools import combinations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bo_surrogates.errors import InputError
from bo_surrogates.objective import Objective
from problems.documented.trained_model import tuning_problem
from problems.documented.tuning_problem import TuningProblem
from reports.style import BLACK, BLUE, ORANGE, house_style, new_figure
from studies.tuning import Tuned, scored

COLOURS = {"tuned": BLUE, "random": ORANGE, "published default": BLACK}


def draw_tuning(tuned: Tuned) -> Figure:
    """One objective: the best so far by trial. Several: all trials and each arm's front, by pair.

    Raises:
        InputError: No trial satisfies the constraints.
    """
    settings = tuned.settings
    objectives = tuning_problem(settings.problem, settings.options).objectives
    trials = tuned.trials[tuned.trials["feasible"]]
    if trials.empty:
        raise InputError("no trial satisfies the constraints; there is nothing to draw")
    pairs = list(combinations(objectives, 2))
    with house_style():
        if not pairs:
            figure = new_figure()
            _draw_best(figure.add_subplot(), trials, objectives[0])
        else:
            figure = new_figure(width=6.0 if len(pairs) == 1 else 4.2 * len(pairs))
            for k, (x, y) in enumerate(pairs, start=1):
                axes = figure.add_subplot(1, len(pairs), k)
                _draw_front(axes, trials, y, x, front_is_line=len(objectives) == 2)
                if k == 1:
                    axes.legend()
        figure.suptitle(
            f"{settings.problem}: {settings.budget} trials, surrogate {settings.surrogate}",
            fontsize=11,
        )
    return figure


def draw_comparison(problem: TuningProblem, table: pd.DataFrame, course: pd.DataFrame) -> Figure:
    """The course of both searches, and what each arm has chosen, as scored on the test part.

    The course: a thin line a seed, a thick one their mean. What was chosen: with one objective a
    point a seed and the mean, by arm; with several the points, by pair of objectives.

    Args:
        problem: The problem of the table.
        table: From `studies.tuning.compare_tuning`.
        course: From `studies.tuning.progress`.
    """
    objectives = problem.objectives
    pairs = list(combinations(objectives, 2))
    count = 1 + max(len(pairs), 1)
    with house_style():
        figure = new_figure(width=min(4.4 * count, 14.0), height=3.8)
        _draw_course(figure.add_subplot(1, count, 1), problem, course)
        if not pairs:
            _draw_chosen(figure.add_subplot(1, count, 2), table, scored(objectives[0].name, table))
        for k, (y, x) in enumerate(pairs, start=2):
            axes = figure.add_subplot(1, count, k)
            for arm, its in table.groupby("arm", sort=False):
                published = arm == "published default"
                axes.plot(
                    its[scored(x.name, table)], its[scored(y.name, table)],
                    "*" if published else "o", color=COLOURS[str(arm)],
                    markersize=11 if published else 5, alpha=0.7, label=str(arm),
                    zorder=3 if published else 2,
                )  # fmt: skip
            axes.set_xlabel(scored(x.name, table))
            axes.set_ylabel(scored(y.name, table))
            if k == 2:
                axes.legend()
            axes.set_title("chosen, scored anew", fontsize=10)
        seeds = table["seed"].nunique()
        figure.suptitle(f"{seeds} seeds", fontsize=11)
    return figure


def _draw_course(axes: Axes, problem: TuningProblem, course: pd.DataFrame) -> None:
    for arm, its in course.groupby("arm", sort=False):
        colour = COLOURS[str(arm)]
        runs = its.pivot(index="trials", columns="seed", values="value")
        axes.plot(runs.index, runs, color=colour, linewidth=0.8, alpha=0.4)
        mean = runs.dropna().mean(axis=1)
        axes.plot(mean.index, mean, color=colour, linewidth=2, label=str(arm))
    several = len(problem.objectives) > 1
    axes.set_ylabel("hypervolume" if several else f"best {problem.objectives[0].name}")
    axes.set_xlabel("trials")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("course, as measured in tuning", fontsize=10)
    axes.legend(loc="best")


def _draw_chosen(axes: Axes, table: pd.DataFrame, column: str) -> None:
    for place, (arm, its) in enumerate(table.groupby("arm", sort=False)):
        values, colour = its[column], COLOURS[str(arm)]
        axes.plot([place] * len(values), values, "o", color=colour, alpha=0.5)
        axes.plot([place - 0.2, place + 0.2], [values.mean()] * 2, color=colour)
    axes.set_xticks(range(table["arm"].nunique()), table["arm"].unique().tolist())
    axes.set_ylabel(column)
    axes.set_title("chosen, scored anew", fontsize=10)


def _label(objective: Objective) -> str:
    unit = f" [{objective.unit}]" if objective.unit else ""
    return f"{objective.name}{unit} ({objective.direction})"


def _draw_best(axes: Axes, trials: pd.DataFrame, objective: Objective) -> None:
    for arm, its in trials.groupby("arm", sort=False):
        its = its.sort_values("trial")
        values = its[objective.name]
        best = values.cummin() if objective.direction == "minimize" else values.cummax()
        colour = COLOURS[str(arm)]
        axes.plot(its["trial"], values, "o", color=colour, markersize=3.5, alpha=0.4)
        label = f"{arm}: best so far"
        axes.step(its["trial"], best, where="post", color=colour, linewidth=2, label=label)
    for value in trials.loc[trials["published"], objective.name]:
        axes.axhline(value, color=BLACK, linestyle="--", linewidth=1, label="published default")
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(_label(objective))
    axes.legend()


def _draw_front(
    axes: Axes, trials: pd.DataFrame, x: Objective, y: Objective, *, front_is_line: bool
) -> None:
    for arm, its in trials.groupby("arm", sort=False):
        colour = COLOURS[str(arm)]
        rest, front = its[~its["front"]], its[its["front"]].sort_values(x.name)
        axes.plot(rest[x.name], rest[y.name], "o", color=colour, markersize=3.5, alpha=0.35)
        axes.plot(
            front[x.name], front[y.name], "o", color=colour, markersize=5.5, label=f"{arm}: front"
        )
        if front_is_line and len(front) > 1:
            # Between two points of a front the one on the worse side is what can be had.
            where = "post" if x.direction == "minimize" else "pre"
            axes.step(front[x.name], front[y.name], where=where, color=colour, linewidth=1.5)  # type: ignore[arg-type]
    published = trials[trials["published"]]
    axes.plot(
        published[x.name], published[y.name], "*", color=BLACK, markersize=12,
        label="published default",
    )  # fmt: skip
    axes.set_xlabel(_label(x))
    axes.set_ylabel(_label(y))
