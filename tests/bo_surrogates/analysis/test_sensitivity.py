"""Sobol indices and lengthscales against functions whose indices are known in closed form."""

import math

import pytest
import torch
from torch.testing import assert_close

from bo_surrogates.analysis.cross_validation import cross_validate
from bo_surrogates.analysis.lengthscales import lengthscales
from bo_surrogates.analysis.predictive_scores import sample_crps
from bo_surrogates.analysis.sensitivity import sobol_indices
from bo_surrogates.design import sobol_design
from bo_surrogates.errors import InputError
from bo_surrogates.loop import fit
from bo_surrogates.space import Choice, Float, Int, LinearConstraint, Ordered, Space

CUBE = Space([Float(f"x{i}", -math.pi, math.pi) for i in range(3)])
MIXED = Space(
    [
        Float("rate", 1e-4, 1.0, log=True),
        Int("count", 1, 4),
        Choice("solvent", ("water", "ethanol", "dmso")),
        Ordered("grade", ("low", "high")),
    ]
)


class Known:
    """A function as a surrogate; each drawn function adds a multiple of the last input."""

    num_outputs = 1

    def __init__(self, function, spread=0.0):
        self.function, self.spread = function, spread

    def posterior(self, X):
        self.mean = self.function(X).unsqueeze(-1)
        return self

    def sample_functions(self, k, seed=None):
        slopes = self.spread * torch.linspace(-1, 1, k, dtype=torch.float64)
        return lambda X: (self.function(X) + slopes[:, None] * X[..., -1]).unsqueeze(-1)


def ishigami(X, a=7.0, b=0.1):
    x, y, z = X.unbind(dim=-1)
    return x.sin() + a * y.sin().square() + b * z**4 * x.sin()


def ishigami_indices(a=7.0, b=0.1):
    """First-order and total (Ishigami and Homma 1990; Saltelli et al. 2008, eq. 4.34 on)."""
    v1, v2 = 0.5 * (1 + b * math.pi**4 / 5) ** 2, a**2 / 8
    v13 = b**2 * math.pi**8 * (1 / 18 - 1 / 50)
    v = v1 + v2 + v13
    return (
        torch.tensor([v1 / v, v2 / v, 0.0], dtype=torch.float64),
        torch.tensor([(v1 + v13) / v, v2 / v, v13 / v], dtype=torch.float64),
    )


def test_indices_of_a_known_function_are_the_closed_form():
    found = sobol_indices(Known(ishigami), CUBE, n=4096, functions=4)
    first, total = ishigami_indices()
    assert_close(found.first, first, atol=0.01, rtol=0)
    assert_close(found.total, total, atol=0.01, rtol=0)
    # All functions are the mean, so the intervals have no width.
    assert_close(found.first_interval, found.first.expand(2, -1))
    assert found.order == [0, 1, 2]
    v = 0.5 + 49 / 8 + 0.1 * math.pi**4 / 5 + 0.01 * math.pi**8 / 18
    assert found.stdv == pytest.approx(math.sqrt(v), rel=0.02)


def test_intervals_span_the_indices_of_the_posteriors_functions():
    """f = x0 + s x2 with s from -1 to 1: index 1 / (1 + s^2) of x0, from 1/2 at the ends to 1."""
    found = sobol_indices(Known(lambda X: X[..., 0], spread=1.0), CUBE, functions=101, level=0.8)
    slope = torch.linspace(-1, 1, 101, dtype=torch.float64)
    expected = (1 / (1 + slope**2)).quantile(torch.tensor([0.1, 0.9], dtype=torch.float64))
    assert_close(found.first_interval[:, 0], expected, atol=0.01, rtol=0)
    assert_close(found.total_interval[:, 0], expected, atol=0.01, rtol=0)
    assert_close(found.first, torch.tensor([1.0, 0.0, 0.0]).double(), atol=0.01, rtol=0)


