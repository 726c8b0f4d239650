"""Which acquisition function, from which posterior, with which optimizer budget: the choices that
campaigns (through Ax) and `loop.py` share, so that the two propose alike.

Everything is deterministic: base samples are drawn once from a seed (sample average
approximation), so that L-BFGS-B sees one smooth function. Outcomes are expected on a standardized
scale (as Ax passes them, and as `loop.py` arranges through the objective's weights): the
smoothing temperatures of the log acquisition functions (Ament et al. 2023, arXiv 2310.20708) are
absolute numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from botorch.acquisition import AcquisitionFunction
from botorch.acquisition.logei import (
    qLogExpectedImprovement,
    qLogNoisyExpectedImprovement,
    qLogProbabilityOfFeasibility,
)
from botorch.acquisition.monte_carlo import qUpperConfidenceBound
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.acquisition.multi_objective.objective import GenericMCMultiOutputObjective
from botorch.acquisition.objective import LinearMCObjective, MCAcquisitionObjective
from botorch.acquisition.utils import prune_inferior_points
from botorch.models.model import Model
from botorch.posteriors.posterior_list import PosteriorList
from botorch.sampling.base import MCSampler
from botorch.sampling.get_sampler import get_sampler
from botorch.sampling.list_sampler import ListSampler
from botorch.sampling.normal import IIDNormalSampler, SobolQMCNormalSampler
from botorch.utils.multi_objective.hypervolume import infer_reference_point
from botorch.utils.multi_objective.pareto import is_non_dominated
from torch import Tensor

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.acquisition.ensemble import (
    FunctionwiseLogNoisyExpectedImprovement,
    sampled_functions,
    samples_functions,
)
from bo_surrogates.acquisition.fixed_baseline import (
    FixedBaselineLogNoisyExpectedHypervolumeImprovement,
    FixedBaselineLogNoisyExpectedImprovement,
    marginals,
    parts_beside_fixed_points,
    possibly_best,
)
from bo_surrogates.acquisition.goals import Constraint
from bo_surrogates.acquisition.integrated_variance import IntegratedVarianceReduction
from bo_surrogates.acquisition.scalarization import ParEGO
from bo_surrogates.acquisition.thompson import ThompsonSampling
from bo_surrogates.errors import InputError
from bo_surrogates.seeding import derive_seed, fixed_seed


def make_sampler(model: Model, X: Tensor, mc_samples: int, seed: int) -> MCSampler:
    """Fixed base samples for the model's kind of posterior.

    Independent models get independent base samples: BoTorch's own dispatch would seed all alike,
    which pairs member i of one ensemble with member i of the next.

    Args:
        model: A fitted model.
        X: `... x d` any inputs, to see the kind of posterior.
        mc_samples: Number of samples.
        seed: Seed.
    """
    shape = torch.Size([mc_samples])
    with torch.no_grad():
        posterior: Any = model.posterior(X[:1])
    if not isinstance(posterior, PosteriorList):
        return get_sampler(posterior, sample_shape=shape, seed=seed)
    samplers = []
    parts: list[Any] = posterior.posteriors
    for i, part in enumerate(parts):
        part_seed = derive_seed(seed, "output", i)
        sampler = get_sampler(part, sample_shape=shape, seed=part_seed)
        if isinstance(sampler, SobolQMCNormalSampler):
            # Two scrambled Sobol sequences of the same dimensions are correlated (botorch #2658).
            sampler = IIDNormalSampler(sample_shape=shape, seed=part_seed)
        samplers.append(sampler)
    return ListSampler(*samplers)


def _observed(
    model: Model, X: Tensor, constraints: list[Constraint] | None
) -> tuple[Tensor, Tensor]:
    """The model's mean at observed inputs, `n x m`, and which of them satisfy the constraints."""
    with torch.no_grad():
        parts = parts_beside_fixed_points(model)
        if parts:
            mean, _ = marginals(parts, X)
        else:
            posterior: Any = model.posterior(X)  # BoTorch declares no `mean` on its base class
            mean = posterior.mean
    satisfied = [c(mean) <= 0 for c in constraints or []]
    everywhere = torch.ones(mean.shape[:-1], dtype=torch.bool, device=mean.device)
    return mean, torch.stack([everywhere, *satisfied]).all(dim=0)


