"""Quality against cost, and performance profiles."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.study.analysis import Analysis
from reports.study.frame import LABEL, TITLE, grid, legend, linear_axis, log_axis, positive_floor
from reports.study.palette import Look
from reports.style import house_style


def draw_cost(analysis: Analysis, looks: dict[str, Look]) -> Figure | None:
    """Seconds an iteration against normalized regret and average rank, with intervals."""
    if analysis.normalized.empty or analysis.cost.empty:
        return None
    cost = analysis.cost.set_index("surrogate")
    ranked = len(analysis.surrogates) > 1
    ends = [(analysis.normalized, "normalized", "final normalized regret")]
    if ranked:
        ends.append((analysis.ranks, "rank", "final average rank (1 = best)"))
    with house_style():
        figure, panels = grid(len(ends), 2, 2.6, len(looks))
        for axes, (curves, name, label) in zip(panels, ends, strict=True):
            last = curves[curves["share"] == 1].set_index("surrogate")
            floor = positive_floor(last[[name, "low", "high"]].to_numpy())
            for surrogate, look in looks.items():
                if surrogate not in cost.index:
                    continue
                x: Any = cost.loc[surrogate]
                y: Any = last.loc[surrogate].copy()
                if name == "normalized":
                    y[[name, "low", "high"]] = np.maximum(y[[name, "low", "high"]], floor)
                axes.errorbar(
                    [x["seconds"]], [y[name]],
                    xerr=_reach(x["seconds"], x["low"], x["high"]),
                    yerr=_reach(y[name], y["low"], y["high"]),
                    color=look.colour, marker=look.marker, markersize=5, elinewidth=0.8,
                    capsize=0, markeredgecolor="white", markeredgewidth=0.4, zorder=3,
                )  # fmt: skip
            log_axis(axes, "x", float(cost["low"].min()), float(cost["high"].max()))
            axes.set_xlabel("seconds an iteration (fit and acquisition)", fontsize=LABEL)
            axes.set_ylabel(label, fontsize=LABEL)
            if name == "rank":
                axes.invert_yaxis()
                linear_axis(axes, "y", whole=True)
            else:
                log_axis(axes, "y", floor, float(last["high"].max()))
        legend(figure, looks, markers=True)
    return figure


def _reach(value: float, low: float, high: float) -> list[list[float]]:
    return [[max(value - low, 0.0)], [max(high - value, 0.0)]]


def draw_profiles(analysis: Analysis, looks: dict[str, Look]) -> Figure | None:
    """The share of blocks solved within a factor of the best one's evaluations, by target."""
    profiles = {t: p for t, p in analysis.profiles.items() if not p.empty}
    if not profiles or len(analysis.surrogates) < 2:
        return None
    with house_style():
        figure, panels = grid(len(profiles), 2, 2.4, len(looks))
        for axes, (target, profile) in zip(panels, profiles.items(), strict=True):
            last = max(float(profile["factor"].max()), 1.5) * 1.1
            for surrogate, look in looks.items():
                mine = profile[profile["surrogate"] == surrogate]
                _steps(axes, mine["factor"].to_numpy(), mine["share"].to_numpy(), last, look)
            log_axis(axes, "x", 1.0, last)
            axes.set_xlim(1, last)
            axes.set_ylim(-0.02, 1.02)
            axes.set_title(f"normalized regret at most {target:g}", fontsize=TITLE)
            axes.set_xlabel("times the evaluations of the best", fontsize=LABEL)
        panels[0].set_ylabel("share of blocks solved", fontsize=LABEL)
        legend(figure, looks)
    return figure


def _steps(axes: Axes, factors: np.ndarray, shares: np.ndarray, last: float, look: Look) -> None:
    x, y = np.append(factors, last), np.append(shares, shares[-1])
    axes.step(x, y, where="post", **look.curve, zorder=3)
