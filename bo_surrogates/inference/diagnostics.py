"""Convergence of Markov chains: rank-normalized split R-hat and bulk effective sample size.

Source: Vehtari, Gelman, Simpson, Carpenter and Bürkner 2021 (Bayesian Analysis 16(2),
arXiv 1903.08008), sections 3 and 4. Both work on ranks, which exist where a mean or a variance does
not, and on chains split in halves, which shows a trend within a chain as a difference between two.

With m half-chains, R-hat is about sqrt(1 + m / ESS) even where all chains have converged: many
short chains need as many independent draws each as few long ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from bo_surrogates.errors import InputError


def split_r_hat(draws: Tensor) -> Tensor:
    """Rank-normalized split R-hat: the larger of that of location and that of scale.

    Scale is the R-hat of |x - median|, and finds chains that agree in location only (equation 14
    of the source and the paragraphs that follow).

    Args:
        draws: `K x S x ...`: K >= 1 chains of S >= 4 draws of any number of quantities. The middle
            draw of an odd number is left out.

    Returns:
        `...` values, 1 where chains agree; infinite where each half-chain stands still at a place
        of its own; NaN for a constant or for draws that are not finite.

    Raises:
        InputError: Too few draws.
    """
    halves = _split(draws)
    return _rank_r_hat(halves, _rank_normalized(halves))


def bulk_ess(draws: Tensor) -> Tensor:
    """Effective sample size of the rank-normalized split chains.

    The estimate is equations 10 to 13 of the source with Geyer's (1992) initial monotone sequence;
    it is at most S log10 S for S draws in all, since a negative autocorrelation that is
    merely estimated can make it arbitrarily large.

    Args:
        draws: As for `split_r_hat`.

    Returns:
        `...` numbers of independent draws; NaN where `split_r_hat` is.

    Raises:
        InputError: Too few draws.
    """
    return _ess(_rank_normalized(_split(draws)))


def split_r_hat_and_bulk_ess(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Both of the above from one ranking, which is most of their cost."""
    halves = _split(draws)
    normal = _rank_normalized(halves)
    return _rank_r_hat(halves, normal), _ess(normal)


def _rank_r_hat(halves: Tensor, normal: Tensor) -> Tensor:
    """R-hat of location, from the ranks' normal quantiles, or of scale: the larger."""
    folded = (halves - _flat_median(halves)).abs()
    return torch.maximum(_r_hat(normal), _r_hat(_rank_normalized(folded)))


def _split(draws: Tensor) -> Tensor:
    """`2K x S // 2 x ...`: the first and the last half of each chain, float64."""
    if draws.ndim < 2 or draws.shape[1] < 4:
        raise InputError(
            "convergence diagnostics take draws of shape K x S x ... with S >= 4, "
            f"got {tuple(draws.shape)}"
        )
    half = draws.shape[1] // 2
    return torch.cat([draws[:, :half], draws[:, -half:]]).to(torch.float64)


def _flat_median(draws: Tensor) -> Tensor:
    """Median over chains and draws, the mean of the middle two."""
    count = draws.shape[0] * draws.shape[1]
    columns = draws.reshape(count, -1).T.contiguous()  # rows sort faster than columns
    ordered = columns.sort(dim=-1).values
    median = 0.5 * (ordered[:, (count - 1) // 2] + ordered[:, count // 2])
    return median.reshape(draws.shape[2:])


def _rank_normalized(draws: Tensor) -> Tensor:
    """Normal quantiles of the ranks of all draws together, (r - 3/8) / (S + 1/4); equation 14.

    Ties share their average rank. What is not finite makes its whole quantity NaN.
    """
    flat = draws.flatten(end_dim=1)
    columns = flat.reshape(len(flat), -1).T.contiguous()
    ordered, order = columns.sort(dim=-1)
    # A run of equal values ends before each that differs from its neighbour, and begins there.
    place = torch.arange(len(flat), device=columns.device).expand_as(columns)
    differs = ordered[:, 1:] != ordered[:, :-1]
    begins = functional.pad(differs, (1, 0), value=True)
    ends = functional.pad(differs, (0, 1), value=True)
    below = torch.where(begins, place, 0).cummax(dim=-1).values
    last = torch.where(ends, place, len(flat)).flip(-1).cummin(dim=-1).values.flip(-1)
    average = 0.5 * (below + last + 2).to(torch.float64)
    rank = torch.empty_like(average).scatter_(-1, order, average)
    normal = torch.special.ndtri((rank - 0.375) / (len(flat) + 0.25))
    normal[~torch.isfinite(columns).all(dim=-1)] = math.nan
    return normal.T.reshape(draws.shape)


def _variances(chains: Tensor) -> tuple[Tensor, Tensor]:
    """W, the mean variance within chains, and var+, the variance of the target (equation 3)."""
    steps = chains.shape[1]
    within = chains.var(dim=1).mean(dim=0)
    between = chains.mean(dim=1).var(dim=0)  # B / S in the source
    return within, within * (steps - 1) / steps + between


def _r_hat(chains: Tensor) -> Tensor:
    """Equation 4."""
    within, total = _variances(chains)
    return (total / within).sqrt()


def _ess(chains: Tensor) -> Tensor:
    """Equations 10 to 13 for chains `M x S x ...`."""
    count, steps = chains.shape[:2]
    within, total = _variances(chains)
    centred = chains - chains.mean(dim=1, keepdim=True)
    # Zeros up to twice the length keep the circular convolution of the FFT from wrapping around.
    spectrum = torch.fft.rfft(centred, n=2 * steps, dim=1).abs().square()
    autocovariance = torch.fft.irfft(spectrum, n=2 * steps, dim=1)[:, :steps] / steps
    correlation = 1.0 - (within - autocovariance.mean(dim=0)) / total
    correlation[0] = torch.where(torch.isnan(correlation[0]), correlation[0], 1.0)
    even = steps - steps % 2
    pairs = correlation[:even].unflatten(0, (even // 2, 2)).sum(dim=1)
    # Sums of neighbours are positive and fall for a reversible chain: the rest is noise.
    monotone = torch.cat([pairs[:1], pairs[1:].clamp_min(0.0)]).cummin(dim=0).values
    draws = count * steps
    time = (2.0 * monotone.sum(dim=0) - 1.0).clamp_min(1.0 / math.log10(draws))
    return draws / time
