"""The evidence of a network's prior against torch's distributions, and what maximizes it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from bo_surrogates.networks import BatchedMLP
from bo_surrogates.networks.evidence import (
    MAX_POINTS,
    RELEVANCE_STD,
    SIZE_STD,
    BoundedNoisePrior,
    RelevanceSearch,
    _covariance,
    _scores,
    estimate_prior,
    log_evidence,
)

NETWORK = BatchedMLP(2, 1, 32, 2)
NOISE = BoundedNoisePrior(-4.0, 2.0, 1e-5, 10.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def kernel(n: int = 9) -> Tensor:
    root = normal(n, n)
    return root @ root.T / n


def test_log_evidence_is_the_gaussian_log_density_up_to_a_constant() -> None:
    K, Y = kernel(), normal(9, 2, seed=1)
    sizes, noise = torch.tensor([[0.3, 1.0, 2.0], [0.01, 0.2, 5.0]], dtype=torch.float64)
    expected = torch.stack(
        [
            torch.stack(
                [MultivariateNormal(torch.zeros(9).to(K), s**2 * K + v * torch.eye(9).to(K))
                 .log_prob(Y.T) for v in noise]
            )
            for s in sizes
        ]
    )  # fmt: skip
    value = log_evidence(K, Y, sizes, noise)
    torch.testing.assert_close(value - value[0, 0], expected - expected[0, 0])


def test_known_noise_of_each_observation_is_part_of_the_evidence() -> None:
    K, Y = kernel(), normal(9, 2, seed=1)
    known = 0.1 + normal(9, 2, seed=2).square()
    sizes = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)
    expected = torch.stack(
        [
            torch.stack(
                [MultivariateNormal(torch.zeros(9).to(K), s**2 * K + known[:, j].diag())
                 .log_prob(Y[:, j]) for j in range(2)]
            )
            for s in sizes
        ]
    )  # fmt: skip
    value = _scores(K, Y, sizes, torch.ones(1, dtype=torch.float64), known.sqrt())[:, 0]
    torch.testing.assert_close(value - value[0], expected - expected[0])


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_covariance_is_that_of_networks_drawn_from_the_prior(activation: str) -> None:
    network = BatchedMLP(2, 1, 16, 2, activation)
    X = normal(4, 2)
    scales = network.scales(1.5, 2.0, output_scale=3.0)
    K = 9.0 * _covariance(network, network.draw(4000, scales, generator()), X)
    f = network.forward(network.draw(20_000, scales, generator(1)), X)[..., 0]
    products = f.unsqueeze(-1) * f.unsqueeze(-2)
    error = products.std(dim=0) / 20_000**0.5
    # The hidden layers' Monte Carlo error is of the same order: seven of these standard errors.
    assert ((products.mean(dim=0) - K).abs() < 7 * error).all()


@pytest.mark.parametrize("n", [60, MAX_POINTS + 100])
def test_scales_and_noise_of_data_drawn_from_the_prior_are_found(n: int) -> None:
    wide = BatchedMLP(2, 2, 512, 2)
    X = 3.4 * torch.rand(n, 2, generator=generator(), dtype=torch.float64) - 1.7
    truth = wide.scales(3.0, 2.0, output_scale=2.0)
    noise = torch.tensor([0.01, 0.3], dtype=torch.float64)
    found = []
    for seed in range(5):
        f = wide.forward(wide.draw(1, truth, generator(seed)), X)[0]
        Y = f + noise.sqrt() * normal(n, 2, seed=100 + seed)
        found.append(
            estimate_prior(
                BatchedMLP(2, 2, 32, 2),
                X,
                Y,
                generator(),
                input_scale=1.5,
                weight_scale=2.0,
                noise=NOISE,
            )
        )
    assert 1.5 < sum(e.input_scale for e in found) / 5 < 6.0
    size = torch.stack([e.output_scale.log() for e in found]).mean(dim=0).exp()
    assert ((size > 1.0) & (size < 4.0)).all()
    learnt = torch.cat([e.noise.log() for e in found]).mean(dim=0).exp()
    assert ((learnt / noise > 0.5) & (learnt / noise < 2.0)).all()


def test_known_noise_is_kept_and_fixed_scales_are_their_prior_medians() -> None:
    X, Y = normal(20, 2), normal(20, 2, seed=1)
    for known in (torch.full((1, 2), 0.2).double(), 0.1 + normal(20, 2, seed=2).square()):
        estimate = estimate_prior(
            BatchedMLP(2, 2, 16, 2), X, Y, generator(), input_scale=1.3, weight_scale=2.5,
            noise=known, learn_scales=False,
        )  # fmt: skip
        assert estimate.input_scale == 1.3
        assert torch.equal(estimate.output_scale, torch.full((2,), 2.5).double())
        assert torch.equal(estimate.noise, known)


def test_larger_outcomes_and_prior_functions_give_larger_and_smaller_output_layers() -> None:
    X, Y = normal(30, 2), normal(30, 1, seed=1).cumsum(dim=0) / 5
    options = {"input_scale": 1.2, "weight_scale": 2.0, "noise": torch.full((1, 1), 1e-2).double()}
    sizes = [
        estimate_prior(NETWORK, X, factor * Y, generator(), signal=signal, **options).output_scale
        for factor, signal in ((1.0, 1.0), (2.0, 1.0), (1.0, 4.0))
    ]
    assert sizes[1] > sizes[0] > sizes[2]


def test_outcomes_that_do_not_vary_have_finite_estimates() -> None:
    X, Y = normal(1, 2), torch.zeros(1, 1, dtype=torch.float64)
    estimate = estimate_prior(
        NETWORK, X, Y, generator(), input_scale=1.2, weight_scale=2.0, noise=NOISE
    )
    assert torch.isfinite(estimate.output_scale).all()
    assert (estimate.noise >= NOISE.low * (1 - 1e-9)).all()


@pytest.mark.parametrize("known", [False, True])
def test_the_search_over_inputs_climbs_the_gaussian_log_density_plus_log_priors(
    known: bool,
) -> None:
    X, Y = normal(9, 2), normal(9, 2, seed=1)
    theta = NETWORK.draw(8, NETWORK.scales(), generator())
    root = 0.1 + normal(9, 2, seed=2).abs() if known else torch.ones(1, 2).double()
    search = RelevanceSearch(NETWORK, theta, X, Y, 1.7, root, None if known else NOISE)

    def expected(relevance: Tensor, size: Tensor, noise: Tensor) -> Tensor:
        K = 1.7 * _covariance(NETWORK, theta, X * relevance.exp())
        total = Normal(0.0, RELEVANCE_STD).log_prob(relevance).sum()
        total = total + Normal(0.0, SIZE_STD).log_prob(size).sum()
        if not known:
            total = total + Normal(NOISE.mean, NOISE.std).log_prob(noise).sum()
        for j in range(2):
            variance = root[:, j].square() * (1.0 if known else noise[j].exp())
            S = size[j].exp() ** 2 * K + (variance * torch.ones(9)).diag()
            total = total + MultivariateNormal(torch.zeros(9).to(K), S).log_prob(Y[:, j])
        return total

    points = [tuple(0.3 * normal(2, seed=s + i) for i in range(3)) for s in (10, 20, 30)]
    value = torch.stack(
        [search.log_posterior(*p) - search.log_posterior(*points[0]) for p in points]
    )
    wanted = torch.stack([expected(*p) - expected(*points[0]) for p in points])
    torch.testing.assert_close(value, wanted)


def test_an_input_without_effect_has_the_smallest_scale() -> None:
    network = BatchedMLP(3, 1, 32, 2, "sine")
    X = 3.4 * torch.rand(40, 3, generator=generator(), dtype=torch.float64) - 1.7
    Y = torch.sin(2 * X[:, :1]) + 0.5 * X[:, 2:]
    options = {"input_scale": 1.2, "weight_scale": 2.0, "noise": NOISE}
    found = estimate_prior(network, X, Y, generator(), per_input=True, **options)
    first, without, third = found.relevance.tolist()
    assert without < 0.5 * min(first, third)
    torch.testing.assert_close(found.relevance.log().sum(), torch.zeros(()).double())
    scales = found.scales(network, 2.0)[: 3 * 32].unflatten(0, (3, 32))
    expected = found.input_scale * found.relevance / 3**0.5
    torch.testing.assert_close(scales, expected.unsqueeze(-1).expand(3, 32))


def test_the_search_over_inputs_keeps_known_noise() -> None:
    X, Y = normal(20, 2), normal(20, 2, seed=1)
    known = 0.1 + normal(20, 2, seed=2).square()
    estimate = estimate_prior(
        BatchedMLP(2, 2, 16, 2), X, Y, generator(), input_scale=1.3, weight_scale=2.5,
        noise=known, per_input=True,
    )  # fmt: skip
    assert torch.equal(estimate.noise, known)
    assert estimate.output_scale.shape == (2,)
