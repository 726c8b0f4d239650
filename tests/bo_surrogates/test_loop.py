"""The loop in tensor space: reproducible, resumable, right about directions and constraints."""

from types import SimpleNamespace

import pytest
import torch
from botorch.test_functions import Branin, BraninCurrin
from botorch.test_functions.synthetic import ConstrainedGramacy

from bo_surrogates import loop
from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.errors import FitError, InputError
from bo_surrogates.loop import Run, describe, fit, propose, run
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.space import Choice, Float, Int, Ordered, Space

FAST = AcquisitionConfig(mc_samples=16, num_restarts=2, raw_samples=32, maxiter=50)
SQUARE = Space([Float("a", 0.0, 1.0), Float("b", 0.0, 1.0)])


@pytest.fixture(scope="module")
def branin():
    return run(Branin().double(), iterations=5, initial=8, seed=0, acquisition=FAST)


def grid_data(space, n=12):
    from bo_surrogates.design import sobol_design

    return sobol_design(space, n, seed=5)


def test_the_same_seed_gives_the_same_run(branin):
    again = run(Branin().double(), iterations=5, initial=8, seed=0, acquisition=FAST)
    assert torch.equal(again.X, branin.X)
    assert torch.equal(again.Y, branin.Y)


def test_a_continued_run_equals_an_uninterrupted_one(branin):
    part = Run(branin.objectives, branin.iterations[:3])
    whole = run(Branin().double(), iterations=5, initial=8, seed=0, acquisition=FAST, start=part)
    assert torch.equal(whole.X, branin.X)


def test_the_initial_design_depends_on_the_seed_only(branin):
    other = run(
        Branin().double(), iterations=0, initial=8, seed=0, surrogate="nngp", acquisition=FAST
    )
    assert torch.equal(other.X, branin.X[:8])


def test_best_is_the_running_minimum_and_the_loop_beats_its_design(branin):
    assert torch.equal(branin.best, branin.Y[:, 0].cummin(0).values)
    assert branin.best[-1] < branin.best[7]


def test_a_negated_problem_is_maximized():
    negated = run(Branin(negate=True).double(), iterations=5, initial=8, seed=0, acquisition=FAST)
    assert negated.objectives[0].direction == "maximize"
    assert torch.equal(negated.best, negated.Y[:, 0].cummax(0).values)
    assert negated.best[-1] > negated.best[7]


def test_noise_is_drawn_anew_but_reproducibly():
    noisy = [
        run(Branin(noise_std=1.0).double(), iterations=1, initial=4, seed=s, acquisition=FAST).Y
        for s in (0, 0, 1)
    ]
    assert torch.equal(noisy[0], noisy[1])
    assert not torch.equal(noisy[0], noisy[2])


def test_botorch_problems_are_described_by_their_own_bounds_and_directions():
    described = describe(BraninCurrin().double())
    objectives = described.objectives
    assert described.space.bounds.tolist() == [[0, 0], [1, 1]]
    assert [(o.direction, o.reference) for o in objectives] == [
        ("minimize", 18.0), ("minimize", 6.0),
    ]  # fmt: skip
    objectives = describe(BraninCurrin(negate=True).double()).objectives
    assert [(o.direction, o.reference) for o in objectives] == [
        ("maximize", -18.0), ("maximize", -6.0),
    ]  # fmt: skip


def test_a_constrained_botorch_problem_is_solved_within_its_constraints():
    problem = ConstrainedGramacy().double()
    result = run(problem, iterations=10, initial=8, seed=0, acquisition=FAST)
    assert result.Y.shape == (18, 3)
    feasible = (result.Y[:, 1:] >= 0).all(dim=1)
    assert torch.equal(feasible, problem.is_feasible(result.X))
    best = result.Y[feasible, 0].min()
    assert problem.optimal_value - 1e-6 <= best < 0.7  # the optimum is 0.5998


def test_a_relative_constraint_is_one_at_what_its_baseline_makes_it():
    def problem(constraint):
        return SimpleNamespace(
            space=SQUARE, objectives=(Objective("y", "maximize"),), constraints=(constraint,),
            observe=lambda X, seed: torch.stack([X[:, 0], X.sum(dim=-1)], dim=-1),
        )  # fmt: skip

    settings = {"iterations": 1, "initial": 6, "seed": 0, "acquisition": FAST}
    relative = problem(OutcomeConstraint("c", "<=", 10.0, relative=True))
    found = run(relative, baseline={"c": 0.5}, **settings)
    absolute = run(problem(OutcomeConstraint("c", "<=", 0.5 * 1.1)), **settings)
    assert torch.equal(found.X, absolute.X)
    with pytest.raises(InputError, match="needs the baseline's 'c'"):
        run(relative, **settings)  # before anything is measured


def test_two_objectives_with_a_batch():
    result = run(BraninCurrin().double(), iterations=2, initial=6, q=2, seed=0, acquisition=FAST)
    assert result.X.shape == (10, 2)
    assert result.Y.shape == (10, 2)
    with pytest.raises(InputError, match="no single best"):
        _ = result.best


def test_the_optimum_of_a_quadratic_is_proposed():
    X = grid_data(SQUARE, 16)
    Y = ((X - torch.tensor([0.3, 0.6])) ** 2).sum(-1, keepdim=True)
    proposal = propose(SQUARE, X, Y, objectives=[Objective("y")], acquisition=FAST, seed=0)
    assert (proposal.X - torch.tensor([0.3, 0.6])).abs().max() < 0.05


