"""The kernel over continuous inputs and categories, against BoTorch's, and its features."""

import math

import pytest
import torch
from botorch.models.kernels.categorical import CategoricalKernel

from bo_surrogates.kernels.mixed import HammingKernel, MixedFeatures, MixedKernel, stationary_kernel

SIZES = (3, 4)
GENERATOR = torch.Generator().manual_seed(0)
CODES = torch.stack([torch.randint(k, (9,), generator=GENERATOR) for k in SIZES], dim=-1)
ONE_HOT = torch.cat(
    [torch.nn.functional.one_hot(CODES[:, i], k) for i, k in enumerate(SIZES)], dim=-1
).double()
NONE = torch.Size([])
REAL = torch.rand(9, 2, generator=GENERATOR, dtype=torch.float64)
# A continuous column before, one between the categories: columns need not be in order.
MIXED = torch.cat([REAL[:, :1], ONE_HOT[:, :3], REAL[:, 1:], ONE_HOT[:, 3:]], dim=-1)
GROUPS = ([1, 2, 3], [5, 6, 7, 8])


def mixed_kernel(nu, batch_shape=NONE):
    kernel = MixedKernel(GROUPS, 9, nu, batch_shape).double()
    with torch.no_grad():
        kernel.categories.raw_lengthscale.copy_(torch.tensor([[0.8, 1.7]]))
        kernel.continuous.raw_lengthscale.copy_(torch.tensor([[0.4, 0.9]]))
        kernel.logit_interaction.fill_(0.7)
    return kernel


def test_the_hamming_kernel_on_one_hot_columns_is_botorchs_on_codes():
    kernel = HammingKernel(SIZES, d=2, batch_shape=NONE).double()
    lengthscale = torch.tensor([[0.6, 1.3]], dtype=torch.float64)
    kernel.lengthscale = lengthscale
    # BoTorch takes the mean over inputs of [c != c'] / l, we the sum of [c != c'] / l^2.
    reference = CategoricalKernel(ard_num_dims=2).double()
    reference.lengthscale = lengthscale.square() / len(SIZES)
    expected = reference(CODES.double()).to_dense()
    torch.testing.assert_close(kernel(ONE_HOT).to_dense(), expected)
    assert expected.unique().numel() >= 4  # no, one, the other, and both categories differ


@pytest.mark.parametrize("nu", [math.inf, 1.5, 2.5])
def test_the_mixed_kernel_is_the_weighted_sum_and_product_of_its_parts(nu):
    kernel = mixed_kernel(nu)
    k_c = kernel.categories(ONE_HOT).to_dense()
    k_x = stationary_kernel(nu, 2, 4, NONE).double()
    k_x.lengthscale = kernel.continuous.lengthscale.detach()
    k_x = k_x(REAL).to_dense()
    w = torch.sigmoid(torch.tensor(0.7, dtype=torch.float64))
    value = kernel(MIXED).to_dense()
    torch.testing.assert_close(value, (1 - w) * (k_x + k_c) / 2 + w * k_x * k_c)
    torch.testing.assert_close(kernel(MIXED, diag=True), value.diagonal())
    torch.testing.assert_close(value.diagonal(), torch.ones(9, dtype=torch.float64))


def test_categories_alone_need_no_continuous_input():
    kernel = MixedKernel(([0, 1, 2], [3, 4, 5, 6]), 7, math.inf, NONE).double()
    value = kernel(ONE_HOT).to_dense()
    torch.testing.assert_close(value, kernel.categories(ONE_HOT).to_dense())
    features = MixedFeatures(kernel, 7, 4096)(ONE_HOT)
    assert (features @ features.mT - value).abs().max() < 0.1


@pytest.mark.parametrize("nu", [math.inf, 1.5])
def test_features_reproduce_the_kernel(nu):
    """Each entry is a mean of F / 6 cosines in each block: six standard errors at most."""
    kernel = mixed_kernel(nu, torch.Size([2]))
    count = 24_000
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = MixedFeatures(kernel, 9, count)(MIXED)
    value = kernel(MIXED).to_dense()
    assert features.shape == (2, 9, count)
    assert (features @ features.mT - value).abs().max() < 6 * (count / 6) ** -0.5


def test_features_come_in_pairs_for_each_term():
    with pytest.raises(ValueError, match="multiple of 6"):
        MixedFeatures(mixed_kernel(math.inf), 9, 1024)
