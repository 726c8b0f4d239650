"""The tangent kernel, skip connections and the block-wise recursion: against gradients of finite
networks, quadrature, and the recursion done at once."""

from __future__ import annotations

import math
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call, jacrev, vmap

from bo_surrogates.errors import InputError
from bo_surrogates.kernels import recursion
from bo_surrogates.kernels.compiled_recursion import CompiledRecursion
from bo_surrogates.kernels.dual_activations import DUAL_ACTIVATIONS
from bo_surrogates.kernels.infinite_width import NNGPKernel, NTKKernel
from bo_surrogates.kernels.random_network import (
    HIDDEN_WIDTH,
    RandomNetworkFeatures,
    TangentFeatures,
)
from bo_surrogates.kernels.recursion import Network, gram, variances

NAMES = list(DUAL_ACTIVATIONS)
SMOOTH = ["erf", "gelu", "sin", "rbf_sin"]
SB = torch.tensor([[0.2]], dtype=torch.float64)
ONE = torch.ones(1, 1, dtype=torch.float64)


def points(n: int, d: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, d, generator=generator, dtype=torch.float64)


def net(name: str, depth: int, skip: float = 0.0) -> Network:
    activation = DUAL_ACTIVATIONS[name]
    return Network(activation, depth, activation.weight_variance, skip)


class FiniteNetwork(torch.nn.Module):
    """The network of `recursion.py` at finite width, standard normal weights, by its definition."""

    def __init__(self, network: Network, d: int, width: int) -> None:
        super().__init__()
        self.network = network
        sizes = [d] + [width] * network.depth + [1]
        shapes = list(pairwise(sizes))
        self.W = torch.nn.ParameterList([torch.randn(*s, dtype=torch.float64) for s in shapes])
        self.b = torch.nn.ParameterList([torch.randn(s[1], dtype=torch.float64) for s in shapes])

    def forward(self, z: Tensor) -> Tensor:
        sw, a, phi = self.network.weight_variance, self.network.skip, self.network.activation
        h = z
        for layer, (W, b) in enumerate(zip(self.W, self.b, strict=True)):
            u = h if layer == 0 else phi.activation(h)
            dense = (sw / W.shape[0]) ** 0.5 * u @ W + SB.squeeze().sqrt() * b
            hidden = 0 < layer < self.network.depth
            h = math.sqrt(a) * h + math.sqrt(1 - a) * dense if hidden else dense
        return h.squeeze(-1)


@pytest.mark.parametrize(
    ("name", "depth", "skip"),
    [*((n, 1, 0.0) for n in NAMES), ("erf", 3, 0.0), ("relu", 3, 0.6), ("gelu", 2, 0.3)],
)
def test_both_kernels_are_those_of_wide_finite_networks(name: str, depth: int, skip: float) -> None:
    network, d, width, networks = net(name, depth, skip), 3, 128, 100
    z = 2 * points(4, d) - 1
    K, T = gram(network, z, z, SB, ONE, kind="both")
    torch.manual_seed(0)
    values, tangents = [], []
    for _ in range(networks):
        model = FiniteNetwork(network, d, width)
        parameters = {k: v.detach() for k, v in model.named_parameters()}

        def f(p: dict[str, Tensor], model: FiniteNetwork = model) -> Tensor:
            return functional_call(model, p, (z,))

        gradients = {k: g.flatten(1) for k, g in jacrev(f)(parameters).items()}
        tangents.append(sum(g @ g.mT for g in gradients.values()))
        # The output weights are integrated in closed form: their gradients are what they multiply.
        values.append(sum(g @ g.mT for g in (gradients[f"{part}.{depth}"] for part in "Wb")))
    for drawn, expected in ((values, K), (tangents, T)):
        gram_matrices = torch.stack(drawn)
        # Seven standard errors of 100 networks (3e-10 each), and from the second hidden layer on
        # a bias of order depth / width.
        bias = 0.0 if depth == 1 else 2 * depth / width * expected.diagonal().max()
        tolerance = 7 * gram_matrices.std(0) / networks**0.5 + bias
        assert ((gram_matrices.mean(0) - expected).abs() <= tolerance).all()
        assert (tolerance.diagonal() < 0.25 * expected.diagonal()).all()


