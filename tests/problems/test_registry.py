"""The generated suite: every registered problem is held to the contract of `Problem`.

Properties that need many evaluations run on the problems that cost less than a second each.
"""

import pickle
import subprocess
import sys

import pytest
import torch
from botorch.test_functions.base import BaseTestProblem

from bo_surrogates.errors import InputError, RunError
from bo_surrogates.seeding import fixed_seed
from problems import PROBLEMS
from problems.base import Problem
from problems.registry import ProblemEntry

CHEAP = [name for name, entry in PROBLEMS.items() if entry.cost == "< 1 s"]


def noisy(entry: ProblemEntry, **options) -> Problem:
    """The problem with noise: what is asked for, or its own where it has no other."""
    if "noise_std" in entry.options:
        options.setdefault("noise_std", 0.5)
    return entry.make(**options)


def random_points(problem: Problem, n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low, high = problem.bounds
    X = low + (high - low) * torch.rand(n, problem.dim, generator=generator, dtype=low.dtype)
    whole = problem.discrete_inds + problem.categorical_inds
    X[:, whole] = X[:, whole].round()
    return X


@pytest.fixture(scope="module", params=list(PROBLEMS))
def entry(request):
    return PROBLEMS[request.param]


@pytest.fixture(scope="module", params=CHEAP)
def cheap(request):
    return PROBLEMS[request.param]


def test_importing_the_registry_imports_neither_torch_nor_any_problem():
    code = (
        "import sys, problems; assert 'torch' not in sys.modules; "
        "assert not any(m.startswith(('problems.synthetic.', 'problems.documented.')) "
        "for m in sys.modules); assert len(problems.PROBLEMS) > 3"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_problem_is_a_botorch_problem_whose_indices_and_bounds_are_its_space_s(entry):
    problem = entry.make()
    assert isinstance(problem, Problem)
    assert isinstance(problem, BaseTestProblem)
    assert torch.equal(problem.bounds, problem.space.bounds)
    assert problem.continuous_inds == problem.space.continuous_inds
    assert problem.discrete_inds == problem.space.discrete_inds
    assert problem.categorical_inds == problem.space.categorical_inds


def test_the_tags_agree_with_the_problem(entry):
    problem = entry.make()
    assert ("multi-objective" in entry.tags) == (problem.num_objectives > 1)
    assert ("mixed" in entry.tags) == bool(problem.discrete_inds or problem.categorical_inds)


def test_several_objectives_have_a_reference_point_that_negation_flips(entry):
    plain, negated = entry.make(), entry.make(negate=True)
    if plain.num_objectives == 1:
        assert not hasattr(plain, "ref_point")
        assert plain.is_minimization_problem != negated.is_minimization_problem
    else:
        assert plain.ref_point.tolist() == [o.reference for o in plain.objectives]
        assert torch.equal(negated.ref_point, -plain.ref_point)


def test_the_card_names_every_parameter_objective_and_the_source(entry):
    problem, text = entry.make(), entry.card()
    words = [*problem.space.names, *(o.name for o in problem.objectives), entry.source]
    assert [w for w in words if w not in text] == []


def test_an_unknown_option_is_refused_with_the_nearest_name(entry):
    with pytest.raises(InputError, match="no option 'negatee'; did you mean 'negate'"):
        entry.make(negatee=True)


def test_an_unknown_problem_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="unknown problem 'brannin'; did you mean 'branin'"):
        PROBLEMS["brannin"]


def test_a_missing_unknown_or_out_of_range_parameter_is_refused_by_name(entry):
    problem = entry.make()
    point = problem.space.decode(problem.bounds.mean(dim=0))
    name = problem.space.names[0]
    without = {k: v for k, v in point.items() if k != name}
    with pytest.raises(InputError, match=f"'{name}' is missing"):
        problem.evaluate(without)
    with pytest.raises(InputError, match="unknown parameter 'nonsense'"):
        problem.evaluate({**point, "nonsense": 1.0})
    with pytest.raises(InputError, match=f"'{name}' must be"):
        problem.evaluate({**point, name: 1e9})


def test_coordinates_out_of_bounds_or_of_the_wrong_shape_are_refused(entry):
    problem = entry.make()
    with pytest.raises(InputError, match="within the bounds"):
        problem((problem.bounds[1] + 1.0).unsqueeze(0))
    with pytest.raises(InputError, match="shape"):
        problem(torch.zeros(1, problem.dim + 1))


def test_a_batch_gives_what_its_points_give_one_by_one(cheap):
    problem = cheap.make()
    X = random_points(problem, 12)
    batch = problem(X, noise=False)
    assert batch.shape[:1] == (12,)
    one_by_one = torch.stack([problem(x, noise=False) for x in X])
    torch.testing.assert_close(batch, one_by_one, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        problem(X.reshape(3, 4, -1), noise=False).reshape(batch.shape), batch
    )


def test_evaluate_gives_the_tensor_s_values_by_name_and_never_negated(cheap):
    problem, negated = cheap.make(), cheap.make(negate=True)
    for x in random_points(problem, 3, seed=1):
        x = problem.space.encode(problem.space.decode(x))  # values have 12 digits
        expected = problem.observe(x, seed=5)
        named = negated.evaluate(problem.space.decode(x), seed=5)
        assert list(named) == list(problem.metrics)
        assert all(type(v) is float for v in named.values())
        assert list(named.values()) == pytest.approx(expected.tolist(), rel=1e-14, abs=1e-14)
        assert torch.equal(negated(x, seed=5), -problem(x, seed=5))


def test_values_are_finite_on_the_whole_box_corners_included(cheap):
    problem = cheap.make()
    low, high = problem.bounds
    generator = torch.Generator().manual_seed(0)
    corners = torch.where(torch.rand(64, problem.dim, generator=generator) < 0.5, low, high)
    assert problem(torch.cat([corners, random_points(problem, 64)])).isfinite().all()


def test_the_known_optimum_is_attained_and_no_random_point_beats_it(cheap):
    problem = cheap.make()
    if problem.optimum is None:
        pytest.skip("no single optimum, or none known")
    assert cheap.make(negate=True).optimal_value == -problem.optimal_value
    size = max(1.0, abs(problem.optimal_value))
    if problem.optimizers is not None:
        attained = problem(problem.optimizers, noise=False)
        known = [problem.optimal_value] * len(attained)
        assert attained.tolist() == pytest.approx(known, abs=1e-12 * size)
        # Where constraints are active, rounding decides the sign.
        if problem.num_constraints:
            spread = problem.evaluate_slack(random_points(problem, 100), noise=False).std(dim=0)
            slack = problem.evaluate_slack(problem.optimizers, noise=False)
            assert (slack >= -1e-8 * spread).all()
    X = random_points(problem, 300)
    worse = problem.signs * (problem.optimal_value - problem(X, noise=False))
    assert (worse >= -1e-12 * size)[problem.is_feasible(X, noise=False)].all()


def test_a_problem_survives_pickling(cheap):
    problem = noisy(cheap)
    again = pickle.loads(pickle.dumps(problem))
    X = random_points(problem, 4)
    assert torch.equal(again(X, seed=3), problem(X, seed=3))
    assert again.space == problem.space


def test_noise_is_a_function_of_the_seed_and_leaves_the_global_generator_alone(cheap):
    problem = noisy(cheap)
    X = random_points(problem, 5)
    with fixed_seed(0):
        untouched = torch.rand(3)
    with fixed_seed(0):
        first = problem(X, seed=7)
        assert torch.equal(torch.rand(3), untouched)
    assert torch.equal(problem(X, seed=7), first)
    assert not torch.equal(problem(X, seed=8), first)
    assert torch.equal(problem(X, noise=False), cheap.make()(X, noise=False))
    point = problem.space.decode(X[0])
    assert problem.evaluate(point, seed=7) == problem.evaluate(point, seed=7)
    assert problem.evaluate(point, seed=7) != problem.evaluate(point, seed=8)


def test_noise_without_a_seed_follows_the_global_generator_as_in_botorch(cheap):
    problem = noisy(cheap)
    X = random_points(problem, 5)
    with fixed_seed(1):
        first = problem(X)
    with fixed_seed(1):
        assert torch.equal(problem(X), first)
    with fixed_seed(2):
        assert not torch.equal(problem(X), first)


def test_a_registered_class_of_another_package_is_made_with_its_checked_options(cheap):
    entry = ProblemEntry("mine", cheap.problem_class, "the same", "here", "< 1 s")
    if "noise_std" in cheap.options:
        assert entry.make(noise_std=0.25).noise_std == 0.25
    assert set(entry.options) == set(cheap.options)


@pytest.mark.parametrize("target", ["no_such_package.mine:Mine", "problems.base:NoSuchProblem"])
def test_a_problem_that_cannot_be_imported_says_which(target):
    entry = ProblemEntry("mine", target, "not there", "here", "< 1 s")
    with pytest.raises(RunError, match=r"problem 'mine' .*cannot be imported: .*(no_such|NoSuch)"):
        entry.make()


@pytest.mark.parametrize(
    "name",
    ["ackley", "bnn_draw", "branin", "branin_currin", "cliff", "distillation", "dtlz1", "dtlz5",
     "gramacy", "griewank", "hartmann6", "keane_bump", "levy", "michalewicz",
     "poly_draw", "rastrigin", "rosenbrock", "tension_compression_string", "vehicle_safety",
     "welded_beam", "xiong"],
)  # fmt: skip
def test_problems_written_in_torch_have_the_gradients_of_their_values(name):
    problem = PROBLEMS[name].make()
    x = random_points(problem, 1, seed=3)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(4), dtype=x.dtype)
    step = 1e-6 * (problem.bounds[1] - problem.bounds[0]) * direction
    weights = torch.arange(1, len(problem.metrics) + 1, dtype=x.dtype)

    def value(X):
        return (problem._true_metrics(X) * weights).sum()

    point = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(point), point)
    slope = (value(x + step) - value(x - step)) / 2
    expected = (gradient * step).sum()
    assert slope.item() == pytest.approx(expected.item(), rel=2e-4, abs=1e-12)
