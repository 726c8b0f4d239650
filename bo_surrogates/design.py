"""Initial designs: the points measured before there is anything to learn from."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from bo_surrogates.errors import RunError
from bo_surrogates.space import Space

MAX_DRAWS = 200_000  # Sobol points looked at before a constrained space is given up


def sobol_design(space: Space, n: int, seed: int, avoid: Iterable[Tensor] = ()) -> Tensor:
    """The first n points of a scrambled Sobol sequence that are new and satisfy the constraints.

    Points are uniform in model coordinates (hence logarithmic where a parameter is), and each
    level of a discrete parameter is equally likely. The design of n points begins with that of
    fewer. Points beyond the engine's 21,201 dimensions are refused by torch.

    Args:
        space: Where.
        n: Number of points, >= 0.
        seed: Of the scrambling.
        avoid: Points of shape `d` in problem coordinates that are not drawn again.

    Returns:
        `n x d` points in problem coordinates, float64.

    Raises:
        RunError: The space has too few (further) points, or none that satisfies the constraints
            was found.
    """
    engine = SobolEngine(space.dim, scramble=True, seed=seed)
    seen = {tuple(x.tolist()) for x in avoid}
    found: list[Tensor] = []
    drawn = 0
    while len(found) < n:
        if space.size is not None and len(seen) >= space.size:
            raise RunError(
                f"no new point is left to try: all {space.size} points of the space have been "
                "proposed"
            )
        if drawn >= MAX_DRAWS:
            raise RunError(
                f"{len(found)} of {n} new points satisfying the parameter constraints were found "
                f"among {drawn} random ones; loosen the constraints, or add points of your own"
            )
        unit = engine.draw(64, dtype=torch.float64)
        drawn += 64
        for point in from_unit(space, unit):
            values = space.decode(point)
            x = space.encode(values)  # as it will be read back: rounded, with valid levels
            key = tuple(x.tolist())
            if key in seen or len(found) == n:
                continue
            if all(c.slack(values) >= 0 for c in space.constraints):
                seen.add(key)
                found.append(x)
    return torch.stack(found) if found else torch.empty(0, space.dim, dtype=torch.float64)


def from_unit(space: Space, unit: Tensor) -> Tensor:
    """Points of the unit cube `n x d` to problem coordinates.

    Each parameter depends on its own column only: uniform in model coordinates, each level of a
    discrete parameter equally likely (those of a logarithmic integer nearest to the point).
    """
    low, high = space.model_bounds
    X = space.from_model(low + unit * (high - low))
    for i in [*space.discrete_inds, *space.categorical_inds]:
        if not getattr(space.parameters[i], "log", False):
            lower, upper = space.parameters[i].bounds
            X[:, i] = (lower + unit[:, i] * (upper - lower + 1)).floor().clamp(lower, upper)
    return X