def quadrature_recursion(
    network: Network, z: np.ndarray, nodes: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    """K and T of points z, every expectation by Gauss-Hermite quadrature."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    sw, sb, L = network.weight_variance, SB.item(), network.depth
    activation = network.activation

    def mean(phi: object, q1: float, q2: float, K: float) -> float:
        c = K / math.sqrt(q1 * q2)
        u = math.sqrt(q1) * x[:, None] + 0 * x[None, :]
        v = math.sqrt(q2) * (c * x[:, None] + math.sqrt(max(0, 1 - c * c)) * x[None, :])
        product = phi(torch.from_numpy(u)) * phi(torch.from_numpy(v))  # type: ignore[operator]
        return float((w[:, None] * w[None, :] * product.numpy()).sum())

    K = sw / z.shape[1] * z @ z.T + sb
    T = K.copy()
    for layer in range(1, L + 1):
        a = network.skip if layer < L else 0.0
        q = K.diagonal()
        index = [(i, j) for i in range(len(z)) for j in range(len(z))]
        F, Fd = (
            np.array([mean(phi, q[i], q[j], K[i, j]) for i, j in index]).reshape(K.shape)
            for phi in (activation.activation, activation.slope_of)
        )
        D = sw * F + sb
        T = a * T + (1 - a) * (D + sw * Fd * T)
        K = a * K + (1 - a) * D
    return K, T


@pytest.mark.parametrize("skip", [0.0, 0.4])
@pytest.mark.parametrize("name", SMOOTH)
def test_both_kernels_equal_the_recursion_by_quadrature(name: str, skip: float) -> None:
    network = net(name, 3, skip)
    z = 2 * points(3, 2) - 1
    K, T = gram(network, z, z, SB, ONE, kind="both")
    expected_K, expected_T = quadrature_recursion(network, z.numpy())
    np.testing.assert_allclose(K.numpy(), expected_K, rtol=1e-7)
    np.testing.assert_allclose(T.numpy(), expected_T, rtol=1e-6)


def test_tangent_kernel_of_one_hidden_relu_layer_is_its_closed_form() -> None:
    # With sb = 0 and |z|^2 = d the angle is all there is (Jacot et al. 2018, remark after thm. 1):
    # T = sw^2 [ (sin + 2 (pi - th) cos) / (2 pi) ].
    z = torch.nn.functional.normalize(points(5, 3) - 0.5, dim=-1) * math.sqrt(3)
    network = Network(DUAL_ACTIVATIONS["relu"], 1, 1.7)
    (T,) = gram(network, z, z, 0 * SB, ONE, kind="tangent")
    cosine = (z @ z.mT / 3).clamp(-1, 1)
    angle = torch.arccos(cosine)
    expected = 1.7**2 / (2 * math.pi) * (angle.sin() + 2 * (math.pi - angle) * cosine)
    torch.testing.assert_close(T, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["nngp", "tangent", "both"])
@pytest.mark.parametrize("name", ["relu", "gelu"])
@pytest.mark.parametrize(("symmetric", "rows"), [(False, 1), (True, 3), (True, 128)])
def test_blocks_give_the_matrix_and_the_gradients_of_the_recursion_done_at_once(
    name: str, symmetric: bool, rows: int, kind: recursion.Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = net(name, 2, 0.3)
    batch, n, m, d = (2,), 23, 23 if symmetric else 17, 2
    torch.manual_seed(0)
    inputs = [
        2 * torch.rand(*batch, n, d, dtype=torch.float64) - 1,
        2 * torch.rand(*batch, m, d, dtype=torch.float64) - 1,
        torch.rand(*batch, 1, 1, dtype=torch.float64),
        torch.rand(*batch, n, 1, dtype=torch.float64),
        torch.rand(*batch, 1, m, dtype=torch.float64),
    ]
    if symmetric:
        inputs[4] = inputs[3].mT
    weights = torch.randn(*batch, n, m, dtype=torch.float64)

    def evaluate() -> tuple[list[Tensor], list[Tensor]]:
        z1, z2, sb, factor1, factor2 = (t.clone().requires_grad_() for t in inputs)
        if symmetric:
            z2 = z1
            found = gram(network, z1, z1, sb, factor1, factor1.mT, kind)
            leaves = [z1, sb, factor1]
        else:
            found = gram(network, z1, z2, sb, factor1, factor2, kind)
            leaves = [z1, z2, sb, factor1, factor2]
        total = sum((weights * (i + 1) * M).sum() for i, M in enumerate(found))
        first = torch.autograd.grad(total, leaves, retain_graph=True)
        second = torch.autograd.grad(
            sum(g.square().sum() for g in torch.autograd.grad(total, leaves, create_graph=True)),
            leaves,
        )
        return [M.detach() for M in found], [*first, *second]

    whole, gradients = evaluate()
    cut = recursion.Tiling(whole=0, block=300, rows=rows)
    monkeypatch.setattr(recursion, "CPU_TILING", cut)
    monkeypatch.setattr(CompiledRecursion, "make", lambda *_: None)
    with mock.patch.object(recursion, "_whole", side_effect=recursion._whole) as called:
        blocks, blocks_gradients = evaluate()
    assert called.call_count > 3
    for ours, expected in zip(blocks, whole, strict=True):
        # Of a kinked activation the angle of coincident points has half of the digits.
        rounding = 1e-12 if name == "gelu" else 1e-7
        torch.testing.assert_close(ours, expected, rtol=rounding, atol=rounding)
    rounding = 1e-9 if name == "gelu" else 1e-6
    for ours, expected in zip(blocks_gradients, gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("kind", ["nngp", "tangent"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_finite_differences_where_points_differ(
    name: str, kind: recursion.Kind
) -> None:
    network = net(name, 3, 0.2)
    z1, z2 = 2 * points(2, 2) - 1, 2 * points(3, 2, seed=1) - 1

    def f(z1: Tensor, z2: Tensor, sb: Tensor) -> Tensor:
        return gram(network, z1, z2, sb, ONE, kind=kind)[0]

    inputs = [t.clone().requires_grad_() for t in (z1, z2, SB)]
    assert torch.autograd.gradcheck(f, inputs)
    assert torch.autograd.gradgradcheck(f, inputs)


@pytest.mark.parametrize("kind", ["nngp", "tangent"])
@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_of_smooth_kernels_equal_finite_differences_at_coincident_points(
    name: str, kind: recursion.Kind
) -> None:
    network = net(name, 3)
    z = 2 * points(3, 2) - 1

    def f(z1: Tensor) -> Tensor:
        return gram(network, z1, z, SB, ONE, kind=kind)[0]

    assert torch.autograd.gradcheck(f, [z.clone().requires_grad_()])


@pytest.mark.parametrize("depth", [1, 3, 16])
@pytest.mark.parametrize("name", NAMES)
def test_tangent_kernels_derivatives_at_coincident_points_are_finite(name: str, depth: int) -> None:
    kernel = NTKKernel(name, depth, 2, skip=0.1).double()
    x = points(3, 2).requires_grad_()
    leaves = [x, *kernel.parameters()]
    for K in (kernel(x).to_dense(), kernel(x, x.detach()).to_dense(), kernel(x, diag=True)):
        first = torch.autograd.grad(
            K.sum(), leaves, create_graph=True, allow_unused=True, materialize_grads=True
        )
        second = torch.autograd.grad(
            sum(g.square().sum() for g in first), leaves, allow_unused=True, materialize_grads=True
        )
        assert all(torch.isfinite(g).all() for g in (*first, *second))


def test_a_kinks_derivative_at_coincident_points_is_the_mean_of_those_on_both_sides() -> None:
    """The tangent kernel of a ReLU network behaves as |x - x'| there."""
    kernel = NTKKernel("relu", 2, 1).double()
    x = torch.tensor([[0.7]], dtype=torch.float64, requires_grad=True)
    (own,) = torch.autograd.grad(kernel(x, x.detach()).to_dense().sum(), x)
    with torch.no_grad():
        step = 1e-5
        left, middle, right = (kernel(x + s, x).to_dense().item() for s in (-step, 0.0, step))
    below, above = (middle - left) / step, (right - middle) / step
    assert above < below - 0.1  # a kink, pointing up
    assert own.item() == pytest.approx((below + above) / 2, abs=1e-3 * (below - above))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("name", NAMES)
def test_diagonal_equals_that_of_the_matrix(name: str, depth: int, normalize: bool) -> None:
    kernel = NTKKernel(name, depth, 3, skip=0.5, normalize=normalize).double()
    X, X2 = points(6, 3), points(6, 3, seed=1)
    with torch.no_grad():
        for other in (X, X2):
            matrix = kernel(X, other).to_dense().diagonal()
            # An angle near 0 has half of the digits.
            torch.testing.assert_close(kernel(X, other, diag=True), matrix, rtol=1e-6, atol=1e-7)


def test_normalized_kernel_has_the_output_variance_everywhere_and_scales_the_network_alike() -> (
    None
):
    X = points(6, 3)
    plain, normalized = (NTKKernel("erf", 2, 3, normalize=n).double() for n in (False, True))
    with torch.no_grad():
        (K, T), (Kn, Tn) = (k.matrices(X, X, "both") for k in (plain, normalized))
        torch.testing.assert_close(Tn.diagonal(), torch.ones(6).double())
        torch.testing.assert_close(Tn / Kn, T / K)


@pytest.mark.parametrize("name", NAMES)
def test_gram_matrix_is_positive_semidefinite_with_duplicates_and_corners(name: str) -> None:
    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.5, 0.5]])
    X = torch.cat([corners.double(), points(15, 2), points(15, 2), points(3, 2) + 1e-7])
    for depth, skip in ((1, 0.0), (16, 0.0), (16, 0.5)):
        with torch.no_grad():
            T = NTKKernel(name, depth, 2, skip=skip).double()(X).to_dense()
        eigenvalues = torch.linalg.eigvalsh(T)
        # Of kinked activations the angle of points 1e-7 apart is good to half of the digits.
        rounding = 1e-13 if name in SMOOTH else 1e-8
        assert eigenvalues[0] >= -rounding * len(X) * eigenvalues[-1]


