"""Slices through a point: what is expected of each metric as one parameter changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.model import CampaignModel
from bo_surrogates.campaign.slices import Slice, axis_of, cut, default_point, nearness
from reports.axes import LONGEST, label_axis, legend_below, metric_label, thresholds
from reports.style import BLACK, BLUE, GREY, ORANGE, VERMILION, house_style, new_figure, wrap

MOST = 8  # parameters drawn where none is named
COLUMNS = 4  # in each of several rows; in a single one, one more
WIDTH, HEIGHT = 1.75, 1.5  # inches of a panel
PAGE, COLUMN = 7.2, 3.3
FENCE = 1.5  # interquartile ranges (Tukey) beyond which a trial is drawn at the panel's edge
FAINTEST = 0.1  # opacity of a trial far from the slice


def draw_slices(
    campaign: Campaign,
    parameters: Sequence[str] = (),
    point: Mapping[str, Any] | None = None,
) -> Figure:
    """A row of panels a metric, a panel a parameter.

    The mean and the central 50 % and 90 % intervals of the noise-free outcome; the trials, the
    fainter the farther from the slice; limits of outcome constraints. Without parameters named, at
    most eight are drawn: those along which the means change most.

    Args:
        campaign: With at least two completed trials.
        parameters: Which; all that are active at the point by default.
        point: What the slices go through; the best trial by default.

    Raises:
        InputError: An unknown parameter, or a point outside the space.
    """
    model = campaign.model()
    space = campaign.spec.space
    point = default_point(model) if point is None else space.validate(point)
    active = [p.name for p in space.varied if space.is_active(p.name, point)]
    names = list(dict.fromkeys(parameters)) or active
    cuts = {
        metric: [cut(model, metric, point, axis_of(model, name)) for name in names]
        for metric in campaign.metrics
    }
    total = len(names)
    if not parameters and total > MOST:
        keep = _liveliest(cuts)
        cuts = {metric: [found[i] for i in keep] for metric, found in cuts.items()}
    shown = len(next(iter(cuts.values())))
    rows = 1 if shown <= COLUMNS + 1 else math.ceil(shown / COLUMNS)
    columns = math.ceil(shown / rows)
    with house_style():
        figure = new_figure(
            width=min(max(0.5 + WIDTH * columns, COLUMN), PAGE),
            height=0.9
            + HEIGHT * rows * len(cuts)
            + (0.35 + _label_height(next(iter(cuts.values()))))
            * (rows * len(cuts) if rows > 1 else 1),
        )
        grid = figure.add_gridspec(rows * len(cuts), columns)
        for m, (metric, found) in enumerate(cuts.items()):
            bounds = [bound for bound, _ in thresholds(model, metric)]
            limits = _limits(found, [t.value(metric) for t in model.trials], bounds)
            for k, one in enumerate(found):
                row, column = divmod(k, columns)
                axes = figure.add_subplot(grid[m * rows + row, column])
                _draw(axes, model, metric, point, one, limits)
                last = m == len(cuts) - 1 or rows > 1
                label_axis(axes, "x", one.axis, name=last)
                axes.tick_params(labelbottom=last)
                axes.tick_params(axis="y", labelsize=8, labelleft=column == 0)
                axes.yaxis.get_offset_text().set(fontsize=8, visible=column == 0)
                if column == 0:
                    axes.set_ylabel(metric_label(campaign, metric), fontsize=8.5)
        some = f", {shown} of {total} parameters" if shown < total else ""
        title = f"{campaign.spec.name}: slices{some}, surrogate {campaign.spec.surrogate}"
        figure.suptitle(wrap(title, 22 * max(columns, 2)), fontsize=9.5)
        legend_below(figure, 2 if columns < 3 else 6)
    return figure


def _liveliest(cuts: Mapping[str, Sequence[Slice]]) -> list[int]:
    """The parameters along which a metric's mean changes most, in the space's order."""
    change = [0.0] * len(next(iter(cuts.values())))
    for found in cuts.values():
        ranges = [float(one.mean.max() - one.mean.min()) for one in found]
        largest = max(ranges) or 1.0
        change = [max(a, b / largest) for a, b in zip(change, ranges, strict=True)]
    order = sorted(range(len(change)), key=lambda i: -change[i])
    return sorted(order[:MOST])


def _label_height(found: Sequence[Slice]) -> float:
    """Inches that long names of levels need below a panel."""
    longest = [max(len(str(v)) for v in one.axis.values) for one in found if one.axis.discrete]
    return 0.065 * min(max(longest, default=0), LONGEST)


def _limits(
    found: Sequence[Slice], measured: Sequence[float], bounds: Sequence[float]
) -> tuple[float, float]:
    """Of the metric's axis: the intervals, the trials but for extreme ones, limits near them."""
    low = min(float(one.quantiles.min()) for one in found)
    high = max(float(one.quantiles.max()) for one in found)
    first, third = np.quantile(measured, (0.25, 0.75))
    fence = FENCE * max(third - first, high - low)
    near = [y for y in measured if first - fence <= y <= third + fence]
    low, high = min([low, *near]), max([high, *near])
    span = (high - low) or max(abs(high), 1.0) * 1e-3
    close = [b for b in bounds if low - span <= b <= high + span]
    low, high = min([low, *close]), max([high, *close])
    margin = 0.06 * ((high - low) or span)
    return low - margin, high + margin


