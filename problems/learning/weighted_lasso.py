"""Lasso with a penalty of its own for every feature, chosen by cross-validation.

    w = argmin |y - X w|^2 / (2 n) + lambda_max sum_j r_j |w_j|,    r_j in [0.001, 1] (logarithmic),

lambda_max being the least common penalty that makes w zero. Minimize the cross-validated mean
squared error over the variance of y. In hundreds of dimensions few matter: those of the features
that y depends on.

With `data="synthetic"`: y = X w + noise for `samples` rows of normal features with correlations
`correlation`^|i - j|, `active` weights of +-1 at random places, and noise of variance
var(X w) / `snr`. "diabetes" is scikit-learn's, with its 10 features.

Source: Šehić, Gramfort, Salmon and Nardi 2022, LassoBench, AutoML, arXiv 2111.02790.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bo_surrogates.config import Config, choice, integer, real
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
from bo_surrogates.threads import limited_threads
from problems.base import Problem
from problems.learning.cross_validated import load

LEAST = 1e-3  # r_j


@dataclass(frozen=True)
class WeightedLassoConfig(Config):
    """Options of `weighted_lasso`.

    Attributes:
        data: "synthetic" or "diabetes".
        features: Of the synthetic data.
        samples: Of the synthetic data.
        active: Features that y depends on, at most `features`.
        correlation: Of neighbouring features, in [0, 1).
        snr: Ratio of the variances of signal and noise.
        folds: Of the cross-validation.
        data_seed: Of the synthetic data and of the folds.
    """

    data: str = choice("synthetic", ("synthetic", "diabetes"))
    features: int = integer(100, 2, 10_000)
    samples: int = integer(60, 4, 100_000)
    active: int = integer(5, 1, 10_000)
    correlation: float = real(0.6, 0.0, 0.99)
    snr: float = real(8.0, 1e-3, 1e6)
    folds: int = integer(5, 2, 20)
    data_seed: int = integer(0, 0, 2**31 - 1)


class WeightedLasso(Problem):
    """See the module's docstring; keywords as for `Problem`."""

    config_class: ClassVar[type[Config]] = WeightedLassoConfig

    def __init__(
        self,
        config: WeightedLassoConfig | None = None,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        config = config or WeightedLassoConfig()
        if config.data == "diabetes":
            X, y = load("diabetes")
        else:
            X, y, _ = draw(config)
        self._X, self._y = X - X.mean(axis=0), (y - y.mean()) / y.std()
        self._largest = np.abs(self._X.T @ self._y).max() / len(y)
        names = [f"penalty_{j + 1}" for j in range(X.shape[1])]
        super().__init__(
            Space([Float(name, LEAST, 1.0, log=True) for name in names]),
            [Objective("relative_squared_error")],
            config=config,
            noise_std=noise_std,
            negate=negate,
        )

    def _true_metrics(self, X: Tensor) -> Tensor:
        rows = X.detach().reshape(-1, self.dim).cpu().numpy()
        with limited_threads(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # slow convergence at the least penalties
            scores = [self._error(r) for r in rows]
        return torch.tensor(scores, dtype=torch.float64).to(X).reshape(*X.shape[:-1], 1)

    def _error(self, r: NDArray[np.float64]) -> float:
        from sklearn.linear_model import Lasso
        from sklearn.model_selection import KFold

        config: WeightedLassoConfig = self.config  # type: ignore[assignment]
        # A penalty r_j on w_j is one on v_j = r_j w_j, whose feature is x_j / r_j.
        X, y = self._X / r, self._y
        lasso = Lasso(self._largest, tol=1e-5, max_iter=2000)
        folds = KFold(config.folds, shuffle=True, random_state=config.data_seed)
        errors = [
            np.square(y[test] - lasso.fit(X[train], y[train]).predict(X[test])).sum()
            for train, test in folds.split(X)
        ]
        return float(sum(errors) / len(y))


def draw(
    config: WeightedLassoConfig,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Synthetic features `n x d`, outcomes `n` and weights `d`."""
    rng = np.random.default_rng(config.data_seed)
    n, d, rho = config.samples, config.features, config.correlation
    X = rng.standard_normal((n, d))
    for j in range(1, d):  # an autoregressive process along the features
        X[:, j] = rho * X[:, j - 1] + np.sqrt(1 - rho**2) * X[:, j]
    weights = np.zeros(d)
    places = rng.permutation(d)[: config.active]
    weights[places] = rng.choice([-1.0, 1.0], len(places))
    signal = X @ weights
    noise = rng.standard_normal(n) * np.sqrt(signal.var() / config.snr)
    return X, signal + noise, weights
