"""What is known of the noise in measurements: the variances that a surrogate is trained with.

A metric's noise is exact ("none"), told with each value ("known": the standard error), or to be
inferred by the surrogate ("inferred"); by default it counts as known where every value came with
a standard error. A surrogate takes the variances of all values of a metric or of none.

**Replicates.** The standard error of a mean of two or three values is itself a guess: with one
degree of freedom the estimated variance is off by a factor of ten in one case of four, and where
two values happen to agree, a surrogate that believes them interpolates them. So the variances of
replicated trials are *moderated*: each is pulled towards what is common to all trials, by as much
as the trials' variances agree beyond chance (Smyth 2004, Stat. Appl. Genet. Mol. Biol. 3:3),

    s~^2 = (d0 s0^2 + d s^2) / (d0 + d),

with s^2 the trial's own variance on d degrees of freedom, and s0^2, d0 the mean and the weight of
the prior, both from the moments of log s^2 over the trials. Noise that is the same everywhere
gives d0 = infinity, the pooled variance. In a campaign without replicates, standard errors are
taken at their word: nobody said from how many values they come.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import digamma, polygamma

from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.objective import Noise
from bo_surrogates.surrogates import SURROGATES

# A measurement without noise is given a standard error far below what matters, because a Gaussian
# process with exactly no noise is singular at repeated points.
RELATIVE_EXACT = 1e-9
SMALLEST_EXACT = 1e-150


def standard_errors(
    measurements: Mapping[int, Measurement], noise: Noise | None = None, replicates: int = 1
) -> dict[int, float] | None:
    """The standard error of each value of one metric, as surrogates are trained with it.

    Args:
        measurements: Of the metric, by trial.
        noise: As declared; None: known if every value has a standard error.
        replicates: Values behind each standard error, where more than one.

    Returns:
        By trial, above 0; None where the surrogate is to infer the noise.
    """
    if noise == "inferred" or not measurements:
        return None
    if noise == "none":
        return {i: _exact(m.mean) for i, m in measurements.items()}
    told = {i: m.sem for i, m in measurements.items() if m.sem is not None}
    if len(told) < len(measurements):
        return None
    if replicates > 1:
        variances = {i: sem**2 * replicates for i, sem in told.items()}
        freedom = replicates - 1
        prior, weight = variance_prior(list(variances.values()), [freedom] * len(variances))
        told = {
            i: math.sqrt(moderate(variance, freedom, prior, weight) / replicates)
            for i, variance in variances.items()
        }
    return {i: max(sem, _exact(measurements[i].mean)) for i, sem in told.items()}


def training_noise(
    spec: CampaignSpec, trials: Sequence[Trial], metric: str
) -> dict[int, float] | None:
    """`standard_errors` of a campaign's metric over its completed trials.

    None also where the campaign's surrogate takes no variances.
    """
    if not SURROGATES[spec.surrogate].capabilities.observation_variance:
        return None
    measured = {t.index: t.measurements[metric] for t in trials if t.status == "completed"}
    return standard_errors(measured, spec.noise.get(metric), spec.replicates)


def _exact(value: float) -> float:
    return max(RELATIVE_EXACT * abs(value), SMALLEST_EXACT)


def moderate(variance: float, freedom: float, prior: float, weight: float) -> float:
    """A variance on `freedom` degrees of freedom, pulled towards a prior of that weight."""
    if math.isinf(weight):
        return prior
    return (weight * prior + freedom * variance) / (weight + freedom)


def variance_prior(variances: Sequence[float], degrees: Sequence[float]) -> tuple[float, float]:
    """Location s0^2 and degrees of freedom d0 of the scaled inverse chi-squared prior of variances.

    Matches mean and variance of log s^2 (Smyth 2004, section 6.2).

    Args:
        variances: `n` sample variances, >= 0.
        degrees: `n` degrees of freedom of each, >= 1.

    Returns:
        s0^2 and d0; d0 is infinite where the variances differ no more than chance has it, and then
        s0^2 is the pooled variance.
    """
    s2, d = np.asarray(variances, dtype=float), np.asarray(degrees, dtype=float)
    pooled = float((s2 * d).sum() / d.sum())
    if len(s2) < 3 or pooled == 0:
        return pooled, math.inf  # too few to tell how much they differ
    # Values that agree in all digits have no logarithm: they are told apart no finer than that.
    logs = np.log(np.where(s2 > 0, s2, s2[s2 > 0].min()))
    e = logs - digamma(d / 2) + np.log(d / 2)
    excess = float(
        np.mean((e - e.mean()) ** 2) * len(e) / (len(e) - 1) - polygamma(1, d / 2).mean()
    )
    if excess <= 0:
        return pooled, math.inf
    half = _inverse_trigamma(excess)
    return float(np.exp(e.mean() + digamma(half) - np.log(half))), 2 * half


def _inverse_trigamma(value: float) -> float:
    """The x > 0 with trigamma(x) = value, by Newton's method on 1 / trigamma (Smyth, appendix)."""
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-10 * x:
            break
    return x
