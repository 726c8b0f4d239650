"""Mixtures of joint Gaussian distributions, against their definition."""

import pytest
import torch
from botorch.sampling.get_sampler import get_sampler
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from bo_surrogates.errors import InputError
from bo_surrogates.posteriors.gaussian_mixture import GaussianMixture
from bo_surrogates.seeding import fixed_seed

GENERATOR = torch.Generator().manual_seed(0)
MEANS = torch.randn(2, 3, 4, 1, generator=GENERATOR, dtype=torch.float64)
ROOTS = torch.randn(2, 3, 1, 4, 4, generator=GENERATOR, dtype=torch.float64)
COVARIANCES = ROOTS @ ROOTS.mT
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
DRAWS = 40_000


@pytest.fixture(scope="module")
def posterior():
    return GaussianMixture(MEANS, COVARIANCES, WEIGHTS)


def mixture_of_torch():
    means = MEANS[..., 0].movedim(1, -1)
    deviations = COVARIANCES[:, :, 0].diagonal(dim1=-2, dim2=-1).movedim(1, -1).sqrt()
    return MixtureSameFamily(Categorical(WEIGHTS.expand_as(means)), Normal(means, deviations))


def test_moments_and_density_are_those_of_torchs_mixture(posterior):
    reference = mixture_of_torch()
    torch.testing.assert_close(posterior.mean[..., 0], reference.mean)
    torch.testing.assert_close(posterior.variance[..., 0], reference.variance)
    value = torch.linspace(-3, 3, 8, dtype=torch.float64).reshape(2, 4)
    torch.testing.assert_close(
        posterior.log_density(value[..., None])[..., 0], reference.log_prob(value)
    )
    levels = torch.tensor([0.05, 0.5, 0.9], dtype=torch.float64)
    quantiles = posterior.quantile(levels)[..., 0]
    expected = levels[:, None, None].expand_as(quantiles)
    torch.testing.assert_close(reference.cdf(quantiles), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("way", ["rsample", "sampler"])
def test_samples_have_the_mixtures_joint_moments(posterior, way):
    shape = torch.Size([DRAWS])
    with fixed_seed(0):
        samples = (
            posterior.rsample(shape)
            if way == "rsample"
            else get_sampler(posterior, shape, seed=0)(posterior)
        )[..., 0]
    within = (WEIGHTS[:, None, None] * COVARIANCES[:, :, 0]).sum(dim=1)
    deviation = MEANS[..., 0] - posterior.mean.mT
    between = torch.einsum("s,bsi,bsj->bij", WEIGHTS, deviation, deviation)
    expected = within + between
    centred = samples - posterior.mean[..., 0]
    found = torch.einsum("kbi,kbj->bij", centred, centred) / DRAWS
    unit = posterior.variance[..., 0].sqrt()
    unit = unit.unsqueeze(-1) * unit.unsqueeze(-2)
    # An entry has a standard error below sqrt(3 / DRAWS) = 0.009 for kurtosis below 4.
    assert ((found - expected) / unit).abs().max() < 0.06
    assert (centred.mean(dim=0) / posterior.variance[..., 0].sqrt()).abs().max() < 0.03


def test_a_sample_of_the_sampler_is_one_member_in_all_batches():
    """With vanishing covariances a sample shows which member it is of."""
    sharp = GaussianMixture(MEANS, 1e-16 * COVARIANCES, WEIGHTS)
    samples = get_sampler(sharp, torch.Size([200]), seed=1)(sharp)
    distance = (samples.unsqueeze(2) - MEANS).abs().amax(dim=(-2, -1))  # k x b x s
    member = distance.argmin(dim=-1)
    assert torch.equal(member[:, 0], member[:, 1])
    counts = torch.bincount(member[:, 0], minlength=3) / 200
    torch.testing.assert_close(counts.double(), WEIGHTS, atol=0.006, rtol=0)


def test_scaling_and_weighting_outcomes_are_exact():
    two = GaussianMixture(
        torch.cat([MEANS, 2 * MEANS], -1), torch.cat([COVARIANCES, 3 * COVARIANCES], -3), WEIGHTS
    )
    scale, offset = torch.tensor([2.0, 0.5]).double(), torch.tensor([1.0, -1.0]).double()
    scaled = two.rescale(scale, offset)
    torch.testing.assert_close(scaled.mean, offset + scale * two.mean)
    torch.testing.assert_close(scaled.variance, scale.square() * two.variance)
    weights = torch.tensor([0.7, -2.0]).double()
    one = two.scalarize(weights, 3.0)
    torch.testing.assert_close(one.mean[..., 0], two.mean @ weights + 3.0)
    member = MultivariateNormal((two.values @ weights)[0, 1] + 3.0, one.covariances[0, 1, 0])
    expected = 0.49 * COVARIANCES[0, 1, 0] + 4.0 * 3 * COVARIANCES[0, 1, 0]
    torch.testing.assert_close(member.covariance_matrix, expected)


def test_covariances_of_another_shape_are_refused():
    with pytest.raises(InputError, match="covariances must have shape"):
        GaussianMixture(MEANS, COVARIANCES[..., :2, :2])
