"""How good a surrogate's predictions of new observations are: proper scores and coverage.

All are of a single outcome and in standardized units (over a test set, the outcomes' standard
deviation there is 1), so that figures of different functions may be averaged:

- NLPD, the negative log predictive density;
- CRPS, the continuous ranked probability score E|y' - y| - E|y' - y''| / 2 with y', y'' independent
  predictions (Gneiting and Raftery 2007, JASA 102, equation 21); it is the absolute error of a
  prediction that is certain;
- PIT, the probability integral transform P(y' <= y): uniform on [0, 1] if calibrated (Gneiting,
  Balabdaoui and Raftery 2007, JRSS B 69);
- coverage, the share of observations inside a central interval, where |PIT - 1/2| is at most half
  of its mass: 0.9 of the 90 % interval if calibrated;
- RMSE, the root mean square error of the predictive mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from botorch.posteriors import GPyTorchPosterior, Posterior
from torch import Tensor
from torch.distributions import Normal

from bo_surrogates.errors import InputError
from bo_surrogates.seeding import fixed_seed
from bo_surrogates.surrogates.base import Surrogate

DRAWS = 1024  # of each point's prediction, for the CRPS


@dataclass(frozen=True)
class PointScores:
    """Scores of the predictions of n single observations.

    Attributes:
        nlpd: `n` negative log predictive densities, in standardized units.
        crps: `n` continuous ranked probability scores, in standardized units.
        pit: `n` probability integral transforms.
        error: `n` predictive means less the observations, in standardized units.
    """

    nlpd: Tensor
    crps: Tensor
    pit: Tensor
    error: Tensor

    def coverage(self, level: float) -> float:
        """Share of the observations in their central intervals of mass `level`."""
        return ((self.pit - 0.5).abs() <= 0.5 * level).double().mean().item()


@dataclass(frozen=True)
class PredictiveScores:
    """Scores of one model on one test set, lower is better but for the coverages.

    Attributes:
        nlpd: Mean negative log predictive density.
        crps: Mean continuous ranked probability score.
        coverage: Share of the observations in the central 90 % interval.
        coverage_50: Share in the central 50 % interval.
        rmse: Root mean square error of the mean.
    """

    nlpd: float
    crps: float
    coverage: float
    coverage_50: float
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


def score_points(
    model: Surrogate, X: Tensor, Y: Tensor, scale: Tensor, seed: int = 0
) -> PointScores:
    """Scores of a model's predictions of observations, noise included, point by point.

    Args:
        model: Fitted, with one outcome.
        X: `n x d` test inputs in the user's units.
        Y: `n x 1` observations.
        scale: What is 1 in standardized units: a scalar in units of Y.
        seed: Of the draws behind the CRPS.

    Raises:
        InputError: Not one outcome.
    """
    if Y.ndim != 2 or Y.shape[-1] != 1 or len(X) != len(Y):
        raise InputError(
            f"score: expected n x d inputs and n x 1 observations, got {tuple(X.shape)} and "
            f"{tuple(Y.shape)}"
        )
    with torch.no_grad(), fixed_seed(seed):
        # One point a batch: marginal predictions are wanted, and the joint one costs more.
        posterior = model.posterior(X.unsqueeze(-2), observation_noise=True)
        draws = posterior.rsample(torch.Size([DRAWS])).squeeze(-2)
        mean = posterior.mean.squeeze(-2)  # type: ignore[attr-defined]
        return PointScores(
            nlpd=(-model.log_predictive_density(X, Y) - scale.log()).squeeze(-1),
            crps=(sample_crps(draws, Y) / scale).squeeze(-1),
            pit=_cdf(posterior, Y.unsqueeze(-2), draws).reshape(-1),
            error=((mean - Y) / scale).squeeze(-1),
        )


def _cdf(posterior: Posterior, value: Tensor, draws: Tensor) -> Tensor:
    """P(y <= value) for values `n x 1 x 1`; from the draws of a posterior that cannot tell."""
    if isinstance(posterior, GPyTorchPosterior):
        tiny = torch.finfo(value.dtype).tiny
        return Normal(posterior.mean, posterior.variance.clamp_min(tiny).sqrt()).cdf(value)
    if hasattr(posterior, "cdf"):
        found: Tensor = posterior.cdf(value)
        return found
    return (draws <= value.squeeze(-2)).double().mean(dim=0)


def score(model: Surrogate, X: Tensor, Y: Tensor, seed: int = 0) -> PredictiveScores:
    """Scores of a model's predictions of a test set, noise included.

    Args:
        model: Fitted, with one outcome.
        X: `n x d` test inputs in the user's units, n >= 2.
        Y: `n x 1` observations, whose standard deviation is the unit of the scores.
        seed: Of the draws behind the CRPS.

    Raises:
        InputError: Not one outcome, or constant observations.
    """
    scale = Y.std()
    if not scale > 0:
        raise InputError("score: the observations are constant; there is no scale to measure by")
    points = score_points(model, X, Y, scale, seed)
    return PredictiveScores(
        nlpd=points.nlpd.mean().item(),
        crps=points.crps.mean().item(),
        coverage=points.coverage(0.9),
        coverage_50=points.coverage(0.5),
        rmse=points.error.square().mean().sqrt().item(),
    )
