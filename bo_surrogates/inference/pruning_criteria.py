"""How important a weight theta ~ N(mean, std^2) is: what to drop from a sparse network.

Li, Miao, Qiu and Zhang 2024 (arXiv 2402.11025), section 3.3: the mean, or the signal-to-noise ratio
mean / standard deviation, of theta, |theta| or exp(rate |theta|). With z = |mean| / std, Phi the
normal distribution function, and moments of the folded normal distribution (Leone, Nelson and
Nottingham 1961):

    E|theta| / std = z + e,            e = sqrt(2 / pi) exp(-z^2 / 2) - z erfc(z / sqrt(2))
    Var|theta| / std^2 = 1 - 2 z e - e^2
    E exp(r |theta|) = exp(r^2 std^2 / 2) (exp(r mean) Phi(mean / std + r std)
                                           + exp(-r mean) Phi(-mean / std + r std))

The forms with e, and logarithms of the last line, lose no digits where z is large.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def _distance(mean: Tensor, std: Tensor) -> Tensor:
    """z, finite for a weight that is known exactly."""
    return (mean.abs() / std).clamp_max(1e100)


def _excess(z: Tensor) -> Tensor:
    """e, for z >= 0."""
    return math.sqrt(2 / math.pi) * torch.exp(-0.5 * z.square()) - z * torch.erfc(z / math.sqrt(2))


def _log_exponential_moment(mean: Tensor, std: Tensor, rate: float) -> Tensor:
    """log E exp(rate |theta|)."""
    z, shift = mean / std, rate * std
    log_cdf = torch.special.log_ndtr
    return 0.5 * shift.square() + torch.logaddexp(
        rate * mean + log_cdf(z + shift), -rate * mean + log_cdf(shift - z)
    )


def magnitude(mean: Tensor, std: Tensor, rate: float) -> Tensor:
    """|E theta|."""
    return mean.abs()


def snr(mean: Tensor, std: Tensor, rate: float) -> Tensor:
    """|E theta| over the standard deviation of theta."""
    return mean.abs() / std


def expected_abs(mean: Tensor, std: Tensor, rate: float) -> Tensor:
    """E|theta|."""
    return mean.abs() + std * _excess(_distance(mean, std))


def snr_abs(mean: Tensor, std: Tensor, rate: float) -> Tensor:
    """E|theta| over the standard deviation of |theta|."""
    z = _distance(mean, std)
    e = _excess(z)
    return (z + e) / (1 - 2 * z * e - e.square()).sqrt()


def expected_exp(mean: Tensor, std: Tensor, rate: float) -> Tensor:
    """E exp(rate |theta|)."""
    return _log_exponential_moment(mean, std, rate).exp()


def snr_exp(mean: Tensor, std: Tensor, rate: float) -> Tensor:
    """E exp(rate |theta|) over the standard deviation of exp(rate |theta|).

    The one criterion that falls as |mean| grows, towards 1 / sqrt(exp((rate std)^2) - 1): folding
    at zero narrows |theta|. It is a measure of certainty, not of size.
    """
    relative = _log_exponential_moment(mean, std, 2 * rate)
    relative = relative - 2 * _log_exponential_moment(mean, std, rate)
    return torch.expm1(relative).clamp_min(0).rsqrt()


CRITERIA: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "mean": magnitude,
    "snr": snr,
    "e_abs": expected_abs,
    "snr_abs": snr_abs,
    "e_exp": expected_exp,
    "snr_exp": snr_exp,
}


def importance(criterion: str, mean: Tensor, std: Tensor, rate: float = 1.0) -> Tensor:
    """Scores of weights; the smallest are dropped.

    Args:
        criterion: A key of `CRITERIA`.
        mean: Means, any shape.
        std: Standard deviations of that shape, >= 0.
        rate: Of "e_exp" and "snr_exp", > 0.

    Returns:
        Scores >= 0 in float64; 0 where a ratio is 0 / 0, infinite for a weight known exactly.
    """
    return CRITERIA[criterion](mean.double(), std.double(), rate).nan_to_num(
        nan=0.0, posinf=math.inf
    )
