"""The other synthetic problems, against formulas written again, enumeration and sampling."""

import itertools
import math
import sys

import numpy as np
import pytest
import torch
from botorch.utils.multi_objective.hypervolume import Hypervolume
from scipy import stats

from bo_surrogates.errors import InputError, RunError
from problems import PROBLEMS
from problems.synthetic.botorch_function import SEVERAL, SINGLE
from problems.synthetic.poly_draw import best_corner, polynomial


@pytest.fixture(scope="module")
def unit():
    return torch.rand(100, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def griewank(z):
    j = np.arange(1, z.shape[-1] + 1)
    return (z**2).sum(axis=-1) / 4000 - np.cos(z / np.sqrt(j)).prod(axis=-1) + 1


def levy(z):
    w = 1 + (z - 1) / 4
    middle = (w[:, :-1] - 1) ** 2 * (1 + 10 * np.sin(np.pi * w[:, :-1] + 1) ** 2)
    last = (w[:, -1] - 1) ** 2 * (1 + np.sin(2 * np.pi * w[:, -1]) ** 2)
    return np.sin(np.pi * w[:, 0]) ** 2 + middle.sum(axis=-1) + last


def rastrigin(z):
    return 10 * z.shape[-1] + (z**2 - 10 * np.cos(2 * np.pi * z)).sum(axis=-1)


@pytest.mark.parametrize(
    ("name", "formula", "width", "at"),
    [("griewank", griewank, 600, 0), ("levy", levy, 10, 1), ("rastrigin", rastrigin, 5.12, 0)],
)
def test_shifted_functions_agree_with_their_formulas_about_the_shifted_optimum(
    unit, name, formula, width, at
):
    problem = PROBLEMS[name].make(dim=5, shift_seed=2)
    X = width * (2 * unit[:, :5] - 1)
    z = (X - problem.optimizers + at).numpy()
    np.testing.assert_allclose(problem(X), formula(z), rtol=1e-9)
    assert (problem.optimizers.abs() <= 0.8 * width).all()
    assert problem.optimizers.abs().max() > 0.1 * width
    assert PROBLEMS[name].make(dim=3, shifted=False).optimizers.tolist() == [[at] * 3]


def test_rosenbrock_agrees_with_its_formula(unit):
    X = -5 + 15 * unit[:, :4]
    x = X.numpy()
    expected = (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(axis=-1)
    np.testing.assert_allclose(PROBLEMS["rosenbrock"].make()(X), expected, rtol=1e-12)


# ---- PolyDraw ------------------------------------------------------------------------------------
def test_poly_draw_has_the_reference_study_s_value():
    c = torch.arange(1, 9, dtype=torch.float64) / 10
    x = torch.linspace(0, 1, 8, dtype=torch.float64)
    assert polynomial(x, c).item() == pytest.approx(-2.12828e-5, abs=1e-10)


def test_the_optimum_of_poly_draw_is_the_best_of_all_corners():
    problem = PROBLEMS["poly_draw"].make(dim=12, coefficient_seed=5)
    corners = torch.tensor(list(itertools.product((0.0, 1.0), repeat=12)), dtype=torch.float64)
    assert problem(corners).max().item() == pytest.approx(problem.optimal_value, rel=1e-14)
    value, corner = best_corner(problem.coefficients)
    assert problem(corner[None]).item() == pytest.approx(value, rel=1e-14)


def test_poly_draw_refuses_a_dimension_that_is_no_multiple_of_four():
    with pytest.raises(InputError, match="dim must be a multiple of 4, got 10"):
        PROBLEMS["poly_draw"].make(dim=10)


# ---- BNN draw ------------------------------------------------------------------------------------
def test_a_bnn_draw_is_the_network_of_its_weights(unit):
    problem = PROBLEMS["bnn_draw"].make(dim=8, depth=2, width=16, outputs=2, activation="erf")
    hidden = unit.numpy()
    for layer in range(3):
        W, b = problem.get_buffer(f"weights_{layer}"), problem.get_buffer(f"biases_{layer}")
        hidden = hidden @ W.numpy() + b.numpy()
        if layer < 2:
            hidden = np.vectorize(math.erf)(hidden)
    np.testing.assert_allclose(problem(unit), hidden, rtol=1e-10)
    assert problem.ref_point.tolist() == [-2.0, -2.0]


def test_the_prior_of_a_bnn_draw_has_the_stated_variances():
    problem = PROBLEMS["bnn_draw"].make(weight_std=2.0, bias_std=0.5, fan_in=True)
    for layer, inputs in enumerate((400, 256, 256)):
        weights = problem.get_buffer(f"weights_{layer}")
        scaled = (weights * math.sqrt(inputs) / 2.0).reshape(-1).numpy()
        # Six standard errors of a sample standard deviation: 1e-9.
        assert abs(scaled.std() - 1) < 6 / math.sqrt(2 * len(scaled))
    biases = torch.cat([problem.get_buffer(f"biases_{i}") for i in (0, 1)]).numpy()
    assert abs(biases.std() / 0.5 - 1) < 6 / math.sqrt(2 * len(biases))


def test_the_reference_study_s_draw_has_values_of_the_same_size():
    problem = PROBLEMS["bnn_draw"].make()
    X = torch.rand(500, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # There the standard deviation over the cube was 12: sqrt(256) times a share that varies.
    assert 5 < problem(X).std().item() < 25


# ---- DTLZ ----------------------------------------------------------------------------------------
def test_dtlz_problems_have_the_reference_study_s_values():
    one, five = PROBLEMS["dtlz1"].make(), PROBLEMS["dtlz5"].make()
    at = [torch.full((1, d), 0.3, dtype=torch.float64) for d in (5, 20)]
    assert one(at[0])[0].tolist() == pytest.approx([2.55, 5.95])
    assert five(at[1])[0].tolist() == pytest.approx([1.216407, 0.932205, 0.780864], abs=1e-6)


@pytest.mark.parametrize(("name", "share"), [("dtlz1", 1e-7), ("dtlz5", 2e-4)])
def test_the_largest_hypervolume_of_dtlz_is_that_of_a_dense_front(name, share):
    problem = PROBLEMS[name].make()
    t = torch.linspace(0, 1, 400, dtype=torch.float64)
    X = torch.full((400, problem.dim), 0.5, dtype=torch.float64)
    X[:, 0] = t
    Y = -problem(X)
    reached = Hypervolume(-problem.ref_point).compute(Y)
    assert problem.max_hv * (1 - share) < reached <= problem.max_hv + 1e-9


# ---- functions that change -----------------------------------------------------------------------
def test_xiong_agrees_with_its_formula_and_its_minimum_with_a_fine_grid():
    problem = PROBLEMS["xiong"].make()
    x = np.linspace(0, 1, 400_001)
    waves = np.sin(40 * (x - 0.85) ** 4) * np.cos(2.5 * (x - 0.95))
    expected = -0.5 * (waves + 0.5 * (x - 0.9) + 1)
    np.testing.assert_allclose(problem(torch.from_numpy(x).unsqueeze(-1)), expected, rtol=1e-12)
    assert problem.optimal_value == pytest.approx(expected.min(), abs=1e-9)
    assert problem.optimal_value <= expected.min()


@pytest.mark.parametrize(("dim", "published"), [(2, -1.8013), (5, -4.687658), (10, -9.66015)])
def test_michalewicz_has_its_published_minima(unit, dim, published):
    problem = PROBLEMS["michalewicz"].make(dim=dim)
    assert problem.optimal_value == pytest.approx(published, abs=5e-5)
    X = math.pi * unit[:, : min(dim, 8)]
    if dim <= 8:
        j = np.arange(1, dim + 1)
        x = X.numpy()
        expected = -(np.sin(x) * np.sin(j * x**2 / np.pi) ** 20).sum(axis=-1)
        np.testing.assert_allclose(problem(X), expected, rtol=1e-12)


def test_the_cliff_is_a_bowl_below_a_step_and_ripples_above():
    problem = PROBLEMS["cliff"].make(dim=2)
    best = problem.optimizers[0]
    X = torch.stack([best, best + torch.tensor([0.1, 0.0]), torch.ones(2)])
    ripple = 1 + 0.1 * (1 + math.sin(12 * math.pi))
    assert problem(X).tolist() == pytest.approx([0.0, 4 * 0.01 / 2, ripple])
    edge = torch.tensor([[0.6, 0.6 - 1e-9], [0.6, 0.6 + 1e-9]], dtype=torch.float64)
    below, above = problem(edge).tolist()
    assert above - below > 0.9


# ---- noise ---------------------------------------------------------------------------------------
def test_heteroskedastic_noise_has_the_stated_standard_deviation_along_the_first_input():
    problem = PROBLEMS["heteroskedastic"].make(noise_scale=2.0, low=0.5, high=3.0)
    n = 20_000
    for x1, expected in ((-5.0, 1.0), (2.5, 3.5), (10.0, 6.0)):
        X = torch.tensor([[x1, 3.0]], dtype=torch.float64).expand(n, 2)
        noise = problem(X, seed=1) - problem(X, noise=False)
        assert problem.noise_stdv(X[:1]).item() == pytest.approx(expected)
        assert abs(noise.std().item() / expected - 1) < 6 / math.sqrt(2 * n)


@pytest.mark.parametrize("df", [1.0, 3.0, 30.0])
def test_heavy_tailed_noise_follows_student_s_t(df):
    problem = PROBLEMS["heavy_tailed"].make(noise_scale=0.3, df=df)
    X = torch.full((5000, 6), 0.5, dtype=torch.float64)
    noise = (problem(X, seed=2) - problem(X, noise=False)).numpy() / 0.3
    assert stats.kstest(noise, stats.t(df).cdf).pvalue > 1e-6
    if df == 3.0:
        assert stats.kstest(noise, stats.norm.cdf).pvalue < 1e-6


def test_outliers_come_as_often_and_as_far_as_stated():
    problem = PROBLEMS["heavy_tailed"].make(df=1e6, outliers=0.1, outlier_size=100.0)
    n = 20_000
    X = torch.full((n, 6), 0.5, dtype=torch.float64)
    noise = (problem(X, seed=3) - problem(X, noise=False)).numpy() / 0.1
    far = abs(noise) > 50
    assert stats.binomtest(int(far.sum()), n, 0.1).pvalue > 1e-6
    assert abs(noise[far]).mean() == pytest.approx(100, abs=1)
    assert stats.binomtest(int((noise[far] > 0).sum()), int(far.sum()), 0.5).pvalue > 1e-6


@pytest.mark.parametrize("base", ["branin", "levy", "xiong"])
def test_noise_leaves_the_truth_and_the_optimum_as_they_are(base):
    plain, noisy = PROBLEMS[base].make(), PROBLEMS["heavy_tailed"].make(base=base)
    low, high = plain.bounds
    X = low + (high - low) * torch.rand(5, plain.dim, dtype=torch.float64)
    assert torch.equal(noisy(X, noise=False), plain(X))
    assert noisy.optimum == plain.optimum


# ---- adapters ------------------------------------------------------------------------------------
@pytest.mark.parametrize("function", [*SINGLE, *SEVERAL])
def test_every_function_of_botorch_that_is_offered_can_be_made_and_gives_botorch_s_values(function):
    problem = PROBLEMS["botorch"].make(function=function)
    low, high = problem.bounds
    generator = torch.Generator().manual_seed(0)
    X = low + (high - low) * torch.rand(3, problem.dim, generator=generator, dtype=torch.float64)
    whole = problem.discrete_inds + problem.categorical_inds
    X[:, whole] = X[:, whole].round()
    torch.testing.assert_close(problem(X), problem._function.evaluate_true(X))
    if problem.num_constraints:
        torch.testing.assert_close(
            problem.evaluate_slack(X), problem._function._evaluate_slack_true(X)
        )
    assert len(problem.space.names) == problem.dim


def test_options_that_a_function_of_botorch_does_not_have_are_refused():
    assert PROBLEMS["botorch"].make(function="DTLZ2", dim=7, objectives=4).num_objectives == 4
    with pytest.raises(InputError, match="SixHumpCamel has a fixed number; leave dim out"):
        PROBLEMS["botorch"].make(function="SixHumpCamel", dim=3)
    with pytest.raises(InputError, match="did you mean 'Powell'"):
        PROBLEMS["botorch"].make(function="Powel")


def test_bbob_instances_have_optima_of_their_own_which_sampling_does_not_beat():
    pytest.importorskip("ioh")
    values = set()
    for function, instance in ((1, 1), (1, 2), (8, 1), (24, 3)):
        problem = PROBLEMS["bbob"].make(function=function, instance=instance, dim=3)
        assert problem(problem.optimizers).item() == pytest.approx(problem.optimal_value)
        X = 10 * torch.rand(500, 3, dtype=torch.float64) - 5
        assert (problem(X) >= problem.optimal_value).all()
        values.add(problem.optimal_value)
    assert len(values) == 4


def test_the_sphere_of_bbob_is_the_squared_distance_from_its_optimum():
    pytest.importorskip("ioh")
    problem = PROBLEMS["bbob"].make(function=1, instance=5, dim=4)
    X = 10 * torch.rand(20, 4, dtype=torch.float64) - 5
    expected = (X - problem.optimizers).square().sum(dim=-1) + problem.optimal_value
    torch.testing.assert_close(problem(X), expected)


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ioh", None)
    with pytest.raises(RunError, match=r"needs the package ioh: pip install .*\[bbob\]"):
        PROBLEMS["bbob"].make()
