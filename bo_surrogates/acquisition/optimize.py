"""Maximizing an acquisition function over a space.

A small finite space is listed; in any other, the function is climbed in the branches where it was
found highest (`climb.py`). No point is proposed that has been tried while one that has not is left.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from botorch.acquisition import AcquisitionFunction
from botorch.optim.initializers import initialize_q_batch
from torch import Tensor

from bo_surrogates.acquisition.climb import climb
from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.design import ENUMERATE_UP_TO, exhausted, sobol_design
from bo_surrogates.space import Branch, Space, Value

BRANCHES = 4  # in which an acquisition function is climbed, of those where it was found highest
LISTED = 64  # branches that are listed; where there are more, parents are held instead
CHUNK = 1024  # points evaluated at a time


def maximize(
    acquisition: AcquisitionFunction,
    space: Space,
    q: int,
    config: AcquisitionConfig,
    X_avoid: Tensor,
    fixed: Mapping[str, Value] | None = None,
) -> tuple[Tensor, Tensor]:
    """Find q points one after the other, each given the ones before.

    Args:
        acquisition: Evaluated on `b x q' x d` model coordinates.
        space: Where.
        q: Number of points.
        config: The optimizer's budget.
        X_avoid: `n x d` points in problem coordinates, those tried and those pending. Of their
            device and type are the points that the acquisition function sees.
        fixed: Valid values at which parameters are held; see `Space.check_fixed`.

    Returns:
        `q x d` points in problem coordinates, as they read back, and the acquisition value of each
        given the ones before. Fewer where a finite space holds fewer untried points.

    Raises:
        SpaceExhausted: Every point of a finite space has been tried.
    """
    fixed = dict(fixed or {})
    tried = {tuple(x) for x in X_avoid.tolist()}
    listed = space.points(ENUMERATE_UP_TO, fixed)
    pending = getattr(acquisition, "X_pending", None)
    found: list[Tensor] = []
    values: list[Tensor] = []
    for number in range(q):
        if number:
            # Some acquisition functions draw anew when told: only those that go on are.
            Z = space.to_model(torch.stack(found)).to(X_avoid)
            acquisition.set_X_pending(Z if pending is None else torch.cat([pending, Z]))
        if listed is None:
            X = _candidates(acquisition, space, config, X_avoid, tried, fixed)
        else:
            X = torch.stack([x for x in listed if tuple(x.tolist()) not in tried] or [listed[:0]])
        if not X.numel():
            break
        value = _values(acquisition, space, X, X_avoid)
        best = int(value.argmax())
        found.append(X[best])
        values.append(value[best])
        tried.add(tuple(X[best].tolist()))
    if q > 1:
        acquisition.set_X_pending(pending)
    if not found:
        raise exhausted(space, fixed)
    return torch.stack(found).to(X_avoid), torch.stack(values)


def _values(acquisition: AcquisitionFunction, space: Space, X: Tensor, like: Tensor) -> Tensor:
    """The acquisition value of each of `n x d` points in problem coordinates."""
    Z = space.to_model(X).to(like).unsqueeze(1)
    with torch.no_grad():
        return torch.cat([acquisition(part) for part in Z.split(CHUNK)])


def _candidates(
    acquisition: AcquisitionFunction,
    space: Space,
    config: AcquisitionConfig,
    like: Tensor,
    tried: set[tuple[float, ...]],
    fixed: Mapping[str, Value],
) -> Tensor:
    """Good untried points, `k x d` problem coordinates, k >= 1."""
    seed = int(torch.randint(2**31, ()))
    found = []
    X_tried = torch.tensor([*tried], dtype=torch.float64).reshape(-1, space.dim)
    Z_avoid = space.to_model(X_tried).to(like)
    for branch, starts in _promising(acquisition, space, config, like, fixed, seed):
        for z in climb(acquisition, space, branch, config, starts, Z_avoid):
            x = space.from_model(z.to("cpu", torch.float64))
            settled = branch.settle(space.encode(space.decode(x)).tolist())
            if settled is not None and tuple(settled) not in tried:
                found.append(torch.tensor(settled, dtype=torch.float64))
    if found:
        return torch.stack(found)
    # Every climb ended where something has been tried: the best of random points, then.
    avoid = [torch.tensor(x, dtype=torch.float64) for x in tried]
    return sobol_design(space, config.raw_samples, seed, avoid, fixed)


def _promising(
    acquisition: AcquisitionFunction,
    space: Space,
    config: AcquisitionConfig,
    like: Tensor,
    fixed: Mapping[str, Value],
    seed: int,
) -> list[tuple[Branch, Tensor | None]]:
    """The branches to climb in, each with points to start from (None: the optimizer's own)."""
    branches = list(itertools.islice(space.branches(fixed), LISTED + 1))
    if len(branches) == 1 and not branches[0].rows:
        return [(branches[0], None)]
    X = sobol_design(space, config.raw_samples, seed, fixed=fixed)
    value = _values(acquisition, space, X, like)
    chosen: dict[Branch, list[int]] = {}
    for k in value.argsort(descending=True).tolist():
        x = X[k].tolist()
        branch = _branch_at(space, x, branches, fixed)
        if branch in chosen or len(chosen) < BRANCHES:
            chosen.setdefault(branch, []).append(k)
    found: list[tuple[Branch, Tensor | None]] = []
    for branch, rows in chosen.items():
        Z = space.to_model(X[rows]).to(like).unsqueeze(1)
        if len(rows) > config.num_restarts:
            Z, _ = initialize_q_batch(Z, value[rows], config.num_restarts)
        found.append((branch, Z.squeeze(1)))
    return found


def _branch_at(
    space: Space, x: Sequence[float], branches: list[Branch], fixed: Mapping[str, Value]
) -> Branch:
    """The branch that a point is in."""
    if len(branches) <= LISTED:
        return next(b for b in branches if x in b)
    values = space.decode(torch.tensor(x, dtype=torch.float64))
    parents = {parent for p in space.parameters for parent in p.when}
    held = {n: v for n, v in values.items() if n in parents}
    return next(space.branches({**fixed, **held}))
