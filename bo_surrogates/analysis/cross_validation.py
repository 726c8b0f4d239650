"""How well a surrogate predicts observations that it has not seen: K-fold cross-validation.

Every fold is predicted by a surrogate fitted anew to the other folds, hyper-parameters, weights and
all. Repeated observations of one point are in the same fold. It needs nothing but the data, so it
tells whether what a surrogate says about its inputs deserves trust.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bo_surrogates.analysis.predictive_scores import DRAWS, sample_crps
from bo_surrogates.config import Config
from bo_surrogates.errors import FitWarning, InputError
from bo_surrogates.loop import fit
from bo_surrogates.seeding import derive_seed, fixed_seed
from bo_surrogates.space import Space


@dataclass(frozen=True)
class CrossValidation:
    """Observations beside their predictions by surrogates that have not seen them.

    Attributes:
        observed: `n` observations.
        mean: `n` predictive means.
        interval: `2 x n`, bounds of the central predictive interval, noise included (where the
            variances are known, with their mean over the other folds).
        crps: `n` continuous ranked probability scores, in units of the outcome.
        level: Mass of the intervals.
        folds: How many fits.
    """

    observed: Tensor
    mean: Tensor
    interval: Tensor
    crps: Tensor
    level: float
    folds: int

    @property
    def r2(self) -> float:
        """Share of the observations' variance that the means explain; NaN where there is none.

        At most 1; below 0, the average of the observations predicts them better.
        """
        residual = (self.observed - self.mean).square().sum().item()
        spread = (self.observed - self.observed.mean()).square().sum().item()
        return 1.0 - residual / spread if spread > 0 else math.nan

    @property
    def coverage(self) -> float:
        """Share of the observations inside their intervals: `level`, if calibrated."""
        low, high = self.interval
        return ((low <= self.observed) & (self.observed <= high)).double().mean().item()


def cross_validate(
    space: Space,
    train_X: Tensor,
    train_Y: Tensor,
    train_Yvar: Tensor | None = None,
    *,
    surrogate: str = "gp",
    config: Config | Mapping[str, Any] | None = None,
    folds: int = 5,
    level: float = 0.9,
    seed: int = 0,
) -> CrossValidation:
    """Cross-validate a registered surrogate on the observations of one outcome.

    Args:
        space: Says what the coordinates mean.
        train_X: `n x d` problem coordinates with at least two distinct points.
        train_Y: `n x 1` observations.
        train_Yvar: `n x 1` variances, if known.
        surrogate: A registered name.
        config: Its configuration.
        folds: At most this many fits, >= 2.
        level: Mass of the predictive intervals, in (0, 1).
        seed: Of the fits, the folds, and the draws behind the CRPS.

    Raises:
        InputError: Too few distinct points, or an argument out of its range.
        FitError: A fold could not be fitted.
    """
    if train_Y.ndim != 2 or train_Y.shape[-1] != 1:
        raise InputError(f"cross_validate takes n x 1 observations, got {tuple(train_Y.shape)}")
    if folds < 2:
        raise InputError(f"folds must be at least 2, got {folds}")
    if not 0 < level < 1:
        raise InputError(f"level must be in (0, 1), got {level}")
    _, point = train_X.unique(dim=0, return_inverse=True)
    distinct = int(point.max()) + 1
    if distinct < 2:
        raise InputError("cross-validation needs observations at two distinct points at least")
    folds = min(folds, distinct)
    generator = torch.Generator().manual_seed(derive_seed(seed, "folds"))
    fold = (torch.randperm(distinct, generator=generator) % folds).to(point.device)[point]
    tails = torch.tensor([0.5 - level / 2, 0.5 + level / 2])
    mean, crps = torch.empty_like(train_Y[:, 0]), torch.empty_like(train_Y[:, 0])
    interval = torch.empty(2, len(train_Y)).to(train_Y)
    for k in range(folds):
        out = fold == k
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FitWarning)  # a bad fit shows in the scores
            model: Any = fit(
                space, train_X[~out], train_Y[~out],
                None if train_Yvar is None else train_Yvar[~out],
                surrogate=surrogate, config=config, seed=derive_seed(seed, "fit", k),
            )  # fmt: skip
        Z = space.to_model(train_X[out])
        with torch.no_grad(), fixed_seed(derive_seed(seed, "draws", k)):
            interval[:, out] = model.quantile(Z, tails, observation_noise=True).squeeze(-1)
            posterior = model.posterior(Z.unsqueeze(-2), observation_noise=True)
            draws = posterior.rsample(torch.Size([DRAWS])).squeeze(-2)
            mean[out] = posterior.mean.reshape(-1)
            crps[out] = sample_crps(draws, train_Y[out]).squeeze(-1)
    return CrossValidation(train_Y[:, 0], mean, interval, crps, level, folds)
