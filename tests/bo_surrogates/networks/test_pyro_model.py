"""The Pyro model has the density of our posterior; its sampler follows the protocol."""

from __future__ import annotations

import pytest
import torch
from pyro.infer.mcmc.util import initialize_model

from bo_surrogates.networks import BatchedMLP
from bo_surrogates.networks.noise_priors import HalfCauchyNoisePrior, LogNoisePrior, NoisePrior
from bo_surrogates.networks.posterior import NetworkPosterior
from bo_surrogates.networks.pyro_model import NoUTurn, from_sites, network_model, to_sites
from bo_surrogates.networks.sampling import Chains

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(7, 3, generator=GENERATOR, dtype=torch.float64)
Y = torch.randn(7, 2, generator=GENERATOR, dtype=torch.float64)


LOG_NORMAL, HALF_CAUCHY = LogNoisePrior(-2.0, 0.5), HalfCauchyNoisePrior(0.3)


def posterior(activation: str, prior: NoisePrior | None, depth: int = 2) -> NetworkPosterior:
    network = BatchedMLP(3, 2, width=4, depth=depth, activation=activation)
    noise = prior or Y.square() + 0.1
    return NetworkPosterior(network, X, Y, network.scales(1.3, 0.8, 0.7, 1.2), noise)


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu", "sine"])
@pytest.mark.parametrize("prior", [LOG_NORMAL, HALF_CAUCHY, None])
def test_the_model_has_the_density_of_the_posterior(
    activation: str, prior: NoisePrior | None
) -> None:
    ours = posterior(activation, prior)
    q = torch.randn(5, ours.num_parameters, generator=GENERATOR, dtype=torch.float64) * ours.scales
    _, potential, _, _ = initialize_model(network_model(ours))
    sites = to_sites(ours, q)
    theirs = torch.stack([-potential({k: v[i] for k, v in sites.items()}) for i in range(5)])
    difference = ours(q)[0] - theirs
    torch.testing.assert_close(difference, difference[:1].expand(5), rtol=1e-12, atol=1e-9)
    assert theirs.std() > 1.0  # not constant altogether


def test_sites_and_parameters_convert_into_each_other() -> None:
    ours = posterior("tanh", LOG_NORMAL)
    q = torch.randn(5, ours.num_parameters, generator=GENERATOR, dtype=torch.float64)
    assert torch.equal(from_sites(ours, to_sites(ours, q)), q)


def test_a_run_is_determined_by_its_seed_and_keeps_what_was_asked() -> None:
    ours = posterior("tanh", LOG_NORMAL, depth=1)
    q = torch.zeros(2, ours.num_parameters, dtype=torch.float64)
    sampler = NoUTurn(ours, X[:4], max_leapfrog=8, target_acceptance=0.8)
    start = Chains(q, 0.0, torch.ones_like(q[0]))
    first, second = (
        sampler(torch.Generator().manual_seed(1), start, warmup=6, samples=8, draws=5)
        for _ in range(2)
    )
    assert torch.equal(first.weights, second.weights)
    assert first.weights.shape == (5, ours.network.num_parameters)
    assert len(first.weights.unique(dim=0)) == 5
    assert first.noise.shape == (5, 2)
    assert first.predictions.shape == (2, 8, 4 * 2)
    assert not torch.equal(first.chains.position[0], first.chains.position[1])
    assert first.chains.step_size > 0
    assert 2 * (6 + 8) <= first.gradients <= 2 * (6 + 8) * 2**4 + 200
    last = ours.network.forward(ours.networks(first.chains.position, GENERATOR)[0], X[:4])
    torch.testing.assert_close(first.predictions[:, -1], last.flatten(start_dim=1))
