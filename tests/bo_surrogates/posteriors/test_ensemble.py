from __future__ import annotations

import numpy as np
import pytest
import torch
from botorch.exceptions.errors import UnsupportedError
from botorch.posteriors.ensemble import EnsemblePosterior
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.sampling.get_sampler import get_sampler
from botorch.sampling.index_sampler import IndexSampler
from gpytorch.distributions import MultivariateNormal
from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal
from torch.quasirandom import SobolEngine

from bo_surrogates.errors import InputError
from bo_surrogates.posteriors.ensemble import EnsembleMixturePosterior, EnsembleSampler
from bo_surrogates.seeding import fixed_seed

LEVELS = torch.tensor([0.03, 0.2, 0.5, 0.9], dtype=torch.float64)
WEIGHTS = [None, torch.tensor([0.1, 0.4, 0.2, 0.05, 0.25], dtype=torch.float64)]


def tensors(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Values and noise variances of the shape."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return values, torch.rand(*shape, generator=generator, dtype=torch.float64) + 0.05


@pytest.fixture
def noisy() -> EnsembleMixturePosterior:
    values, variance = tensors(2, 5, 3, 2)
    return EnsembleMixturePosterior(values, variance)


def reference(posterior: EnsembleMixturePosterior) -> MixtureSameFamily:
    assert posterior.noise_variance is not None
    components = Normal(
        posterior.values.movedim(-3, -1), posterior.noise_variance.movedim(-3, -1).sqrt()
    )
    probabilities = posterior.weights.expand(components.batch_shape)
    return MixtureSameFamily(Categorical(probabilities), components)


# ---- moments -------------------------------------------------------------------------------------
@pytest.mark.parametrize("weights", WEIGHTS, ids=["equal", "weighted"])
def test_noise_free_moments_are_those_of_botorch(weights: Tensor | None) -> None:
    values, _ = tensors(2, 5, 3, 2)
    ours = EnsembleMixturePosterior(values, weights=weights)
    theirs = EnsemblePosterior(values, weights)
    for moment in ("mean", "variance", "mixture_mean", "mixture_variance"):
        torch.testing.assert_close(getattr(ours, moment), getattr(theirs, moment))


@pytest.mark.parametrize("weights", WEIGHTS, ids=["equal", "weighted"])
def test_variance_with_noise_obeys_the_law_of_total_variance(weights: Tensor | None) -> None:
    values, noise = tensors(2, 5, 3, 2)
    posterior = EnsembleMixturePosterior(values, noise, weights)
    w = posterior.weights.reshape(5, 1, 1)
    mixture = reference(posterior)
    torch.testing.assert_close(posterior.mean, mixture.mean)
    # The mixture's own variance has the divisor 1; BoTorch's between-member variance is the
    # unbiased estimate with divisor 1 - sum of squared weights.
    within = (w * noise).sum(dim=-3)
    between = (mixture.variance - within) / (1 - w.square().sum())
    torch.testing.assert_close(posterior.variance, within + between)


def test_one_member_has_the_variance_of_its_noise() -> None:
    values, noise = tensors(1, 3, 2)
    torch.testing.assert_close(EnsembleMixturePosterior(values, noise).variance, noise[0])
    torch.testing.assert_close(EnsembleMixturePosterior(values, noise).mixture_variance, noise[0])
    quiet = EnsembleMixturePosterior(values)
    assert torch.equal(quiet.variance, torch.zeros(3, 2).to(values))
    assert torch.equal(quiet.mixture_variance, torch.zeros(3, 2).to(values))


def test_noise_may_be_broadcast_and_must_fit() -> None:
    values, noise = tensors(2, 5, 3, 2)
    one_a_member = EnsembleMixturePosterior(values, noise[0, :, :1, :])
    assert one_a_member.noise_variance is not None
    assert one_a_member.noise_variance.shape == values.shape
    with pytest.raises(InputError, match="noise_variance"):
        EnsembleMixturePosterior(values, noise[:, :4])


# ---- marginals -----------------------------------------------------------------------------------
@pytest.mark.parametrize("weights", WEIGHTS, ids=["equal", "weighted"])
def test_noise_free_quantiles_are_the_inverse_of_the_empirical_distribution(
    weights: Tensor | None,
) -> None:
    values, _ = tensors(2, 5, 3, 2)
    posterior = EnsembleMixturePosterior(values, weights=weights)
    levels = torch.tensor([0.01, 0.2, 0.35, 0.4, 0.6, 0.8, 0.999], dtype=torch.float64)
    if weights is None:
        expected = np.quantile(values.numpy(), levels.numpy(), axis=1, method="inverted_cdf")
        assert np.array_equal(posterior.quantile(levels).numpy(), expected)
        return
    for p, quantile in zip(levels, posterior.quantile(levels), strict=True):
        assert (posterior.cdf(quantile) >= p - 1e-12).all()
        assert (posterior.cdf(quantile - 1e-12) < p).all()


def test_quantiles_with_noise_invert_the_distribution_function(
    noisy: EnsembleMixturePosterior,
) -> None:
    quantiles = noisy.quantile(LEVELS)
    assert quantiles.shape == (4, 2, 3, 2)
    expected = LEVELS.reshape(4, 1, 1, 1).expand_as(quantiles)
    torch.testing.assert_close(reference(noisy).cdf(quantiles), expected, rtol=0, atol=1e-12)
    assert noisy.quantile(LEVELS[1]).shape == (2, 3, 2)
    torch.testing.assert_close(noisy.quantile(LEVELS[1]), quantiles[1])


def test_a_quantile_with_noise_equals_that_of_a_scalar_root_finder(
    noisy: EnsembleMixturePosterior,
) -> None:
    assert noisy.noise_variance is not None
    means, scales = noisy.values[1, :, 2, 0], noisy.noise_variance[1, :, 2, 0].sqrt()
    root = brentq(lambda y: norm.cdf(y, means, scales).mean() - 0.9, -20, 20, xtol=1e-13)
    assert noisy.quantile(torch.tensor(0.9))[1, 2, 0].item() == pytest.approx(root, abs=1e-7)


def test_quantiles_of_separated_members_stay_exact() -> None:
    # Between modes a million standard deviations apart the distribution function is flat.
    values = torch.tensor([0.0, 1e6, 2e6], dtype=torch.float64).reshape(3, 1, 1)
    posterior = EnsembleMixturePosterior(values, torch.ones(3, 1, 1).to(values))
    quantile = posterior.quantile(torch.tensor([1 / 6, 0.5, 5 / 6], dtype=torch.float64)).flatten()
    torch.testing.assert_close(quantile, values.flatten(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("noise", [False, True])
def test_gradients_of_the_marginals_equal_finite_differences(noise: bool) -> None:
    values, variance = tensors(3, 2, 1)
    arguments = (values.requires_grad_(), *([variance.requires_grad_()] if noise else []))

    def quantile(*args: Tensor) -> Tensor:
        return EnsembleMixturePosterior(*args).quantile(LEVELS)

    assert torch.autograd.gradcheck(quantile, arguments)
    if noise:
        Y = torch.tensor([[0.3], [-0.2]], dtype=torch.float64)
        assert torch.autograd.gradcheck(
            lambda *a: EnsembleMixturePosterior(*a).log_density(Y), arguments
        )


@pytest.mark.parametrize("weights", WEIGHTS, ids=["equal", "weighted"])
def test_log_density_is_that_of_the_mixture(weights: Tensor | None) -> None:
    values, noise = tensors(2, 5, 3, 2)
    posterior = EnsembleMixturePosterior(values, noise, weights)
    Y = torch.linspace(-3, 3, 12, dtype=torch.float64).reshape(2, 3, 2)
    torch.testing.assert_close(posterior.log_density(Y), reference(posterior).log_prob(Y))
    torch.testing.assert_close(posterior.density(Y).log(), posterior.log_density(Y))
    far = posterior.log_density(Y + 1e4)
    assert torch.isfinite(far).all()  # where the density itself underflows


def test_a_noise_free_ensemble_has_no_density() -> None:
    with pytest.raises(UnsupportedError, match="observation_noise=True"):
        EnsembleMixturePosterior(tensors(5, 3, 2)[0]).log_density(torch.zeros(3, 2))


def test_scalarizing_is_exact_member_by_member(noisy: EnsembleMixturePosterior) -> None:
    weights = torch.tensor([2.0, -0.5], dtype=torch.float64)
    scalar = noisy.scalarize(weights, 3.0)
    assert noisy.noise_variance is not None
    assert scalar.noise_variance is not None
    expected = 2.0 * noisy.values[..., :1] - 0.5 * noisy.values[..., 1:] + 3.0
    torch.testing.assert_close(scalar.values, expected)
    torch.testing.assert_close(
        scalar.noise_variance,
        4.0 * noisy.noise_variance[..., :1] + 0.25 * noisy.noise_variance[..., 1:],
    )


# ---- samples ---------------------------------------------------------------------------------
def member_of(sample: Tensor, values: Tensor) -> int:
    """The member whose `q x m` values a noise-free sample has."""
    matches = [i for i in range(len(values)) if torch.equal(sample, values[i])]
    assert len(matches) == 1
    return matches[0]


def test_a_noise_free_sample_is_one_member_at_all_points_and_in_all_batches() -> None:
    values, _ = tensors(2, 5, 3, 2)
    posterior = EnsembleMixturePosterior(values)
    samples = get_sampler(posterior, torch.Size([16]), seed=0)(posterior)
    for sample in samples:
        assert member_of(sample[0], values[0]) == member_of(sample[1], values[1])


@pytest.mark.parametrize("weights", WEIGHTS, ids=["equal", "weighted"])
def test_members_are_drawn_as_often_as_their_weight_says_to_within_one(
    weights: Tensor | None,
) -> None:
    posterior = EnsembleMixturePosterior(tensors(5, 3, 2)[0], weights=weights)
    sampler = EnsembleSampler(torch.Size([8, 16]), seed=4)
    assert sampler(posterior).shape == (8, 16, 3, 2)
    assert sampler.base_samples is not None
    counts = torch.bincount(sampler.base_samples.flatten(), minlength=5)
    assert ((counts - 128 * posterior.weights).abs() <= 1).all()


def test_members_of_samples_do_not_depend_on_the_points() -> None:
    sampler = EnsembleSampler(torch.Size([32]), seed=1)
    members = []
    for shape in ((5, 3, 2), (5, 7, 2), (4, 5, 1, 1), (2, 3, 5, 2, 2)):
        sampler(EnsembleMixturePosterior(*tensors(*shape)))
        assert sampler.base_samples is not None
        members.append(sampler.base_samples)
    assert all(torch.equal(members[0], m) for m in members)


def test_base_normals_of_noise_are_standard_normal_and_shared_by_batches() -> None:
    values, variance = tensors(2, 5, 3, 2)
    posterior = EnsembleMixturePosterior(torch.zeros_like(values), variance[:1, :1])
    samples = get_sampler(posterior, torch.Size([4096]), seed=0)(posterior)
    normals = samples / variance[0, 0].sqrt()
    assert torch.equal(samples[:, 0], samples[:, 1])
    # Independent draws have standard errors 1/64 and sqrt(2)/64, a scrambled Sobol sequence less.
    assert (normals.mean(dim=0).abs() < 6 / 64).all()
    assert ((normals.var(dim=0) - 1).abs() < 6 * 2**0.5 / 64).all()
    correlation = torch.corrcoef(normals[:, 0].flatten(start_dim=1).T) - torch.eye(6)
    assert (correlation.abs() < 6 / 64).all()


def test_more_points_than_a_sobol_sequence_has_dimensions() -> None:
    q = SobolEngine.MAXDIM + 1
    posterior = EnsembleMixturePosterior(torch.zeros(1, q, 1), torch.ones(1, 1, 1))
    samples = EnsembleSampler(torch.Size([2]), seed=0)(posterior)
    assert samples.shape == (2, q, 1)
    assert samples.mean().abs() < 6 / (2 * q) ** 0.5
    assert torch.equal(samples, EnsembleSampler(torch.Size([2]), seed=0)(posterior))


def test_random_samples_have_the_mixtures_distribution(noisy: EnsembleMixturePosterior) -> None:
    with fixed_seed(0):
        samples = noisy.rsample(torch.Size([20_000]))
    ranks = reference(noisy).cdf(samples)  # uniform on (0, 1): mean 1/2, variance 1/12
    assert ((ranks.mean(dim=0) - 0.5).abs() < 6 * (1 / 12 / 20_000) ** 0.5).all()
    assert ((ranks.square().mean(dim=0) - 1 / 3).abs() < 6 * (4 / 45 / 20_000) ** 0.5).all()
    # Batches are independent: their members agree by chance alone.
    centred = ranks - 0.5
    product = (centred[:, 0] * centred[:, 1]).mean(dim=0)
    assert (product.abs() < 6 / 12 / 20_000**0.5).all()


def test_samples_carry_gradients_to_values_and_noise() -> None:
    values, variance = tensors(2, 5, 3, 2)

    def draw(values: Tensor, variance: Tensor) -> Tensor:
        return EnsembleSampler(torch.Size([6]), seed=0)(EnsembleMixturePosterior(values, variance))

    assert torch.autograd.gradcheck(draw, (values.requires_grad_(), variance.requires_grad_()))


def test_botorchs_index_sampler_draws_noise_free_samples() -> None:
    values, _ = tensors(2, 5, 3, 2)
    ours = IndexSampler(torch.Size([8]), seed=0)(EnsembleMixturePosterior(values))
    theirs = IndexSampler(torch.Size([8]), seed=0)(EnsemblePosterior(values))
    assert torch.equal(ours, theirs)


def test_an_empty_set_of_points_has_empty_samples() -> None:
    posterior = EnsembleMixturePosterior(torch.zeros(2, 5, 0, 2))
    assert posterior.rsample(torch.Size([3])).shape == (3, 2, 0, 2)


def test_base_samples_of_the_wrong_kind_are_refused(noisy: EnsembleMixturePosterior) -> None:
    shape = torch.Size([4])
    members = torch.zeros(4, dtype=torch.long)
    with pytest.raises(InputError, match="base_normals"):
        noisy.rsample_from_base_samples(shape, members)
    with pytest.raises(InputError, match="base_samples must have shape"):
        noisy.rsample_from_base_samples(shape, members[:3], torch.zeros(4, 2, 3, 2))
    gaussian = GPyTorchPosterior(MultivariateNormal(torch.zeros(2), torch.eye(2)))
    with pytest.raises(InputError, match="GPyTorchPosterior"):
        EnsembleSampler(shape)(gaussian)
