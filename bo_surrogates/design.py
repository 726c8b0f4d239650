"""Initial designs: the points measured before there is anything to learn from."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from bo_surrogates.errors import RunError, SpaceExhausted
from bo_surrogates.fidelity import FidelityConfig
from bo_surrogates.polytope import polytope_points
from bo_surrogates.space import Space, Value

MAX_DRAWS = 200_000  # random points looked at before a constrained space is given up
MAX_REPEATS = 1000  # points in a row that have been tried: the space, if infinite, holds no others
FIRST_DRAWS = 1024  # ... by whose share of valid ones the way of sampling is chosen
RARE = 0.02  # a share below which points are drawn from the constraints' polytope instead
ENUMERATE_UP_TO = 10_000  # points of a discrete space that are simply all listed


def sobol_design(
    space: Space,
    n: int,
    seed: int,
    avoid: Iterable[Tensor] = (),
    fixed: Mapping[str, Value] | None = None,
) -> Tensor:
    """The first n points of a scrambled Sobol sequence that are new and satisfy the constraints.

    Points are uniform in model coordinates (hence logarithmic where a parameter is), and each
    level of a discrete parameter is equally likely. Where constraints leave less than a fiftieth
    of the box, points are drawn from their polytope by hit and run instead. The last points of a
    small finite space come in random order. The design of n points begins with that of fewer.
    Points beyond the engine's 21,201 dimensions are refused by torch.

    Args:
        space: Where.
        n: Number of points, >= 0.
        seed: Of the scrambling.
        avoid: Points of shape `d` in problem coordinates that are not drawn again.
        fixed: Valid values at which parameters are held; see `Space.check_fixed`.

    Returns:
        `n x d` points in problem coordinates, float64; fewer where a finite space holds fewer that
        are new.

    Raises:
        SpaceExhausted: n is positive and all points have been tried.
        RunError: No point that satisfies the constraints was found.
    """
    seen = {tuple(x.tolist()) for x in avoid}
    found: list[Tensor] = []
    missed = repeated = 0  # in a row
    for x in _sequence(space, seed, dict(fixed or {})):
        if len(found) == n or missed == MAX_DRAWS or repeated == MAX_REPEATS:
            break
        if x is None:
            missed += 1
        elif (key := tuple(x.tolist())) in seen:
            repeated += 1
        else:
            seen.add(key)
            found.append(x)
            missed = repeated = 0
    if n and not found:
        if missed == MAX_DRAWS:
            raise RunError(
                f"no point that satisfies the parameter constraints was found among {MAX_DRAWS} "
                "random ones; loosen the constraints, or add points of your own"
            )
        raise exhausted(space, fixed or {})
    return torch.stack(found) if found else torch.empty(0, space.dim, dtype=torch.float64)


def initial_design(
    space: Space,
    n: int,
    seed: int,
    tried: Tensor,
    fidelity: FidelityConfig | None = None,
    fixed: Mapping[str, Value] | None = None,
    always: Collection[int] = (),
) -> Tensor:
    """As `sobol_design`, with the fidelities that a design has where the space has one.

    New points come first; where a finite space holds no more, those that have been tried cheaply
    are asked at the target, too.

    Args:
        space: Where.
        n: Number of points, >= 0.
        seed: Of the scrambling.
        tried: `t x d` points in problem coordinates that have been asked: the new points' numbers
            begin with t.
        fidelity: How fidelities are chosen, checked for the space; None without one.
        fixed: Valid values at which parameters are held; the fidelity may be among them.
        always: Numbers of points that are at the target.

    Raises:
        SpaceExhausted: n is positive and all points have been tried.
        RunError: No point that satisfies the constraints was found.
    """
    f, fixed = space.fidelity, dict(fixed or {})
    if f is None or fidelity is None:
        return sobol_design(space, n, seed, tried, fixed)
    value = fixed.get(f.name, space.target[f.name])
    held = {**fixed, f.name: value}
    moved = space.with_coordinate(tried, f.name, value)
    X = tried.new_empty(0, space.dim)
    for avoid in (moved, tried[(moved == tried).all(dim=-1)]):
        try:
            X = torch.cat([X, sobol_design(space, n - len(X), seed, [*avoid, *X], held)])
        except SpaceExhausted:
            continue
    if n and not len(X):
        raise exhausted(space, held)
    if f.name in fixed:
        return X
    seen = {tuple(x) for x in tried.tolist()}
    for k, x in enumerate(X):
        number = len(tried) + k
        row = space.with_coordinate(x, f.name, fidelity.design_value(f, number))
        if number not in always and tuple(row.tolist()) not in seen:
            X[k] = row
    return X


def exhausted(space: Space, fixed: Mapping[str, Value]) -> RunError:
    """What to raise when no new point is found."""
    where = " with " + ", ".join(f"{n} = {v!r}" for n, v in fixed.items()) if fixed else ""
    count = space.count(fixed)
    if count == 0 or next(space.branches(fixed), None) is None:
        return RunError(space.nowhere(fixed))
    if count is None:
        return SpaceExhausted(
            f"no new point{where} is left to try: the last {MAX_REPEATS} random points within "
            "the parameter constraints have all been tried or are being tried"
        )
    return SpaceExhausted(
        f"no new point is left to try: all {count} points of the space{where} have been tried or "
        "are being tried"
    )


def _sequence(space: Space, seed: int, fixed: Mapping[str, Value]) -> Iterator[Tensor | None]:
    """The points of a space in an order that the seed decides; None for a draw that is no point.

    Ends where every point of a small finite space has come; else goes on for ever.
    """
    points = space.points(ENUMERATE_UP_TO, fixed)
    if points is not None:
        # Sobol points first, which spread better; what they miss afterwards.
        yield from itertools.islice(_draws(space, seed, fixed), 2 * len(points))
        order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
        yield from points[order]
        return
    rare = None
    if space.constraints or fixed:
        X = next(_boxes(space, seed, fixed, FIRST_DRAWS))
        if _inside(space, X, fixed).sum() < RARE * FIRST_DRAWS:
            rare = polytope_points(space, seed, fixed)
    yield from _draws(space, seed, fixed) if rare is None else rare


def _draws(space: Space, seed: int, fixed: Mapping[str, Value]) -> Iterator[Tensor | None]:
    """A scrambled Sobol sequence over the box; None where a point violates a constraint."""
    for X in _boxes(space, seed, fixed, 64):
        for x, inside in zip(X, _inside(space, X, fixed).tolist(), strict=True):
            # As it will be read back: 12 digits, and inactive parameters imputed.
            yield space.encode(space.decode(x)) if inside else None


def _boxes(space: Space, seed: int, fixed: Mapping[str, Value], n: int) -> Iterator[Tensor]:
    """A Sobol sequence over the box in problem coordinates, n points at a time."""
    engine = SobolEngine(space.dim, scramble=True, seed=seed)
    while True:
        X = from_unit(space, engine.draw(n, dtype=torch.float64))
        for i, parameter in enumerate(space.varied):
            if parameter.name in fixed:
                X[:, i] = parameter.encode(fixed[parameter.name])
        yield X


def _inside(space: Space, X: Tensor, fixed: Mapping[str, Value]) -> Tensor:
    """Which points satisfy the constraints and have the fixed parameters active."""
    active = space.active(X)
    inside = space.satisfied(X)
    for name in fixed:
        inside = inside & active[name]
    return inside


def from_unit(space: Space, unit: Tensor) -> Tensor:
    """Points of the unit cube `n x d` to problem coordinates, each level equally likely."""
    low, high = space.model_bounds
    X = space.nearest(low + unit * (high - low))
    for i in [*space.discrete_inds, *space.categorical_inds]:
        if not getattr(space.varied[i], "log", False):
            lower, upper = space.varied[i].bounds
            X[:, i] = (lower + unit[:, i] * (upper - lower + 1)).floor().clamp(lower, upper)
    return X
