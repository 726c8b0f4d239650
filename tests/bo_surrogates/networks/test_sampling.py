"""The sampler of networks: its metric, and that it leaves a known distribution as it is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bo_surrogates.inference.hmc import init, leapfrog
from bo_surrogates.networks import BatchedMLP
from bo_surrogates.networks.noise_priors import LogNoisePrior
from bo_surrogates.networks.posterior import CollapsedNetworkPosterior, NetworkPosterior
from bo_surrogates.networks.sampling import Chains, Sampler, adapted_metric, exchangeable

SHAPE = BatchedMLP(3, 2, width=4, depth=2)


def posterior(
    kind: type[NetworkPosterior], n: int = 6, noise: LogNoisePrior | Tensor | None = None
) -> NetworkPosterior:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    Y = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return kind(
        SHAPE, X, Y, SHAPE.scales(1.5), LogNoisePrior(-2.0, 0.5) if noise is None else noise
    )


def test_groups_are_what_the_model_does_not_tell_apart() -> None:
    ours = posterior(NetworkPosterior)
    groups = exchangeable(ours)
    first, second, output = SHAPE.unpack(groups[None, :-2])
    counts = torch.bincount(groups)
    assert all(len(row.unique()) == 1 for row in first.weight[0])
    assert len(first.weight.unique()) == 3
    assert len(second.weight.unique()) == 1
    assert all(len(column.unique()) == 1 for column in output.weight[0].T)
    assert len(output.weight.unique()) == 2
    assert counts.tolist() == [4, 4, 4, 4, 16, 4, 4, 4, 1, 1, 1, 1]
    collapsed = exchangeable(posterior(CollapsedNetworkPosterior))
    assert torch.bincount(collapsed).tolist() == [4, 4, 4, 4, 16, 4, 0, 0, 0, 0, 1, 1]


def test_the_metric_is_one_where_the_data_say_nothing() -> None:
    weak = posterior(NetworkPosterior, noise=torch.tensor(1e12, dtype=torch.float64))
    normal = torch.randn(
        500, weak.num_parameters, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    metric = adapted_metric(weak, init(normal * weak.scales, weak))
    # (a / b)^(1/4) of two means of the same squares.
    torch.testing.assert_close(metric, torch.ones_like(metric), rtol=1e-6, atol=0)


def test_the_metric_is_the_target_scale_of_a_gaussian() -> None:
    """Of the biases of the output, whose posterior without hidden units is Gaussian."""
    shape = BatchedMLP(1, 1, width=1, depth=1)
    n, v = 50, 0.5
    X = torch.zeros(n, 1, dtype=torch.float64)
    # A hidden unit with weights and bias of scale 1e-6 is 0: y_i = b + e_i, b ~ N(0, 1).
    scales = shape.layer_scales([1e-6, 1.0], [1e-6, 1.0])
    ours = NetworkPosterior(shape, X, X, scales, torch.tensor(v, dtype=torch.float64))
    exact = (1.0 + n / v) ** -0.5
    normal = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    position = normal * torch.tensor([1e-6, 1e-6, 1.0, exact], dtype=torch.float64)
    metric = adapted_metric(ours, init(position, ours))
    assert metric[-1].item() == pytest.approx(exact, rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_follow_the_exact_posterior_of_a_linear_network(dtype: torch.dtype) -> None:
    """With hidden units in their linear range a network is Bayesian linear regression."""
    generator = torch.Generator().manual_seed(0)
    shape, n, v, small = BatchedMLP(2, 1, width=1, depth=1), 8, 0.05, 1e-3
    X = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    Y = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    # tanh(z) = z to 1e-6 of itself for z = x w, w ~ N(0, 1e-6): f = a z + b with a held at 1e3 by
    # a prior much narrower than what the data could tell, in the coordinate's scale.
    scales = shape.layer_scales([small * math.sqrt(2), 1.0], [small, 1.0])
    held = 1.0 / small

    class Linear(NetworkPosterior):
        def leapfrog(self, scale: Tensor) -> None:
            return None  # by torch: the kernel does not know of the weight that is held

        def __call__(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
            fixed = parameters.clone()
            fixed[:, 3] = held
            log_density, gradient = super().__call__(fixed)
            gradient[:, 3] = -parameters[:, 3]
            return log_density - 0.5 * (parameters[:, 3] ** 2 - held**2), gradient

    ours = Linear(shape, X.to(dtype), Y.to(dtype), scales, torch.tensor(v, dtype=dtype))
    sampler = Sampler(ours, X.to(dtype), lambda scale: leapfrog(ours, scale), math.pi / 2, 64, 0.8)
    start = Chains(torch.zeros(64, 5, dtype=dtype), 0.0, torch.ones(5, dtype=dtype))
    run = sampler(generator, start, warmup=60, samples=250, draws=64 * 250)
    coefficients = (run.weights.double()[:, [0, 1, 2, 4]]) * torch.tensor(
        [held, held, held, 1.0], dtype=torch.float64
    )
    design = torch.cat([X, torch.ones(n, 2, dtype=torch.float64)], dim=-1)
    precision = torch.eye(4, dtype=torch.float64) + design.T @ design / v
    covariance = precision.inverse()
    mean = (covariance @ design.T @ Y / v).squeeze(-1)
    whitened = torch.linalg.solve_triangular(
        torch.linalg.cholesky(covariance), (coefficients - mean).T, upper=False
    )
    # 16 000 draws, of which a few thousand are independent.
    assert (whitened.mean(dim=1).abs() < 6 / math.sqrt(2000)).all()
    error = whitened @ whitened.T / len(coefficients) - torch.eye(4, dtype=torch.float64)
    assert (error.abs() < 6 * math.sqrt(2 / 2000)).all()


def test_the_metric_makes_the_step_longer_and_stays_for_the_next_run() -> None:
    noise = torch.tensor(0.01, dtype=torch.float64)
    ours = posterior(CollapsedNetworkPosterior, n=60, noise=noise)
    generator = torch.Generator().manual_seed(0)
    P = ours.num_parameters
    q = torch.randn(16, P, generator=generator, dtype=torch.float64) * ours.scales
    steps = {}
    for adapts in (False, True):
        sampler = Sampler(
            ours, ours.X, lambda scale: leapfrog(ours, scale), math.pi / 2, 64, 0.75, adapts
        )
        start = Chains(q, 0.0, torch.ones(P, dtype=torch.float64))
        run = sampler(torch.Generator().manual_seed(0), start, warmup=60, samples=10, draws=10)
        steps[adapts] = run.chains.step_size
        assert torch.equal(run.chains.metric, torch.ones_like(run.chains.metric)) != adapts
    assert steps[True] > 1.2 * steps[False]
    again = sampler(torch.Generator().manual_seed(0), run.chains, warmup=8, samples=4, draws=4)
    assert torch.equal(again.chains.metric, run.chains.metric)