def test_mixed_inputs_are_uniform_over_their_logarithm_and_levels():
    """An additive function: the index of a part is its own variance's share."""
    found = sobol_indices(
        Known(lambda Z: Z[..., 0] + Z[..., 1] + 2.0 * (Z[..., 2] == 1) + Z[..., 3]), MIXED, n=2048
    )
    variances = torch.tensor([16 / 12, 15 / 12, 4 * 2 / 9, 1 / 4], dtype=torch.float64)
    assert_close(found.first, variances / variances.sum(), atol=0.01, rtol=0)
    assert_close(found.total, found.first, atol=0.02, rtol=0)


def test_one_input_owns_all_and_a_constant_owns_nothing():
    line = Space([Float("x", 0.0, 1.0)])
    one = sobol_indices(Known(lambda X: X[..., 0]), line, n=256, functions=2)
    assert_close(one.total, torch.ones(1).double(), atol=0.02, rtol=0)
    for offset in (0.0, 1e9):  # whose rounding errors are no variance
        none = sobol_indices(Known(lambda X, o=offset: o + 1e-9 * X[..., 0]), line, n=256)
        assert none.total.item() == (0.0 if offset else pytest.approx(1.0, abs=0.02))


def test_constraints_are_told():
    tied = Space(CUBE.parameters, [LinearConstraint({"x0": 1.0, "x1": 1.0}, 2.0)])
    assert sobol_indices(Known(ishigami), tied, n=64, functions=2).constrained
    assert not sobol_indices(Known(ishigami), CUBE, n=64, functions=2).constrained


def test_a_fidelity_is_held_at_its_target():
    # At the target s = 1 only the last input acts; elsewhere the first does, too.
    space = Space([Float("a", 0, 1), Float("s", 0, 1, fidelity=True), Float("b", 0, 1)])
    model = Known(lambda X: 9 * (1 - X[..., 1]) * X[..., 0] + X[..., 2])
    found = sobol_indices(model, space, n=64, functions=2)
    assert found.names == ("a", "b")
    # The estimator's own sampling error, squared away where the function is linear.
    assert_close(found.total, torch.tensor([0.0, 1.0], dtype=torch.float64), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"n": 1000}, "power of 2"), ({"functions": 1}, "functions"), ({"level": 1.0}, "level")],
)
def test_bad_arguments_are_named(options, said):
    with pytest.raises(InputError, match=said):
        sobol_indices(Known(ishigami), CUBE, **options)


# ---- fitted surrogates ---------------------------------------------------------------------------
@pytest.mark.parametrize("surrogate", ["gp", "ensemble", "tp", "saas"])
def test_fitted_surrogates_find_the_indices_of_an_additive_function(surrogate):
    """f = 2 x0 + sin(2 x1) / 2 on [-pi, pi]^3: shares 4 pi^2/3 and 1/8 of their sum, 0 of x2."""
    X = sobol_design(CUBE, 48, seed=1)
    Y = (2 * X[:, [0]] + 0.5 * (2 * X[:, [1]]).sin()) * 1e3
    model = fit(CUBE, X, Y, surrogate=surrogate, seed=0)
    found = sobol_indices(model, CUBE, n=256, functions=16)
    share = (4 * math.pi**2 / 3) / (4 * math.pi**2 / 3 + 1 / 8)
    assert_close(found.first, torch.tensor([share, 1 - share, 0.0]).double(), atol=0.03, rtol=0)
    assert (found.total_interval[0] <= found.total_interval[1]).all()
    assert found.stdv == pytest.approx(2e3 * math.pi / math.sqrt(3), rel=0.1)
    again = sobol_indices(model, CUBE, n=256, functions=16)
    assert torch.equal(found.total_interval, again.total_interval)


def test_a_gaussian_process_on_enough_points_has_the_indices_of_ishigami():
    X = sobol_design(CUBE, 160, seed=0)
    found = sobol_indices(fit(CUBE, X, ishigami(X).unsqueeze(-1), seed=0), CUBE, n=512)
    first, total = ishigami_indices()
    assert_close(found.first, first, atol=0.04, rtol=0)
    assert_close(found.total, total, atol=0.04, rtol=0)
    # What the posterior does not know holds the truth (up to the sampling error of the design).
    assert (found.total_interval[0] - 0.04 <= total).all()
    assert (found.total_interval[1] + 0.04 >= total).all()


