"""Where a learning curve is going: exact Bayesian regression on families of curves.

A curve is `y(s) = c + a g(s) + noise`, with a decaying shape g of one parameter: a power law,
`(s / s_1)^-t`, or an exponential, `exp(-t (s - s_1) / S)` (Domhan, Springenberg and Hutter, IJCAI
2015, use such families under MCMC). Given the shape the model is linear, so with a
normal-inverse-gamma prior on (c, a) and the noise everything is closed form: the predictive of a
later step is a Student-t, and the marginal likelihood weighs the shapes of a grid. The predictive
distribution is then a mixture of Student-t distributions; nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import t as student_t

Array = NDArray[np.float64]

# Fine grids: between the shapes of a coarse one lie curves that it predicts wrongly, and surely.
POWERS = np.geomspace(0.05, 4.0, 100)  # exponents of the power laws
RATES = np.geomspace(0.5, 50.0, 100)  # of the exponentials, per S = the last step to be predicted
COEFFICIENT_SD = 100.0  # prior of c and a, in units of the noise's standard deviation
NOISE_SHAPE, NOISE_SCALE = 1.0, 1e-3  # inverse-gamma prior of the noise's variance, y scaled


@dataclass(frozen=True)
class CurvePrediction:
    """A mixture of Student-t distributions.

    Attributes:
        weights: Of the components, `k`; they sum to one.
        dof: Degrees of freedom, of all.
        loc: `k`, in the units of the curve.
        scale: `k`, in the units of the curve.
    """

    weights: Array
    dof: float
    loc: Array
    scale: Array

    @property
    def mean(self) -> float:
        """Its mean."""
        return float(self.weights @ self.loc)

    def cdf(self, value: float) -> float:
        """The probability of a value below this one."""
        return float(self.weights @ student_t.cdf((value - self.loc) / self.scale, self.dof))

    def logpdf(self, value: float) -> float:
        """The log of its density."""
        parts = student_t.logpdf((value - self.loc) / self.scale, self.dof) - np.log(self.scale)
        return float(np.logaddexp.reduce(np.log(self.weights) + parts))


def extrapolate(curve: Mapping[float, float], step: float) -> CurvePrediction:
    """What a curve will be at a later step.

    Args:
        curve: Values by step, at least two steps, all positive.
        step: Where to, beyond the last step.

    Raises:
        ValueError: Too few steps, or one that is not positive.
    """
    steps = np.array(sorted(curve), dtype=np.float64)
    if len(steps) < 2 or steps[0] <= 0:
        raise ValueError(f"a curve needs two or more positive steps, got {steps.tolist()}")
    y = np.array([curve[s] for s in steps])
    center, spread = y.mean(), y.std() or max(abs(y.mean()), 1.0)
    evidence, loc, scale = [], [], []
    for shape in _shapes(steps, np.append(steps, step), step):
        found = _regression(shape[:-1], (y - center) / spread, shape[-1])
        evidence.append(found[0])
        loc.append(found[1])
        scale.append(found[2])
    weights = np.exp(np.array(evidence) - np.logaddexp.reduce(evidence))
    dof = 2 * NOISE_SHAPE + len(steps)
    return CurvePrediction(weights, dof, center + spread * np.array(loc), spread * np.array(scale))


def _shapes(observed: Array, steps: Array, last: float) -> list[Array]:
    """The grid's shapes g at the steps, each 1 at the first step and decaying to 0."""
    first = observed[0]
    powers = [(steps / first) ** -t for t in POWERS]
    exponentials = [np.exp(-t * (steps - first) / last) for t in RATES]
    return powers + exponentials


def _regression(g: Array, y: Array, g_next: float) -> tuple[float, float, float]:
    """Conjugate regression of y on (1, g): log evidence, and the predictive's loc and scale.

    Prior: variance ~ IG(a0, b0), (c, a) | variance ~ N(0, variance V), V = COEFFICIENT_SD^2 I.
    Posterior: precision P = X'X + V^-1, mean m = P^-1 X'y, a_n = a0 + n/2,
    b_n = b0 + (y'y - m'P m) / 2. Evidence: (2 pi)^(-n/2) |P V|^(-1/2) b0^a0 / b_n^a_n
    Gamma(a_n) / Gamma(a0). Predictive at x: t with 2 a_n degrees of freedom, loc x'm and squared
    scale b_n / a_n (1 + x'P^-1 x).
    """
    n = len(y)
    X = np.column_stack([np.ones(n), g])
    P = X.T @ X + np.eye(2) / COEFFICIENT_SD**2
    m = np.linalg.solve(P, X.T @ y)
    a_n = NOISE_SHAPE + n / 2
    b_n = NOISE_SCALE + max(float(y @ y - m @ P @ m), 0.0) / 2
    log_evidence = (
        -n / 2 * np.log(2 * np.pi)
        - 0.5 * np.linalg.slogdet(P * COEFFICIENT_SD**2)[1]
        + NOISE_SHAPE * np.log(NOISE_SCALE)
        - a_n * np.log(b_n)
        + gammaln(a_n)
        - gammaln(NOISE_SHAPE)
    )
    x = np.array([1.0, g_next])
    variance = b_n / a_n * (1 + x @ np.linalg.solve(P, x))
    return float(log_evidence), float(x @ m), float(np.sqrt(variance))
