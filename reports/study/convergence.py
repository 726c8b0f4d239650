"""Curves: of each problem over evaluations and seconds, and averaged over problems."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from reports.study.analysis import Analysis
from reports.study.frame import (
    LABEL,
    TITLE,
    finite,
    grid,
    legend,
    linear_axis,
    log_axis,
    positive_floor,
)
from reports.study.palette import Look
from reports.style import distinct, house_style, wrap

BANDS = 5  # surrogates whose intervals are drawn as bands; of more, as bars at the end
COLUMNS = 3
PANEL = 1.9  # inches


def draw_convergence(analysis: Analysis, looks: dict[str, Look]) -> Figure:
    """A panel a problem: the median over seeds, and its interval, by evaluation."""
    return _panels(analysis, looks, analysis.curves, "evaluation", "evaluations")


def draw_seconds(analysis: Analysis, looks: dict[str, Look]) -> Figure | None:
    """A panel a problem: the median over seeds, and its interval, by seconds; None without any."""
    if analysis.timed.empty:
        return None
    return _panels(analysis, looks, analysis.timed, "seconds", "seconds")


def _panels(
    analysis: Analysis, looks: dict[str, Look], curves: pd.DataFrame, x: str, name: str
) -> Figure:
    shown = [p for p in analysis.problems if (curves["problem"] == p).any()]
    titles = dict(zip(shown, distinct(shown, 26), strict=True))
    with house_style():
        figure, panels = grid(len(shown), COLUMNS, PANEL, len(looks))
        for k, (axes, problem) in enumerate(zip(panels, shown, strict=True)):
            mine = curves[curves["problem"] == problem]
            _draw(axes, mine, x, analysis.value_sign(problem), looks)
            value = analysis.value_name(problem)
            axes.set_title(wrap(titles[problem], 32, 2), fontsize=TITLE)
            axes.set_ylabel(value, fontsize=LABEL)
            if k + COLUMNS >= len(shown):
                axes.set_xlabel(name, fontsize=LABEL)
        legend(figure, looks)
    return figure


def _draw(axes: Axes, curves: pd.DataFrame, x: str, sign: float, looks: dict[str, Look]) -> None:
    regret = sign > 0 and bool((curves["median"] >= 0).all())
    columns = ["median", "low", "high"]
    floor = positive_floor(curves[columns].to_numpy()) if regret else -np.inf
    present = [s for s in looks if (curves["surrogate"] == s).any()]
    extremes = []
    ends = float(curves[x].min()), float(curves[x].max())
    if x == "seconds":
        log_axis(axes, "x", *ends)
    else:
        linear_axis(axes, "x", whole=True)
    for place, surrogate in enumerate(present):
        mine = curves[curves["surrogate"] == surrogate]
        look = looks[surrogate]
        at = mine[x].to_numpy(dtype=float)
        median, low, high = (
            finite(np.maximum(sign * mine[c].to_numpy(dtype=float), floor)) for c in columns
        )
        axes.plot(at, median, **look.curve, zorder=3)
        _interval(axes, at, low, high, look, place, ends, len(looks) > BANDS)
        extremes += [median, low, high]
    axes.margins(x=0.02)
    every = np.concatenate(extremes) if extremes else np.array([])
    every = every[np.isfinite(every)]
    if regret and len(every) and every.max() > 0:
        log_axis(axes, "y", float(every.min()), float(every.max()))
    else:
        linear_axis(axes, "y")


def _interval(
    axes: Axes,
    x: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    look: Look,
    place: int,
    ends: tuple[float, float],
    many: bool,
) -> None:
    """A band; or, of many surrogates, a bar right of the curves, beside those of the others.

    Args:
        axes: Where.
        x: Along the curve.
        low: Lower ends.
        high: Upper ends.
        look: Of the surrogate.
        place: Which of the bars.
        ends: First and last x of all curves.
        many: Whether bars are drawn.
    """
    if not many:
        axes.fill_between(x, low, high, color=look.colour, alpha=0.14, linewidth=0, zorder=2)
        return
    share = 0.03 * (place + 1.5)
    first, last = ends
    at = last + share * (last - first)
    if axes.get_xscale() == "log":
        at = last * (last / first) ** share
    axes.vlines(at, low[-1], high[-1], color=look.colour, linestyle=look.line, linewidth=1.2)


def draw_overall(analysis: Analysis, looks: dict[str, Look]) -> Figure | None:
    """Normalized regret and average rank over the share of the budget spent; None without any."""
    if analysis.normalized.empty:
        return None
    ranked = len(analysis.surrogates) > 1
    with house_style():
        figure, panels = grid(1 + ranked, 2, 2.5, len(looks))
        _averages(panels[0], analysis.normalized, "normalized", looks)
        panels[0].set_ylabel("normalized regret (1 = initial design)", fontsize=LABEL)
        values = analysis.normalized[["normalized", "low", "high"]].to_numpy()
        log_axis(panels[0], "y", positive_floor(values), float(values.max()))
        if ranked:
            _averages(panels[1], analysis.ranks, "rank", looks)
            panels[1].set_ylabel("average rank (1 = best)", fontsize=LABEL)
            panels[1].invert_yaxis()
            linear_axis(panels[1], "y", whole=True)
        for axes in panels:
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
            axes.set_xlabel("share of the budget after the initial design", fontsize=LABEL)
        legend(figure, looks)
    return figure


def _averages(axes: Axes, curves: pd.DataFrame, name: str, looks: dict[str, Look]) -> None:
    floor = positive_floor(curves[[name, "low", "high"]].to_numpy())
    for place, (surrogate, look) in enumerate(looks.items()):
        mine = curves[curves["surrogate"] == surrogate]
        at, value, low, high = (
            mine[c].to_numpy(dtype=float) for c in ("share", name, "low", "high")
        )
        low, high = np.maximum(low, floor), np.maximum(high, floor)
        axes.plot(at, np.maximum(value, floor), **look.curve, zorder=3)
        _interval(axes, at, low, high, look, place, (0.0, 1.0), len(looks) > BANDS)
    axes.margins(x=0.02)
