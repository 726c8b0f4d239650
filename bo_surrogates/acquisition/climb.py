"""Climbing an acquisition function within one branch of a space, in model coordinates.

BoTorch's optimizers, chosen by the kinds of parameter: gradients for continuous coordinates, local
search on a lattice for discrete ones, both in turn for mixed ones. Held coordinates (fixed for an
ask, inactive) are taken out first.
"""

from __future__ import annotations

from typing import Any

import torch
from botorch.acquisition import AcquisitionFunction
from botorch.acquisition.fixed_feature import FixedFeatureAcquisitionFunction
from botorch.generation.gen import gen_candidates_scipy
from botorch.optim import (
    optimize_acqf,
    optimize_acqf_discrete_local_search,
    optimize_acqf_mixed_alternating,
)
from botorch.optim.optimize import OptimizeAcqfInputs
from botorch.optim.optimize_mixed import MAX_DISCRETE_VALUES, continuous_step, discrete_step
from torch import Tensor

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.space import Branch, Choice, Space

LEVELS = 1000  # of a discrete parameter; one with more is relaxed, and rounded afterwards

Constraint = tuple[
    Tensor, Tensor, float
]  # sum of weights * x[index] >= (or ==) a number, BoTorch's


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
                "options": {"maxiter": config.maxiter, "factr": CHANGE / EPSILON, **_BATCHES},
                "retry_on_optimization_warning": False,
            }
        case "optimize_acqf_mixed_alternating":
            # Each alternation is one discrete local search and one run of L-BFGS-B. BoTorch allows
            # 64, which take seconds an ask, and begins with 100 steps in the continuous relaxation,
            # of whose end only the neighbourhood matters.
            limits = {"maxiter_alternating": ALTERNATIONS, "maxiter_init": RELAXED_STEPS}
            return budget | {"options": {**limits, "tol": TOLERANCE, **_BATCHES}}
        case "optimize_acqf_discrete_local_search":
            return budget
        case _:
            return {}


# Relative change of an acquisition value (absolute below 1) at which L-BFGS-B ends. SciPy's, 2e-9,
# polishes far below what base samples resolve, in many dimensions for most of its evaluations.
CHANGE = 1e-5
EPSILON = float(torch.finfo(torch.float64).eps)
ALTERNATIONS = 4
RELAXED_STEPS = 20
TOLERANCE = 1e-3  # of a (logarithmic) acquisition value, below which alternation ends
_BATCHES = {"init_batch_limit": 512, "batch_limit": 16}


def climb(
    acquisition: AcquisitionFunction,
    space: Space,
    branch: Branch,
    config: AcquisitionConfig,
    starts: Tensor | None,
    avoid: Tensor,
) -> Tensor:
    """Local maxima of an acquisition function in a branch, the best among them.

    Args:
        acquisition: Evaluated on `b x 1 x d` model coordinates.
        space: Whose branch it is.
        branch: Where.
        config: The optimizer's budget.
        starts: `k x d` model coordinates in the branch to start from, where it has constraints or
            is one of several; None: the optimizer finds its own.
        avoid: `n x d` model coordinates that a local search passes by. Gradients do not: the
            maxima may be among them.

    Returns:
        `m x d` model coordinates, m >= 1. Rounded coordinates may violate constraints a little.
    """
    held = torch.tensor([low for low, _ in branch.bounds], dtype=torch.float64)
    held = space.to_model(held).to(avoid)
    free = list(branch.free)
    if not free:
        return held.unsqueeze(0)
    if branch.held:
        columns = sorted(branch.held)
        acquisition = FixedFeatureAcquisitionFunction(
            acquisition, space.dim, columns, held[columns]
        )
    bounds = space.to_model(torch.tensor(branch.bounds, dtype=torch.float64).T).to(avoid)[:, free]
    levels, categories = _levels(space, branch)
    constraints = _constraints(branch, avoid)
    if starts is not None:
        starts = starts[:, free]
    if not levels and not categories:
        Z = _by_gradients(acquisition, bounds, constraints, config, starts)
    elif len(levels) + len(categories) == len(free):
        choices = {**levels, **categories}
        Z, _ = optimize_acqf_discrete_local_search(
            acquisition,
            discrete_choices=[torch.tensor(choices[i]).to(avoid) for i in range(len(free))],
            q=1,
            X_avoid=avoid[(avoid == held)[:, sorted(branch.held)].all(dim=1)][:, free],
            inequality_constraints=_inequalities(constraints),
            **optimizer_options("optimize_acqf_discrete_local_search", config),
        )
    else:
        Z = _alternating(acquisition, bounds, levels, categories, constraints, config, starts)
    full = held.repeat(len(Z), 1)
    full[:, free] = Z.detach()
    return full


