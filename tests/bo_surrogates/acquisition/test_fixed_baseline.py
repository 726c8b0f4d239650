"""Noisy expected improvement, of a value or a hypervolume, beside fixed points: BoTorch's values,
from less work."""

from __future__ import annotations

import pytest
import torch
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.acquisition.multi_objective.objective import GenericMCMultiOutputObjective
from botorch.acquisition.objective import LinearMCObjective
from botorch.acquisition.utils import prune_inferior_points
from botorch.exceptions.errors import UnsupportedError
from botorch.models import ModelList, ModelListGP
from botorch.sampling.normal import SobolQMCNormalSampler

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.acquisition.defaults import make_acquisition, make_sampler
from bo_surrogates.acquisition.fixed_baseline import (
    FixedBaselineLogNoisyExpectedHypervolumeImprovement,
    FixedBaselineLogNoisyExpectedImprovement,
    possibly_best,
)
from bo_surrogates.surrogates import SURROGATES

BOUNDS = torch.tensor([[0.0, -1.0], [2.0, 3.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([-0.7], dtype=torch.float64)
CASES = {
    "gp": ("gp", {}),
    "gp, mixed noise": ("gp", {"noise": "input-dependent"}),
    "nngp": ("nngp", {}),
    "ntk": ("ntk", {}),
    "rff": ("rff", {"features": 256}),
    "rff in weight space": ("rff", {"features": 6}),
}


def inputs(n: int, seed: int, *batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(*batch, n, 2, generator=generator, dtype=torch.float64)
    return BOUNDS[0] + unit * (BOUNDS[1] - BOUNDS[0])


TRAIN = inputs(12, 0)
BASELINE = torch.cat([TRAIN[:5], inputs(2, 1)])  # observed points, and others


def outcomes(X: torch.Tensor) -> torch.Tensor:
    return 40.0 + 3.0 * torch.sin(2.0 * X[:, :1]) * torch.cos(X[:, 1:])


@pytest.fixture(scope="module", params=CASES, ids=str)
def model(request: pytest.FixtureRequest):
    name, config = CASES[request.param]
    return SURROGATES[name].build(TRAIN, outcomes(TRAIN), bounds=BOUNDS, config=config, seed=0)


def functions(model, **options):
    for kind in (FixedBaselineLogNoisyExpectedImprovement, qLogNoisyExpectedImprovement):
        yield kind(
            model, BASELINE, SobolQMCNormalSampler(torch.Size([32]), seed=1),
            LinearMCObjective(WEIGHTS), prune_baseline=False, **options,
        )  # fmt: skip


@pytest.mark.parametrize("q", [1, 3])
def test_the_joint_law_is_that_of_the_posterior(model, q: int) -> None:
    fixed, X = model.fix_points(BASELINE), inputs(q, 2, 4)
    mean, coordinates, covariance = fixed.others(X)
    cross = coordinates @ fixed.root.mT
    corner = (fixed.root @ fixed.root.mT).expand(4, 7, 7)
    rest = covariance + coordinates @ coordinates.mT
    joint = torch.cat(
        [torch.cat([corner, cross.mT], dim=-1), torch.cat([cross, rest], dim=-1)], dim=-2
    )
    expected = model.posterior(torch.cat([BASELINE.expand(4, 7, 2), X], dim=-2))
    torch.testing.assert_close(
        fixed.offset + fixed.scale * torch.cat([fixed.mean.expand(4, 7), mean], dim=-1),
        expected.mean.squeeze(-1),
    )
    torch.testing.assert_close(
        fixed.scale.square() * joint, expected.distribution.covariance_matrix, rtol=1e-6, atol=1e-7
    )


def test_marginals_are_those_of_the_posterior(model) -> None:
    X = inputs(9, 3)
    expected, (mean, variance) = model.posterior(X), model.marginals(X)
    torch.testing.assert_close(mean, expected.mean)
    torch.testing.assert_close(variance, expected.variance, rtol=1e-6, atol=1e-8)


def test_marginals_at_the_training_points_are_those_of_the_posterior(model) -> None:
    more = model.condition_on_observations(inputs(2, 8), torch.tensor([[41.0], [38.5]]).double())
    some = TRAIN[[7, 2, 2, 11]]
    for one in (model, more):
        expected, (mean, variance) = one.posterior(some), one.marginals(some)
        torch.testing.assert_close(mean, expected.mean)
        torch.testing.assert_close(variance, expected.variance, rtol=1e-6, atol=1e-8)


def test_values_and_gradients_are_those_of_botorch(model) -> None:
    ours, theirs = functions(model)
    if not theirs._cache_root:
        pytest.skip("BoTorch pairs points and base samples otherwise without a cached root")
    for pending in (None, inputs(2, 4), None):
        for q in (1, 2):
            X = inputs(q, 5, 3).requires_grad_()
            found = []
            for function in (ours, theirs):
                function.set_X_pending(pending)
                value = function(X)
                found.append((value.detach(), torch.autograd.grad(value.sum(), X)[0]))
            torch.testing.assert_close(*found, rtol=1e-7, atol=1e-8)


def test_samples_have_the_moments_of_the_posterior(model) -> None:
    """The linear map from normal numbers to samples is a factor of the joint covariance."""
    X = inputs(2, 6)
    fixed = model.fix_points(BASELINE)
    at_zero = fixed.samples(X, torch.zeros(1, 9, dtype=torch.float64))
    factor = fixed.samples(X, torch.eye(9, dtype=torch.float64)) - at_zero  # 9 x 2
    expected = model.posterior(X)
    torch.testing.assert_close(at_zero[0], expected.mean.squeeze(-1))
    torch.testing.assert_close(
        factor.mT @ factor, expected.distribution.covariance_matrix, rtol=1e-6, atol=1e-7
    )


def test_the_first_sieve_keeps_whatever_sampling_keeps(model) -> None:
    X = inputs(40, 7)
    objective = LinearMCObjective(WEIGHTS)
    kept = possibly_best(model, X, WEIGHTS)
    torch.manual_seed(0)
    best = prune_inferior_points(model, X, objective=objective)
    assert len(kept) < len(X)
    assert (best.unsqueeze(1) == kept).all(dim=-1).any(dim=1).all()


def test_it_is_the_default_for_one_outcome_only() -> None:
    Y = outcomes(TRAIN)
    for columns, kind in ((1, FixedBaselineLogNoisyExpectedImprovement),
                          (2, qLogNoisyExpectedImprovement)):  # fmt: skip
        model = SURROGATES["rff"].build(TRAIN, Y.expand(-1, columns), bounds=BOUNDS, seed=0)
        made = make_acquisition(
            model, config=AcquisitionConfig(), weights=torch.ones(1, columns).double(),
            X_baseline=TRAIN, seed=0,
        )  # fmt: skip
        assert type(made) is kind
    with pytest.raises(UnsupportedError, match="fixed points"):
        model.fix_points(TRAIN)


# ---- several outcomes ----------------------------------------------------------------------------
def listed(name: str, m: int = 2):
    """A model an outcome, as `loop.fit` has them."""
    Y = [outcomes(TRAIN), TRAIN.sum(dim=1, keepdim=True).square(), TRAIN[:, :1].cos()][:m]
    parts = [SURROGATES[name].build(TRAIN, y, bounds=BOUNDS, seed=0) for y in Y]
    return (ModelList if name == "rff" else ModelListGP)(*parts)


def weighted(Y: torch.Tensor, X: torch.Tensor | None = None) -> torch.Tensor:
    return torch.stack([Y[..., 0], -Y[..., 1]], dim=-1)


HYPERVOLUMES = (
    FixedBaselineLogNoisyExpectedHypervolumeImprovement,
    qLogNoisyExpectedHypervolumeImprovement,
)


def hypervolume(kind, model, seed: int = 1, baseline=BASELINE, reference=(36.0, -20.0), **options):
    return kind(
        model, torch.tensor(reference, dtype=torch.float64), baseline,
        sampler=make_sampler(model, baseline, 32, seed),
        objective=GenericMCMultiOutputObjective(weighted),
        **{"prune_baseline": False} | options,
    )  # fmt: skip


def assert_equal_values_and_gradients(ours, theirs) -> None:
    for pending in (None, inputs(1, 4), inputs(3, 4)):  # as when a batch is chosen
        for q in (1, 2):
            X = inputs(q, 5, 3).requires_grad_()
            found = []
            for function in (ours, theirs):
                function.set_X_pending(pending)
                value = function(X)
                found.append((value.detach(), torch.autograd.grad(value.sum(), X)[0]))
            torch.testing.assert_close(*found, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("name", ["gp", "nngp"])
def test_values_and_gradients_of_hypervolumes_are_those_of_botorch(name, constrained) -> None:
    model = listed(name, 3 if constrained else 2)
    constraints = [lambda Y: Y[..., 2] - 0.5] if constrained else None
    ours, theirs = (hypervolume(kind, model, constraints=constraints) for kind in HYPERVOLUMES)
    assert theirs._cache_root
    assert_equal_values_and_gradients(ours, theirs)


@pytest.mark.parametrize("name", ["gp", "nngp"])
def test_a_hypervolume_is_that_of_botorch_where_no_point_is_beyond_the_reference(name) -> None:
    """Pruning leaves no baseline: the improvement is that over the reference point alone."""
    model = listed(name)
    ours, theirs = (
        hypervolume(kind, model, baseline=TRAIN[:3], reference=(41.0, -5.0), prune_baseline=True)
        for kind in HYPERVOLUMES
    )
    assert len(ours.X_baseline) == len(theirs.X_baseline) == 0
    assert ours(inputs(1, 8, 4)).max() > -3.0  # of the order of the outcomes' scale
    assert_equal_values_and_gradients(ours, theirs)


def test_a_hypervolume_is_that_of_botorch_in_the_mean_where_each_outcome_has_base_samples() -> None:
    """Models in weight space are sampled one by one: BoTorch pairs their base samples otherwise."""
    model, X = listed("rff"), inputs(1, 8, 4)
    means = [
        torch.stack([hypervolume(kind, model, seed)(X).detach().exp() for seed in range(24)])
        for kind in HYPERVOLUMES
    ]
    ours, theirs = (m.mean(dim=0) for m in means)
    error = sum(m.var(dim=0) / 24 for m in means).sqrt()
    # Student's t with 23 degrees of freedom exceeds 8 less than once in ten million.
    assert ((ours - theirs).abs() < 8 * error + 1e-9).all()


def test_several_objectives_and_constrained_ones_take_it_by_default() -> None:
    model = listed("gp")
    config = AcquisitionConfig(mc_samples=16)
    two = make_acquisition(
        model, config=config, weights=torch.eye(2).double(), X_baseline=TRAIN, seed=0
    )
    one = make_acquisition(
        model, config=config, weights=torch.tensor([[1.0, 0.0]]).double(), X_baseline=TRAIN, seed=0,
        constraints=[lambda Y: Y[..., 1] - 20.0],
    )  # fmt: skip
    assert type(two) is FixedBaselineLogNoisyExpectedHypervolumeImprovement
    assert type(one) is FixedBaselineLogNoisyExpectedImprovement
