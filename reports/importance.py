"""Which parameters matter: Sobol indices as bars with intervals."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bo_surrogates.analysis.sensitivity import SobolIndices
from bo_surrogates.campaign.campaign import Campaign
from reports.axes import legend_below
from reports.style import BLACK, BLUE, SKY, distinct, house_style, new_figure, wrap

MOST = 15  # parameters shown, the rest matter less
LEAST, NEGLIGIBLE = 3, 0.01  # how many are shown at least; and what is not shown beyond
ROW, FRAME = 0.27, 0.85  # inches a parameter, and around them
PANEL = 3.6
COLUMNS = 2


def draw_importance(campaign: Campaign, indices: Mapping[str, SobolIndices]) -> Figure:
    """A panel a metric: each parameter's share of the variance, in all and alone, by size.

    The bars are of the posterior mean, the lines across their ends the intervals over functions of
    the posterior.
    """
    columns = min(len(indices), COLUMNS)
    rows = -(-len(indices) // columns)
    most = max(len(_shown(found)) for found in indices.values())
    with house_style():
        figure = new_figure(width=PANEL * columns, height=0.4 + rows * (FRAME + ROW * most))
        for k, (metric, found) in enumerate(indices.items()):
            axes = figure.add_subplot(rows, columns, k + 1)
            _draw(axes, found)
            axes.set_title(wrap(metric, 34), fontsize=9)
        legend_below(figure, 3)
        title = f"{campaign.spec.name}: shares of the variance, surrogate {campaign.spec.surrogate}"
        figure.suptitle(wrap(title, 44 * columns), fontsize=9.5)
    return figure


def _shown(found: SobolIndices) -> list[int]:
    """The parameters that are drawn, the one that matters most first."""
    order = found.order[:MOST]
    return [
        i for k, i in enumerate(order)
        if k < LEAST or max(found.total[i], found.total_interval[1, i]) >= NEGLIGIBLE
    ]  # fmt: skip


def _draw(axes: Axes, found: SobolIndices) -> None:
    shown = _shown(found)
    height = 0.36
    for label, colour, values, interval, shift in (
        ("in all", BLUE, found.total, found.total_interval, -height / 2),
        ("alone", SKY, found.first, found.first_interval, height / 2),
    ):
        places = [row + shift for row in range(len(shown))]
        axes.barh(
            places, values[shown].clamp(0, 1).tolist(), height, color=colour, label=label, zorder=2
        )
        low, high = interval[:, shown].clamp(0, 1).tolist()
        what = f"{100 * found.level:g} % interval"
        axes.hlines(places, low, high, color=BLACK, linewidth=1.0, zorder=3, label=what)
    names = distinct(found.names, 24)
    axes.set_yticks(range(len(shown)), [names[i] for i in shown])
    axes.tick_params(labelsize=8.5)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.grid(axis="y", visible=False)
    left = len(found.names) - len(shown)
    axes.set_xlabel(
        "share of the variance" + (f"\n({left} that matter less left out)" if left else ""),
        fontsize=8.5,
    )
    if found.stdv == 0:
        axes.text(
            0.5, 0.5, "no effect of any parameter", transform=axes.transAxes, ha="center",
            va="center", fontsize=8.5,
        )  # fmt: skip
