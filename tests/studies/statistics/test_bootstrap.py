"""Bootstrap intervals: variances in closed form, exact laws of order statistics, coverage."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bo_surrogates.errors import InputError
from studies.statistics import (
    Blocks,
    Trajectories,
    hierarchical_bootstrap,
    probability_of_superiority,
)
from studies.statistics.curves import median_interval, quartiles

NOTHING = pd.DataFrame()


def test_the_interval_has_the_variance_of_resampling_at_two_levels():
    rng = np.random.default_rng(0)
    groups = [rng.normal(rng.normal(), 2.0, size=20) for _ in range(40)]
    found = hierarchical_bootstrap(groups, resamples=8000)
    between = np.var([g.mean() for g in groups])
    inside = np.mean([g.var() / len(g) for g in groups])
    assert found.value == pytest.approx(np.mean([g.mean() for g in groups]))
    width = 2 * 1.96 * np.sqrt((between + inside) / 40)
    assert found.high - found.low == pytest.approx(width, rel=0.08)
    fixed = hierarchical_bootstrap(groups, fixed_problems=True, resamples=8000)
    assert fixed.high - fixed.low == pytest.approx(2 * 1.96 * np.sqrt(inside / 40), rel=0.08)


def test_the_interval_covers_the_mean_over_problems_and_one_of_seeds_alone_does_not():
    rng = np.random.default_rng(1)
    covered = np.zeros(2)
    for trial in range(100):
        groups = [rng.normal(rng.normal(), 1.0, size=6) for _ in range(12)]  # the truth is 0
        for k, fixed in enumerate((False, True)):
            found = hierarchical_bootstrap(groups, fixed_problems=fixed, resamples=150, seed=trial)
            covered[k] += found.low <= 0 <= found.high
    # Nominal 0.95; of 12 problems about 0.92 is to be had. Five standard deviations of 100 trials.
    assert covered[0] / 100 > 0.92 - 5 * np.sqrt(0.92 * 0.08 / 150)
    assert covered[1] / 100 < 0.75


def test_numbers_of_seeds_may_differ_and_problems_weigh_the_same():
    found = hierarchical_bootstrap([np.array([1.0]), np.array([4.0, 6.0, 5.0])])
    assert found.value == 3.0
    assert (found.low, found.high) == (1.0, pytest.approx(5.4, abs=0.3))
    again = hierarchical_bootstrap([np.array([1.0]), np.array([4.0, 6.0, 5.0])])
    assert found == again


def test_medians_within_problems_are_resampled_as_such():
    found = hierarchical_bootstrap([np.array([0.0, 0.0, 100.0])] * 3, within="median")
    assert found.value == 0.0


@pytest.mark.parametrize("groups", [[], [np.zeros((0, 2))]])
def test_nothing_to_resample_is_said(groups):
    with pytest.raises(InputError, match="one problem at least"):
        hierarchical_bootstrap(groups)


def test_intervals_of_the_median_have_the_exact_law_of_its_bootstrap():
    n = 11
    data = np.sort(np.random.default_rng(2).normal(size=n))
    low, high = median_interval(data[:, None], level=0.95, resamples=8000)
    # The bootstrap's median is at most the k-th value if 6 of 11 draws are.
    law = stats.binom.sf(n // 2, n, np.arange(1, n + 1) / n)
    assert low == data[np.searchsorted(law, 0.025)]
    assert high == data[np.searchsorted(law, 0.975)]


def test_infinite_values_stay_beyond_all_finite_ones():
    data = np.array([[1.0, 1.0], [2.0, np.inf], [np.inf, np.nan]])
    q25, median, q75 = quartiles(data)
    assert q25.tolist() == [1.5, np.inf]
    assert median.tolist() == [2.0, np.inf]
    assert q75.tolist() == [np.inf, np.inf]
    low, high = median_interval(data)
    assert low.tolist() == [1.0, 1.0]
    assert high.tolist() == [np.inf, np.inf]
    assert np.isnan(median_interval(data[:1])[0]).all()


def blocks_of(*problems):
    names = tuple("abc"[: np.shape(problems[0])[1]])
    found = tuple(
        Trajectories(f"p{k}", names, tuple(range(len(f))), 1, np.array(f, float)[:, :, None], True)
        for k, f in enumerate(problems)
    )
    return Blocks(names, found, NOTHING, NOTHING)


def test_superiority_counts_pairs_of_runs_with_ties_as_halves():
    blocks = blocks_of([[1, 2], [2, 1], [1, 1], [0, 5]], [[3, 1]])
    found = probability_of_superiority(blocks).set_index(["a", "b"])
    ab, ba = found.loc[("a", "b")], found.loc[("b", "a")]
    assert ab["probability"] == (2.5 / 4 + 0) / 2
    assert ab["probability"] + ba["probability"] == 1
    assert ab[["wins", "ties", "losses"]].tolist() == [2, 1, 2]
    assert (ab["low"], ab["high"]) == pytest.approx((1 - ba["high"], 1 - ba["low"]))
    assert ab["low"] == 0.0


def test_one_that_always_wins_is_superior_without_doubt():
    found = probability_of_superiority(blocks_of(*[[[1, 2], [1, 3]]] * 3))
    assert found.loc[0, ["probability", "low", "high"]].tolist() == [1, 1, 1]


def test_superiority_over_a_surrogate_drawn_alike_is_one_half():
    rng = np.random.default_rng(4)
    found = probability_of_superiority(blocks_of(*rng.normal(size=(30, 20, 2))))
    assert found["probability"][0] == pytest.approx(0.5, abs=5 * np.sqrt(0.25 / 600))
    assert found["low"][0] < 0.5 < found["high"][0]
    assert probability_of_superiority(Blocks(("a", "b"), (), NOTHING, NOTHING)).empty
