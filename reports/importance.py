"""Which parameters matter: Sobol indices as bars with intervals."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bo_surrogates.analysis.sensitivity import SobolIndices
from bo_surrogates.campaign.campaign import Campaign
from reports.style import BLACK, BLUE, SKY, house_style, new_figure, shorten, wrap

MOST = 15  # parameters shown; the rest matter least
ROW, FRAME = 0.27, 0.95  # inches a parameter, and around them
COLUMN = 3.3


def draw_importance(campaign: Campaign, indices: Mapping[str, SobolIndices]) -> Figure:
    """A panel a metric: each parameter's share of the variance, in all and alone, by size.

    The bars are of the posterior mean, the lines across their ends the intervals over functions of
    the posterior.
    """
    rows = max(min(len(found.names), MOST) for found in indices.values())
    with house_style():
        figure = new_figure(width=COLUMN * max(len(indices), 1) + 0.4, height=FRAME + ROW * rows)
        for k, (metric, found) in enumerate(indices.items()):
            axes = figure.add_subplot(1, len(indices), k + 1)
            _draw(axes, found)
            axes.set_title(wrap(metric, 34), fontsize=9)
            if k == 0:
                axes.legend(loc="lower right", fontsize=8, handlelength=1.2)
        title = f"{campaign.spec.name}: shares of the variance, surrogate {campaign.spec.surrogate}"
        figure.suptitle(wrap(title, 44 * len(indices)), fontsize=9.5)
    return figure


def _draw(axes: Axes, found: SobolIndices) -> None:
    shown = found.order[:MOST]
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
        axes.hlines(places, low, high, color=BLACK, linewidth=1.0, zorder=3)
    axes.set_yticks(range(len(shown)), [shorten(found.names[i], 24) for i in shown], fontsize=8.5)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.grid(axis="y", visible=False)
    left = len(found.names) - len(shown)
    more = f"; {left} more below {found.total[shown[-1]].clamp(0, 1):.2f}" if left else ""
    axes.set_xlabel(f"share of the variance{more}", fontsize=8.5)
    if found.stdv == 0:
        axes.text(
            0.5, 0.5, "no effect of any parameter", transform=axes.transAxes, ha="center",
            va="center", fontsize=8.5,
        )  # fmt: skip
