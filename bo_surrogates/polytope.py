"""Random points of a space whose constraints leave little of its box.

Drawing points from the box and keeping the valid ones is hopeless where `a + b + c == 1`. Here the
discrete parameters under constraints take one of the combinations that the constraints allow, and
the floats under constraints are drawn from the polytope that remains, by hit and run; inequalities
that hold with equality everywhere become equations first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from botorch.utils.sampling import PolytopeSampler
from scipy.optimize import linprog
from torch import Tensor
from torch.quasirandom import SobolEngine

from bo_surrogates.seeding import derive_seed
from bo_surrogates.space import Branch, Space, Value

MAX_CELLS = 100_000
STEPS = 200  # of each chain, from a point in the middle to the point drawn
BLOCK = 32  # points drawn at a time
EQUATION = 1e-9  # of the terms' size: a slack that no point exceeds makes an equation
SLACK = 1e-10  # by which the constraints are loosened to see that


def polytope_points(
    space: Space, seed: int, fixed: Mapping[str, Value]
) -> Iterator[Tensor | None] | None:
    """Points of a space, for ever (None for a draw that failed); each cell is equally likely.

    Args:
        space: Where.
        seed: Decides the sequence.
        fixed: Valid values at which parameters are held.

    Returns:
        Problem coordinates of shape `d`, as they will be read back. None instead of an iterator
        where the discrete combinations are too many to list.
    """
    cells: list[Branch] = []
    for branch in space.branches(fixed):
        its = _cells(branch)
        if its is None or len(cells) + len(its) > MAX_CELLS:
            return None
        cells += its
    return _points(space, seed, cells)


def _cells(branch: Branch) -> list[Branch] | None:
    """The branch with its discrete parameters under constraints held, once a combination."""
    if branch.constrained is None:
        return None
    columns, combinations = branch.constrained
    if not columns:
        return [branch]
    held = (branch.hold(dict(zip(columns, values, strict=True))) for values in combinations)
    return [cell for cell in held if cell is not None]


def _points(space: Space, seed: int, cells: list[Branch]) -> Iterator[Tensor | None]:
    generator = torch.Generator().manual_seed(derive_seed(seed, "cells"))
    engine = SobolEngine(space.dim, scramble=True, seed=seed)
    low, high = space.model_bounds
    samplers: dict[Branch, _Floats] = {}
    while cells:
        k = int(torch.randint(len(cells), (), generator=generator))
        cell = cells[k]
        unit = engine.draw(1, dtype=torch.float64)[0]
        if not cell.possible:
            del cells[k]  # each constraint alone allows it, all together do not
            yield None
            continue
        x = space.nearest(low + unit * (high - low))
        for i, levels in enumerate(cell.levels):
            if levels is not None:
                x[i] = levels[min(int(unit[i] * len(levels)), len(levels) - 1)]
        if cell.rows:
            if cell not in samplers:
                samplers[cell] = _Floats(cell, derive_seed(seed, "polytope", len(samplers)))
            x[samplers[cell].columns] = samplers[cell].draw()
        settled = cell.settle(space.encode(space.decode(x)).tolist())
        yield None if settled is None else torch.tensor(settled, dtype=torch.float64)


class _Floats:
    """Uniform points of the polytope of a cell's constrained floats."""

    def __init__(self, cell: Branch, seed: int) -> None:
        self.columns = sorted({i for row in cell.rows for i in row.coefficients})
        bounds = torch.tensor([cell.bounds[i] for i in self.columns], dtype=torch.float64).T
        low, high = bounds
        # Rows over the unit cube, each divided by the size of its terms.
        A = torch.tensor(
            [[r.coefficients.get(i, 0.0) / r.scale for i in self.columns] for r in cell.rows],
            dtype=torch.float64,
        )
        b = torch.tensor([r.upper / r.scale for r in cell.rows], dtype=torch.float64) - A @ low
        A = A * (high - low)
        equations = torch.tensor([_slack(A, b, j) <= EQUATION for j in range(len(b))])
        C, d = _independent(A[equations], b[equations])
        self._low, self._span = low, high - low
        self._point = _middle(A, b, len(self.columns)) if len(C) == len(self.columns) else None
        if self._point is None:
            self._sampler = HitAndRun(
                inequality_constraints=(A[~equations], b[~equations].unsqueeze(-1)),
                equality_constraints=(C, d.unsqueeze(-1)) if len(C) else None,
                bounds=torch.stack([torch.zeros_like(low), torch.ones_like(low)]),
            )
            self._generator = torch.Generator().manual_seed(seed)
        self._block: list[Tensor] = []

    def draw(self) -> Tensor:
        if self._point is not None:  # the equations leave one point
            return self._low + self._span * self._point
        if not self._block:
            self._block = list(self._sampler.draw(BLOCK, self._generator))
        return self._low + self._span * self._block.pop(0)


class HitAndRun(PolytopeSampler):
    """Uniform points by hit and run, each from a chain of its own; all chains step together.

    BoTorch's sampler has one chain, whose steps are a loop in Python: half a second an ask. From it
    come the interior point and the elimination of equations.
    """

    def draw(self, n: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """Draw points.

        Args:
            n: Number of points.
            generator: Of the randomness; None: torch's global one.

        Returns:
            `n x d` independent points.
        """
        A, nullC = self.new_A, self.nullC
        free = (self.b - self.A @ self.x0).squeeze(-1).clamp_min(0.0)  # slack at the interior point
        slack = free.repeat(n, 1)
        Y = torch.zeros(n, nullC.shape[1], dtype=A.dtype)  # along the equations, from that point
        infinite = torch.full_like(slack, torch.inf)
        for _ in range(STEPS):
            direction = torch.randn(Y.shape, dtype=A.dtype, generator=generator)
            speed = direction @ A.T
            steps = slack / speed
            furthest = torch.where(speed > 0, steps, infinite).amin(dim=1)
            nearest = torch.where(speed < 0, steps, -infinite).amax(dim=1)
            at = torch.rand(n, dtype=A.dtype, generator=generator)
            step = (nearest + at * (furthest - nearest)).unsqueeze(1)
            Y = Y + step * direction
            slack = (free - Y @ A.T).clamp_min(0.0)
        return self.x0.T + Y @ nullC.T


def _slack(A: Tensor, b: Tensor, j: int) -> float:
    """The largest slack of constraint j in the unit cube where the others hold."""
    found = linprog(A[j].numpy(), A_ub=A.numpy(), b_ub=(b + SLACK).numpy(), bounds=(0, 1))
    return float(b[j]) - float(found.fun or 0.0) if found.status == 0 else 0.0


def _middle(A: Tensor, b: Tensor, d: int) -> Tensor:
    """A point of the unit cube where the constraints hold."""
    found = linprog([0.0] * d, A_ub=A.numpy(), b_ub=(b + SLACK).numpy(), bounds=(0, 1))
    return torch.as_tensor(found.x, dtype=torch.float64)


def _independent(C: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Equations without those that follow from the ones before (a pair of inequalities is one)."""
    kept: list[int] = []
    for j in range(len(C)):
        if torch.linalg.matrix_rank(C[[*kept, j]], rtol=1e-9) > len(kept):
            kept.append(j)
    return C[kept], d[kept]
