"""Were the surrogates right about what they proposed: coverage, and PIT histograms."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from reports.study.analysis import Analysis, rows_of
from reports.study.frame import COLUMN, LABEL, PAGE, TICK, TITLE
from reports.study.palette import Look
from reports.style import GREY, distinct, house_style, new_figure, wrap
from studies.statistics import pit_histogram

ROW, FRAME = 0.22, 0.75  # inches a surrogate, and around them
COLUMNS = 4


def draw_coverage(analysis: Analysis, looks: dict[str, Look]) -> Figure | None:
    """A row a surrogate: coverage of central intervals, against what it should be."""
    table = analysis.coverage
    if table.empty:
        return None
    present = [s for s in analysis.order if (table["surrogate"] == s).any()]
    levels = sorted(table["level"].unique())
    rows = {s: k for k, s in enumerate(present)}
    with house_style():
        figure = new_figure(PAGE if len(levels) > 1 else COLUMN, FRAME + ROW * len(present))
        panels = figure.subplots(1, len(levels), squeeze=False, sharey=True)[0]
        for axes, level in zip(panels, levels, strict=True):
            for one in rows_of(table[table["level"] == level]):
                look, row = looks[one.surrogate], rows[one.surrogate]
                ends = (one.low, one.high)
                if math.isnan(one.low):
                    ends = (one.binomial_low, one.binomial_high)
                axes.hlines(row, *ends, color=look.colour, linewidth=1.4, zorder=2)
                axes.plot(
                    one.coverage, row, look.marker, color=look.colour, markersize=5, zorder=3,
                    markeredgecolor="white", markeredgewidth=0.4,
                )  # fmt: skip
            axes.axvline(level, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
            axes.set_xlim(-0.02, 1.02)
            axes.set_ylim(len(present) - 0.4, -0.6)
            axes.set_title(f"{100 * level:g} % intervals", fontsize=TITLE)
            axes.set_xlabel("share of observations within", fontsize=LABEL)
            axes.tick_params(labelsize=TICK)
            axes.grid(axis="y", visible=False)
        panels[0].set_yticks(range(len(present)), distinct(present, 26), fontsize=LABEL)
    return figure


def draw_pit(analysis: Analysis, looks: dict[str, Look]) -> Figure | None:
    """A panel a surrogate: the histogram of its PITs, and the band of a calibrated one."""
    pit = analysis.results.pit
    present = [s for s in analysis.order if (pit["surrogate"] == s).any()]
    if not present:
        return None
    found = {s: pit_histogram(pit.loc[pit["surrogate"] == s, "pit"].to_numpy()) for s in present}
    columns = min(COLUMNS, len(present))
    rows = math.ceil(len(present) / columns)
    top = max(max(float(h.density.max()), h.high) for h in found.values())
    with house_style():
        figure = new_figure(PAGE if columns > 1 else COLUMN, 0.35 + 1.35 * rows)
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes in panels.ravel()[len(present) :]:
            axes.set_visible(False)
        titles = distinct(present, 30)
        for k, (axes, surrogate, title) in enumerate(
            zip(panels.ravel(), present, titles, strict=False)
        ):
            one, look = found[surrogate], looks[surrogate]
            axes.axhspan(one.low, one.high, color=GREY, alpha=0.3, linewidth=0, zorder=1)
            axes.bar(
                one.edges[:-1], one.density, np.diff(one.edges), align="edge", color=look.colour,
                alpha=0.75, edgecolor="white", linewidth=0.5, zorder=2,
            )  # fmt: skip
            axes.axhline(1, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=3)
            axes.set_title(wrap(title, 22, 2), fontsize=TITLE - 0.5)
            axes.set_xlim(0, 1)
            axes.set_ylim(0, top * 1.05)
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            axes.tick_params(labelsize=TICK)
            if k + columns >= len(present):
                axes.set_xlabel("PIT", fontsize=LABEL)
                axes.tick_params(labelbottom=True)
        for row in panels:
            row[0].set_ylabel("density", fontsize=LABEL)
    return figure
