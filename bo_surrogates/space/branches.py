"""The parts of a space in which the same parameters are active.

Within a branch a space is plain: a box with linear constraints. Whatever must count, enumerate,
sample or optimize goes branch by branch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from bo_surrogates.space.parameters import Fixed, Float, Value, Varied, same_value

if TYPE_CHECKING:
    from torch import Tensor

    from bo_surrogates.space.space import Space

# Torch and NumPy are imported where arrays are made: reading a space does not wait for them.

ROUNDING = 1e-9  # of a constraint's largest possible terms, by which a point may violate it
MARGIN = 2e-12  # ... by which a point put right satisfies it: above what 12 digits leave, so that
# the inequality holds as it stands; an equation can only hold up to that
SWEEPS = 50
MAX_ROWS = 200_000  # partial points looked at when points of a constrained branch are counted


@dataclass(frozen=True)
class Row:
    """A linear constraint on the free coordinates of a branch.

    Attributes:
        coefficients: By coordinate.
        upper: The weighted sum's upper bound.
        scale: The size of the largest possible terms, to which rounding is relative.
    """

    coefficients: Mapping[int, float] = field(hash=False)
    upper: float
    scale: float

    @property
    def tolerance(self) -> float:
        """By how much a point may violate the constraint."""
        return ROUNDING * self.scale

    def slack(self, x: Sequence[float]) -> float:
        """`upper` less the weighted sum at problem coordinates."""
        return self.upper - sum(c * x[i] for i, c in self.coefficients.items())

    def is_opposite(self, other: Row) -> bool:
        """Whether the two together are an equation."""
        return (
            self.coefficients == {i: -c for i, c in other.coefficients.items()}
            and abs(self.upper + other.upper) <= self.tolerance
        )


@dataclass(frozen=True)
class Branch:
    """A box with linear constraints, in problem coordinates.

    Attributes:
        levels: Per coordinate what it may be: None for a whole float parameter, else its levels,
            ascending. One level: the coordinate is held (inactive, or fixed for an ask).
        bounds: Per coordinate.
        rows: Constraints on coordinates that are not held.
    """

    levels: tuple[Sequence[float] | None, ...]
    bounds: tuple[tuple[float, float], ...]
    rows: tuple[Row, ...] = ()

    @cached_property
    def held(self) -> dict[int, float]:
        """The coordinates with one level."""
        return {
            i: float(levels[0])
            for i, levels in enumerate(self.levels)
            if levels is not None and len(levels) == 1
        }

    @cached_property
    def free(self) -> tuple[int, ...]:
        """The other coordinates."""
        return tuple(i for i in range(len(self.levels)) if i not in self.held)

    @cached_property
    def continuous(self) -> tuple[int, ...]:
        """The coordinates of float parameters that are free."""
        return tuple(i for i, levels in enumerate(self.levels) if levels is None)

    def __contains__(self, x: Sequence[float]) -> bool:
        """Whether every coordinate is one of its levels; constraints are not looked at."""
        return all(
            levels is None or any(v == level for level in _about(levels, v))
            for levels, v in zip(self.levels, x, strict=True)
        )

    def hold(self, values: Mapping[int, float]) -> Branch | None:
        """The branch with further coordinates held, their terms moved to the constraints' bounds.

        None where that breaks a constraint by itself, or with the other coordinates' bounds.
        """
        levels = tuple((values[i],) if i in values else v for i, v in enumerate(self.levels))
        bounds = tuple((values[i],) * 2 if i in values else b for i, b in enumerate(self.bounds))
        rows = []
        for row in self.rows:
            upper, free = row.upper, dict(row.coefficients)
            for i, its in enumerate(levels):
                if i in free and its is not None and len(its) == 1:
                    upper -= free.pop(i) * its[0]
            least = sum(min(c * b for b in bounds[i]) for i, c in free.items())
            if least > upper + row.tolerance:
                return None
            if free:
                rows.append(Row(free, upper, row.scale))
        return Branch(levels, bounds, tuple(rows))

    def holds(self, x: Sequence[float]) -> bool:
        """Whether problem coordinates satisfy the constraints, up to rounding."""
        return all(row.slack(x) >= -row.tolerance for row in self.rows)

    @cached_property
    def inequalities_and_equations(self) -> tuple[list[Row], list[Row]]:
        """The constraints, with each pair of opposite inequalities as one equation."""
        inequalities = list(self.rows)
        equations = []
        for row in self.rows:
            opposite = next((r for r in inequalities if row.is_opposite(r)), None)
            if opposite is not None and row in inequalities:
                equations.append(row)
                inequalities = [r for r in inequalities if r is not row and r is not opposite]
        return inequalities, equations

    @cached_property
    def count(self) -> int | None:
        """The number of points; None: infinitely many, or too many to count under constraints."""
        if self.continuous:
            return None
        if self.constrained is None:
            return None
        columns, points = self.constrained
        others = [len(v) for i, v in enumerate(self.levels) if i not in columns and v is not None]
        return len(points) * math.prod(others)

    @cached_property
    def possible(self) -> bool:
        """Whether some point satisfies the constraints (with floats: some point between levels)."""
        if not self.continuous or not self.rows:
            return self.count != 0
        from scipy.optimize import linprog

        matrix = [[r.coefficients.get(i, 0.0) / r.scale for i in self.free] for r in self.rows]
        upper = [(r.upper + r.tolerance) / r.scale for r in self.rows]
        found = linprog(
            [0.0] * len(self.free),
            A_ub=matrix,
            b_ub=upper,
            bounds=[self.bounds[i] for i in self.free],
        )
        return bool(found.status != 2)

    def points(self, limit: int) -> Tensor | None:
        """All points, `n x d` problem coordinates; None where there are more than `limit`."""
        import torch

        if self.count is None or self.count > limit or self.constrained is None:
            return None
        columns, points = self.constrained
        rest = [i for i in range(len(self.levels)) if i not in columns]
        table = torch.tensor(points, dtype=torch.float64).reshape(len(points), len(columns))
        for i in rest:
            levels = torch.tensor([float(v) for v in self.levels[i] or ()], dtype=torch.float64)
            table = torch.cat(
                [
                    table.repeat_interleave(len(levels), dim=0),
                    levels.repeat(len(table)).unsqueeze(1),
                ],
                dim=1,
            )
        order = torch.tensor([*columns, *rest]).argsort()
        return table[:, order]

    @cached_property
    def constrained(self) -> tuple[list[int], list[tuple[float, ...]]] | None:
        """The discrete coordinates under constraints, and their combinations that satisfy them.

        Combinations grow coordinate by coordinate; those that no value of the coordinates to come
        can save are dropped at once. None where that leaves too many.
        """
        import numpy as np

        columns = [
            i
            for i in self.free
            if self.levels[i] is not None and any(i in row.coefficients for row in self.rows)
        ]
        least = [{i: self._least(i, c) for i, c in row.coefficients.items()} for row in self.rows]
        table = np.zeros((1, 0))
        for k, i in enumerate(columns):
            levels = self.levels[i] or ()
            if len(table) * len(levels) > 20 * MAX_ROWS:
                return None
            column = np.asarray(levels, dtype=float)
            table = np.column_stack([np.repeat(table, len(column), 0), np.tile(column, len(table))])
            for row, lowest in zip(self.rows, least, strict=True):
                done = columns[: k + 1]
                weights = np.array([row.coefficients.get(j, 0.0) for j in done])
                to_come = sum(v for j, v in lowest.items() if j not in done)
                table = table[table @ weights + to_come <= row.upper + row.tolerance]
            if len(table) > MAX_ROWS:
                return None
        return columns, [tuple(row) for row in table.tolist()]

    def _least(self, i: int, coefficient: float) -> float:
        return min(coefficient * bound for bound in self.bounds[i])

    def settle(self, x: Sequence[float]) -> list[float] | None:
        """Put right what rounding to 12 digits, or an optimizer's tolerance, broke.

        Float coordinates are moved by about as much as constraints are violated. None where that
        does not do: the point is not in the branch.
        """
        point = [float(v) for v in x]
        inequalities, _ = self.inequalities_and_equations
        for _ in range(SWEEPS):
            # How much is missing, of the terms' size, and the margin to be kept.
            missing, worst, margin = max(
                (
                    (
                        -row.slack(point) / row.scale - (0 if strict else MARGIN),
                        row,
                        MARGIN * strict,
                    )
                    for row in self.rows
                    for strict in (row in inequalities,)
                ),
                key=lambda found: found[0],
                default=(0.0, None, 0.0),
            )
            if worst is None or missing <= 0:
                return point
            # Along the constraint's normal, in units of the ranges, where there is room.
            spans = {i: self.bounds[i][1] - self.bounds[i][0] for i in worst.coefficients}
            movable = {
                i: c
                for i, c in worst.coefficients.items()
                if self.levels[i] is None and point[i] != self.bounds[i][0 if c > 0 else 1]
            }
            norm = sum((c * spans[i]) ** 2 for i, c in movable.items())
            if not norm:
                break
            shift = (margin * worst.scale - worst.slack(point)) / norm
            for i, c in movable.items():
                low, high = self.bounds[i]
                moved = point[i] - shift * c * spans[i] ** 2
                point[i] = min(max(float(f"{moved:.12g}"), low), high)
        return point if self.holds(point) else None


def _about(levels: Sequence[float], v: float) -> Sequence[float]:
    """The levels that could equal v: of a range, however long, one at most."""
    if isinstance(levels, range):
        return range(max(levels.start, round(v)), min(levels.stop, round(v) + 1))
    return levels


def branches(space: Space, fixed: Mapping[str, Value]) -> Iterator[Branch]:
    """The branches of a space that hold points; a branch that no point satisfies is left out.

    Args:
        space: The space.
        fixed: Values that parameters are held at; a branch in which one of them is inactive is
            left out.
    """
    ordered = space.in_order
    children: dict[str, list[str]] = {}
    for p in ordered:
        for parent in p.when:
            children.setdefault(parent, []).append(p.name)
    by_name = {p.name: p for p in ordered}

    def classes(p: Varied) -> list[list[Value]]:
        """The parent's values, those with the same consequences together."""
        levels = range(round(p.bounds[0]), round(p.bounds[1]) + 1)
        values = [p.decode(v) for v in levels]
        if p.name in fixed:
            values = [v for v in values if same_value(v, fixed[p.name])]
        groups: dict[tuple[bool, ...], list[Value]] = {}
        for v in values:
            wanted = (by_name[c].when[p.name] for c in children[p.name])
            groups.setdefault(
                tuple(any(same_value(v, w) for w in wants) for wants in wanted), []
            ).append(v)
        return list(groups.values())

    parents = [p for p in ordered if p.name in children]
    grouped = {p.name: classes(p) for p in parents if isinstance(p, Varied)}

    def assign(
        k: int, values: dict[str, Value], groups: dict[str, list[Value]]
    ) -> Iterator[Branch]:
        if k == len(parents):
            branch = _branch(space, fixed, values, groups)
            if branch is not None:
                yield branch
            return
        p = parents[k]
        if not space.is_active(p.name, values):
            yield from assign(k + 1, values, groups)
            return
        if isinstance(p, Fixed):
            yield from assign(k + 1, {**values, p.name: p.value}, groups)
            return
        for group in grouped[p.name]:
            yield from assign(k + 1, {**values, p.name: group[0]}, {**groups, p.name: group})

    yield from assign(0, {}, {})


def _branch(
    space: Space,
    fixed: Mapping[str, Value],
    representative: Mapping[str, Value],
    groups: Mapping[str, list[Value]],
) -> Branch | None:
    """The branch of the points whose parents are in the given groups of values."""
    levels: list[Sequence[float] | None] = []
    for p in space.varied:
        if not space.is_active(p.name, representative):
            if p.name in fixed:
                return None
            levels.append((p.encode(p.imputed),))
        elif p.name in fixed:
            levels.append((p.encode(fixed[p.name]),))
        elif p.name in groups:
            levels.append(tuple(p.encode(v) for v in groups[p.name]))
        elif isinstance(p, Float):
            levels.append(None)
        else:
            levels.append(range(round(p.bounds[0]), round(p.bounds[1]) + 1))
    bounds = tuple(
        p.bounds if v is None else (float(v[0]), float(v[-1]))
        for p, v in zip(space.varied, levels, strict=True)
    )
    rows = [
        Row(*space.row(constraint), space.scale(constraint))
        for constraint in space.constraints
        if all(space.is_active(n, representative) for n in constraint.coefficients)
    ]
    branch = Branch(tuple(levels), bounds, tuple(rows)).hold({})
    return branch if branch is not None and branch.possible else None
