"""Outliers among the observations of a Gaussian process, by backward relevance pursuit.

Model: y ~ N(c, K + diag(s2 + r)), K a stationary kernel of variance one with a lengthscale for each
input, and r_i > 0 for the outliers among the observations, 0 for the others (Ament et al. 2024,
arXiv 2410.24222). The density of y times the priors is a function of

    log l_1, ..., log l_d,  log s2,  c,  and p_i in [0, 1) of each outlier,

with r_i = (1 + s2) p_i / (1 - p_i), theirs and BoTorch's parametrization. Priors are densities of
l_j and s2, not of their logarithms: the maximum is that of any parametrization.

Gradient. With S = K + diag(s2 + r), a = S^-1 (y - c) and G = (a a' - S^-1) / 2, the log likelihood
has the gradient G in K, the diagonal of G in the variances, and sum(a) in c. K depends on the
squared distances D of z = x / l, and with W = G k'(D), elementwise,

    d / d log l_j = -2 sum_ii' W_ii' (z_ij - z_i'j)^2 = -4 (sum_i (W 1)_i z_ij^2 - z_j' W z_j):

one product of matrices for all inputs, beside a Cholesky factor and an inverse.

Pursuit. It starts with all points as outliers, and drops those with the smallest p_i in steps; at
each number of outliers everything else maximizes the density, by L-BFGS-B from where the last step
ended.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize

from bo_surrogates.inference.cholesky import psd_safe_cholesky

Array = npt.NDArray[np.float64]

MAX_SHARE = 1.0 - 1e-3  # of p: an outlier has at most a thousand times the variance of a point
TOLERANCE = 1e-6  # of a search in the density per point: models differ by far more
FINE_TOLERANCE = 1e-9  # of the last search


class LogNormal(NamedTuple):
    """A prior of a positive number. Attributes: mean and standard deviation of its logarithm."""

    location: float
    scale: float

    @property
    def log_mode(self) -> float:
        """Logarithm of the number where its density is largest."""
        return self.location - self.scale**2

    def log_density(self, logarithm: Array) -> tuple[Array, Array]:
        """Of the number, at its logarithm, and the derivative in the logarithm."""
        z = (logarithm - self.location) / self.scale
        constant = math.log(self.scale * math.sqrt(2.0 * math.pi))
        return -0.5 * z * z - logarithm - constant, -z / self.scale - 1.0


def stationary(squares: Array, nu: float) -> tuple[Array, Array]:
    """Matern kernel of smoothness 1.5, 2.5 or infinity at squared distances, and its derivative."""
    if math.isinf(nu):
        k = np.exp(-0.5 * squares)
        return k, -0.5 * k
    u = np.sqrt(2.0 * nu * squares)
    decay = np.exp(-u)
    if nu == 1.5:
        return (1.0 + u) * decay, -1.5 * decay
    slope = (1.0 + u) * decay
    return slope + u * u / 3.0 * decay, -5.0 / 6.0 * slope


class Optimum(NamedTuple):
    """A maximum over everything but the choice of the outliers.

    Attributes:
        position: `d + 2`: log lengthscales, log noise variance, mean.
        outliers: Indices of the points that may be outliers.
        share: p of each of these.
        log_density: Log likelihood and log priors.
    """

    position: Array
    outliers: npt.NDArray[np.intp]
    share: Array
    log_density: float


class OutlierDensity:
    """Log likelihood and log priors of the module's docstring, and their gradient.

    Args:
        X: `n x d` inputs in the unit cube.
        y: `n` standardized outcomes.
        nu: Smoothness of the kernel: 1.5, 2.5 or infinity.
        lengthscale: Prior of each lengthscale.
        noise: Prior of s2.
        lower: Least lengthscale and least s2.
    """

    def __init__(
        self,
        X: Array,
        y: Array,
        nu: float,
        lengthscale: LogNormal,
        noise: LogNormal,
        lower: tuple[float, float],
    ) -> None:
        # Squared distances come from inner products, which are exact enough about the centre.
        self.X, self.y, self.nu = X - X.mean(axis=0), y, nu
        self.lengthscale, self.noise = lengthscale, noise
        self.log_lower = tuple(math.log(value) for value in lower)
        self.evaluations = 0

    @property
    def start(self) -> Array:
        """`d + 2`: the modes of the priors, and mean zero."""
        d = self.X.shape[-1]
        return np.array([self.lengthscale.log_mode] * d + [self.noise.log_mode, 0.0])

    def __call__(self, position: Array, outliers: npt.NDArray[np.intp]) -> tuple[float, Array]:
        """Value and gradient at a position that ends with the p of the outliers."""
        self.evaluations += 1
        n, d = self.X.shape
        log_l, log_noise, mean = position[:d], position[d], position[d + 1]
        share = position[d + 2 :]
        odds = share / (1.0 - share)
        noise = math.exp(log_noise)
        z = self.X * np.exp(-log_l)
        norms = np.einsum("ij,ij->i", z, z)
        squares = norms[:, None] + norms - 2.0 * (z @ z.T)
        S, slope = stationary(np.maximum(squares, 0.0, out=squares), self.nu)
        S.flat[:: n + 1] = 1.0 + noise
        S[outliers, outliers] += (1.0 + noise) * odds
        L = psd_safe_cholesky(torch.from_numpy(S))
        inverse = torch.cholesky_inverse(L).numpy()
        residual = self.y - mean
        alpha = inverse @ residual
        value = -0.5 * (residual @ alpha) - L.diagonal().log().sum().item()
        value -= 0.5 * n * math.log(2.0 * math.pi)
        G = 0.5 * (np.outer(alpha, alpha) - inverse)
        of_variance = G.diagonal().copy()
        of_outliers = of_variance[outliers]
        W = np.multiply(G, slope, out=G)
        weighted = W.sum(axis=-1) @ (z * z) - np.einsum("ij,ij->j", z, W @ z)
        prior_l, prior_l_slope = self.lengthscale.log_density(log_l)
        prior_noise, prior_noise_slope = self.noise.log_density(log_noise)
        gradient = np.concatenate([
            prior_l_slope - 4.0 * weighted,
            [prior_noise_slope + noise * (of_variance.sum() + of_outliers @ odds), alpha.sum()],
            of_outliers * (1.0 + noise) / (1.0 - share) ** 2,
        ])  # fmt: skip
        return float(value + prior_l.sum() + prior_noise), gradient

    def maximize(
        self,
        outliers: npt.NDArray[np.intp],
        position: Array,
        share: Array | None = None,
        tolerance: float = TOLERANCE,
    ) -> Optimum:
        """The maximum near a position and the outliers' p, which are zero by default.

        Raises:
            NotPSDError, NanError: The covariance cannot be factorized.
        """
        n, d = self.X.shape
        start = np.concatenate([position, np.zeros(len(outliers)) if share is None else share])

        def loss(x: Array) -> tuple[float, Array]:
            value, gradient = self(x, outliers)
            return -value / n, -gradient / n

        bounds: list[tuple[float | None, float | None]]
        bounds = [(self.log_lower[0], None)] * d + [(self.log_lower[1], None), (None, None)]
        bounds += [(0.0, MAX_SHARE)] * len(outliers)
        options: Any = {"ftol": tolerance, "gtol": 1e-5, "maxiter": 10_000}
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        return Optimum(found.x[: d + 2], outliers, found.x[d + 2 :], -n * float(found.fun))


def pursue(density: OutlierDensity, counts: Iterable[int]) -> list[Optimum]:
    """A maximum for each number of outliers, from many to few.

    There are several local ones. Each search is made twice, from where the last one ended and from
    the priors' modes; at no outliers, where the noise has to explain what they did, also from much
    noise. The best is kept.

    Args:
        density: Of the data.
        counts: Numbers of outliers, at most n.
    """
    modes = density.start
    noisy = modes.copy()
    noisy[-2] = 0.0
    current = density.maximize(np.arange(len(density.y)), modes)
    found = []
    for count in sorted(set(counts), reverse=True):
        # The largest p, in the order of the points; of equal ones the last.
        kept = np.sort(np.argsort(current.share, kind="stable")[len(current.share) - count :])
        outliers, share = current.outliers[kept], current.share[kept]
        starts = [current.position, modes, *([noisy] if count == 0 else [])]
        current = max(
            (density.maximize(outliers, start, share) for start in starts),
            key=lambda optimum: optimum.log_density,
        )
        found.append(current)
    return found
