"""Learners of scikit-learn judged by cross-validation on its bundled data.

A subclass says which learner belongs to which parameters; here are the data, the folds and the
score. The true metric is that of one fixed division into folds; an observation divides the data
anew, by its seed, so that it is noisy as such scores are. All learners draw their random numbers
from the same seed as the folds.

Data: breast_cancer (569 x 30, two classes), digits (1797 x 64, ten classes), wine (178 x 13, three
classes), and diabetes (442 x 10, regression). Score: the share of errors, or for regression the
mean squared error over the variance of the outcomes (1 for a constant prediction).
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bo_surrogates.config import Config
from bo_surrogates.objective import Objective
from bo_surrogates.seeding import derive_seed
from bo_surrogates.space import Space, Values
from bo_surrogates.threads import limited_threads
from problems.base import Problem

DATA = ("breast_cancer", "digits", "wine", "diabetes")
REGRESSION = ("diabetes",)


class CrossValidated(Problem):
    """Base of the problems; keywords as for `Problem`.

    Args:
        space: The learner's parameters.
        config: With the fields `data`, `folds`, `fold_seed`.
        noise_std: Further noise, beside that of the folds.
        negate: See `Problem`.
    """

    def __init__(
        self,
        space: Space,
        config: Config,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        options: Any = config
        name = "relative_squared_error" if options.data in REGRESSION else "error"
        super().__init__(
            space, [Objective(name)], config=config, noise_std=noise_std, negate=negate
        )

    @abstractmethod
    def estimator(self, values: Values, seed: int) -> Any:
        """scikit-learn's learner at a point's active parameters, not fitted."""

    def score(self, values: Values, seed: int) -> float:
        """Cross-validated score of one point with folds and random numbers by the seed."""
        from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict

        options: Any = self.config
        X, y = load(options.data)
        kind = KFold if options.data in REGRESSION else StratifiedKFold
        folds = kind(options.folds, shuffle=True, random_state=seed % 2**32)
        # One thread, and sums in one order: the same score on any machine and with any workers.
        with limited_threads(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that more iterations would help is what is measured
            predicted = cross_val_predict(self.estimator(values, seed % 2**32), X, y, cv=folds)
        if options.data in REGRESSION:
            return float(np.square(y - predicted).mean() / y.var())
        return float((predicted != y).mean())

    def _true_metrics(self, X: Tensor) -> Tensor:
        options: Any = self.config
        return self._scores(X, lambda row: options.fold_seed)

    def _observed_metrics(self, X: Tensor, seed: int | None) -> Tensor:
        drawn = int(torch.randint(2**31 - 1, ())) if seed is None else seed
        scores = self._scores(X, lambda row: derive_seed(drawn, "folds", row))
        generator = torch.Generator().manual_seed(derive_seed(drawn, "noise"))
        return self._with_noise(scores, generator)

    def _scores(self, X: Tensor, seed_of: Callable[[int], int]) -> Tensor:
        rows = X.detach().reshape(-1, self.dim).cpu()
        scores = [self.score(self.space.decode(x), seed_of(i)) for i, x in enumerate(rows)]
        return torch.tensor(scores, dtype=torch.float64).to(X).reshape(*X.shape[:-1], 1)


@cache
def load(name: str) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Inputs, standardized column by column, and outcomes of one of `DATA`."""
    from sklearn import datasets

    bundle = getattr(datasets, f"load_{name}")()
    X = np.asarray(bundle.data, dtype=np.float64)
    deviation = X.std(axis=0)
    return (X - X.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0), bundle.target
