"""The NNGP kernel against finite networks, an independent library and its own definition."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from botorch.models.kernels.infinite_width_bnn import InfiniteWidthBNNKernel
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.kernels.compiled_recursion import CompiledRecursion
from bo_surrogates.kernels.dual_activations import DUAL_ACTIVATIONS
from bo_surrogates.kernels.infinite_width import NNGPKernel
from bo_surrogates.kernels.random_network import HIDDEN_WIDTH, RandomNetworkFeatures

NAMES = list(DUAL_ACTIVATIONS)


def make_kernel(
    activation: str, depth: int, d: int, dtype: torch.dtype = torch.float64, **options: object
) -> NNGPKernel:
    """A kernel with parameters away from their initial values."""
    kernel = NNGPKernel(activation, depth, d, **options).to(dtype)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(depth)
    for name in ("log_input_scale", "log_output_variance", "log_bias_variance"):
        value = getattr(kernel, name)
        drawn = value + 0.4 * torch.randn(value.shape, generator=generator, dtype=dtype)
        kernel.initialize(**{name: drawn})
    return kernel


def points(n: int, d: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype
    )


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("activation", NAMES)
def test_kernel_is_the_covariance_of_wide_random_networks(activation: str, depth: int) -> None:
    kernel = make_kernel(activation, depth, d=3)
    X = points(4, 3)
    with torch.no_grad():
        K = kernel(X).to_dense()
        scale = kernel.output_variance.squeeze()
        sw, sb = kernel.network.weight_variance, kernel.bias_variance.squeeze()
        z = (2 * X - 1) * kernel.log_input_scale.exp()
        generator = torch.Generator().manual_seed(1)
        width, networks = 256, 200
        grams = []
        for _ in range(networks):
            h = z
            for fan_in in [3] + [width] * (depth - 1):
                W = torch.randn(fan_in, width, generator=generator, dtype=torch.float64)
                b = torch.randn(width, generator=generator, dtype=torch.float64)
                h = kernel.network.activation.activation((sw / fan_in) ** 0.5 * h @ W + sb**0.5 * b)
            # The output weights are integrated in closed form: E[f f'] = sw h.h' / width + sb.
            grams.append(scale * (sw * h @ h.mT / width + sb))
        gram = torch.stack(grams)
    # Each entry is a mean over 200 independent networks: 6 standard errors are exceeded with
    # probability 2e-9 (10 entries, 18 tests: 4e-7 together). Networks with more than one hidden
    # layer have a bias of order 1 / width, here below 2 / 256 of the variances.
    bias = 0.0 if depth == 1 else 2.0 / width * K.diagonal().max()
    tolerance = 6 * gram.std(dim=0) / networks**0.5 + bias
    assert ((gram.mean(dim=0) - K).abs() <= tolerance).all()


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_relu_kernel_is_botorchs_infinite_width_kernel(depth: int) -> None:
    X, X2 = points(5, 4), points(7, 4, seed=1)
    ours = make_kernel("relu", depth, d=4, weight_variance=1.3)
    reference = InfiniteWidthBNNKernel(depth=depth, acos_eps=1e-15).double()
    with torch.no_grad():
        reference.weight_var = torch.tensor(1.3, dtype=torch.float64)
        reference.bias_var = ours.bias_variance.squeeze()
        z, z2 = ((2 * x - 1) * ours.log_input_scale.exp() for x in (X, X2))
        expected = ours.log_output_variance.exp() * reference(z, z2).to_dense()
        torch.testing.assert_close(ours(X, X2).to_dense(), expected, rtol=1e-10, atol=0)


def test_one_hidden_rbf_sine_layer_is_an_rbf_kernel() -> None:
    X = points(6, 3)
    kernel = make_kernel("rbf_sin", 1, d=3, weight_variance=1.7)
    with torch.no_grad():
        z = (2 * X - 1) * kernel.log_input_scale.exp()
        rbf = torch.exp(-1.7 / 3 * torch.cdist(z, z).square() / 2)
        expected = kernel.output_variance * (1.7 * rbf + kernel.bias_variance)
        torch.testing.assert_close(kernel(X).to_dense(), expected.squeeze(0), rtol=1e-10, atol=0)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("activation", NAMES)
def test_diagonal_equals_that_of_the_matrix(activation: str, depth: int, normalize: bool) -> None:
    kernel = make_kernel(activation, depth, d=3, normalize=normalize)
    X, X2 = points(6, 3), points(6, 3, seed=1)
    with torch.no_grad():
        for other in (X, X2):
            matrix = kernel(X, other).to_dense().diagonal()
            torch.testing.assert_close(kernel(X, other, diag=True), matrix, rtol=1e-12, atol=1e-14)


def test_normalized_kernel_has_the_output_variance_everywhere_and_the_same_correlations() -> None:
    X = points(6, 3)
    normalized, plain = (make_kernel("gelu", 2, d=3, normalize=n) for n in (True, False))
    with torch.no_grad():
        K, raw = normalized(X).to_dense(), plain(X).to_dense()
        variance = normalized.output_variance.squeeze()
        torch.testing.assert_close(K.diagonal(), variance.expand(6))
        correlation = raw / (raw.diagonal()[:, None] * raw.diagonal()[None, :]).sqrt()
        torch.testing.assert_close(K, variance * correlation)


@pytest.mark.parametrize("depth", [1, 2, 8])
@pytest.mark.parametrize("activation", NAMES)
def test_gradient_at_coincident_points_is_finite_and_equals_central_differences(
    activation: str, depth: int
) -> None:
    kernel = make_kernel(activation, depth, d=3)
    X = points(4, 3)
    X2 = torch.cat([X[:3], points(2, 3, seed=5)])  # three points coincide

    def total(x: Tensor) -> Tensor:
        return (kernel(x, X2).to_dense() * weights).sum()

    weights = torch.randn(4, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(x), x)
    numerical, step = torch.zeros_like(X), 1e-5
    with torch.no_grad():
        for i in range(X.numel()):
            shift = torch.zeros(X.numel(), dtype=torch.float64)
            shift[i] = step
            shift = shift.view_as(X)
            numerical.view(-1)[i] = (total(X + shift) - total(X - shift)) / (2 * step)
    assert torch.isfinite(gradient).all()
    # ReLU's third derivative jumps at coincident points: an error of order step.
    torch.testing.assert_close(gradient, numerical, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("depth", [1, 2, 8])
@pytest.mark.parametrize("activation", NAMES)
def test_second_derivatives_at_coincident_points_are_finite(activation: str, depth: int) -> None:
    kernel = make_kernel(activation, depth, d=2)
    x = points(3, 2).requires_grad_()
    for K in (kernel(x).to_dense(), kernel(x, x.detach()).to_dense(), kernel(x, diag=True)):
        leaves = [x, *kernel.parameters()]
        first = torch.autograd.grad(
            K.sum(), leaves, create_graph=True, allow_unused=True, materialize_grads=True
        )
        second = torch.autograd.grad(
            sum(g.square().sum() for g in first), leaves, allow_unused=True, materialize_grads=True
        )
        assert all(torch.isfinite(g).all() for g in (*first, *second))


def test_gradient_in_the_first_argument_alone_ignores_that_the_second_has_equal_values() -> None:
    kernel = make_kernel("relu", 2, d=2)
    x = points(3, 2).requires_grad_()
    (own,) = torch.autograd.grad(kernel(x, x.detach().clone()).to_dense().sum(), x)
    (both,) = torch.autograd.grad(kernel(x).to_dense().sum(), x)
    torch.testing.assert_close(2 * own, both)  # by symmetry of the sum
    (own,) = torch.autograd.grad(kernel(x, x.detach().clone(), diag=True).sum(), x)
    (both,) = torch.autograd.grad(kernel(x, diag=True).sum(), x)
    torch.testing.assert_close(2 * own, both)


@pytest.mark.parametrize("activation", NAMES)
def test_gram_matrix_is_positive_semidefinite_with_duplicates_and_corners(activation: str) -> None:
    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.5, 0.5]])
    X = torch.cat([corners.double(), points(15, 2), points(15, 2), points(3, 2) + 1e-7])
    for depth in (1, 8):
        with torch.no_grad():
            K = make_kernel(activation, depth, d=2)(X).to_dense()
        eigenvalues = torch.linalg.eigvalsh(K)
        assert eigenvalues[0] >= -1e-13 * len(X) * eigenvalues[-1]


@pytest.mark.parametrize("activation", NAMES)
def test_float32_gram_matrix_is_the_rounded_float64_one(activation: str) -> None:
    X = points(8, 3, dtype=torch.float32)
    single = make_kernel(activation, 3, d=3, dtype=torch.float32)
    double = make_kernel(activation, 3, d=3)
    double.load_state_dict(single.state_dict())
    with torch.no_grad():
        K = single(X).to_dense()
        assert K.dtype == torch.float32
        # Equal to the last bit: nothing but the result was ever rounded to float32.
        assert torch.equal(K, double(X.double()).to_dense().float())


def test_each_element_of_a_batch_uses_its_own_parameters() -> None:
    batched = make_kernel("erf", 2, d=3, batch_shape=torch.Size([2]))
    X, X2 = points(4, 3), points(5, 3, seed=1)
    with torch.no_grad():
        stacked = batched(X.expand(2, -1, -1), X2.expand(2, -1, -1)).to_dense()
        diagonal = batched(X.expand(2, -1, -1), diag=True)
        for i in range(2):
            single = NNGPKernel("erf", 2, 3).double()
            single.load_state_dict(
                {
                    key: value[i] if key in dict(batched.named_parameters()) else value
                    for key, value in batched.state_dict().items()
                }
            )
            torch.testing.assert_close(stacked[i], single(X, X2).to_dense())
            torch.testing.assert_close(diagonal[i], single(X, diag=True))
    # Leading dimensions of the inputs stand before the kernel's.
    wide = batched(X.expand(6, 2, 4, 3), X2.expand(6, 2, 5, 3))
    assert wide.shape == (6, 2, 4, 5)
    torch.testing.assert_close(wide.to_dense()[3], stacked)


@pytest.mark.parametrize("depth", [1, 3, 8])
def test_cost_is_one_dual_map_and_two_diagonals_a_layer(
    depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CompiledRecursion, "make", lambda *_: None)
    kernel = make_kernel("gelu", depth, d=2)
    cls = type(kernel.network.activation)
    X, X2 = points(3, 2), points(4, 2, seed=1)
    with (
        mock.patch.object(cls, "pair", autospec=True, side_effect=cls.pair) as dual,
        mock.patch.object(cls, "diagonal", autospec=True, side_effect=cls.diagonal) as diagonal,
    ):
        kernel(X, X2).to_dense()
        assert (dual.call_count, diagonal.call_count) == (depth, 2 * depth - 2)
        dual.reset_mock()
        diagonal.reset_mock()
        kernel(X).to_dense()
        assert (dual.call_count, diagonal.call_count) == (depth, depth - 1)
        dual.reset_mock()
        diagonal.reset_mock()
        kernel(X, diag=True)
        assert (dual.call_count, diagonal.call_count) == (0, depth)


@pytest.mark.parametrize("normalize", [False, True])
def test_random_network_features_reproduce_the_kernel_in_expectation(normalize: bool) -> None:
    kernel = make_kernel("relu", 1, d=3, normalize=normalize)
    X = points(4, 3)
    torch.manual_seed(0)
    grams = []
    with torch.no_grad():
        for _ in range(200):
            psi = RandomNetworkFeatures(kernel, num_inputs=3, num_outputs=HIDDEN_WIDTH + 1)(X)
            grams.append((psi @ psi.mT).squeeze(0))
        gram, K = torch.stack(grams), kernel(X).to_dense()
    # Exactly unbiased for one hidden layer; six standard errors of 200 networks (2e-9 an entry).
    assert ((gram.mean(0) - K).abs() <= 6 * gram.std(0) / 200**0.5).all()


def test_bad_arguments_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="did you mean 'relu'"):
        NNGPKernel("rellu", 2, 3)
    with pytest.raises(InputError, match=r"depth must be in 1\.\.16, got 17"):
        NNGPKernel("relu", 17, 3)
    with pytest.raises(InputError, match="weight_variance must be positive"):
        NNGPKernel("relu", 2, 3, weight_variance=0.0)
    with pytest.raises(InputError, match="last_dim_is_batch"):
        NNGPKernel("relu", 2, 3).forward(points(2, 3), points(2, 3), last_dim_is_batch=True)
