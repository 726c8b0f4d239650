from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bo_surrogates.networks import ACTIVATIONS, BatchedMLP
from bo_surrogates.networks.local_reparameterization import sampled_forward


def gaussian(network: BatchedMLP, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Means and standard deviations `1 x P`, some of them zero."""
    generator = torch.Generator().manual_seed(seed)
    size = 1, network.num_parameters
    mean = torch.randn(size, generator=generator, dtype=torch.float64)
    std = torch.rand(size, generator=generator, dtype=torch.float64)
    active = torch.rand(size, generator=generator) < 0.7
    return mean * active, std * active


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_moments_at_a_point_equal_those_of_networks_with_drawn_weights(activation: str) -> None:
    # At one input the two ways to draw have the same distribution, through all layers.
    network, draws = BatchedMLP(3, 2, width=4, depth=2, activation=activation), 100_000
    mean, std = gaussian(network)
    generator = torch.Generator().manual_seed(1)
    x = torch.tensor([[0.3, -1.2, 0.8]], dtype=torch.float64)
    theta = mean + std * torch.randn(draws, network.num_parameters, generator=generator).double()
    explicit = network.forward(theta, x)[:, 0]
    local = sampled_forward(network, mean, std, x.expand(draws, -1), generator)[0]
    for a, b in ((explicit, local), (explicit.square(), local.square())):
        error = ((a.var(dim=0) + b.var(dim=0)) / draws).sqrt()
        assert ((a.mean(dim=0) - b.mean(dim=0)).abs() < 6 * error).all()


def test_noise_of_different_inputs_is_independent() -> None:
    network, draws = BatchedMLP(2, 1, width=3, depth=1), 4000
    mean, std = gaussian(network)
    X = torch.tensor([[0.3, -1.2], [0.3, -1.2]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    f = sampled_forward(
        network, mean.expand(draws, -1), std.expand(draws, -1), X, generator
    ).squeeze(-1)
    correlation = torch.corrcoef(f.T)[0, 1].item()
    assert abs(correlation) < 6 / draws**0.5


def test_without_spread_it_is_the_network() -> None:
    network = BatchedMLP(2, 2, width=5, depth=3)
    mean, _ = gaussian(network)
    X = torch.randn(7, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    f = sampled_forward(network, mean, torch.zeros_like(mean), X, torch.Generator())
    torch.testing.assert_close(f, network.forward(mean, X), rtol=0, atol=0.05)  # floor of a sum


def test_gradients_equal_finite_differences() -> None:
    network = BatchedMLP(2, 1, width=3, depth=2)
    mean, std = gaussian(network)
    X = torch.randn(4, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def outputs(m: Tensor, s: Tensor) -> Tensor:
        return sampled_forward(network, m, s, X, torch.Generator().manual_seed(3))

    std = std.clamp_min(0.05)
    assert torch.autograd.gradcheck(outputs, (mean.requires_grad_(), std.requires_grad_()))