def test_an_outcome_constraint_is_respected():
    X = grid_data(SQUARE, 20)
    Y = torch.stack([X[:, 0], X[:, 0] + X[:, 1]], dim=-1)
    proposal = propose(
        SQUARE, X, Y, objectives=[Objective("y", "maximize")],
        constraints=[OutcomeConstraint("c", "<=", 0.5)], acquisition=FAST, seed=0,
    )  # fmt: skip
    assert 0.35 < proposal.X[0, 0] < 0.55
    assert proposal.X.sum() < 0.6


def test_where_nothing_is_feasible_feasibility_is_sought_first():
    X = grid_data(SQUARE, 16)
    X = X[X[:, 0] > 0.4]
    Y = torch.stack([X[:, 1], X[:, 0]], dim=-1)
    proposal = propose(
        SQUARE, X, Y, objectives=[Objective("y")],
        constraints=[OutcomeConstraint("c", "<=", 0.2)], acquisition=FAST, seed=0,
    )  # fmt: skip
    assert proposal.X[0, 0] < 0.2


def test_pending_points_are_kept_away_from():
    X = grid_data(SQUARE, 16)
    Y = ((X - 0.5) ** 2).sum(-1, keepdim=True) + 0.05 * (20 * X).sin().sum(-1, keepdim=True)
    first = propose(SQUARE, X, Y, objectives=[Objective("y")], acquisition=FAST, seed=0).X
    second = propose(
        SQUARE, X, Y, objectives=[Objective("y")], acquisition=FAST, seed=0, X_pending=first
    ).X
    assert (first - second).norm() > 1e-2


@pytest.mark.parametrize(
    "space",
    [
        Space([Float("a", 1e-3, 1, log=True), Int("b", 1, 9), Choice("c", ("u", "v", "w"))]),
        Space([Int("b", 1, 9), Ordered("d", (1, 4, 16)), Choice("c", ("u", "v", "w"))]),
        Space([Int("b", 1, 90, log=True), Int("e", 1, 90), Choice("c", ("u", "v", "w"))]),
    ],
    ids=["mixed", "enumerated", "lattice"],
)
def test_discrete_spaces_get_new_valid_points(space):
    X = grid_data(space, 8)
    Y = space.to_model(X).sum(-1, keepdim=True)
    proposal = propose(space, X, Y, objectives=[Objective("y")], q=2, acquisition=FAST, seed=0)
    for x in proposal.X:
        space.validate(space.decode(x))
        assert not (x == X).all(-1).any()
    assert not torch.equal(proposal.X[0], proposal.X[1])


def test_the_fitted_model_predicts_in_the_users_units():
    X = grid_data(SQUARE, 16)
    Y = 1e4 + 500 * X[:, :1]
    model = fit(SQUARE, X, Y)
    assert (model.posterior(SQUARE.to_model(X)).mean - Y).abs().max() < 20


def test_bad_arguments_are_named():
    X = grid_data(SQUARE, 4)
    with pytest.raises(InputError, match=r"train_Y must have shape n x 1 \(columns y\)"):
        propose(SQUARE, X, torch.zeros(4, 2).double(), objectives=[Objective("y")])
    with pytest.raises(InputError, match="q must be at least 1"):
        propose(SQUARE, X, X[:, :1], objectives=[Objective("y")], q=0)
    with pytest.raises(InputError, match="unknown surrogate 'gpp'; did you mean 'gp'"):
        propose(SQUARE, X, X[:, :1], objectives=[Objective("y")], surrogate="gpp")
    with pytest.raises(InputError, match="'qlogei' does not fit 2 objective"):
        propose(
            SQUARE, X, X, objectives=[Objective("y"), Objective("z")],
            acquisition=FAST.replace(name="qlogei"),
        )  # fmt: skip


def test_the_model_of_a_proposal_is_told_with_its_iteration_and_has_not_seen_the_outcomes():
    told = []
    result = run(
        Branin().double(), iterations=2, initial=6, seed=0, acquisition=FAST,
        on_iteration=lambda iteration, proposal: told.append((iteration, proposal)),
    )  # fmt: skip
    assert [i for i, _ in told] == list(result.iterations)
    assert told[0][1] is None
    for n, (iteration, proposal) in zip((6, 7), told[1:], strict=True):
        assert torch.equal(proposal.X, iteration.X)
        assert len(proposal.model.training_data.X) == n


def test_where_a_fit_fails_a_random_batch_is_taken_if_that_is_wanted(monkeypatch):
    real = loop.fit
    again = []

    def fails_once(*args, **kwargs):
        if len(args[1]) == 7:
            raise FitError("no luck")
        return real(*args, **kwargs)

    monkeypatch.setattr(loop, "fit", fails_once)
    settings = {"iterations": 3, "initial": 6, "seed": 0, "acquisition": FAST}
    for _ in range(2):
        result = run(Branin().double(), random_where_failed=True, **settings)
        assert [i.failure for i in result.iterations] == [None, None, "FitError: no luck", None]
        again.append(result.X)
    assert torch.equal(*again)
    with pytest.raises(FitError, match="no luck"):
        run(Branin().double(), **settings)