def infer_reference(
    model: Model,
    weights: Tensor,
    X_baseline: Tensor,
    constraints: list[Constraint] | None = None,
    reference: Tensor | None = None,
) -> Tensor:
    """The hypervolume's reference point: what is given, the rest from the Pareto front so far.

    BoTorch's rule (a tenth of the front's range below its nadir), on the model's mean at the
    observed inputs that satisfy the constraints (at all of them, if none does).

    Args:
        model: m outcomes.
        weights: `k x m`, as for `make_acquisition`.
        X_baseline: `n x d` observed inputs.
        constraints: As for `make_acquisition`.
        reference: `k` values, NaN where not given.

    Returns:
        `k` values on the weighted scale.
    """
    if reference is not None and not reference.isnan().any():
        return reference
    mean, feasible = _observed(model, X_baseline, constraints)
    observed = mean @ weights.T
    if feasible.any():
        observed = observed[feasible]
    inferred = infer_reference_point(observed[is_non_dominated(observed)])
    return inferred if reference is None else reference.where(~reference.isnan(), inferred)


def make_acquisition(
    model: Model,
    *,
    config: AcquisitionConfig,
    weights: Tensor,
    X_baseline: Tensor,
    seed: int,
    constraints: list[Constraint] | None = None,
    reference: Tensor | None = None,
    X_pending: Tensor | None = None,
    X_integration: Tensor | None = None,
) -> AcquisitionFunction:
    """The acquisition function for a fitted model.

    Args:
        model: m outcomes.
        config: Which one, and how many samples.
        weights: `k x m` weights: objective i, to be maximized, is `outcomes @ weights[i]`.
        X_baseline: `n x d` observed inputs.
        seed: Of the base samples.
        constraints: Callables of outcome samples `... x m`, satisfied where <= 0.
        reference: `k` reference point of the weighted objectives; inferred (and so are its NaN
            entries) from the model's mean at the observed inputs.
        X_pending: `p x d` inputs whose outcomes are awaited.
        X_integration: `z x d` points that fill the space, which "integrated_variance" needs.

    Raises:
        InputError: The acquisition function does not fit the objectives or the model.
    """
    # BoTorch prunes the baseline by samples from the global generator.
    with fixed_seed(derive_seed(seed, "construct")):
        return _construct(
            model, config, weights, X_baseline, seed, constraints or None, reference, X_pending,
            X_integration,
        )  # fmt: skip


