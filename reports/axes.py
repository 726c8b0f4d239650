"""Axes of figures in the user's terms: names with units, levels, logarithmic scales."""

from __future__ import annotations

from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from bo_surrogates.campaign.baseline import baseline_values
from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.model import CampaignModel
from bo_surrogates.campaign.slices import Axis
from reports.style import distinct, wrap

SMALL = 8  # points
LONGEST = 12  # characters of a level's name


def metric_label(campaign: Campaign, metric: str, width: int = 20) -> str:
    """A metric's name with its unit, over a few lines if long."""
    units = {o.name: o.unit for o in campaign.spec.objectives}
    unit = f" [{units[metric]}]" if units.get(metric) else ""
    return wrap(metric + unit, width)


def legend_below(figure: Figure, columns: int) -> None:
    """One legend for all panels, each entry once."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(
        entries.values(), entries.keys(), loc="outside lower center",
        ncols=min(columns, len(entries)), fontsize=7.5, handlelength=1.4, columnspacing=1.2,
    )  # fmt: skip


def thresholds(model: CampaignModel, metric: str) -> list[tuple[float, str]]:
    """The bounds that outcome constraints put on a metric, each with its direction."""
    if baseline_values(model.spec, model.trials) is None and any(
        c.relative for c in model.spec.constraints
    ):
        return []  # they have no place before their baseline is measured
    return [(c.bound, c.op) for c in model.constraints if c.metric == metric]


def label_axis(
    axes: Axes, which: Literal["x", "y"], axis: Axis, *, name: bool = True, width: int = 20
) -> None:
    """Scale, ticks and name of an axis along which a parameter varies."""
    parameter = axis.parameter
    own = axes.xaxis if which == "x" else axes.yaxis
    if axis.discrete:
        labels = distinct([str(v) for v in axis.values], LONGEST)
        step = max(1, -(-len(labels) // 8))
        crowded = which == "x" and sum(len(t) + 1 for t in labels[::step]) > 18
        own.set_ticks(axis.positions[::step], labels[::step])
        axes.tick_params(axis=which, rotation=90 if crowded else 0)
        pad = 0.5
        limits = axis.positions[0] - pad, axis.positions[-1] + pad
    else:
        limits = axis.positions[0], axis.positions[-1]
        if getattr(parameter, "log", False):
            (axes.set_xscale if which == "x" else axes.set_yscale)("log")
            own.set_major_locator(LogLocator(numticks=4))
            own.set_minor_formatter(NullFormatter())
            if limits[1] / limits[0] < 20:  # less than a decade and a half: numbers, not powers
                own.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
                own.set_major_formatter(lambda value, _: f"{value:g}")
        else:
            whole = parameter.cardinality is not None
            own.set_major_locator(MaxNLocator(3 if which == "x" else 5, integer=whole))
        if parameter.cardinality is not None:
            pad = 0.03 * (limits[1] - limits[0])
            if not getattr(parameter, "log", False):
                limits = limits[0] - pad, limits[1] + pad
    (axes.set_xlim if which == "x" else axes.set_ylim)(*limits)
    axes.tick_params(axis=which, labelsize=SMALL)
    if name:
        unit = getattr(parameter, "unit", "")
        text = wrap(parameter.name + (f" [{unit}]" if unit else ""), width)
        (axes.set_xlabel if which == "x" else axes.set_ylabel)(text, fontsize=8.5)
