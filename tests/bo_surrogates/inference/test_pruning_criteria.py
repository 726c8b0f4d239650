from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import foldnorm, norm

from bo_surrogates.inference.pruning_criteria import CRITERIA, importance

GAUSSIANS = [(0.0, 0.3), (0.4, 0.3), (-1.2, 0.5), (0.05, 1.0), (-2.0, 0.4)]
RATE = 0.7


def score(name: str, mean: float, std: float, rate: float = RATE) -> float:
    return importance(name, torch.tensor(mean), torch.tensor(std), rate).item()


def exponential_moment(mean: float, std: float, rate: float) -> float:
    """E exp(rate |theta|) by quadrature, in two parts because of the kink."""
    parts = [
        quad(lambda t: math.exp(rate * abs(t)) * norm.pdf(t, mean, std), *ends)[0]
        for ends in ((min(0.0, mean) - 15 * std, 0.0), (0.0, max(0.0, mean) + 15 * std))
    ]
    return sum(parts)


@pytest.mark.parametrize(("mean", "std"), GAUSSIANS)
def test_closed_forms_equal_quadrature_and_the_folded_normal_distribution(
    mean: float, std: float
) -> None:
    mean, std = torch.tensor(mean).item(), torch.tensor(std).item()  # as single precision has them
    folded = foldnorm(abs(mean) / std, scale=std)
    m, m2 = (exponential_moment(mean, std, r) for r in (RATE, 2 * RATE))
    expected = {
        "mean": abs(mean),
        "snr": abs(mean) / std,
        "e_abs": folded.mean(),
        "snr_abs": folded.mean() / folded.std(),
        "e_exp": m,
        "snr_exp": m / math.sqrt(m2 - m**2),
    }
    assert set(expected) == set(CRITERIA)
    for name, value in expected.items():
        assert score(name, mean, std) == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize(("mean", "std"), GAUSSIANS)
def test_closed_forms_equal_monte_carlo_within_one_per_cent(mean: float, std: float) -> None:
    generator = torch.Generator().manual_seed(0)
    theta = mean + std * torch.randn(10**6, generator=generator, dtype=torch.float64)
    for values, moment, ratio in (
        (theta.abs(), "e_abs", "snr_abs"),
        ((RATE * theta.abs()).exp(), "e_exp", "snr_exp"),
    ):
        assert score(moment, mean, std) == pytest.approx(values.mean().item(), rel=0.01)
        expected = (values.mean() / values.std()).item()
        assert score(ratio, mean, std) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("std", [1e-6, 0.1, 7.0])
def test_the_ratio_of_an_absolute_value_is_least_at_mean_zero(std: float) -> None:
    assert score("snr_abs", 0.0, std) == pytest.approx(1 / math.sqrt(math.pi / 2 - 1), rel=1e-9)
    assert score("snr_abs", 0.01 * std, std) > score("snr_abs", 0.0, std)


@pytest.mark.parametrize("name", list(CRITERIA))
def test_criteria_ignore_the_sign_and_are_monotonic_in_the_mean(name: str) -> None:
    mean = torch.linspace(0.02, 1.0, 50)
    std = torch.full_like(mean, 0.3)
    scores = importance(name, mean, std, RATE)
    torch.testing.assert_close(importance(name, -mean, std, RATE), scores, rtol=1e-12, atol=0)
    falls = name == "snr_exp"  # |theta| is narrower where more of theta is folded at zero
    assert ((scores.diff() < 0) == falls).all()


@pytest.mark.parametrize("z", [5.0, 40.0, 1e4, 1e8])
def test_ratios_keep_their_digits_where_the_mean_is_far_from_zero(z: float) -> None:
    # Mass on the other side of zero is negligible: |theta| is theta, exp(r |theta|) is lognormal.
    assert score("snr_abs", z * 0.01, 0.01) == pytest.approx(z, rel=1e-4)
    if z < 1e4:
        lognormal = 1 / math.sqrt(math.expm1((RATE * 0.01) ** 2))
        assert score("snr_exp", z * 0.01, 0.01) == pytest.approx(lognormal, rel=1e-4)


@pytest.mark.parametrize("name", list(CRITERIA))
def test_a_weight_without_spread_has_a_score(name: str) -> None:
    known = score(name, 0.5, 0.0)
    if name.startswith("snr"):
        assert known > 1e99
    else:
        assert known == pytest.approx(score(name, 0.5, 1e-7), rel=1e-5)
    assert score(name, 0.0, 0.0) == 0.0
