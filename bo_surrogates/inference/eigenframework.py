"""What ridge regression on random features will do: its errors from a kernel's eigenstructure.

Take n observations y = f(x) + e, e ~ N(0, sigma^2), and k random features whose mean product is
the kernel K = sum_i lambda_i e_i(x) e_i(x'), orthonormal in the law of x; f = sum_i v_i e_i. With
kappa, gamma >= 0 from

    n = sum_i L_i + delta / kappa,    k = sum_i L_i + k kappa / gamma,    L_i = lambda_i / (lambda_i + gamma),

z = sum L_i and q = sum L_i^2, ridge regression with ridge delta has the expected errors

    test  = [sum_i (gamma / (lambda_i + gamma) - kappa lambda_i / (lambda_i + gamma)^2 k / (k - q)) v_i^2 + sigma^2]
            / [1 - (q (k - 2 z) + z^2) / (n (k - q))],
    train = (delta / (n kappa))^2 test

(Simon et al. 2024, arXiv 2311.14646, section 3); the test error is that of noisy observations. For
k = infinity, gamma = kappa: kernel regression. delta is added to the `n x n` Gram matrix, features
being divided by sqrt(k).
"""  # noqa: E501

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq, minimize_scalar
from torch import Tensor

from bo_surrogates.errors import InputError

BISECTIONS = 120


@dataclass(frozen=True)
class Eigenstructure:
    """A kernel's eigenvalues and a function's coefficients, in the law of the inputs.

    Attributes:
        eigenvalues: `r`, lambda_i >= 0, float64.
        power: `r`, v_i^2.
        noise: sigma^2 >= 0.
    """

    eigenvalues: Tensor
    power: Tensor
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.eigenvalues.ndim != 1 or self.eigenvalues.shape != self.power.shape:
            raise InputError(
                "Eigenstructure: eigenvalues and power must be vectors of one length, got "
                f"{tuple(self.eigenvalues.shape)} and {tuple(self.power.shape)}"
            )
        if (self.eigenvalues < 0).any() or not (self.eigenvalues > 0).any():
            raise InputError("Eigenstructure: eigenvalues must be >= 0, and one of them > 0")
        if (self.power < 0).any() or self.noise < 0:
            raise InputError("Eigenstructure: power and noise must be >= 0")

    @classmethod
    def of_gram(cls, K: Tensor, y: Tensor, noise: float = 0.0) -> Eigenstructure:
        """The empirical one, of N inputs; it predicts the errors of n well below N observations.

        Args:
            K: `N x N` kernel.
            y: `N` observations.
            noise: The variance of their noise, which is taken off the coefficients.
        """
        values, vectors = torch.linalg.eigh(K)
        power = (vectors.mT @ y).square() / len(y) - noise / len(y)
        return cls(values.clamp_min(0) / len(y), power.clamp_min(0), noise)

    def solve(self, n: float, width: float, ridge: float) -> tuple[float, float]:
        """kappa and gamma.

        Args:
            n: Number of observations, > 0.
            width: k > 0, the number of random features; `math.inf` for the kernel itself.
            ridge: delta > 0.
        """
        if not (n > 0 and width > 0 and ridge > 0 and math.isfinite(n) and math.isfinite(ridge)):
            raise InputError(
                "Eigenstructure: n, width and ridge must be positive, n and ridge finite, got "
                f"n={n!r}, width={width!r}, ridge={ridge!r}"
            )
        values = self.eigenvalues
        # The residual n(gamma) - n falls in gamma. At the upper end both of its terms are below
        # n / 2, since kappa >= gamma / 2 where z <= k / 2.
        top = values.sum().item() * (2.0 / n + 2.0 / width) + 4.0 * ridge / n
        low, high = math.log(top) - 100.0, math.log(top)
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            gamma = math.exp(middle)
            z = (values / (values + gamma)).sum().item()
            kappa = gamma * (1.0 - z / width)
            if kappa <= 0 or z + ridge / kappa > n:
                low = middle
            else:
                high = middle
        gamma = math.exp(high)
        z = (values / (values + gamma)).sum().item()
        return gamma * (1.0 - z / width), gamma

    def test_error(self, n: float, width: float, ridge: float) -> float:
        """Expected square error of a new, noisy observation; arguments as for `solve`."""
        kappa, gamma = self.solve(n, width, ridge)
        values = self.eigenvalues
        L = values / (values + gamma)
        z, q = L.sum().item(), L.square().sum().item()
        if math.isinf(width):
            bias, share = (1.0 - L).square(), q / n
        else:
            bias = (1.0 - L) - (kappa / gamma) * L * (1.0 - L) * width / (width - q)
            share = (q * (width - 2.0 * z) + z**2) / (n * (width - q))
        return ((bias * self.power).sum().item() + self.noise) / (1.0 - share)

    def train_error(self, n: float, width: float, ridge: float) -> float:
        """Expected mean square residual of the n observations; arguments as for `solve`."""
        kappa, _ = self.solve(n, width, ridge)
        return (ridge / (n * kappa)) ** 2 * self.test_error(n, width, ridge)

    def best_ridge(self, n: float, width: float) -> float:
        """The ridge of the smallest expected test error; arguments as for `solve`."""
        unit = self.eigenvalues.sum().item()

        def error(log_ridge: float) -> float:
            return self.test_error(n, width, unit * math.exp(log_ridge))

        grid = np.linspace(-20.0, 14.0, 35)
        best = int(np.argmin([error(x) for x in grid]))
        around = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        found = minimize_scalar(error, bounds=around, method="bounded", options={"xatol": 1e-3})
        return unit * math.exp(found.x)


def optimal_fitting_ratio(alpha: float, beta: float, relative_noise: float) -> float:
    """Training over test error at the best ridge, for a kernel and a function of power laws.

    lambda_i ~ i^-alpha and v_i^2 ~ i^-beta, n to infinity (Simon et al. 2024, section 5). Zero says
    that the best fit interpolates its noisy data.

    Args:
        alpha: > 1.
        beta: In (1, 2 alpha + 1).
        relative_noise: sigma^2 >= 0, in units of the test error at no ridge and no noise.
    """
    if not (alpha > 1 and 1 < beta < 2 * alpha + 1 and relative_noise >= 0):
        raise InputError(
            "optimal_fitting_ratio: takes alpha > 1, beta in (1, 2 alpha + 1) and relative_noise "
            f">= 0, got alpha={alpha!r}, beta={beta!r}, relative_noise={relative_noise!r}"
        )

    def slope(rho: float) -> float:
        noise = alpha * (alpha - 1.0) * relative_noise * (1.0 - rho) ** beta
        return alpha - beta - (alpha - 1.0) * beta * rho + noise

    return brentq(slope, 0.0, 1.0) ** 2 if slope(0.0) > 0 else 0.0
