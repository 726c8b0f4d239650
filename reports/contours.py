"""Contours over two parameters: what is expected of each metric, and how surely."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.model import CampaignModel
from bo_surrogates.campaign.slices import Plane, axis_of, default_point, nearness, plane
from reports.axes import label_axis, legend_below, metric_label, thresholds
from reports.style import BLACK, ORANGE, VERMILION, house_style, new_figure, shorten, wrap

GRID = 45  # points an axis
LEVELS = 12
FAINTEST = 0.15  # opacity of a trial far from the plane
PAGE = 7.0


def draw_contours(
    campaign: Campaign, x: str, y: str, point: Mapping[str, Any] | None = None
) -> Figure:
    """A row a metric: the posterior mean, and beside it the standard deviation.

    With the trials on them, the fainter the farther from the plane, and the line on which the mean
    of a constrained metric meets its bound. Blank where parameter constraints do not allow a point.

    Args:
        campaign: With at least two completed trials.
        x: The parameter to the right.
        y: The parameter upwards.
        point: What the plane goes through; the best trial by default.

    Raises:
        InputError: An unknown parameter, the same twice, or a point outside the space.
    """
    model = campaign.model()
    point = default_point(model) if point is None else campaign.spec.space.validate(point)
    across, up = axis_of(model, x, GRID), axis_of(model, y, GRID)
    planes = {m: plane(model, m, point, across, up) for m in campaign.metrics}
    with house_style():
        figure = new_figure(width=PAGE, height=0.5 + 2.6 * len(planes))
        for row, (metric, found) in enumerate(planes.items()):
            for column, (values, what, colours) in enumerate(
                ((found.mean, "mean", "viridis"), (found.stdv, "standard deviation", "cividis"))
            ):
                axes = figure.add_subplot(len(planes), 2, 2 * row + column + 1)
                shade = _shade(axes, found, values, colours)
                bar = figure.colorbar(shade, ax=axes, pad=0.02)
                bar.ax.tick_params(labelsize=8)
                bar.ax.yaxis.get_offset_text().set_fontsize(8)
                bar.locator = MaxNLocator(5)
                bar.update_ticks()
                if column == 0:
                    for name, other in planes.items():
                        _limit(axes, model, name, other)
                _scatter(axes, model, metric, point, found)
                title = f"{metric_label(campaign, metric, 36)}, {what}"
                axes.set_title(wrap(title, 38), fontsize=8.5)
                label_axis(axes, "x", across, name=row == len(planes) - 1, width=34)
                label_axis(axes, "y", up, name=column == 0, width=26)
        legend_below(figure, 3)
        figure.suptitle(
            wrap(f"{campaign.spec.name}, surrogate {campaign.spec.surrogate}", 80), fontsize=9.5
        )
    return figure


def _shade(axes: Axes, found: Plane, values: Tensor, colours: str) -> Any:
    """Filled contours; cells where an axis has levels only."""
    shown = np.ma.masked_array(values.numpy(), ~found.allowed.numpy())
    across, up = found.x.positions, found.y.positions
    axes.grid(visible=False)
    constant = not float(shown.max() - shown.min()) > 1e-12 * max(abs(float(shown.max())), 1e-300)
    if found.x.discrete or found.y.discrete or constant or min(len(across), len(up)) < 3:
        return axes.pcolormesh(across, up, shown, cmap=colours, shading="nearest")
    shade = axes.contourf(across, up, shown, levels=LEVELS, cmap=colours)
    axes.contour(across, up, shown, levels=shade.levels, colors="white", linewidths=0.4, alpha=0.6,
                 linestyles="solid")  # fmt: skip
    return shade


def _limit(axes: Axes, model: CampaignModel, metric: str, found: Plane) -> None:
    """Where the mean of a constrained metric is at its bound."""
    if found.x.discrete or found.y.discrete or min(found.mean.shape) < 2:
        return
    mean = np.ma.masked_array(found.mean.numpy(), ~found.allowed.numpy())
    for bound, op in thresholds(model, metric):
        if mean.min() < bound < mean.max():
            axes.contour(
                found.x.positions, found.y.positions, mean, levels=[bound], colors=VERMILION,
                linewidths=1.6, linestyles="dashed",
            )  # fmt: skip
            text = f"mean of {shorten(metric, 24)} at its bound ({op} {bound:g})"
            axes.plot([], [], color=VERMILION, linewidth=1.6, linestyle="dashed", label=text)


def _scatter(
    axes: Axes, model: CampaignModel, metric: str, point: Mapping[str, Any], found: Plane
) -> None:
    close = nearness(model, metric, point, found.x, found.y)
    opacity: Any = (FAINTEST + (1 - FAINTEST) * close).tolist()
    axes.scatter(
        model.X[:, found.x.index].tolist(), model.X[:, found.y.index].tolist(), s=18, color=ORANGE,
        edgecolors=BLACK, linewidths=0.6, alpha=opacity, zorder=4,
    )  # fmt: skip
    axes.plot([], [], "o", color=ORANGE, markeredgecolor=BLACK, markersize=4.2,
              label="trial (faint: far away)")  # fmt: skip
    here = model.encode([point])[0]
    axes.plot(
        here[found.x.index], here[found.y.index], marker="P", color="white", markersize=9,
        markeredgecolor=BLACK, linestyle="none", zorder=5, label="where the plane goes through",
    )  # fmt: skip