def _by_gradients(
    acquisition: AcquisitionFunction,
    bounds: Tensor,
    constraints: tuple[list[Constraint], list[Constraint]],
    config: AcquisitionConfig,
    starts: Tensor | None,
) -> Tensor:
    Z, _ = optimize_acqf(
        acquisition,
        bounds=bounds,
        q=1,
        inequality_constraints=constraints[0] or None,
        equality_constraints=constraints[1] or None,
        batch_initial_conditions=None if starts is None else starts.unsqueeze(1),
        return_best_only=False,
        **optimizer_options("optimize_acqf", config),
    )
    return Z.squeeze(1)


def _alternating(
    acquisition: AcquisitionFunction,
    bounds: Tensor,
    levels: dict[int, list[float]],
    categories: dict[int, list[float]],
    constraints: tuple[list[Constraint], list[Constraint]],
    config: AcquisitionConfig,
    starts: Tensor | None,
) -> Tensor:
    """Local search over levels and gradients over floats, in turn."""
    options = optimizer_options("optimize_acqf_mixed_alternating", config)
    if starts is None:
        Z, _ = optimize_acqf_mixed_alternating(
            acquisition,
            bounds=bounds,
            discrete_dims=levels,
            cat_dims=categories,
            q=1,
            **options,
        )
        return Z
    # The same steps from points that satisfy the constraints, which chance might not find.
    inequalities, equations = constraints
    constrained = {int(i) for index, _, _ in (*inequalities, *equations) for i in index}
    levels = {i: v for i, v in levels.items() if i in constrained or len(v) <= MAX_DISCRETE_VALUES}
    if not levels and not categories:
        return _by_gradients(acquisition, bounds, constraints, config, starts)
    of_floats = [e for e in equations if not {*levels, *categories}.intersection(e[0].tolist())]
    others = [e for e in equations if {*levels, *categories}.intersection(e[0].tolist())]
    inputs = OptimizeAcqfInputs(
        acq_function=acquisition,
        bounds=bounds,
        q=1,
        num_restarts=len(starts),
        raw_samples=config.raw_samples,
        options=options["options"],
        inequality_constraints=[*inequalities, *_both_ways(others)] or None,
        equality_constraints=of_floats or None,
        nonlinear_inequality_constraints=None,
        fixed_features={},
        post_processing_func=None,
        batch_initial_conditions=None,
        return_best_only=False,
        gen_candidates=gen_candidates_scipy,
        sequential=False,
    )
    index = [torch.tensor([*dims], dtype=torch.long, device=bounds.device)
             for dims in (levels, categories)]  # fmt: skip
    Z = starts.clone()
    for _ in range(ALTERNATIONS):
        Z, before = discrete_step(inputs, levels, categories, Z)
        Z, after = continuous_step(inputs, index[0], index[1], Z)
        if (after - before).max() < TOLERANCE:
            break
    return Z


def _levels(space: Space, branch: Branch) -> tuple[dict[int, list[float]], dict[int, list[float]]]:
    """Model coordinates of the discrete and of the choice parameters, by free coordinate."""
    levels: dict[int, list[float]] = {}
    categories: dict[int, list[float]] = {}
    for k, i in enumerate(branch.free):
        its = branch.levels[i]
        if its is None or len(its) > LEVELS:
            continue
        X = torch.tensor([low for low, _ in branch.bounds], dtype=torch.float64)
        X = X.repeat(len(its), 1)
        X[:, i] = torch.tensor([float(v) for v in its], dtype=torch.float64)
        into = categories if isinstance(space.varied[i], Choice) else levels
        into[k] = space.to_model(X)[:, i].tolist()
    return levels, categories


def _constraints(branch: Branch, like: Tensor) -> tuple[list[Constraint], list[Constraint]]:
    """A branch's inequalities and equations on its free coordinates, as BoTorch writes them."""
    place = {i: k for k, i in enumerate(branch.free)}
    inequalities, equations = branch.inequalities_and_equations

    def written(row: Any) -> Constraint:
        index = torch.tensor([place[i] for i in row.coefficients], device=like.device)
        weights = torch.tensor([-c for c in row.coefficients.values()]).to(like)
        return index, weights, -row.upper

    return [written(r) for r in inequalities], [written(r) for r in equations]


def _both_ways(equations: list[Constraint]) -> list[Constraint]:
    return [c for i, w, b in equations for c in ((i, w, b), (i, -w, -b))]


def _inequalities(
    constraints: tuple[list[Constraint], list[Constraint]],
) -> list[Constraint] | None:
    return [*constraints[0], *_both_ways(constraints[1])] or None