def _construct(
    model: Model,
    config: AcquisitionConfig,
    weights: Tensor,
    X_baseline: Tensor,
    seed: int,
    constraints: list[Constraint] | None,
    reference: Tensor | None,
    X_pending: Tensor | None,
    X_integration: Tensor | None,
) -> AcquisitionFunction:
    name = config.resolve(weights.shape[0], len(constraints or []))
    # In one order, so that base samples meet the same points however the data were collected.
    X_baseline = X_baseline.unique(dim=0)
    if name == "qlognei" and not constraints:  # needs no predictions of what has been observed
        return _noisy_improvement(
            model, config, LinearMCObjective(weights=weights[0]), X_baseline, seed, None, X_pending
        )
    mean, feasible = _observed(model, X_baseline, constraints)
    if name == "thompson":
        return ThompsonSampling(model, weights, mean, seed, constraints, X_pending)
    if name == "integrated_variance":
        if X_integration is None:
            raise InputError("acquisition 'integrated_variance' needs points to integrate over")
        X_integration = X_integration.to(X_baseline)
        w = _feasibility(model, X_integration, config, seed, constraints)
        return IntegratedVarianceReduction(model, X_integration, X_baseline, w, X_pending)
    sampler = make_sampler(model, X_baseline, config.mc_samples, seed)
    if constraints and not feasible.any():
        return qLogProbabilityOfFeasibility(
            model, constraints=constraints, sampler=sampler, X_pending=X_pending
        )
    if name == "qlognehvi":

        def weighted(Y: Tensor, X: Tensor | None = None) -> Tensor:
            return Y @ weights.T.to(Y)

        hypervolume = qLogNoisyExpectedHypervolumeImprovement
        if parts_beside_fixed_points(model):
            hypervolume = FixedBaselineLogNoisyExpectedHypervolumeImprovement
        return hypervolume(
            model,
            ref_point=infer_reference(model, weights, X_baseline, constraints, reference),
            X_baseline=X_baseline,
            sampler=sampler,
            objective=GenericMCMultiOutputObjective(weighted),
            constraints=constraints,
            X_pending=X_pending,
            prune_baseline=True,
        )
    if name == "qlognparego":

        def improvement(
            objective: MCAcquisitionObjective, X_pending: Tensor | None
        ) -> AcquisitionFunction:
            with fixed_seed(derive_seed(seed, "construct")):
                return _noisy_improvement(
                    model, config, objective, X_baseline, seed, constraints, X_pending
                )

        return ParEGO(model, weights, mean @ weights.T, improvement, seed, X_pending)
    objective = LinearMCObjective(weights=weights[0])
    if name == "qlognei":
        return _noisy_improvement(
            model, config, objective, X_baseline, seed, constraints, X_pending
        )
    model, sampler = sampled_functions(model, sampler, X_baseline)
    if name == "qucb":
        return qUpperConfidenceBound(
            model, beta=config.beta, sampler=sampler, objective=objective, X_pending=X_pending
        )
    return qLogExpectedImprovement(
        model,
        best_f=objective(mean)[feasible].max(),
        sampler=sampler,
        objective=objective,
        constraints=constraints,
        X_pending=X_pending,
    )


def _noisy_improvement(
    model: Model,
    config: AcquisitionConfig,
    objective: MCAcquisitionObjective,
    X_baseline: Tensor,
    seed: int,
    constraints: list[Constraint] | None,
    X_pending: Tensor | None,
) -> AcquisitionFunction:
    """Noisy expected improvement of one objective."""
    sampler = make_sampler(model, X_baseline, config.mc_samples, seed)
    if isinstance(objective, LinearMCObjective) and not constraints:
        X_baseline = possibly_best(model, X_baseline, torch.as_tensor(objective.weights))
    # Which points may be the best is seen from all functions, not only from those sampled.
    X_baseline = prune_inferior_points(
        model, X_baseline, objective=objective, constraints=constraints
    )
    model, sampler = sampled_functions(model, sampler, X_baseline)
    kind = qLogNoisyExpectedImprovement
    if samples_functions(sampler):
        kind = FunctionwiseLogNoisyExpectedImprovement
    elif parts_beside_fixed_points(model):
        kind = FixedBaselineLogNoisyExpectedImprovement
    return kind(
        model,
        X_baseline=X_baseline,
        sampler=sampler,
        objective=objective,
        constraints=constraints,
        X_pending=X_pending,
        prune_baseline=False,
    )


def _feasibility(
    model: Model,
    X: Tensor,
    config: AcquisitionConfig,
    seed: int,
    constraints: list[Constraint] | None,
) -> Tensor | None:
    """Probability that each of `n` points satisfies the constraints; None where it is 0 for all."""
    if not constraints:
        return None
    sampler = make_sampler(model, X, config.mc_samples, seed)
    with torch.no_grad():
        # Point by point: the probabilities are marginal, and a joint sample would cost n^3.
        outcomes = sampler(model.posterior(X.unsqueeze(-2))).squeeze(-2)
    satisfied = torch.stack([c(outcomes) <= 0 for c in constraints]).all(dim=0)
    probability = satisfied.double().mean(dim=0)
    return probability if probability.sum() > 0 else None
