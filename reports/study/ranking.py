"""Who is better: critical differences of average ranks, and probabilities of superiority."""

from __future__ import annotations

import warnings

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.study.analysis import Analysis, rows_of
from reports.study.frame import COLUMN, LABEL, PAGE, TICK, TITLE
from reports.study.palette import Look
from reports.style import BLACK, distinct, house_style, new_figure
from studies.statistics import RankComparison

ROW = 0.19  # inches a surrogate
LETTER = 0.062  # inches a letter of a label


def draw_critical_differences(analysis: Analysis, looks: dict[str, Look]) -> Figure | None:
    """Average ranks, those that Nemenyi's test does not tell apart joined by bars.

    Above with problems as the unit, below with runs; None where there is nothing to test.
    """
    found = [
        c for c in (analysis.by_problem, analysis.by_run) if c is not None and len(c.ranks) > 1
    ]
    if not found:
        return None
    height = 0.85 + ROW * (2 + (len(looks) + 1) // 2 + min(len(looks), 5) / 2)
    with house_style():
        figure = new_figure(PAGE, height * len(found))
        for axes, comparison in zip(
            figure.subplots(len(found), squeeze=False)[:, 0], found, strict=True
        ):
            _draw(axes, comparison, looks)
    return figure


def _draw(axes: Axes, comparison: RankComparison, looks: dict[str, Look]) -> None:
    from scikit_posthocs import critical_difference_diagram

    names = dict(zip(looks, distinct(list(looks), 30), strict=True))
    count = len(names)
    margin = 0.04 * (count - 1)
    axes.grid(False)
    average = comparison.average.rename(index=names)
    p_values = comparison.nemenyi.rename(index=names, columns=names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        drawn = critical_difference_diagram(
            average,
            p_values,
            alpha=comparison.alpha,
            ax=axes,
            color_palette={names[s]: look.colour for s, look in looks.items()},
            label_fmt_left="{label}  {rank:.2f} ",
            label_fmt_right=" {rank:.2f}  {label}",
            label_props={"fontsize": TICK + 0.5},
            marker_props={"s": 14},
            elbow_props={"linewidth": 0.9},
            crossbar_props={"linewidth": 2.4, "color": "#555555"},
            text_h_margin=margin,
        )
    for text in drawn["labels"]:
        text.set_color(BLACK)  # the colours of some curves are too light to read
    left = max(len(t.get_text()) for t in drawn["labels"] if t.get_ha() == "right")
    right = max(len(t.get_text()) for t in drawn["labels"] if t.get_ha() == "left")
    unit = (PAGE - 0.4 - LETTER * (left + right)) / (count - 1 + 2 * margin)  # inches a rank
    axes.set_xlim(1 - margin - LETTER * left / unit, count + margin + LETTER * right / unit)
    axes.spines["top"].set_visible(True)
    axes.spines["top"].set_bounds(1, count)
    axes.set_xticks(range(1, count + 1))
    axes.tick_params(labelsize=TICK)
    what = "problems" if comparison.unit == "problem" else "runs of these problems"
    p = "≤ 0.0001" if comparison.p_value <= 1e-4 else f"= {comparison.p_value:.2g}"
    axes.set_title(
        f"{len(comparison.ranks)} {what}: critical difference "
        f"{comparison.critical_difference:.2f} (Nemenyi, {100 * comparison.alpha:g} %), "
        f"Friedman p {p}",
        fontsize=TITLE,
    )


def draw_superiority(analysis: Analysis, looks: dict[str, Look]) -> Figure | None:
    """How often the row's surrogate beats the column's; None with one surrogate or no block."""
    table = analysis.superiority
    if table.empty:
        return None
    order = list(analysis.order)
    texts = distinct(order, 16)
    count = len(order)
    square = table.pivot(index="a", columns="b", values="probability").reindex(order)[order]
    ends = {(r.a, r.b): (r.low, r.high) for r in rows_of(table)}
    values = square.to_numpy(dtype=float)
    side = 0.48 if count > 7 else 0.62
    with house_style():
        figure = new_figure(min(PAGE, max(COLUMN, 2.2 + side * count)), 1.5 + side * 0.8 * count)
        axes = figure.add_subplot()
        drawn = axes.imshow(values, cmap="RdBu", vmin=0, vmax=1, aspect="auto")
        for i, a in enumerate(order):
            for j, b in enumerate(order):
                if a == b:
                    continue
                p = values[i, j]
                low, high = ends[a, b]
                sure = not low <= 0.5 <= high
                text = f"{p:.2f}" if count > 9 else f"{p:.2f}\n{low:.2f}-{high:.2f}"
                axes.text(
                    j, i, text, ha="center", va="center", fontsize=TICK,
                    color="white" if abs(p - 0.5) > 0.32 else BLACK,
                    fontweight="bold" if sure else "normal", linespacing=1.25,
                )  # fmt: skip
        axes.set_xticks(range(count), texts, rotation=35, ha="right", fontsize=LABEL)
        axes.set_yticks(range(count), texts, fontsize=LABEL)
        axes.grid(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.2, alpha=1)
        axes.tick_params(which="both", length=0)
        bar = figure.colorbar(drawn, ax=axes, fraction=0.04, pad=0.02)
        bar.ax.tick_params(labelsize=TICK)
        bar.set_label("probability that the row beats the column", fontsize=LABEL)
    return figure
