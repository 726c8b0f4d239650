"""Products of random features are kernels on average, at the Monte Carlo rate."""

from __future__ import annotations

import gpytorch
import numpy as np
import pytest
import torch
from torch import Tensor

from bo_surrogates.kernels.random_features import (
    BandlimitedFourierFeatures,
    BandlimitedNetworkFeatures,
    MaternFeatures,
    NeuralFeatures,
    RandomFeatures,
    RBFFeatures,
    orthogonal_directions,
)

D = 3
SCALES = torch.tensor([0.7, 2.0, 3.0], dtype=torch.float64)
MAPS: dict[str, RandomFeatures] = {
    "rbf": RBFFeatures(),
    "matern32": MaternFeatures(1.5),
    "matern52": MaternFeatures(2.5),
    "cube": BandlimitedFourierFeatures("cube"),
    "ball": BandlimitedFourierFeatures("ball"),
    "relu": NeuralFeatures("relu"),
    "erf": NeuralFeatures("erf"),
    "gelu": NeuralFeatures("gelu"),
}


def inputs(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def product(features: RandomFeatures, x: Tensor, width: int, seed: int) -> Tensor:
    draw = features.draw(D, width, torch.Generator().manual_seed(seed))
    phi = features.features(x, draw, SCALES)
    return phi @ phi.T


@pytest.mark.parametrize("name", list(MAPS))
def test_the_mean_product_of_features_is_the_kernel(name: str) -> None:
    features, x, draws = MAPS[name], inputs(5), 400
    products = torch.stack([product(features, x, 100, seed) for seed in range(draws)])
    error = products.mean(dim=0) - features.kernel(x, x, SCALES)
    standard_error = products.std(dim=0) / draws**0.5
    # A mean of 400 is normal enough; 6 standard errors, or rounding where all draws agree.
    assert (error.abs() <= 6 * standard_error + 1e-12).all()


@pytest.mark.parametrize("name", list(MAPS))
def test_the_error_falls_with_the_root_of_the_width(name: str) -> None:
    features, x = MAPS[name], inputs(8)
    exact = features.kernel(x, x, SCALES)

    def mean_square_error(width: int) -> float:
        errors = [product(features, x, width, seed) - exact for seed in range(60)]
        return torch.stack(errors).square().mean().item()

    # 16 times the width; mean squares of 60 draws of 8 x 8 numbers each.
    assert 8 < mean_square_error(60) / mean_square_error(960) < 32


def test_the_kernels_are_those_of_gpytorch() -> None:
    x, y = inputs(6), inputs(4, seed=1)
    for features, kernel in (
        (MAPS["rbf"], gpytorch.kernels.RBFKernel(ard_num_dims=D)),
        (MAPS["matern32"], gpytorch.kernels.MaternKernel(1.5, ard_num_dims=D)),
        (MAPS["matern52"], gpytorch.kernels.MaternKernel(2.5, ard_num_dims=D)),
    ):
        kernel = kernel.double()
        kernel.lengthscale = 1 / SCALES
        torch.testing.assert_close(features.kernel(x, y, SCALES), kernel(x, y).to_dense())


def test_bandlimited_kernels_are_the_transforms_of_their_domains() -> None:
    """In one input both are sinc; in three, the ball's is 3 (sin r - r cos r) / r^3."""
    x, one = (
        torch.linspace(0, 1, 9, dtype=torch.float64).unsqueeze(-1),
        torch.tensor([5.0]).double(),
    )
    r = 2 * one * (x - x.T).abs()
    for name in ("cube", "ball"):
        torch.testing.assert_close(MAPS[name].kernel(x, x, one), torch.sinc(r / torch.pi))
    z = inputs(6)
    r = torch.cdist(2 * SCALES * z, 2 * SCALES * z) + torch.eye(6)
    expected = 3 * (r.sin() - r * r.cos()) / r**3
    expected.fill_diagonal_(1.0)
    torch.testing.assert_close(MAPS["ball"].kernel(z, z, SCALES), expected)


@pytest.mark.parametrize("domain", ["cube", "ball"])
def test_no_frequency_is_beyond_the_bandwidth(domain: str) -> None:
    w = BandlimitedFourierFeatures(domain).draw(D, 4000, torch.Generator().manual_seed(0)).weights
    size = w.abs().amax(dim=0) if domain == "cube" else w.norm(dim=0)
    assert 0.9 < size.max() <= 1.0
    # The second moment of a coordinate: of uniform numbers 1 / 3, in a ball 1 / (d + 2).
    expected = 1 / 3 if domain == "cube" else 1 / (D + 2)
    assert w.square().mean().item() == pytest.approx(expected, abs=6 * 0.35 / 6000**0.5)


def test_the_error_on_the_torus_is_the_energy_beyond_the_bandwidth() -> None:
    """Integer frequencies up to the bandwidth, each with its cosine and sine: least squares leaves
    the Fourier coefficients of higher frequency, and no others."""
    M, t = 512, torch.arange(512, dtype=torch.float64) * (2 * torch.pi / 512)
    f = (3 * t).sin().exp() * (7 * t).cos() + 0.2 * (15 * t).sin()
    coefficients = torch.fft.fft(f) / M
    frequency = torch.fft.fftfreq(M, 1 / M).double().abs()
    for bandwidth in (2, 5, 8, 12, 16):
        w = torch.arange(bandwidth + 1, dtype=torch.float64)
        u = t.unsqueeze(-1) * w
        phi = torch.cat([u.cos(), u.sin()[:, 1:]], dim=-1)
        fit = phi @ torch.linalg.lstsq(phi, f.unsqueeze(-1)).solution
        error = (f - fit.squeeze(-1)).square().mean().sqrt()
        beyond = coefficients[frequency > bandwidth].abs().square().sum().sqrt()
        torch.testing.assert_close(error, beyond, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bandwidth", [2.0, 4.0, 8.0])
def test_units_of_bounded_weights_reproduce_a_function_without_its_high_frequencies(
    bandwidth: float,
) -> None:
    """What a bounded law of the weights leaves of f, for all coefficients at once.

    With units s(t) = t exp(-t^2 / 2), the ridgelet transform R f(a, b) = int f(x) s(a x - b) dx and
    its inverse restricted to |a| <= lambda give C times a low-pass filter of f: each frequency xi
    is multiplied by exp(-xi^2 / lambda^2), and C = 2 pi. For f = exp(-x^2) cos(3 x) the filter has
    a closed form.
    """

    def unit(t: Tensor) -> Tensor:
        return t * (-0.5 * t.square()).exp()

    x = torch.linspace(-6, 6, 481, dtype=torch.float64)
    f = (-x.square()).exp() * (3 * x).cos()
    # Gauss-Legendre nodes in a; b on a grid of steps fine beside a unit, as far as f reaches.
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(120))
    reconstruction = torch.zeros_like(x)
    for a, w in zip((bandwidth * nodes).tolist(), (bandwidth * weights).tolist(), strict=True):
        b = torch.arange(-6 * abs(a) - 7, 6 * abs(a) + 7, 0.1, dtype=torch.float64)
        units = unit(a * x.unsqueeze(-1) - b)
        transform = f @ units * (x[1] - x[0])
        reconstruction += w * 0.1 * (units @ transform)
    spread = 1 / bandwidth**2 + 1 / 4  # exp(-xi^2 spread) is f's spectrum times the filter
    envelope = (-(x.square()) / (4 * spread) - 9 / 4 + (9 / 4) / (4 * spread)).exp()
    filtered = envelope * (x * 3 / (4 * spread)).cos() / (2 * spread**0.5)
    torch.testing.assert_close(reconstruction / (2 * torch.pi), filtered, rtol=0, atol=1e-3)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "gaussian"])
