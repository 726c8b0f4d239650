from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.networks import BatchedMLP
from bo_surrogates.networks.minibatch import MinibatchGradient
from bo_surrogates.networks.posterior import (
    CollapsedNetworkPosterior,
    LogNoisePrior,
    NetworkPosterior,
)

N, D, M = 6, 2, 2
NETWORK = BatchedMLP(D, M, width=4, depth=2)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def posterior(known: bool, kind: type[NetworkPosterior] = NetworkPosterior) -> NetworkPosterior:
    noise = normal(N, M, seed=2).exp() if known else LogNoisePrior(-2.0, 0.5)
    return kind(NETWORK, normal(N, D, seed=0), normal(N, M, seed=1), NETWORK.scales(2.0), noise)


def gradient(known: bool, batch_size: int, seed: int = 0) -> MinibatchGradient:
    return MinibatchGradient(posterior(known), batch_size, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_the_mean_over_all_batches_is_the_gradient_of_all_data(
    known: bool, batch_size: int
) -> None:
    estimate = gradient(known, batch_size)
    parameters = normal(3, estimate.posterior.num_parameters, seed=4)
    every = [
        estimate.estimate(parameters, torch.tensor([batch] * 3))
        for batch in combinations(range(N), batch_size)
    ]
    _, exact = estimate.posterior(parameters)
    torch.testing.assert_close(torch.stack(every).mean(dim=0), exact, rtol=1e-10, atol=1e-10)
    assert torch.stack(every).std(dim=0).max() > 0.1  # and each one is not


@pytest.mark.parametrize("known", [True, False])
def test_a_batch_of_all_data_has_the_exact_gradient(known: bool) -> None:
    estimate = gradient(known, N)
    parameters = normal(3, estimate.posterior.num_parameters, seed=4)
    _, exact = estimate.posterior(parameters)
    torch.testing.assert_close(estimate(parameters), exact, rtol=1e-10, atol=1e-10)


def test_batches_are_drawn_evenly_and_anew_for_every_chain() -> None:
    chains = 20_000
    estimate = gradient(False, 2)
    point = normal(1, estimate.posterior.num_parameters, seed=4)
    draws = estimate(point.expand(chains, -1).contiguous())
    assert len(draws[:, 0].unique()) == N * (N - 1) // 2
    _, exact = estimate.posterior(point)
    standard = draws.std(dim=0) / chains**0.5
    assert ((draws.mean(dim=0) - exact[0]).abs() < 6 * standard + 1e-12).all()


def test_the_generator_decides() -> None:
    parameters = normal(3, gradient(False, 2).posterior.num_parameters, seed=4)
    first, second, other = (gradient(False, 2, seed)(parameters) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_an_integrated_output_layer_and_bad_sizes_are_refused() -> None:
    generator = torch.Generator()
    with pytest.raises(InputError, match="sampled output layer"):
        MinibatchGradient(posterior(False, CollapsedNetworkPosterior), 2, generator)
    for size in (0, N + 1):
        with pytest.raises(InputError, match=f"from 1 to n = {N}"):
            MinibatchGradient(posterior(False), size, generator)
