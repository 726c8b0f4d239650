"""The orthogonal additive kernel: its components, and the features of drawn functions."""

import pytest
import torch

from bo_surrogates.kernels.additive import AdditiveFeatures, AdditiveKernel

X = torch.rand(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(scope="module", params=[(), (2,)], ids=["alone", "batch"])
def kernel(request):
    kernel = AdditiveKernel(3, torch.Size(request.param)).double()
    with torch.no_grad():
        kernel.base_kernel.raw_lengthscale.copy_(
            torch.tensor([0.2, 0.5, 1.5])
            .reshape(3, 1, 1)
            .expand_as(kernel.base_kernel.raw_lengthscale)
        )
        kernel.coeffs_1 = torch.tensor([0.5, 2.0, 30.0])
    return kernel.eval()


def test_the_kernel_is_the_sum_of_its_components(kernel):
    parts = kernel.components(X, X)
    torch.testing.assert_close(parts.sum(dim=-3), kernel(X).to_dense())
    assert parts.shape[-3] == 4


def test_each_component_integrates_to_zero(kernel):
    """Trapezoidal rule on a fine grid of each input: an independent quadrature."""
    grid = torch.linspace(0, 1, 4001, dtype=torch.float64).unsqueeze(-1).expand(-1, 3)
    with torch.no_grad():
        parts = kernel.components(X, grid)[..., 1:, :, :]
        integral = torch.trapezoid(parts, dx=1 / 4000, dim=-1)
        scale = parts.abs().amax(dim=-1)
    assert (integral.abs() / scale).max() < 1e-5


def test_a_component_depends_on_its_own_input_alone(kernel):
    other = X.clone()
    other[:, 1] = 0.3
    before, after = kernel.components(X, X), kernel.components(other, X)
    changed = (before - after).abs().amax(dim=(-2, -1))
    unchanged = [0, 1, 3]
    assert (changed[..., unchanged] < 1e-12).all()
    assert (changed[..., 2] > 1e-3).all()


def test_features_reproduce_the_kernel_to_rounding(kernel):
    psi = AdditiveFeatures(kernel, 3, 0)(X)
    value = kernel(X).to_dense()
    assert (psi @ psi.mT - value).abs().max() < 1e-4 * value.abs().max()


def test_a_change_of_parameters_in_evaluation_mode_is_seen(kernel):
    before = kernel(X).to_dense()
    kept = kernel.base_kernel.raw_lengthscale.detach().clone()
    with torch.no_grad():
        kernel.base_kernel.raw_lengthscale.mul_(2.0)
        changed = kernel(X).to_dense()
        kernel.base_kernel.raw_lengthscale.copy_(kept)
    parts = AdditiveKernel(3, kernel.batch_shape).double().train()
    parts.load_state_dict(kernel.state_dict())
    torch.testing.assert_close(parts(X).to_dense(), before)
    assert (changed - before).abs().max() > 1e-3
