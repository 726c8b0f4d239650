"""The limit of linear networks: wide networks, trained independently, tend to it."""

import math

import pytest
import torch

from bo_surrogates.networks.linear_limit import LinearNetwork, infinite_width, of_width

D, OUT = 5, 2
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(20, D, generator=GENERATOR, dtype=torch.float64)
Y = X @ torch.randn(D, OUT, generator=GENERATOR, dtype=torch.float64)


def loss(network: LinearNetwork) -> torch.Tensor:
    return (network(X) - Y).square().mean()


def trained(network: LinearNetwork, steps: int = 20) -> LinearNetwork:
    for _ in range(steps):
        network = network.step(loss, 0.05)
    return network


LIMIT = trained(infinite_width(D, OUT, 0.8, 1.3))


def by_torch(width: int, seed: int) -> torch.Tensor:
    """A network with independent first weights, trained by torch: its function at X."""
    generator = torch.Generator().manual_seed(seed)
    U = torch.randn(width, D, generator=generator, dtype=torch.float64) * 0.8 / width**0.5
    V = torch.randn(OUT, width, generator=generator, dtype=torch.float64) * 1.3 / width**0.5
    U.requires_grad_(), V.requires_grad_()
    optimizer = torch.optim.SGD([U, V], lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        (X @ U.T @ V.T - Y).square().mean().backward()
        optimizer.step()
    return (X @ U.T @ V.T).detach()


def test_wide_networks_tend_to_the_limit_with_the_root_of_their_width():
    exact = LIMIT(X)
    assert loss(LIMIT) < 0.3 * loss(infinite_width(D, OUT))  # it has learnt something
    errors = []
    for width in (64, 16384):
        runs = [by_torch(width, seed) for seed in range(6)]
        error = (torch.stack(runs) - exact).square().mean() / exact.square().mean()
        errors.append(error.sqrt())
    # An error over 6 runs is right to a third; the slope over a factor of 256 to 0.05.
    slope = (errors[1] / errors[0]).log() / math.log(256)
    assert slope == pytest.approx(-0.5, abs=0.15)
    assert errors[1] < 0.01


def test_a_network_keeps_the_form_of_the_limit():
    """With G' G / n the identity exactly, a finite network is the limit at every step."""
    limit = infinite_width(D, OUT, 0.8, 1.3)
    G = torch.linalg.qr(torch.randn(30, D + OUT, generator=GENERATOR, dtype=torch.float64)).Q
    finite = trained(LinearNetwork(G @ limit.U, limit.V @ G.mT))
    torch.testing.assert_close(finite(X), LIMIT(X), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(finite.metric(), LIMIT.metric(), rtol=1e-10, atol=1e-10)


def test_a_draw_of_finite_width_has_the_entries_of_the_parametrization():
    width = 20_000
    network = of_width(infinite_width(D, OUT, 0.8, 1.3), width, torch.Generator().manual_seed(1))
    # Relative standard errors of variances of 100 000 and 40 000 entries: 0.0045 and 0.0071.
    assert network.U.var() * width == pytest.approx(0.64, rel=0.03)
    assert network.V.var() * width == pytest.approx(1.69, rel=0.05)
    assert network(X).abs().max() < 0.5  # of order n^{-1/2} before training


def test_training_learns_features_which_a_kernel_does_not():
    """The metric stretches along the directions that the outcomes depend on."""
    one = infinite_width(D, 1)
    target = X[:, :1]
    for _ in range(200):
        one = one.step(lambda network: (network(X) - target).square().mean(), 0.2)
    values, vectors = torch.linalg.eigh(one.metric())
    assert values[-1] > 1.3 * values[-2]
    assert vectors[0, -1].abs() > 0.95