def _draw(
    axes: Axes,
    model: CampaignModel,
    metric: str,
    point: Mapping[str, Any],
    one: Slice,
    limits: tuple[float, float],
) -> None:
    x = one.axis.positions
    low, lower, upper, high = one.quantiles.tolist()
    mean = one.mean.tolist()
    axes.set_ylim(*limits)
    if one.axis.discrete or len(x) <= 12:
        axes.vlines(x, low, high, color=BLUE, alpha=0.35, linewidth=1.5, label="90 % interval")
        axes.vlines(x, lower, upper, color=BLUE, alpha=0.7, linewidth=3.5, label="50 % interval")
        axes.plot(x, mean, "o", color=BLUE, markersize=4, label="mean", zorder=3)
    else:
        axes.fill_between(x, low, high, color=BLUE, alpha=0.15, linewidth=0, label="90 % interval")
        axes.fill_between(
            x, lower, upper, color=BLUE, alpha=0.3, linewidth=0, label="50 % interval"
        )
        axes.plot(x, mean, color=BLUE, linewidth=1.5, label="mean")
    _hatch_forbidden(axes, one)
    _scatter(axes, model, metric, point, one, limits)
    here = float(model.encode([point])[0, one.axis.index])
    axes.axvline(here, color=BLACK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    for bound, op in thresholds(model, metric):
        axes.axhline(bound, color=VERMILION, linewidth=1.0, label="constraint", zorder=2)
        ends = (bound, limits[1]) if op == "<=" else (limits[0], bound)
        axes.axhspan(*ends, color=VERMILION, alpha=0.07, linewidth=0, zorder=0)


def _scatter(
    axes: Axes,
    model: CampaignModel,
    metric: str,
    point: Mapping[str, Any],
    one: Slice,
    limits: tuple[float, float],
) -> None:
    """The trials; those beyond the panel as arrows at its edge."""
    weight: Tensor = nearness(model, metric, point, one.axis)
    low, high = limits
    beside = 0.25 if one.axis.discrete else 0.0  # not on top of the intervals
    for (place, close), trial in zip(
        zip(model.X[:, one.axis.index].tolist(), weight.tolist(), strict=True),
        model.trials,
        strict=True,
    ):
        y = trial.value(metric)
        marker = "o" if low <= y <= high else "^" if y > high else "v"
        edge = 0.03 * (high - low)
        axes.plot(
            place + beside, min(max(y, low + edge), high - edge) if marker != "o" else y, marker,
            color=ORANGE, markeredgecolor=BLACK, markeredgewidth=0.4, markersize=4.2,
            alpha=FAINTEST + (1 - FAINTEST) * close, zorder=4,
        )  # fmt: skip
    axes.plot([], [], "o", color=ORANGE, markeredgecolor=BLACK, markeredgewidth=0.4, markersize=4.2,
              label="trial (faint: far away)")  # fmt: skip


def _hatch_forbidden(axes: Axes, one: Slice) -> None:
    """Grey where the parameter constraints do not allow the point."""
    x = one.axis.positions
    forbidden = [i for i, ok in enumerate(one.allowed.tolist()) if not ok]
    first = True
    while forbidden:
        start = stop = forbidden.pop(0)
        while forbidden and forbidden[0] == stop + 1:
            stop = forbidden.pop(0)
        left, right = x[max(start - 1, 0)], x[min(stop + 1, len(x) - 1)]
        axes.axvspan(
            left if start else x[0], right, facecolor=GREY, alpha=0.25, linewidth=0, zorder=2.5,
            label="not allowed" if first else None,
        )  # fmt: skip
        first = False
