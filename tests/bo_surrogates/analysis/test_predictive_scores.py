"""Scores against their closed forms."""

import math

import pytest
import torch
from scipy.stats import norm

from bo_surrogates.analysis.predictive_scores import sample_crps, score, score_points
from bo_surrogates.errors import InputError
from bo_surrogates.seeding import fixed_seed
from bo_surrogates.surrogates import SURROGATES


def gaussian_crps(mean, std, y):
    """Gneiting and Raftery 2007, equation 20."""
    z = (y - mean) / std
    return std * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / math.sqrt(math.pi))


def test_crps_of_draws_agrees_with_the_closed_form_of_a_gaussian():
    generator = torch.Generator().manual_seed(0)
    Y = torch.tensor([-2.0, 0.3, 1.0, 5.0], dtype=torch.float64)
    draws = 1.0 + 2.0 * torch.randn(100_000, 4, generator=generator, dtype=torch.float64)
    # The estimate's standard deviation is below 2 / sqrt(100000): five of them.
    expected = torch.from_numpy(gaussian_crps(1.0, 2.0, Y.numpy()))
    torch.testing.assert_close(sample_crps(draws, Y), expected, atol=0.032, rtol=0.0)


def test_crps_of_few_draws_is_that_of_all_pairs():
    draws = torch.tensor([[3.0], [1.0], [7.0]])
    pairs = (2 + 4 + 6) / 3  # mean absolute difference of two different draws
    expected = torch.tensor([(1 + 1 + 5) / 3 - pairs / 2])
    torch.testing.assert_close(sample_crps(draws, torch.tensor([2.0])), expected)


def test_crps_needs_two_draws():
    with pytest.raises(InputError, match="at least 2"):
        sample_crps(torch.zeros(1, 3), torch.zeros(3))


@pytest.fixture(scope="module")
def model():
    X = torch.rand(20, 1, generator=torch.Generator().manual_seed(0)).double()
    return SURROGATES["gp"].build(X, 30.0 * torch.sin(6 * X) + 100.0, seed=0)


def test_scores_of_a_gaussian_model_agree_with_closed_forms(model):
    generator = torch.Generator().manual_seed(1)
    X = torch.rand(300, 1, generator=generator).double()
    Y = 30.0 * torch.sin(6 * X) + 100.0 + 3.0 * torch.randn(300, 1, generator=generator)
    found = score(model, X, Y)
    with torch.no_grad():
        posterior = model.posterior(X, observation_noise=True)
        mean, std = posterior.mean.numpy(), posterior.variance.sqrt().numpy()
    y, scale = Y.numpy(), Y.std().item()
    assert found.nlpd == pytest.approx(-norm.logpdf(y, mean, std).mean() - math.log(scale))
    assert found.rmse == pytest.approx(((mean - y) ** 2).mean() ** 0.5 / scale)
    low, high = norm.ppf(0.05, mean, std), norm.ppf(0.95, mean, std)
    assert found.coverage == pytest.approx(((low <= y) & (y <= high)).mean())
    low, high = norm.ppf(0.25, mean, std), norm.ppf(0.75, mean, std)
    assert found.coverage_50 == pytest.approx(((low <= y) & (y <= high)).mean())
    assert found.crps == pytest.approx(gaussian_crps(mean, std, y).mean() / scale, rel=0.02)


def test_scores_do_not_depend_on_the_unit(model):
    X = torch.rand(50, 1, generator=torch.Generator().manual_seed(2)).double()
    Y = 30.0 * torch.sin(6 * X) + 101.0
    scaled = SURROGATES["gp"].build(
        model.training_data.X, 1e3 * model.training_data.Y - 7.0, seed=0
    )
    one, other = score(model, X, Y), score(scaled, X, 1e3 * Y - 7.0)
    assert other.crps == pytest.approx(one.crps, rel=1e-3)
    assert other.nlpd == pytest.approx(one.nlpd, abs=1e-2)


def test_bad_test_sets_are_refused(model):
    X = torch.rand(5, 1).double()
    with pytest.raises(InputError, match="constant"):
        score(model, X, torch.ones(5, 1).double())
    with pytest.raises(InputError, match="n x 1"):
        score(model, X, torch.rand(5, 2).double())


@pytest.mark.parametrize("name", ["gp", "tp", "ensemble", "rff"])
def test_pit_is_the_share_of_draws_below_the_observation(name):
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(12, 1, generator=generator).double()
    Y = torch.sin(6 * X) + 0.2 * torch.randn(12, 1, generator=generator)
    model = SURROGATES[name].build(X, Y, seed=0)
    new, values = torch.tensor([[0.1], [0.5], [0.9]]).double(), torch.tensor([[0.4], [0.2], [-1.0]])
    points = score_points(model, new, values.double(), torch.tensor(0.5).double())
    with torch.no_grad(), fixed_seed(1):
        posterior = model.posterior(new.unsqueeze(-2), observation_noise=True)
        draws = posterior.rsample(torch.Size([40_000])).reshape(-1, 3)
    share = (draws <= values.squeeze(-1)).double().mean(dim=0)
    assert (points.pit - share).abs().max() < 5 * 0.5 / 200  # five standard errors at most
    expected = -model.log_predictive_density(new, values.double()) - math.log(0.5)
    torch.testing.assert_close(points.nlpd, expected.detach().squeeze(-1))
    assert points.coverage(1.0) == 1.0
