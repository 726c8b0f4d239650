from __future__ import annotations

import math

import pytest
import torch
from pyro.ops.stats import effective_sample_size, gelman_rubin
from scipy.integrate import quad
from scipy.special import ndtr, ndtri
from scipy.stats import norm, rankdata
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.inference.diagnostics import (
    bulk_ess,
    split_r_hat,
    split_r_hat_and_bulk_ess,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def autoregressive(rho: float, chains: int, steps: int, seed: int = 0) -> Tensor:
    """Stationary x_t = rho x_{t-1} + sqrt(1 - rho^2) e_t with standard normal marginals."""
    noise = normal(steps, chains, seed=seed)
    x = [noise[0]]
    for e in noise[1:]:
        x.append(rho * x[-1] + math.sqrt(1 - rho**2) * e)
    return torch.stack(x, dim=1)


def scores(chains: Tensor) -> Tensor:
    """Normal scores of all draws, by SciPy."""
    r = rankdata(chains.numpy().reshape(-1)).reshape(chains.shape)
    return torch.tensor(ndtri((r - 0.375) / (r.size + 0.25)))


@pytest.mark.parametrize("rho", [-0.4, 0.0, 0.5, 0.9])
@pytest.mark.parametrize("steps", [50, 201])
def test_r_hat_agrees_with_pyro_on_normal_scores_of_location_and_scale(
    rho: float, steps: int
) -> None:
    draws = autoregressive(rho, 6, steps).exp()  # skewed: ranks matter
    half = steps // 2
    halves = torch.cat([draws[:, :half], draws[:, -half:]])
    folded = (halves - torch.quantile(halves.flatten(), 0.5)).abs()
    expected = torch.maximum(gelman_rubin(scores(halves)), gelman_rubin(scores(folded)))
    torch.testing.assert_close(split_r_hat(draws), expected)


@pytest.mark.parametrize("rho", [-0.4, 0.0, 0.5, 0.9])
def test_the_effective_sample_size_agrees_with_pyro_on_normal_scores(rho: float) -> None:
    steps = 10_000
    draws = autoregressive(rho, 6, steps).exp()
    halves = torch.cat([draws[:, : steps // 2], draws[:, steps // 2 :]])
    expected = effective_sample_size(scores(halves)).item()
    # Pyro divides the autocovariance at lag k by S - k, not by S: 2 % at a lag of 100.
    assert bulk_ess(draws).item() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.6, 0.9])
def test_the_effective_sample_size_of_an_autoregression_is_its_closed_form(rho: float) -> None:
    chains, steps = 8, 20_000
    expected = chains * steps * (1 - rho) / (1 + rho)
    # The autocorrelation time is a sum of some tens of correlations, each estimated from
    # 16,000 or more independent draws: its relative error is about 2 %.
    assert bulk_ess(autoregressive(rho, chains, steps)).item() == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("shift", [0.3, 1.5])
def test_r_hat_of_shifted_chains_is_that_of_quadrature(shift: float) -> None:
    """Chains N(shift, 1) and N(-shift, 1), in scores of their equal mixture."""

    def score(x: float) -> float:
        return float(ndtri(0.5 * ndtr(x - shift) + 0.5 * ndtr(x + shift)))

    def moment(k: int) -> float:
        return quad(lambda x: score(x) ** k * norm.pdf(x - shift), shift - 8, shift + 8)[0]

    within = moment(2) - moment(1) ** 2
    between = 4 / 3 * moment(1) ** 2  # of the means m, m, -m, -m of the half-chains
    draws = normal(2, 100_000) + torch.tensor([[shift], [-shift]], dtype=torch.float64)
    assert split_r_hat(draws).item() == pytest.approx(math.sqrt(1 + between / within), rel=0.02)


def test_independent_chains_have_r_hat_one_and_a_full_sample() -> None:
    draws = normal(4, 5000, 20)
    # R-hat^2 - 1 is about chi-squared(7) / 7 * 8 / 20000 here: 1.003 is beyond 1e-9.
    assert (split_r_hat(draws) < 1.003).all()
    assert (bulk_ess(draws) > 0.8 * 20_000).all()


def test_chains_that_differ_in_scale_only_are_found() -> None:
    draws = normal(4, 1000)
    draws[0] *= 4
    assert split_r_hat(draws) > 1.1


def test_a_trend_within_chains_is_found() -> None:
    draws = normal(4, 1000) + torch.linspace(-2, 2, 1000, dtype=torch.float64)
    assert split_r_hat(draws) > 1.3
    assert bulk_ess(draws) < 100


def test_ties_share_their_average_rank() -> None:
    """Rounded draws, many of them equal, against SciPy's ranks and Pyro."""
    chains = (3.0 * normal(6, 40, seed=9)).round()
    expected = gelman_rubin(scores(torch.cat([chains[:, :20], chains[:, 20:]])))
    folded = (chains - chains.median()).abs()  # an odd half of a grid of integers: a tie's median
    by_scale = gelman_rubin(scores(torch.cat([folded[:, :20], folded[:, 20:]])))
    torch.testing.assert_close(split_r_hat(chains), torch.maximum(expected, by_scale))


def test_both_at_once_are_the_two() -> None:
    draws = normal(5, 17, 2, 3, seed=8)
    r_hat, ess = split_r_hat_and_bulk_ess(draws)
    assert torch.equal(r_hat, split_r_hat(draws))
    assert torch.equal(ess, bulk_ess(draws))


def test_a_heavy_tail_does_not_matter() -> None:
    draws = normal(4, 1000) / normal(4, 1000, seed=1)  # Cauchy: no mean, no variance
    assert split_r_hat(draws) < 1.02
    torch.testing.assert_close(bulk_ess(draws), bulk_ess(draws.atan()), rtol=1e-9, atol=0)


def test_quantities_are_treated_as_if_alone() -> None:
    draws = torch.stack([autoregressive(r, 3, 101, seed=i) for i, r in enumerate((0.0, 0.8))], -1)
    draws = torch.stack([draws, draws.square() * 3], dim=-1)
    for i in range(2):
        for j in range(2):
            alone = draws[..., i, j]
            torch.testing.assert_close(split_r_hat(draws)[i, j], split_r_hat(alone))
            torch.testing.assert_close(bulk_ess(draws)[i, j], bulk_ess(alone))


def test_chains_that_stand_still_are_not_taken_for_converged() -> None:
    places = torch.tensor([[1.0], [2.0], [3.0]]).expand(3, 20)
    assert not split_r_hat(places) <= 100
    assert not bulk_ess(places) > 10
    assert torch.isnan(split_r_hat(torch.ones(3, 20)))
    assert torch.isnan(bulk_ess(torch.ones(3, 20)))


def test_draws_that_are_not_finite_are_not_taken_for_converged() -> None:
    draws = normal(4, 50, 2)
    draws[1, 3, 0] = math.nan
    for statistic in (split_r_hat, bulk_ess):
        assert torch.isnan(statistic(draws)).tolist() == [True, False]


@pytest.mark.parametrize("shape", [(4, 3), (10,)])
def test_too_few_draws_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="K x S"):
        split_r_hat(torch.zeros(shape))
    with pytest.raises(InputError, match="K x S"):
        bulk_ess(torch.zeros(shape))