def test_bandlimited_units_follow_their_formula(activation: str) -> None:
    features = BandlimitedNetworkFeatures(activation, "cube")
    draw = features.draw(D, 4, torch.Generator().manual_seed(0))
    assert draw.weights.abs().max() <= 1
    assert draw.biases.abs().max() <= 1
    x, function = inputs(1), {
        "tanh": torch.tanh, "sigmoid": torch.sigmoid, "gaussian": lambda u: (-u * u / 2).exp()
    }[activation]  # fmt: skip
    bandwidth = SCALES.prod() ** (1 / D)
    for j in range(4):
        a, b = SCALES * draw.weights[:, j], bandwidth * draw.biases[j]
        expected = function((2 * x[0] - 1) @ a - b) / 2
        torch.testing.assert_close(features.features(x, draw, SCALES)[0, j], expected)


def test_directions_are_orthogonal_in_blocks() -> None:
    directions = orthogonal_directions(D, 7, torch.Generator().manual_seed(0))
    gram = directions.T @ directions
    torch.testing.assert_close(gram[:3, :3], torch.eye(3).double())
    torch.testing.assert_close(gram[3:6, 3:6], torch.eye(3).double())
    torch.testing.assert_close(gram.diagonal(), torch.ones(7).double())


def test_orthogonal_frequencies_have_a_smaller_error_than_independent_ones() -> None:
    x = inputs(8)
    exact = MAPS["rbf"].kernel(x, x, SCALES)
    z = MAPS["rbf"].inputs(x, SCALES)

    def independent(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        u = z @ torch.randn(D, 60, generator=generator, dtype=torch.float64)
        phi = torch.cat([u.cos(), u.sin()], dim=-1) / 60**0.5
        return phi @ phi.T

    seeds = range(200)
    theirs = torch.stack([independent(s) - exact for s in seeds]).square().mean()
    ours = torch.stack([product(MAPS["rbf"], x, 120, s) - exact for s in seeds]).square().mean()
    assert ours < 0.8 * theirs


@pytest.mark.parametrize("name", list(MAPS))
def test_features_are_differentiable_in_inputs_and_scales(name: str) -> None:
    draw = MAPS[name].draw(D, 6, torch.Generator().manual_seed(0))
    x, scales = inputs(2).requires_grad_(), SCALES.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: MAPS[name].features(a, draw, b), (x, scales))


@pytest.mark.parametrize(
    "features", [BandlimitedFourierFeatures("cube"), BandlimitedNetworkFeatures("tanh", "cube")]
)
def test_too_small_a_bandwidth_misses_the_target_and_too_large_a_one_overfits(
    features: RandomFeatures,
) -> None:
    """Error between noise-free points, more units than points: U-shaped in the bandwidth."""

    def target(x: Tensor) -> Tensor:
        z = 2.0 * x - 1.0
        return torch.sin(30.0 * z) * torch.exp(-z.square()) + 0.5 * torch.cos(20.0 * z.square())

    new = torch.linspace(0.0, 1.0, 500, dtype=torch.float64).unsqueeze(-1)
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(200, 1, generator=generator, dtype=torch.float64)
        draw = features.draw(1, 600, generator)
        errors = []
        for bandwidth in (1.0, 20.0, 50.0, 100.0, 200.0, 1000.0):
            scales = torch.tensor([bandwidth], dtype=torch.float64)
            phi, at = features.features(x, draw, scales), features.features(new, draw, scales)
            gram = phi @ phi.T + 1e-8 * torch.eye(200, dtype=torch.float64)
            f = at @ phi.T @ torch.linalg.solve(gram, target(x))
            errors.append((f - target(new)).square().mean().sqrt().item())
        best = min(errors[1:-1])
        assert errors[0] > 3 * best
        assert errors[-1] > 3 * best
