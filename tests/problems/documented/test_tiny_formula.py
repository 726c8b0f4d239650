"""The tiny formula: widths at a budget, regression, sampling, the choice of networks."""

import math

import numpy as np
import pytest
import torch
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from bo_surrogates.errors import InputError
from problems.documented.cost import count_cost
from problems.documented.tiny_formula import (
    GROWTH,
    PUBLISHED_RATIOS,
    TinyFormula,
    compound_scaling,
    counted_macs,
    counted_widths,
    largest_width,
    near_front,
    nominal_compound,
    nominal_width,
    published_formula,
    rbf_regression,
    sample_scalings,
)
from problems.documented.tinynet import SMALL, TINYNETS, ScaledNet, Scaling

SHAPE, CLASSES = (1, 32, 32), 8


# ---- widths --------------------------------------------------------------------------------------
def test_the_nominal_width_gives_the_nominal_ratio():
    for ratio, r, d in ((0.25, 0.7, 0.9), (0.03, 1.2, 1.5), (1.05, 0.4, 0.4)):
        found = Scaling(r, d, nominal_width(ratio, r, d)).nominal_ratio
        assert found == pytest.approx(ratio, abs=1e-12)


@pytest.mark.parametrize(("resolution", "depth"), [(0.75, 0.69), (0.875, 0.85)])
def test_the_counted_width_meets_the_budget_and_one_channel_more_does_not(resolution, depth):
    base = counted_macs(SMALL, SHAPE, CLASSES)
    width = counted_widths(SMALL, SHAPE, CLASSES)(0.25, resolution, depth)
    scaled = SMALL.scaled(Scaling(resolution, depth, width))
    network = ScaledNet(scaled, channels=1, classes=CLASSES)
    macs = count_cost(network, SHAPE).total_macs
    assert macs == counted_macs(scaled, SHAPE, CLASSES)
    wider = SMALL.scaled(Scaling(resolution, depth, width + 1e-3))
    assert macs <= 0.25 * base < counted_macs(wider, SHAPE, CLASSES)
    gained = [a.channels - b.channels for a, b in zip(wider.stages, scaled.stages, strict=True)]
    assert sum(gained) <= 2


def test_a_nominal_quarter_really_costs_far_more():
    # At high resolution little width is left, and the stem, which is not scaled, weighs most.
    r, d = 0.875, 0.85
    scaled = SMALL.scaled(Scaling(r, d, nominal_width(0.25, r, d)))
    base = counted_macs(SMALL, SHAPE, CLASSES)
    assert counted_macs(scaled, SHAPE, CLASSES) / base > 0.4


def test_limits_of_the_width():
    small = {"resolution": 0.5, "depth": 0.5, "widths": (0.1, 0.3)}
    assert largest_width(SMALL, SHAPE, CLASSES, 1e9, **small) == 0.3
    assert largest_width(SMALL, SHAPE, CLASSES, 10.0, **small) is None
    with pytest.raises(InputError, match=r"no width in \[0.5, 4\] has at most 0.03"):
        counted_widths(SMALL, SHAPE, CLASSES, (0.5, 4.0))(0.03, 1.0, 1.0)


# ---- the regression ------------------------------------------------------------------------------
def test_the_regression_is_that_of_scikit_learn():
    draw = np.random.default_rng(0)
    c, at = draw.uniform(0.03, 1.05, 25), np.linspace(0.0, 1.2, 9)
    values = draw.normal(size=(25, 2))
    reference = GaussianProcessRegressor(RBF(1.0), alpha=1e-3, optimizer=None)
    expected = reference.fit(c[:, None], values).predict(at[:, None])
    found = rbf_regression(*(torch.tensor(v) for v in (c, values, at)), noise=1e-3)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-8)


def synthetic(n=60, noise=0.03):
    """r and d that rise with c, observed with noise."""
    draw = torch.Generator().manual_seed(1)
    c = 0.05 + 0.95 * torch.rand(n, generator=draw, dtype=torch.float64)
    true = curves(c)
    return c, true + noise * torch.randn(n, 2, generator=draw, dtype=torch.float64)


def curves(c):
    return torch.stack([0.5 + 0.4 * c.sqrt(), 0.6 + 0.5 * c], dim=-1)


@pytest.mark.parametrize("surrogate", [None, "gp"])
def test_known_resolution_and_depth_are_recovered_within_their_noise(surrogate):
    c, observed = synthetic()
    formula = TinyFormula(c, observed[:, 0], observed[:, 1], noise=0.03**2, surrogate=surrogate)
    at = torch.linspace(0.1, 0.95, 18, dtype=torch.float64)
    assert (formula(at) - curves(at)).abs().max() < 0.03
    scaling = formula.scaling(0.25)
    assert scaling.nominal_ratio == pytest.approx(0.25, abs=1e-12)


