"""A problem as it is: one curve, one map, or slices through its best known point."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from bo_surrogates.space import Choice, Float, Int, Ordered, Value, Varied
from problems.base import Problem
from reports.style import BLACK, BLUE, GREY, VERMILION, house_style, new_figure, shorten, wrap

MOST = 6  # slices drawn, those along which the first objective changes most
FINE, MAP = 201, 81  # points of a curve, and of each side of a map


def draw_problem(name: str, problem: Problem, fineness: float = 1.0) -> Figure:
    """One row of panels an objective: the noise-free values.

    A problem of one input is a curve; of two continuous inputs a map; any other is shown by slices
    through its best known point (else the middle of its box), and a map of the two inputs that
    matter most there. Where outcome constraints do not hold, curves are dashed and maps hatched.

    Args:
        name: For the title.
        problem: What to draw.
        fineness: In (0, 1]: the share of points that are evaluated, for slow problems.
    """
    point = _middle(problem)
    slices = {i: _slice(problem, point, i, fineness) for i in range(problem.dim)}
    lively = sorted(slices, key=lambda i: -_change(slices[i][1][:, 0]))[:MOST]
    smooth = [i for i in lively if isinstance(problem.space.varied[i], Float)]
    pair = tuple(sorted(smooth[:2])) if len(smooth) > 1 and fineness >= 0.5 else None
    shown = [] if problem.dim == 2 and pair else sorted(lively)
    columns = len(shown) + (pair is not None)
    with house_style():
        single = columns == 1
        figure = new_figure(
            width=4.8 if single else min(1.0 + 2.1 * columns, 15.0),
            height=0.6 + (3.4 if single else 2.3) * problem.num_objectives,
        )
        grid = figure.subplots(problem.num_objectives, columns, squeeze=False)
        for row, objective in enumerate(problem.objectives):
            panels = list(grid[row])
            for axes, i in zip(panels, shown, strict=False):
                _draw_slice(axes, problem, i, point, *slices[i], row)
            if pair is not None:
                _draw_map(panels[-1], problem, point, pair, row, fineness)
            unit = f" ({objective.unit})" if objective.unit else ""
            label = f"{objective.direction} {objective.name}{unit}"
            if shown:
                panels[0].set_ylabel(wrap(label, 22), fontsize=9)
            elif pair is not None:
                panels[-1].set_title(label, fontsize=9)
        through = "best known point" if problem.optimizers is not None else "middle of the box"
        what = f"slices through the {through}" if problem.dim > 2 else "the function"
        some = f", {len(shown)} of {problem.dim} inputs" if len(shown) < problem.dim > 2 else ""
        figure.suptitle(f"{name}: {what}{some}", fontsize=10)
    return figure


def _middle(problem: Problem) -> Tensor:
    best = problem.optimizers
    if best is not None:
        return best[0].clone()
    point = problem.bounds.mean(dim=0)
    whole = problem.discrete_inds + problem.categorical_inds
    point[whole] = point[whole].floor()
    return point


def _ticks(parameter: Varied, count: int) -> Tensor:
    """Problem coordinates along a parameter: evenly on its scale, or every level."""
    low, high = parameter.bounds
    if not isinstance(parameter, Float):
        levels = torch.arange(low, high + 1, dtype=torch.float64)
        step = max(1, math.ceil(len(levels) / count))
        return levels[::step]
    if parameter.log:
        return torch.logspace(math.log10(low), math.log10(high), count, dtype=torch.float64).clamp(
            low, high
        )
    return torch.linspace(low, high, count, dtype=torch.float64)


def _slice(
    problem: Problem, point: Tensor, i: int, fineness: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates along input i, objectives there, and whether all constraints hold."""
    x = _ticks(problem.space.varied[i], max(5, round(FINE * fineness)))
    X = point.repeat(len(x), 1)
    X[:, i] = x
    return x, *_evaluate(problem, X)


