"""The deep kernel: its limits, its bound, its features."""

import math

import pytest
import torch
from botorch.sampling.pathwise import gen_kernel_features
from gpytorch.settings import lazily_evaluate_kernels

from bo_surrogates.errors import InputError
from bo_surrogates.kernels.deep import DeepKernel, DeepKernelFeatures
from bo_surrogates.kernels.mixed import stationary_kernel
from bo_surrogates.networks import BatchedMLP
from bo_surrogates.seeding import fixed_seed

X = torch.rand(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def kernel(depth=2, scale=1.0, batch_shape=(), **options):
    """A deep kernel with drawn weights."""
    made = DeepKernel(
        math.inf, BatchedMLP(3, 3, 8, depth), batch_shape=torch.Size(batch_shape), **options
    ).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        made.centre.copy_(
            scale * torch.randn(made.centre.shape, generator=generator, dtype=torch.float64)
        )
        lengthscale = torch.linspace(0.5, 0.9, made.base_kernel.lengthscale.numel())
        made.base_kernel.lengthscale = lengthscale.reshape(made.base_kernel.lengthscale.shape)
    return made


@pytest.mark.parametrize("nu", [1.5, math.inf])
def test_a_silent_residual_network_leaves_the_stationary_kernel(nu):
    deep = DeepKernel(nu, BatchedMLP(3, 3, 8, 2)).double()
    plain = stationary_kernel(nu, 3, 3, torch.Size()).double()
    torch.testing.assert_close(deep(X).to_dense(), plain(X).to_dense())


def test_it_is_the_stationary_kernel_of_the_features():
    deep = kernel()
    weights = deep.layers()
    h = 2 * X - 1
    for layer in weights[:-1]:
        h = torch.tanh(h @ layer.weight + layer.bias)
    phi = X + h @ weights[-1].weight + weights[-1].bias
    difference = (phi[:, None] - phi) / deep.base_kernel.lengthscale
    expected = torch.exp(-0.5 * difference.square().sum(dim=-1))
    torch.testing.assert_close(deep(X).to_dense(), expected)
    torch.testing.assert_close(deep(X, diag=True), expected.diagonal())
    torch.testing.assert_close(deep(X[:4], X[2:]).to_dense(), expected[:4, 2:])


def test_a_batch_of_kernels_is_one_kernel_an_element():
    both = kernel(batch_shape=(2,))
    together = both(X).to_dense()
    for i in range(2):
        one = kernel()
        with torch.no_grad():
            one.centre.copy_(both.centre[i])
            one.base_kernel.lengthscale = both.base_kernel.lengthscale[i]
        torch.testing.assert_close(together[i], one(X).to_dense())
        torch.testing.assert_close(both[i](X).to_dense(), one(X).to_dense())


@pytest.mark.parametrize("activation", ["tanh", "relu", "sine"])
@pytest.mark.parametrize("c", [0.3, 2.0])
def test_singular_values_are_bounded_and_so_are_differences(activation, c):
    deep = DeepKernel(math.inf, BatchedMLP(3, 3, 8, 2, activation), lipschitz=c).double()
    with torch.no_grad():
        deep.centre.normal_(0.0, 2.0, generator=torch.Generator().manual_seed(0))
    norms = [torch.linalg.svdvals(layer.weight)[0] for layer in deep.layers()]
    torch.testing.assert_close(
        2 * torch.stack(norms).prod(), torch.tensor(c, dtype=torch.float64)
    )  # weights as large as these are cut to the bound
    generator = torch.Generator().manual_seed(2)
    a, b = torch.rand(2, 500, 3, generator=generator, dtype=torch.float64)
    g = deep.features(a) - a - (deep.features(b) - b)
    assert (g.norm(dim=-1) <= c * (a - b).norm(dim=-1) * (1 + 1e-12)).all()


def test_small_weights_are_not_touched_by_the_bound():
    free, bound = kernel(scale=0.01), kernel(scale=0.01, lipschitz=0.9)
    torch.testing.assert_close(bound.features(X), free.features(X), rtol=0, atol=0)


@pytest.mark.parametrize("lipschitz", [None, 0.7])
def test_gradients_in_weights_and_inputs_equal_finite_differences(lipschitz):
    deep = kernel(depth=1, lipschitz=lipschitz)
    points = X[:3].clone().requires_grad_()

    def covariance(x, whitened):
        with lazily_evaluate_kernels(False):
            found = torch.func.functional_call(deep, {"whitened": whitened}, (x, X[4:6]))
        return found.to_dense()

    assert torch.autograd.gradcheck(covariance, (points, deep.whitened.detach().requires_grad_()))


def test_random_features_are_those_of_the_base_kernel_at_the_networks_output():
    deep = kernel()
    with fixed_seed(0):
        features = DeepKernelFeatures(deep, 3, 200)
    with fixed_seed(0):
        waves = gen_kernel_features(deep.base_kernel, num_inputs=3, num_outputs=200)
    torch.testing.assert_close(features(X), waves(deep.features(X)))


def test_networks_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="as many outputs as inputs"):
        DeepKernel(math.inf, BatchedMLP(3, 2))
    with pytest.raises(InputError, match="silu"):
        DeepKernel(math.inf, BatchedMLP(3, 3, activation="silu"), lipschitz=1.0)
    with pytest.raises(InputError, match="last_dim_is_batch"):
        kernel().forward(X, X, last_dim_is_batch=True)
