"""How good a surrogate's predictions of new observations are: proper scores and coverage.

All are averages over test points of a single outcome, in standardized units (the outcomes' standard
deviation over the test points is 1), so that figures of different functions may be averaged:

- NLPD, the negative log predictive density;
- CRPS, the continuous ranked probability score E|y' - y| - E|y' - y''| / 2 with y', y'' independent
  predictions (Gneiting and Raftery 2007, JASA 102, equation 21); it is the absolute error of a
  prediction that is certain;
- coverage, the share of observations inside the central 90 % interval: 0.9 if calibrated;
- RMSE, the root mean square error of the predictive mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.seeding import fixed_seed
from bo_surrogates.surrogates.base import Surrogate

LEVEL = 0.9  # of the central interval
DRAWS = 1024  # of each point's prediction, for the CRPS


@dataclass(frozen=True)
class PredictiveScores:
    """Scores of one model on one test set, lower is better but for `coverage`.

    Attributes:
        nlpd: Mean negative log predictive density.
        crps: Mean continuous ranked probability score.
        coverage: Share of the observations in the central 90 % interval.
        rmse: Root mean square error of the mean.
    """

    nlpd: float
    crps: float
    coverage: float
    rmse: float


def sample_crps(draws: Tensor, Y: Tensor) -> Tensor:
    """CRPS of each observation, estimated without bias from k independent draws.

    Args:
        draws: `k x ...` draws of the prediction, k >= 2.
        Y: `...` observations.

    Returns:
        `...` scores.
    """
    k = len(draws)
    if k < 2:
        raise InputError(f"sample_crps: at least 2 draws are needed, got {k}")
    # The sum of |a - b| over all pairs is, of sorted draws, sum_i (2 i - k - 1) a_i for i = 1..k.
    ranks = torch.arange(1, k + 1).to(draws).mul(2).sub(k + 1)
    ordered = draws.sort(dim=0).values
    spread = torch.einsum("k,k...->...", ranks, ordered) / (k * (k - 1))
    return (draws - Y).abs().mean(dim=0) - spread


def score(model: Surrogate, X: Tensor, Y: Tensor, seed: int = 0) -> PredictiveScores:
    """Scores of a model's predictions of observations, noise included.

    Args:
        model: Fitted, with one outcome.
        X: `n x d` test inputs in the user's units, n >= 2.
        Y: `n x 1` observations.
        seed: Of the draws behind the CRPS.

    Raises:
        InputError: Not one outcome, or constant observations.
    """
    if Y.ndim != 2 or Y.shape[-1] != 1 or len(X) != len(Y):
        raise InputError(
            f"score: expected n x d inputs and n x 1 observations, got {tuple(X.shape)} and "
            f"{tuple(Y.shape)}"
        )
    scale = Y.std()
    if not scale > 0:
        raise InputError("score: the observations are constant; there is no scale to measure by")
    with torch.no_grad(), fixed_seed(seed):
        tail = 0.5 * (1.0 - LEVEL)
        low, high = model.quantile(X, torch.tensor([tail, 1.0 - tail]), observation_noise=True)
        # One point a batch: marginal predictions are wanted, and the joint one costs more.
        posterior = model.posterior(X.unsqueeze(-2), observation_noise=True)
        draws = posterior.rsample(torch.Size([DRAWS])).squeeze(-2)
        mean = posterior.mean.squeeze(-2)  # type: ignore[attr-defined]
        nlpd = -model.log_predictive_density(X, Y) - scale.log()
        return PredictiveScores(
            nlpd=nlpd.mean().item(),
            crps=(sample_crps(draws, Y) / scale).mean().item(),
            coverage=((low <= Y) & (high >= Y)).double().mean().item(),
            rmse=((mean - Y) / scale).square().mean().sqrt().item(),
        )
