"""What the figures of a report share: their width, their legend, axes without numbers on them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from reports.study.palette import Look
from reports.style import distinct, new_figure

COLUMN, PAGE = 3.5, 7.0  # inches: one column of a paper, and two
LABEL, TICK, TITLE = 7.5, 7.0, 8.5  # points
DECADES = 1e-9  # of the largest value: what is below is as good as 0


def grid(count: int, columns: int, panel: float, legend: int = 0) -> tuple[Figure, list[Axes]]:
    """Panels row by row on a page's width, and room for a legend of so many entries below."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    width = PAGE if columns > 1 else COLUMN + 0.7
    figure = new_figure(width, rows * panel + 0.25 * math.ceil(legend / 5) + 0.2)
    axes = [figure.add_subplot(rows, columns, k + 1) for k in range(count)]
    for one in axes:
        one.tick_params(labelsize=TICK)
    return figure, axes


def legend(figure: Figure, looks: dict[str, Look], markers: bool = False) -> None:
    """One legend below all panels."""
    texts = distinct(list(looks), 26)
    wide = figure.get_figwidth()
    longest = max(map(len, texts))
    columns = max(1, min(len(texts), int(wide / (0.42 + 0.062 * longest))))
    entries = [
        Line2D([], [], **look.curve, marker=look.marker if markers else "", markersize=3.5)
        for look in looks.values()
    ]
    figure.legend(
        entries, texts, loc="outside lower center", ncols=columns, fontsize=LABEL,
        handlelength=2.4, columnspacing=1.2, handletextpad=0.5,
    )  # fmt: skip


def log_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """A logarithmic axis with a few legible numbers, also over less than a decade."""
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    own = axes.xaxis if which == "x" else axes.yaxis
    decades = math.log10(high / low) if 0 < low < high else 0.0
    if decades < 2:
        own.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        own.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        own.set_major_locator(LogLocator(numticks=6))
    own.set_minor_formatter(NullFormatter())


def linear_axis(axes: Axes, which: str, ticks: int = 5, whole: bool = False) -> None:
    """A few ticks."""
    own = axes.xaxis if which == "x" else axes.yaxis
    own.set_major_locator(MaxNLocator(ticks, integer=whole))


def positive_floor(*values: NDArray[np.float64] | Sequence[float]) -> float:
    """Where zeros stand on a logarithmic axis: below all that is positive."""
    every = np.concatenate([np.ravel(np.asarray(v, dtype=float)) for v in values])
    positive = every[np.isfinite(every) & (every > 0)]
    if not len(positive):
        return 1e-12
    return max(float(positive.min()) / 2, DECADES * float(positive.max()))


def finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """With gaps for what is infinite."""
    return np.where(np.isfinite(values), values, np.nan)
