"""Maximizing an acquisition function over a space, in model coordinates.

BoTorch's optimizers, chosen by the kinds of parameter as Ax chooses them: gradients for
continuous spaces, enumeration or local search on a lattice for discrete ones, alternating local
search and gradients for mixed ones.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from botorch.acquisition import AcquisitionFunction
from botorch.optim import (
    optimize_acqf,
    optimize_acqf_discrete,
    optimize_acqf_discrete_local_search,
    optimize_acqf_mixed_alternating,
)
from torch import Tensor

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.errors import RunError
from bo_surrogates.space import Space

ENUMERATE_UP_TO = 10_000  # points of a discrete space that are simply all evaluated


def optimizer_options(optimizer: str, config: AcquisitionConfig) -> dict[str, Any]:
    """The budget of one of BoTorch's optimizers, by the optimizer's name.

    Campaigns (whose optimizer Ax chooses) and `maximize` both take it from here.
    """
    budget: dict[str, Any] = {
        "num_restarts": config.num_restarts,
        "raw_samples": config.raw_samples,
    }
    match optimizer:
        case "optimize_acqf" | "optimize_acqf_mixed":
            # A line search that ends in rounding errors has converged as far as it can; BoTorch
            # would take it for a failure, warn, and begin again.
            return budget | {
                "options": {"maxiter": config.maxiter, **_BATCHES},
                "retry_on_optimization_warning": False,
            }
        case "optimize_acqf_mixed_alternating":
            # Each alternation is one discrete local search and one run of L-BFGS-B. BoTorch allows
            # 64, which take seconds an ask.
            return budget | {"options": {"maxiter_alternating": ALTERNATIONS, **_BATCHES}}
        case "optimize_acqf_discrete_local_search":
            return budget
        case _:
            return {}


ALTERNATIONS = 4
_BATCHES = {"init_batch_limit": 512, "batch_limit": 16}


def maximize(
    acquisition: AcquisitionFunction,
    space: Space,
    q: int,
    config: AcquisitionConfig,
    X_avoid: Tensor,
) -> tuple[Tensor, Tensor]:
    """Find q points one after the other, each given the ones before.

    Args:
        acquisition: Evaluated on `b x q' x d` model coordinates.
        space: Where.
        q: Number of points.
        config: The optimizer's budget.
        X_avoid: `n x d` points in model coordinates that are not proposed again where the space
            is discrete.

    Returns:
        `q x d` points in model coordinates, and their acquisition values.

    Raises:
        RunError: Every point of a finite space has been tried.
    """
    bounds = space.model_bounds.to(X_avoid)
    levels = dict(space.discrete_levels)
    categories = {i: [float(c) for c in range(k)] for i, k in space.categories.items()}
    constraints = _constraints(space, X_avoid)
    if not levels and not categories:
        candidates, value = optimize_acqf(
            acquisition,
            bounds=bounds,
            q=q,
            inequality_constraints=constraints,
            sequential=True,
            **optimizer_options("optimize_acqf", config),
        )
        return _valued(candidates, value)
    if space.size is not None:
        grid = {**levels, **categories}
        choices = [torch.tensor(grid[i]).to(X_avoid) for i in range(space.dim)]
        if space.size <= ENUMERATE_UP_TO:
            points = torch.tensor(list(itertools.product(*(c.tolist() for c in choices))))
            points = points.to(X_avoid)
            left = (points.unsqueeze(1) != X_avoid).any(dim=-1).all(dim=1)
            if constraints:
                for index, weights, lower in constraints:
                    left &= points[:, index] @ weights >= lower - 1e-8
            if left.sum() < q:
                raise RunError(
                    f"only {int(left.sum())} untried points are left of {space.size}, {q} asked for"
                )
            return optimize_acqf_discrete(acquisition, q=q, choices=points[left])
        return optimize_acqf_discrete_local_search(
            acquisition,
            discrete_choices=choices,
            q=q,
            X_avoid=X_avoid,
            inequality_constraints=constraints,
            **optimizer_options("optimize_acqf_discrete_local_search", config),
        )
    candidates, value = optimize_acqf_mixed_alternating(
        acquisition,
        bounds=bounds,
        discrete_dims=levels,
        cat_dims=categories,
        q=q,
        inequality_constraints=constraints,
        **optimizer_options("optimize_acqf_mixed_alternating", config),
    )
    return _valued(candidates, value)


def _valued(candidates: Tensor, value: Tensor | None) -> tuple[Tensor, Tensor]:
    if value is None:
        raise RunError("the optimizer returned no acquisition value")
    return candidates, value


def _constraints(space: Space, like: Tensor) -> list[tuple[Tensor, Tensor, float]] | None:
    """The space's constraints as BoTorch writes them: sum of weights * x[index] >= lower."""
    rows = []
    for constraint in space.constraints:
        index = [space.names.index(name) for name in constraint.coefficients]
        weights = [-c for c in constraint.coefficients.values()]
        rows.append(
            (torch.tensor(index, device=like.device), torch.tensor(weights).to(like),
             -constraint.upper)
        )  # fmt: skip
    return rows or None