@pytest.mark.parametrize(
    ("surrogate", "config"),
    [
        ("gp", {}),
        ("gp", {"categories": "hamming"}),
        ("gp", {"kernel": "matern"}),
        ("saas", {}),
        ("tp", {}),
        ("nngp", {}),
        ("rff", {}),
        ("svgp", {}),
    ],
)
def test_lengthscales_are_shorter_where_an_input_matters(surrogate, config):
    """Of four inputs, among them one in three columns, in the space's order."""
    X = sobol_design(MIXED, 40, seed=2)
    Y = X[:, [0]].log10().square() + 0.01 * X[:, [3]]
    model = fit(MIXED, X, Y, surrogate=surrogate, config=config, seed=0)
    found = lengthscales(model)
    assert found.shape == (4,)
    assert found.argmin() == 0


@pytest.mark.parametrize(
    ("surrogate", "config"),
    [("ensemble", {}), ("dkl", {}), ("laplace", {}), ("gp", {"kernel": "additive"})],
)
def test_other_surrogates_have_no_lengthscales(surrogate, config):
    X = sobol_design(CUBE, 8, seed=0)
    model = fit(CUBE, X, X[:, [0]], surrogate=surrogate, config=config, seed=0)
    assert lengthscales(model) is None


# ---- cross-validation ----------------------------------------------------------------------------
def test_cross_validation_never_sees_what_it_predicts():
    """Outcomes of pure noise: a model that had seen them would explain them."""
    X = sobol_design(CUBE, 60, seed=0)
    Y = torch.randn(60, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores = cross_validate(CUBE, X, Y, seed=0)
    assert scores.folds == 5
    assert scores.r2 < 0.15
    # 60 observations, each inside with probability 0.9: fewer than 42 once in 10^6.
    assert scores.coverage >= 42 / 60


def test_cross_validation_scores_a_predictable_function_highly_and_fits_at_most_five_times(
    monkeypatch,
):
    fits = []

    def counted(space, X, Y, *args, **options):
        fits.append(len(X))
        return fit(space, X, Y, *args, **options)

    monkeypatch.setattr("bo_surrogates.analysis.cross_validation.fit", counted)
    X = sobol_design(CUBE, 23, seed=0)
    Y = 3 * X[:, [0]] - X[:, [1]]
    scores = cross_validate(CUBE, X, Y, seed=0)
    assert scores.r2 > 0.99
    assert len(fits) == 5
    assert sum(23 - n for n in fits) == 23
    draws = torch.randn(512, 23, generator=torch.Generator().manual_seed(0)).double()
    blind = sample_crps(Y.mean() + Y.std() * draws, Y[:, 0])
    assert scores.crps.mean() < 0.1 * blind.mean()
    assert torch.equal(scores.observed, Y[:, 0])


def test_repeated_observations_share_a_fold():
    """Two values at each point, equal but for their point's own shift: leaked, they explain all."""
    X = sobol_design(CUBE, 20, seed=0).repeat(2, 1)
    shift = torch.randn(20, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert cross_validate(CUBE, X, shift.repeat(2, 1), seed=0).r2 < 0.3


def test_few_points_are_left_out_one_by_one_and_one_is_too_few():
    X = torch.tensor([[0.0, 0, 0], [1, 1, 1], [2, 2, 2]], dtype=torch.float64)
    assert cross_validate(CUBE, X, X[:, [0]]).folds == 3
    assert math.isnan(cross_validate(CUBE, X, torch.ones(3, 1).double()).r2)
    with pytest.raises(InputError, match="two distinct points"):
        cross_validate(CUBE, X[[0, 0]], X[[0, 0], :1])