def test_cost_is_one_pair_of_dual_maps_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompiledRecursion, "make", lambda *_: None)
    kernel = NTKKernel("gelu", 5, 2).double()
    cls = type(kernel.network.activation)
    with mock.patch.object(cls, "pair", autospec=True, side_effect=cls.pair) as pair:
        kernel(points(3, 2)).to_dense()
        assert pair.call_count == 5
        kernel(points(3, 2), diag=True)
        assert pair.call_count == 5


def test_skip_connections_carry_the_variance_of_linear_features_past_the_layers() -> None:
    # As a -> 1 the hidden layers drop out: K of depth L is that of one hidden layer.
    z = 2 * points(4, 2) - 1
    (deep,) = gram(net("relu", 6, 1 - 1e-9), z, z, SB, ONE)
    (shallow,) = gram(net("relu", 1), z, z, SB, ONE)
    torch.testing.assert_close(deep, shallow, rtol=1e-6, atol=1e-6)
    (none,) = gram(net("relu", 6, 0.0), z, z, SB, ONE)
    correlation = none / none.diagonal().outer(none.diagonal()).sqrt()
    kept = shallow / shallow.diagonal().outer(shallow.diagonal()).sqrt()
    assert correlation.min() > kept.min()  # depth alone draws all points together


@pytest.mark.parametrize(
    ("cls", "features", "name", "depth", "skip", "normalize"),
    [
        (NTKKernel, TangentFeatures, "relu", 1, 0.0, False),
        (NTKKernel, TangentFeatures, "erf", 1, 0.0, True),
        (NTKKernel, TangentFeatures, "erf", 2, 0.0, False),
        (NTKKernel, TangentFeatures, "gelu", 3, 0.4, False),
        (NNGPKernel, RandomNetworkFeatures, "gelu", 3, 0.4, False),
        (NTKKernel, RandomNetworkFeatures, "erf", 1, 0.0, True),
    ],
)
def test_random_features_reproduce_the_kernel_in_expectation(
    cls: type[NNGPKernel],
    features: type[RandomNetworkFeatures],
    name: str,
    depth: int,
    skip: float,
    normalize: bool,
) -> None:
    kernel = cls(name, depth, 3, skip=skip, normalize=normalize).double()
    X, draws = points(4, 3), 30
    torch.manual_seed(0)
    with torch.no_grad():
        grams = []
        for _ in range(draws):
            psi = features(kernel, num_inputs=3, num_outputs=features.count(depth, 1))(X)
            assert psi.shape == (4, features.count(depth, 1))
            grams.append(psi @ psi.mT)
        gram_matrices = torch.stack(grams)
        kind = "tangent" if features is TangentFeatures else "nngp"
        (K,) = kernel.matrices(X, X, kind)
    # Nine standard errors of 30 draws (7e-10 an entry), and a bias of order depth / width.
    bias = 0.0 if depth == 1 else 2 * depth / HIDDEN_WIDTH * K.diagonal().max()
    tolerance = 9 * gram_matrices.std(0) / draws**0.5 + bias
    assert ((gram_matrices.mean(0) - K).abs() <= tolerance).all()
    assert (tolerance.diagonal() < 0.35 * K.diagonal()).all()


