"""Thompson sampling: points are optima of posterior functions, as often as they are optimal."""

import pytest
import torch
from botorch.acquisition.analytic import UpperConfidenceBound
from botorch.models import ModelListGP, SingleTaskGP
from scipy.stats import binom

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.acquisition.defaults import make_acquisition
from bo_surrogates.acquisition.thompson import BLOCK
from bo_surrogates.errors import InputError
from bo_surrogates.loop import propose
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.seeding import fixed_seed
from bo_surrogates.space import Float, Space
from bo_surrogates.surrogates import SURROGATES

X = torch.rand(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.sin(5 * X[:, :1]) + X[:, 1:]
ONE = torch.ones(1, 1, dtype=torch.float64)
THOMPSON = AcquisitionConfig(name="thompson", num_restarts=2, raw_samples=32, maxiter=30)
SQUARE = Space([Float("a", 0.0, 1.0), Float("b", 0.0, 1.0)])


@pytest.fixture(scope="module")
def gp():
    return SURROGATES["gp"].build(X, Y, seed=0)


def thompson(model, weights=ONE, pending=None, **options):
    return make_acquisition(
        model, config=THOMPSON, weights=weights, X_baseline=X, seed=0, X_pending=pending, **options
    )


def test_a_point_is_chosen_as_often_as_it_is_optimal(gp):
    points = torch.tensor([[0.3, 0.9], [0.2, 0.95], [0.9, 0.1], [0.5, 0.99]], dtype=torch.float64)
    function, n = thompson(gp), 640
    chosen = torch.zeros(len(points))
    for i in range(n):
        function.set_X_pending(points[:1].expand(i, -1))
        with torch.no_grad():
            chosen[function(points.unsqueeze(1)).argmax()] += 1
    with fixed_seed(0):
        draws = gp.posterior(points).rsample(torch.Size([200_000])).squeeze(-1)
    optimal = torch.nn.functional.one_hot(draws.argmax(dim=-1), len(points)).double().mean(dim=0)
    assert (optimal > 0.02).sum() >= 3  # there is something to choose
    for count, p in zip(chosen.tolist(), optimal.tolist(), strict=True):
        # Fails for one of four points with probability below 1e-6; the slack is for the finitely
        # many features of a drawn function and the estimate of p.
        low, high = max(p - 0.03, 0.0), min(p + 0.03, 1.0)
        assert binom.ppf(1e-7, n, low) <= count <= binom.isf(1e-7, n, high)


def test_each_pending_point_calls_for_another_function(gp):
    points = X.unsqueeze(1) + 0.1
    values = torch.stack([thompson(gp, pending=X[:k])(points) for k in range(1, 5)])
    values = torch.cat([thompson(gp)(points).unsqueeze(0), values]).detach()
    assert (torch.cdist(values, values) + torch.eye(5) > 1e-3).all()
    many = thompson(gp, pending=points[:1, 0].expand(BLOCK + 1, -1))
    assert torch.equal(many(points), many(points))


def test_a_batch_has_different_points_and_good_ones(gp):
    proposal = propose(
        SQUARE, X, Y, objectives=[Objective("y", "maximize")], acquisition=THOMPSON, q=3, seed=0
    )
    assert torch.pdist(proposal.X).min() > 1e-6
    assert (torch.sin(5 * proposal.X[:, 0]) + proposal.X[:, 1]).max() > Y.max()


def test_a_violated_constraint_outweighs_any_outcome(gp):
    def at_least_half(outcomes):  # the outcome itself, to be at most 0.5
        return outcomes[..., 0] - 0.5

    with torch.no_grad():
        free, bound = thompson(gp), thompson(gp, constraints=[at_least_half])
        points = torch.rand(200, 1, 2, generator=torch.Generator().manual_seed(1)).double()
        value = free(points)
        expected = value - 100 * (value - 0.5).clamp_min(0)
    assert (value > 0.5).any()
    torch.testing.assert_close(bound(points), expected)


def test_constraints_are_met_in_the_loop():
    metrics = torch.cat([Y, X[:, :1]], dim=-1)
    proposal = propose(
        SQUARE, X, metrics, objectives=[Objective("y", "maximize")],
        constraints=[OutcomeConstraint("a", "<=", 0.2)], acquisition=THOMPSON, q=2, seed=0,
    )  # fmt: skip
    assert (proposal.X[:, 0] < 0.25).all()


def test_several_objectives_are_weighted_anew_for_each_point():
    models = [SURROGATES["gp"].build(X, f, seed=0) for f in (X[:, :1], 1 - X[:, :1] ** 2)]
    weights = torch.eye(2, dtype=torch.float64)
    best = []
    grid = torch.linspace(0, 1, 101, dtype=torch.float64)
    points = torch.stack([grid, torch.full_like(grid, 0.5)], dim=-1).unsqueeze(1)
    for k in range(12):
        function = thompson(ModelListGP(*models), weights, pending=X[:1].expand(k, -1))
        with torch.no_grad():
            best.append(grid[function(points).argmax()])
    assert torch.stack(best).std() > 0.1  # the whole front is visited, not one compromise


def test_a_model_without_functions_is_refused():
    with pytest.raises(InputError, match="registered surrogate, got SingleTaskGP"):
        thompson(SingleTaskGP(X, Y))


def test_upper_confidence_bound_agrees_with_the_closed_form(gp):
    config = AcquisitionConfig(name="qucb", beta=4.0, mc_samples=4096)
    ours = make_acquisition(gp, config=config, weights=ONE, X_baseline=X, seed=0)
    points = torch.rand(20, 1, 2, generator=torch.Generator().manual_seed(2)).double()
    exact = UpperConfidenceBound(gp, beta=4.0)(points)
    # Sobol samples; independent ones would have a standard error of 0.03 standard deviations.
    torch.testing.assert_close(ours(points), exact, atol=0.05, rtol=0)


def test_an_upper_confidence_bound_with_constraints_is_refused():
    with pytest.raises(InputError, match="'qucb' takes no outcome constraints"):
        AcquisitionConfig(name="qucb").resolve(1, 1)
