"""Propose and run in tensor space, on BoTorch alone: the loop of comparison studies and of BoTorch
users. Campaigns propose the same way, through Ax (a parity test holds the two together).

    record = run(problem, surrogate="nngp", iterations=20, seed=0)

One iteration: model coordinates -> `Entry.build` per outcome -> acquisition function on
standardized outcomes -> its maximizer -> the problem.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from botorch.models import ModelList, ModelListGP
from botorch.models.gpytorch import GPyTorchModel
from botorch.models.model import Model
from botorch.test_functions.base import BaseTestProblem
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.acquisition.defaults import make_acquisition
from bo_surrogates.acquisition.fidelity import (
    FidelityChoice,
    baseline_points,
    maximize_by_cost,
)
from bo_surrogates.acquisition.goals import standardized_goals
from bo_surrogates.acquisition.integrated_variance import integration_points
from bo_surrogates.acquisition.trust_region import merits, narrowed, replay
from bo_surrogates.analysis.lengthscales import lengthscales
from bo_surrogates.config import Config
from bo_surrogates.design import initial_design, sobol_design
from bo_surrogates.errors import FitError, InputError, SpaceExhausted
from bo_surrogates.fidelity import FidelityConfig, check_fidelity
from bo_surrogates.objective import (
    Direction,
    Objective,
    OutcomeConstraint,
    metric_names,
    resolve,
)
from bo_surrogates.seeding import derive_seed, fixed_seed
from bo_surrogates.space import Float, Int, Parameter, Space
from bo_surrogates.surrogates import SURROGATES

RANDOM = "random"  # in a surrogate's place: quasi-random points, which any surrogate should beat
NUMERICAL_FAILURES = (FitError, NotPSDError, NanError, torch.linalg.LinAlgError)


@dataclass(frozen=True)
class Proposal:
    """What `propose` found.

    Attributes:
        X: `q x d` points in problem coordinates.
        acquisition_value: Of the batch, or of each of its points.
        model: The fitted surrogate on model coordinates, one model an outcome.
        seconds: "fit" and "acquisition".
    """

    X: Tensor
    acquisition_value: Tensor
    model: Model
    seconds: Mapping[str, float]


def fit(
    space: Space,
    train_X: Tensor,
    train_Y: Tensor,
    train_Yvar: Tensor | None = None,
    *,
    surrogate: str = "gp",
    config: Config | Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Model:
    """Fit one surrogate an outcome, on model coordinates.

    Each fit starts anew. A model that goes on from the last one depends on all fits before: neither
    a resumed run or campaign, which has the measurements and not the models, nor one with other
    workers, which fits after other results, would propose the same. Who keeps the models may pass
    them on: `SURROGATES[name].build(..., warm_start=model)`.

    Args:
        space: Says what the coordinates mean.
        train_X: `n x d` problem coordinates, inactive parameters at their imputed values.
        train_Y: `n x m` outcomes in their units.
        train_Yvar: `n x m` variances, if known.
        surrogate: A registered name.
        config: The surrogate's configuration.
        seed: Of the fits.

    Returns:
        The model itself for one outcome, else a list of models whose posterior is over all
        outcomes. Like Ax, and unlike a joint model, so that comparisons and campaigns agree.
    """
    entry = SURROGATES[surrogate]
    models = [
        entry.build(
            space.to_model(train_X),
            train_Y[:, [i]],
            None if train_Yvar is None else train_Yvar[:, [i]],
            bounds=space.model_bounds.to(train_X),
            categorical_features=space.categories,
            config=config,
            seed=seed,
        )
        for i in range(train_Y.shape[-1])
    ]
    if len(models) == 1:
        return models[0]
    # A list of GPs has one Gaussian posterior over all outcomes; others have a list of posteriors.
    gaussian = all(isinstance(m, GPyTorchModel) for m in models)
    return ModelListGP(*models) if gaussian else ModelList(*models)  # type: ignore[arg-type]


def propose(
    space: Space,
    train_X: Tensor,
    train_Y: Tensor,
    train_Yvar: Tensor | None = None,
    *,
    objectives: Sequence[Objective],
    constraints: Sequence[OutcomeConstraint] = (),
    baseline: Mapping[str, float] | None = None,
    surrogate: str = "gp",
    config: Config | Mapping[str, Any] | None = None,
    acquisition: AcquisitionConfig | None = None,
    q: int = 1,
    X_pending: Tensor | None = None,
    fixed: Mapping[str, object] | None = None,
    fidelity: FidelityConfig | None = None,
    design: int | None = None,
    seed: int = 0,
) -> Proposal:
    """Fit a surrogate and propose the next batch.

    Args:
        space: The search space.
        train_X: `n x d` problem coordinates, n >= 1.
        train_Y: `n x m` outcomes in their units, a column for each of
            `metric_names(objectives, constraints)`.
        train_Yvar: `n x m` variances, if known.
        objectives: What is wanted of the outcomes.
        constraints: Bounds on outcomes.
        baseline: What was measured at the baseline of relative constraints, by metric.
        surrogate: A registered name.
        config: The surrogate's configuration.
        acquisition: Which acquisition function, and its optimizer's budget.
        q: Points in the batch, >= 1.
        X_pending: `p x d` points whose outcomes are awaited.
        fixed: Values at which parameters are held for this batch.
        fidelity: What evaluations cost where the space has a fidelity; by default as much as it is.
            The measurements are taken to be in the order of asking, the pending points after them.
        design: Points of a trust region's first design, each time that it starts: so many of the
            measurements are not judged as its successes and failures; 2 (d + 1) if None.
        seed: Decides everything random.

    Returns:
        The batch; fewer than q points where a finite space holds fewer untried ones.

    Raises:
        InputError: Shapes, names or fixed values that do not fit, or a relative constraint whose
            metric the baseline lacks, or has as 0.
        FitError: The surrogate could not be fitted.
        SpaceExhausted: Every point of a finite space has been tried.
    """
    acquisition = acquisition or AcquisitionConfig()
    constraints = resolve(constraints, baseline)
    names = metric_names(objectives, constraints)
    if train_Y.ndim != 2 or train_Y.shape[-1] != len(names):
        raise InputError(
            f"train_Y must have shape n x {len(names)} (columns {', '.join(names)}), "
            f"got {tuple(train_Y.shape)}"
        )
    if q < 1:
        raise InputError(f"q must be at least 1, got {q}")
    held = space.check_fixed(fixed)
    fidelity = check_fidelity(space, fidelity, acquisition)
    # What stood at an inactive parameter makes no difference.
    train_X = space.impute(train_X)
    start = time.perf_counter()
    model = fit(
        space, train_X, train_Y, train_Yvar,
        surrogate=surrogate, config=config, seed=derive_seed(seed, "fit"),
    )  # fmt: skip
    fitted = time.perf_counter()
    X_pending = train_X[:0] if X_pending is None else space.impute(X_pending)
    avoid = torch.cat([train_X, X_pending])
    region, within = None, space
    if fidelity is None and acquisition.uses_trust_region(len(objectives), space.dim):
        design = 2 * (space.dim + 1) if design is None else design
        region = replay(merits(objectives[0], constraints, train_Y), space.dim, q, design)
        if region.restarts and region.count < design:
            anew = sobol_design(space, q, derive_seed(seed, "restart"), avoid, held)
            nothing = torch.full((q,), torch.nan)
            return Proposal(anew.to(train_X), nothing, model, {"fit": fitted - start})
    goals = standardized_goals(objectives, constraints, train_Y)
    with fixed_seed(derive_seed(seed, "optimize")):
        function = make_acquisition(
            _standardized(model),
            config=acquisition,
            weights=goals.weights,
            reference=goals.reference,
            constraints=list(goals.constraints),
            X_baseline=space.to_model(baseline_points(space, train_X)),
            seed=derive_seed(seed, "acquisition"),
            X_pending=space.to_model(space.to_target(X_pending)) if len(X_pending) else None,
            X_integration=integration_points(space, acquisition, seed),
        )
        if region is not None and region.centre is not None:
            scales = lengthscales(next(iter(getattr(model, "models", [model]))))
            within = narrowed(space, train_X[region.centre], region.length, scales, held)
        known = FidelityChoice(fidelity, avoid, X_pending)
        X, value = maximize_by_cost(function, within, q, acquisition, known, held, model)
    seconds = {"fit": fitted - start, "acquisition": time.perf_counter() - fitted}
    return Proposal(X, value, model, seconds)


def _standardized(model: Model) -> Model:
    """The same fitted model, predicting on the scale it was fitted on.

    Acquisition functions want outcomes of about unit scale, which is also how Ax passes them. A
    view: everything but the outcome transform is shared with the model.
    """
    models = getattr(model, "models", None)
    if models is not None:
        return type(model)(*(_standardized(m) for m in models))
    view = copy.copy(model)
    view._modules = {k: v for k, v in model._modules.items() if k != "outcome_transform"}
    return view


@dataclass(frozen=True)
class Iteration:
    """One batch of a run.

    Attributes:
        X: `q x d` problem coordinates.
        Y: `q x m` outcomes.
        seconds: "fit", "acquisition" and "evaluation".
        failure: Why the surrogate proposed nothing and a random batch was taken; None if it did.
    """

    X: Tensor
    Y: Tensor
    seconds: Mapping[str, float]
    failure: str | None = None


@dataclass(frozen=True)
class Run:
    """The course of a run; the first iteration is the initial design.

    Attributes:
        objectives: What was wanted.
        iterations: In order.
        space: Where; needed to tell what was at the target fidelity.
        fidelity: What evaluations cost, in a space with a fidelity.
    """

    objectives: tuple[Objective, ...]
    iterations: tuple[Iteration, ...]
    space: Space | None = None
    fidelity: FidelityConfig | None = None

    @property
    def X(self) -> Tensor:
        """`n x d` all points in problem coordinates."""
        return torch.cat([i.X for i in self.iterations])

    @property
    def Y(self) -> Tensor:
        """`n x m` all outcomes."""
        return torch.cat([i.Y for i in self.iterations])

    @property
    def best(self) -> Tensor:
        """`n` best value so far of the one objective; NaN until one is at the target fidelity."""
        if len(self.objectives) != 1:
            raise InputError("a run with several objectives has no single best value")
        (objective,) = self.objectives
        terms = self.Y.new_tensor(list(objective.terms.values()))
        values = self.Y[:, : len(terms)] @ terms  # the objective's metrics are the first columns
        signed = (objective.sign * values).masked_fill(~self.at_target, -torch.inf)
        best = signed.cummax(dim=0).values
        return objective.sign * best.masked_fill(best.isinf(), torch.nan)

    @property
    def at_target(self) -> Tensor:
        """`n` whether each evaluation was at the target fidelity: all, where there is none."""
        if self.space is None:
            return torch.ones(len(self.X), dtype=torch.bool)
        return self.space.at_target(self.X)

    @property
    def cost(self) -> Tensor:
        """`n` cost of all evaluations so far; their number, where there is no fidelity."""
        X = self.X
        if self.space is None or self.space.fidelity is None or self.fidelity is None:
            return torch.arange(1.0, len(X) + 1, dtype=torch.float64)
        f, column = self.space.fidelity, self.space.varied.index(self.space.fidelity)
        costs = [self.fidelity.cost(f, f.decode(s)) for s in X[:, column].tolist()]
        return torch.tensor(costs, dtype=torch.float64).cumsum(dim=0)


@dataclass(frozen=True)
class Described:
    """A problem as the loop sees it.

    Attributes:
        space: The search space.
        objectives: What is wanted, in the signs of `observe`.
        constraints: Bounds on outcomes.
        observe: `n x d` problem coordinates and a seed to `n x m` outcomes, a column for each of
            `metric_names(objectives, constraints)`.
        fidelity: What evaluations cost, in a space with a fidelity.
    """

    space: Space
    objectives: tuple[Objective, ...]
    constraints: tuple[OutcomeConstraint, ...]
    observe: Callable[[Tensor, int], Tensor]
    fidelity: FidelityConfig | None = None


def describe(problem: BaseTestProblem) -> Described:
    """A problem of the registry by its own names; one of BoTorch's by x0.., y0.. and c0...

    Raises:
        InputError: A BoTorch problem with categorical inputs, whose categories have no names.
    """
    # A torch Module: to a type checker, every attribute of a problem is a Tensor or a Module.
    p: Any = problem
    if isinstance(getattr(p, "space", None), Space):
        return Described(
            p.space, p.objectives, p.constraints, p.observe, getattr(p, "fidelity", None)
        )
    parameters: list[Parameter] = []
    for i, (low, high) in enumerate(p.bounds.T.tolist()):
        if i in p.categorical_inds:
            raise InputError("a BoTorch problem with categorical inputs needs a `space` with names")
        whole = i in p.discrete_inds
        parameters.append(Int(f"x{i}", int(low), int(high)) if whole else Float(f"x{i}", low, high))
    # BoTorch refuses to tell the direction of a problem with several objectives by its property.
    minimize = p._is_minimization_by_default != p.negate
    direction: Direction = "minimize" if minimize else "maximize"
    count = getattr(p, "num_objectives", 1)
    reference = p.ref_point.tolist() if count > 1 else [None]
    slacks = getattr(p, "num_constraints", 0)

    def observe(X: Tensor, seed: int) -> Tensor:
        with fixed_seed(seed):
            columns = [p(X).reshape(X.shape[0], -1)]
            if slacks:
                columns.append(p.evaluate_slack(X))
        return torch.cat(columns, dim=-1)

    return Described(
        Space(parameters),
        tuple(Objective(f"y{i}", direction, reference=reference[i]) for i in range(count)),
        tuple(OutcomeConstraint(f"c{i}", ">=", 0.0) for i in range(slacks)),
        observe,
    )


def run(
    problem: BaseTestProblem,
    *,
    surrogate: str = "gp",
    config: Config | Mapping[str, Any] | None = None,
    acquisition: AcquisitionConfig | None = None,
    iterations: int = 20,
    initial: int | None = None,
    q: int = 1,
    seed: int = 0,
    fidelity: FidelityConfig | None = None,
    baseline: Mapping[str, float] | None = None,
    start: Run | None = None,
    random_where_failed: bool = False,
    on_iteration: Callable[[Iteration, Proposal | None], None] | None = None,
) -> Run:
    """Optimize a problem, until the iterations are done or a finite space is exhausted.

    Args:
        problem: BoTorch's, or one of the registry's.
        surrogate: A registered name, or "random" for none: the quasi-random sequence of the
            initial design goes on.
        config: The surrogate's configuration.
        acquisition: Which acquisition function, and its optimizer's budget.
        iterations: Batches after the initial design, >= 0.
        initial: Points of the initial design; 2 (d + 1) if None. It depends on the seed only, so
            that all surrogates of a seed share it.
        q: Points a batch.
        seed: Decides everything random.
        fidelity: What evaluations cost where the space has a fidelity; None: as the problem says.
        baseline: What was measured at the baseline of relative constraints, by metric.
        start: A shorter run of the same settings to continue; the result equals that of an
            uninterrupted run.
        random_where_failed: Whether a surrogate that cannot be fitted, or whose predictions fail
            numerically, is replaced by a quasi-random batch for that iteration.
        on_iteration: Told of each finished iteration and, where a surrogate proposed it, the
            proposal with the model that has not seen its outcomes.

    Raises:
        InputError: A relative constraint whose metric the baseline lacks, or has as 0.
        FitError: The surrogate could not be fitted, unless `random_where_failed`.
    """
    described = describe(problem)
    space, objectives = described.space, described.objectives
    constraints = resolve(described.constraints, baseline)
    acquisition = acquisition or AcquisitionConfig()
    fidelity = check_fidelity(space, fidelity or described.fidelity, acquisition)
    done = list(start.iterations) if start else []
    tell = on_iteration or (lambda iteration, proposal: None)
    while len(done) <= iterations:
        number = len(done)
        proposal, failure = None, None
        begin = time.perf_counter()
        try:
            if number == 0 or surrogate == RANDOM:
                first = initial if initial is not None else 2 * (space.dim + 1)
                nothing = torch.empty(0, space.dim, dtype=torch.float64)
                tried = torch.cat([nothing, *(i.X for i in done)])
                n = q if done else first
                X = initial_design(space, n, derive_seed(seed, "sobol"), tried, fidelity)
                seconds = {"acquisition": time.perf_counter() - begin} if done else {}
            else:
                so_far = Run(objectives, tuple(done))
                try:
                    proposal = propose(
                        space, so_far.X, so_far.Y, objectives=objectives,
                        constraints=constraints, surrogate=surrogate, config=config,
                        acquisition=acquisition, q=q, fidelity=fidelity,
                        design=len(done[0].X), seed=derive_seed(seed, number),
                    )  # fmt: skip
                    X, seconds = proposal.X, dict(proposal.seconds)
                except NUMERICAL_FAILURES as error:
                    if not random_where_failed:
                        raise
                    failure = f"{type(error).__name__}: {error}"
                    anew = derive_seed(seed, "random", number)
                    X = initial_design(space, q, anew, so_far.X, fidelity)
                    seconds = {"fit": time.perf_counter() - begin}
        except SpaceExhausted:
            break  # every point has been measured: there is nothing left to do
        begin = time.perf_counter()
        Y = described.observe(X, derive_seed(seed, "noise", number)).to(X)
        seconds["evaluation"] = time.perf_counter() - begin
        iteration = Iteration(X, Y, seconds, failure)
        done.append(iteration)
        tell(iteration, proposal)
    return Run(objectives, tuple(done), space, fidelity)