def test_features_of_another_number_are_refused() -> None:
    with pytest.raises(ValueError, match="num_outputs must be"):
        TangentFeatures(NTKKernel("erf", 2, 3).double(), 3, HIDDEN_WIDTH + 1)


def test_one_input_scale_may_be_shared() -> None:
    kernel = NTKKernel("erf", 2, 3, ard=False).double()
    assert kernel.input_scale.shape == (1, 1)
    each = NTKKernel("erf", 2, 3).double()
    X = points(4, 3)
    torch.testing.assert_close(kernel(X).to_dense(), each(X).to_dense())


def test_variances_are_the_diagonals() -> None:
    network, z = net("gelu", 3, 0.3), 2 * points(5, 2) - 1
    K, T = gram(network, z, z, SB, ONE, kind="both")
    found = variances(network, z, SB, tangent=True)
    torch.testing.assert_close(found.K.squeeze(-1), K.diagonal())
    assert found.T is not None
    torch.testing.assert_close(found.T.squeeze(-1), T.diagonal())


def test_bad_skip_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"skip must be in \[0, 1\), got 1"):
        NTKKernel("relu", 2, 3, skip=1.0)


def test_slopes_are_the_activations_derivatives() -> None:
    u = torch.linspace(-3, 3, 40, dtype=torch.float64)  # without 0
    for activation in DUAL_ACTIVATIONS.values():
        slopes = vmap(torch.func.grad(activation.activation))(u)
        torch.testing.assert_close(activation.slope_of(u), slopes)