def test_far_from_the_data_the_formula_goes_to_their_mean():
    formula = TinyFormula([0.1, 0.2, 0.4], [0.5, 0.6, 0.7], [0.6, 0.8, 1.0])
    assert formula([50.0])[0].tolist() == pytest.approx([0.6, 0.8])


def test_the_published_formula_passes_the_published_networks():
    found = published_formula()(list(PUBLISHED_RATIOS.values()))
    known = torch.tensor([[TINYNETS[n].resolution, TINYNETS[n].depth] for n in PUBLISHED_RATIOS])
    assert (found - known).abs().max() < 0.03
    between = published_formula()(torch.linspace(0.0631, 0.8732, 40))
    assert (between.diff(dim=0) > 0).all()  # the larger the budget, the finer and the deeper


def test_what_no_formula_can_be_made_of_is_refused():
    with pytest.raises(InputError, match=r"equally long rows.*got shapes \(2,\), \(1,\), \(2,\)"):
        TinyFormula([0.1, 0.2], [0.5], [0.5, 0.6])
    with pytest.raises(InputError, match="finite and above 0"):
        TinyFormula([0.1, -0.2], [0.5, 0.6], [0.5, 0.6])
    with pytest.raises(InputError, match="noise must be above 0"):
        TinyFormula([0.1], [0.5], [0.5], noise=0.0)
    with pytest.raises(InputError, match="unknown surrogate 'gpp'"):
        TinyFormula([0.1, 0.2], [0.5, 0.6], [0.5, 0.6], surrogate="gpp")


# ---- compound scaling ----------------------------------------------------------------------------
def test_compound_scaling_is_the_published_one():
    assert GROWTH.nominal_ratio == pytest.approx(1.2 * 1.1**2 * 1.15**2)
    assert compound_scaling(0) == Scaling()
    assert compound_scaling(-2).depth == pytest.approx(1.2**-2)
    for ratio in (0.06, 0.25, 2.0):
        found = nominal_compound(ratio)
        assert found.nominal_ratio == pytest.approx(ratio, rel=1e-12)
        logs = math.log(found.depth), math.log(found.width), math.log(found.resolution)
        assert logs[1] / logs[0] == pytest.approx(math.log(1.1) / math.log(1.2))


# ---- sampling ------------------------------------------------------------------------------------
def test_samples_keep_to_their_ranges_and_seed():
    found = sample_scalings(200, seed=3)
    assert found == sample_scalings(200, seed=3)
    assert found != sample_scalings(200, seed=4)
    ratios = torch.tensor([s.nominal_ratio for s in found])
    assert ratios.min() + 1e-9 >= 0.03
    assert ratios.max() <= 1.05 + 1e-9
    assert all(0.4 <= s.resolution <= 1.2 and 0.4 <= s.depth <= 1.5 for s in found)
    # Log-uniform: below the geometric mean as often as above (six standard errors).
    assert abs((ratios < math.sqrt(0.03 * 1.05)).double().mean() - 0.5) < 6 * 0.5 / math.sqrt(200)


def test_samples_at_a_counted_budget_have_it():
    widths = counted_widths(SMALL, SHAPE, CLASSES)
    base = counted_macs(SMALL, SHAPE, CLASSES)
    for scaling in sample_scalings(2, widths, seed=0, ratios=(0.25, 0.25)):
        share = counted_macs(SMALL.scaled(scaling), SHAPE, CLASSES) / base
        assert 0.2 < share <= 0.25


def test_a_budget_that_nothing_meets_is_refused():
    with pytest.raises(InputError, match="hardly any resolution"):
        sample_scalings(
            2, counted_widths(SMALL, SHAPE, CLASSES, (1.0, 2.0)), seed=0,
            ratios=(0.03, 0.03), resolutions=(1.2, 1.2), depths=(1.0, 1.0),
        )  # fmt: skip


def test_what_is_near_the_front_is_what_non_dominated_sorting_says():
    draw = torch.Generator().manual_seed(0)
    points = torch.rand(50, 2, generator=draw, dtype=torch.float64)
    fronts = NonDominatedSorting().do(points.numpy())
    expected = []
    for front in fronts:
        if len(expected) >= 10:
            break
        expected += front.tolist()
    assert near_front(points[:, 0], points[:, 1], 0.2).tolist() == sorted(expected)
    assert near_front(points[:, 0], points[:, 1], 1e-9).tolist() == sorted(fronts[0].tolist())
    assert near_front(points[:, 0], points[:, 1], 1.0).tolist() == list(range(50))
    with pytest.raises(InputError, match="equally long"):
        near_front(points[:, 0], points[:3, 1])
