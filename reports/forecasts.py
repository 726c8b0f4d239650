"""Predicted against measured, one step ahead: was the surrogate right about what it proposed?"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.forecasts import LEVEL, Forecast, coverage, forecasts, half_width
from bo_surrogates.errors import InputError
from reports.axes import legend_below, metric_label
from reports.style import BLACK, BLUE, VERMILION, house_style, new_figure, wrap

PANEL = 3.3  # inches
COLUMNS = 2


def draw_forecasts(campaign: Campaign) -> Figure:
    """A panel a metric: what was measured at each proposed point against what was expected there.

    Lines are the 90 % intervals of the forecasts, made before the measurement; on the diagonal,
    the forecast was right.

    Raises:
        InputError: No proposed trial is completed yet.
    """
    trials = campaign.trials
    found = {m: forecasts(trials, m) for m in campaign.metrics}
    if not any(found.values()):
        raise InputError(
            f"campaign {campaign.spec.name!r} has no completed trial yet that the surrogate "
            "proposed; there is no prediction to compare"
        )
    columns = min(len(found), COLUMNS)
    rows = -(-len(found) // columns)
    with house_style():
        figure = new_figure(width=PANEL * columns, height=0.65 + 2.9 * rows)
        for k, (metric, ones) in enumerate(found.items()):
            _draw(figure.add_subplot(rows, columns, k + 1), campaign, metric, ones)
        legend_below(figure, 2)
        title = f"{campaign.spec.name}: predicted and measured, surrogate {campaign.spec.surrogate}"
        figure.suptitle(wrap(title, 44 * columns), fontsize=9.5)
    return figure


def _draw(axes: Axes, campaign: Campaign, metric: str, found: list[Forecast]) -> None:
    half = half_width()
    ends = [(f.mean - half * f.stdv, f.mean + half * f.stdv) for f in found]
    for wanted, colour, marker in ((True, BLUE, "o"), (False, VERMILION, "D")):
        chosen = [i for i, f in enumerate(found) if f.inside() == wanted]
        if not chosen:
            continue
        x = [found[i].measured for i in chosen]
        axes.vlines(x, *zip(*(ends[i] for i in chosen), strict=True), color=colour, linewidth=1.0,
                    alpha=0.6)  # fmt: skip
        axes.plot(
            x, [found[i].mean for i in chosen], marker, color=colour, markersize=3.5,
            label=f"{'inside' if wanted else 'outside'} the {100 * LEVEL:g} % interval",
        )  # fmt: skip
    measured = [f.measured for f in found]
    low, high = min(measured), max(measured)
    span = (high - low) or max(abs(high), 1.0) * 1e-3
    low, high = low - 0.08 * span, high + 0.08 * span
    # Intervals far wider than the outcomes' range run out of the panel.
    bottom = max(min([low, *(e[0] for e in ends)]), low - 0.75 * span)
    top = min(max([high, *(e[1] for e in ends)]), high + 0.75 * span)
    axes.plot([low, high], [low, high], color=BLACK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    axes.set_xlim(low, high)
    axes.set_ylim(bottom, top)
    for own in (axes.xaxis, axes.yaxis):
        own.set_major_locator(MaxNLocator(5))
    axes.tick_params(labelsize=8)
    label = metric_label(campaign, metric, 34)
    axes.set_xlabel(f"measured: {label}", fontsize=8.5)
    axes.set_ylabel("predicted", fontsize=8.5)
    share = coverage(found)
    inside = sum(f.inside() for f in found)
    text = f"{inside} of {len(found)} inside" + (f" ({100 * share:.0f} %)" if share else "")
    axes.set_title(text, fontsize=8.5)