def _evaluate(problem: Problem, X: Tensor) -> tuple[Tensor, Tensor]:
    metrics = problem._true_metrics(X)
    holds = torch.ones(len(X), dtype=torch.bool)
    for constraint in problem.constraints:
        value = metrics[:, problem.metrics.index(constraint.metric)]
        slack = constraint.bound - value
        holds &= (slack if constraint.op == "<=" else -slack) >= 0
    for limit in problem.space.constraints:
        index = [problem.space.names.index(n) for n in limit.coefficients]
        weights = torch.tensor(list(limit.coefficients.values())).to(X)
        holds &= X[:, index] @ weights <= limit.upper + 1e-9
    return metrics[:, : problem.num_objectives], holds


def _change(values: Tensor) -> float:
    finite = values[values.isfinite()]
    return (finite.max() - finite.min()).item() if len(finite) else 0.0


def _draw_slice(
    axes: Axes, problem: Problem, i: int, point: Tensor, x: Tensor, Y: Tensor, holds: Tensor, k: int
) -> None:
    parameter = problem.space.varied[i]
    y = Y[:, k]
    if isinstance(parameter, Float) or len(x) > 30:
        allowed = torch.where(holds, y, torch.nan)
        axes.plot(x, y, color=BLUE, linewidth=1.0, linestyle=(0, (2, 2)), alpha=0.7)
        axes.plot(x, allowed, color=BLUE, linewidth=1.6)
    else:
        axes.plot(x[holds], y[holds], "o", color=BLUE, markersize=4.5)
        axes.plot(x[~holds], y[~holds], "o", color=BLUE, markersize=4.5, fillstyle="none")
    _label(axes, parameter)
    axes.axvline(point[i].item(), color=BLACK, linewidth=0.7, linestyle=(0, (4, 3)), zorder=1)
    if problem.optimum is not None and problem.optimizers is not None:
        for best in problem.optimizers if problem.dim == 1 else problem.optimizers[:1]:
            axes.plot(best[i], problem.optimum.value, "*", color=VERMILION, markersize=10)
    axes.tick_params(labelsize=8)


def _label(axes: Axes, parameter: Varied) -> None:
    unit = getattr(parameter, "unit", "")
    axes.set_xlabel(shorten(parameter.name, 22) + (f" ({unit})" if unit else ""), fontsize=9)
    if isinstance(parameter, Float | Int) and parameter.log:
        axes.set_xscale("log")
    if isinstance(parameter, Ordered | Choice):
        count = len(parameter.values)
        places = range(0, count, max(1, math.ceil(count / (6 if count < 12 else 3))))
        axes.set_xticks(list(places), [_value(parameter.values[p]) for p in places])
        if isinstance(parameter, Choice):
            axes.tick_params(axis="x", rotation=30)


def _value(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else shorten(str(value), 8)


def _draw_map(
    axes: Axes, problem: Problem, point: Tensor, pair: Sequence[int], k: int, fineness: float
) -> None:
    first, second = (problem.space.varied[i] for i in pair)
    count = max(9, round(MAP * fineness))
    a, b = _ticks(first, count), _ticks(second, count)
    X = point.repeat(len(a) * len(b), 1)
    X[:, list(pair)] = torch.cartesian_prod(a, b)
    Y, holds = _evaluate(problem, X)
    values = Y[:, k].reshape(len(a), len(b)).T
    drawn = axes.contourf(a, b, values, levels=24, cmap="viridis")
    axes.figure.colorbar(drawn, ax=axes).ax.tick_params(labelsize=7)
    forbidden = (~holds).double().reshape(len(a), len(b)).T
    if forbidden.any():
        axes.contourf(a, b, forbidden, levels=[0.5, 1.5], colors="none", hatches=["////"])
        if not forbidden.all():
            axes.contour(a, b, forbidden, levels=[0.5], colors=[GREY], linewidths=1.0)
    _label(axes, first)
    unit = getattr(second, "unit", "")
    axes.set_ylabel(shorten(second.name, 22) + (f" ({unit})" if unit else ""), fontsize=9)
    if isinstance(second, Float) and second.log:
        axes.set_yscale("log")
    axes.grid(False)
    axes.tick_params(labelsize=8)
    best = problem.optimizers
    if best is not None:
        for one in best if problem.dim == 2 else best[:1]:
            axes.plot(
                one[pair[0]], one[pair[1]], "*", color=VERMILION, markeredgecolor="white",
                markeredgewidth=0.6, markersize=11,
            )  # fmt: skip
