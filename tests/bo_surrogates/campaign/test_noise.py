"""Variances that surrogates are trained with: declared, told, or moderated over replicates."""

import math

import numpy as np
import pytest
from scipy.special import digamma, polygamma

from bo_surrogates.campaign.noise import moderate, standard_errors, variance_prior
from bo_surrogates.campaign.trial import Measurement


def told(*pairs):
    return {i: Measurement(*p) for i, p in enumerate(pairs)}


def test_noise_is_known_by_default_where_every_value_has_a_standard_error():
    assert standard_errors(told((1.0, 0.2), (2.0, 0.3)), None) == {0: 0.2, 1: 0.3}
    assert standard_errors(told((1.0, 0.2), (2.0,)), None) is None
    assert standard_errors({}, None) is None


def test_declared_noise_overrules_what_was_told():
    both = told((1.0, 0.2), (-50.0, 0.3))
    assert standard_errors(both, "inferred") is None
    exact = standard_errors(told((1.0,), (-50.0,)), "none")
    assert exact == pytest.approx({0: 1e-9, 1: 5e-8})
    assert standard_errors(told((0.0, 0.0), (0.0, 0.0)), "known") == {0: 1e-150, 1: 1e-150}


def test_replicates_of_equal_noise_get_the_pooled_variance():
    """Three values a trial, one noise everywhere: no trial's own luck may count for much."""
    generator = np.random.default_rng(0)
    values = 5.0 + 0.3 * generator.standard_normal((400, 3))
    sems = values.std(axis=1, ddof=1) / math.sqrt(3)
    measured = told(*zip(values.mean(axis=1).tolist(), sems.tolist(), strict=True))
    moderated = np.array(list(standard_errors(measured, None, replicates=3).values()))
    truth = 0.3 / math.sqrt(3)
    assert sems.min() < 0.1 * truth  # some trials' three values happen to agree
    assert abs(moderated / truth - 1).max() < 0.35
    taken_at_their_word = standard_errors(measured, None)
    assert list(taken_at_their_word.values()) == pytest.approx(sems)


def test_noise_that_differs_between_trials_is_told_apart():
    generator = np.random.default_rng(1)
    scales = np.where(np.arange(300) % 2 == 0, 0.01, 1.0)
    values = scales[:, None] * generator.standard_normal((300, 5))
    variances = values.var(axis=1, ddof=1)
    prior, weight = variance_prior(variances, [4] * 300)
    assert weight < 2.0  # the trials' variances say nothing of one another's
    moderated = np.array([moderate(v, 4, prior, weight) for v in variances])
    assert np.median(moderated[scales == 1.0] / moderated[scales == 0.01]) > 100


def test_the_prior_matches_the_moments_of_the_log_variances():
    """Draws from the model itself give its parameters back, within four standard errors."""
    generator = np.random.default_rng(2)
    d0, s0, d, n = 6.0, 2.0, 2.0, 20_000
    sigma2 = s0 * d0 / generator.chisquare(d0, n)
    variances = sigma2 * generator.chisquare(d, n) / d
    prior, weight = variance_prior(variances, [d] * n)
    # log s^2 has this variance by construction, so the estimates' errors are known.
    spread = polygamma(1, d / 2) + polygamma(1, d0 / 2)
    assert weight == pytest.approx(d0, rel=0.25)
    assert math.log(prior) == pytest.approx(math.log(s0), abs=5 * math.sqrt(spread / n) + 0.05)
    e = np.log(variances) - digamma(d / 2) + math.log(d / 2)
    half = weight / 2
    assert e.var(ddof=1) == pytest.approx(polygamma(1, d / 2) + polygamma(1, half), rel=1e-8)
    assert e.mean() == pytest.approx(math.log(prior) - digamma(half) + math.log(half), rel=1e-8)


def test_few_or_equal_replicates_are_pooled():
    assert variance_prior([1.0, 3.0], [1, 1]) == (2.0, math.inf)
    assert variance_prior([0.0, 0.0, 0.0], [2, 2, 2]) == (0.0, math.inf)
    # Values that agree in all digits do not make a trial exact.
    measured = told((1.0, 0.0), (1.0, 0.1), (1.0, 0.2), (1.0, 0.15))
    assert standard_errors(measured, None, replicates=2)[0] > 0.01
