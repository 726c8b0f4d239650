"""Coverage and probability integral transforms: exact cases, SciPy's intervals, and simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from studies.statistics import coverage, pit_histogram, predictive_scores
from tests.studies.synthetic_results import make_frames


def frame(values, problem="p", seed=0):
    return pd.DataFrame({"problem": problem, "surrogate": "gp", "seed": seed, "pit": values})


def test_coverage_counts_central_intervals():
    found = coverage(frame([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 0.3, np.nan]))
    assert found["coverage"].tolist() == [4 / 8, 6 / 8]
    assert found["predictions"].tolist() == [8, 8]
    expected = stats.binomtest(6, 8).proportion_ci(method="wilson")
    assert found.loc[1, ["binomial_low", "binomial_high"]].tolist() == [expected.low, expected.high]
    assert found["low"].isna().all()  # of one run


def test_coverage_is_what_the_iterations_say():
    frames = make_frames(iterations=40)
    found = coverage(frames["pit"]).set_index(["surrogate", "level"])["coverage"]
    for surrogate, mine in frames["iterations"].groupby("surrogate"):
        assert found[surrogate, 0.5] == pytest.approx(mine["coverage_50"].mean())
        assert found[surrogate, 0.9] == pytest.approx(mine["coverage_90"].mean())


def test_dependent_predictions_widen_the_interval_and_the_binomial_one_is_too_narrow():
    rng = np.random.default_rng(0)
    # Each run is right in all its intervals or in none.
    runs = [frame(np.full(30, 0.5 if rng.random() < 0.7 else 1.0), seed=s) for s in range(40)]
    (row,) = coverage(pd.concat(runs), levels=[0.9]).itertuples()
    half = 1.96 * np.sqrt(row.coverage * (1 - row.coverage) / 40)
    assert row.high - row.low == pytest.approx(2 * half, rel=0.25)
    assert row.binomial_high - row.binomial_low < 0.3 * (row.high - row.low)


def test_the_band_holds_histograms_of_uniform_transforms_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(1000):
        found = pit_histogram(rng.random(200))
        inside += ((found.density >= found.low) & (found.density <= found.high)).all()
    # Counts are whole, so the band is a little wide; five standard deviations below 0.95.
    assert inside / 1000 > 0.95 - 5 * np.sqrt(0.95 * 0.05 / 1000)
    assert inside / 1000 < 0.995


def test_a_histogram_is_a_density():
    found = pit_histogram([0.05, 0.05, 0.15, 0.95, np.nan])
    assert found.density.sum() / 10 == pytest.approx(1.0)
    assert found.density[:2].tolist() == [5.0, 2.5]
    assert found.predictions == 4
    assert pit_histogram([]).density.tolist() == [0.0] * 10


def test_predictive_scores_are_means_over_problems_of_medians():
    steps = pd.DataFrame(
        {
            "problem": ["p", "p", "p", "q"], "surrogate": "gp",
            "nlpd": [1.0, 2.0, 99.0, 4.0], "crps": [0.1, 0.2, 0.9, 0.4],
        }
    )  # fmt: skip
    assert predictive_scores(steps).iloc[0].tolist() == ["gp", 3.0, pytest.approx(0.3)]
