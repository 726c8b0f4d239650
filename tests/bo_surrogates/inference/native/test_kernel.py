"""The compiled kernel against autograd, and against the torch code that it stands for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.inference import hmc
from bo_surrogates.inference.native import library
from bo_surrogates.inference.native.kernel import ACTIVATION_NUMBERS
from bo_surrogates.networks import ACTIVATIONS, BatchedMLP
from bo_surrogates.networks.noise_priors import HalfCauchyNoisePrior, LogNoisePrior, NoisePrior
from bo_surrogates.networks.posterior import CollapsedNetworkPosterior, NetworkPosterior

pytestmark = pytest.mark.skipif(
    library.library() is None, reason="no compiled kernel on this machine (see the log)"
)

K, D = 3, 4
KINDS: list[type[NetworkPosterior]] = [NetworkPosterior, CollapsedNetworkPosterior]
NOISES = ("known", "each network's", "log-normal", "half-Cauchy")
# Machine precision times what sums over points, units and weights lose.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def scales(network: BatchedMLP) -> Tensor:
    return network.scales(1.5, 1.4, 0.8, 1.2)


def make(
    kind: type[NetworkPosterior],
    network: BatchedMLP,
    noise: str = "log-normal",
    n: int = 9,
    dtype: torch.dtype = torch.float64,
) -> NetworkPosterior:
    X, m = normal(n, D), network.outputs
    Y, variances = normal(K, n, m, seed=1), 0.2 + normal(K, n, m, seed=2).square()
    if noise != "each network's":
        Y, variances = Y[0], variances[0]
    prior: NoisePrior | Tensor = {
        "log-normal": LogNoisePrior(-1.0, 0.7), "half-Cauchy": HalfCauchyNoisePrior(0.7),
    }.get(noise, variances.to(dtype))  # type: ignore[assignment]  # fmt: skip
    return kind(network, X.to(dtype), Y.to(dtype), scales(network), prior)


def start(posterior: NetworkPosterior, chains: int = K, seed: int = 3) -> Tensor:
    """Draws from the prior, with log variances near its mean."""
    z = normal(chains, posterior.num_parameters, seed=seed) * posterior.scales.double()
    if posterior.prior is not None:
        z[:, -posterior.network.outputs :] += posterior.prior.mean
    return z.to(posterior.X)


def log_density(posterior: NetworkPosterior, parameters: Tensor) -> Tensor:
    """As written in the module's docstring, for autograd, in float64."""
    network, m = posterior.network, posterior.network.outputs
    weights, log_variance = posterior.split(parameters)
    X, Y = posterior.X.double(), posterior.Y.double().expand(len(weights), -1, -1)
    sds = scales(network)
    value = -0.5 * (weights / sds[: weights.shape[-1]]).square().sum(dim=-1)
    if log_variance is not None:
        value = value + posterior.prior.log_density(log_variance).sum(dim=-1)  # type: ignore[union-attr]
        variance = log_variance.exp().unsqueeze(-2).expand_as(Y)
    else:
        variance = posterior.known.double().expand_as(Y)  # type: ignore[union-attr]
        value = value + 0.5 * variance.log().sum(dim=(-2, -1))  # a constant, left out
    if not isinstance(posterior, CollapsedNetworkPosterior):
        residual = Y - network.forward(weights, X)
        return value - 0.5 * (residual.square() / variance + variance.log()).sum(dim=(-2, -1))
    output = sds[weights.shape[-1] :].reshape(-1, m)  # (width + 1) x m
    identity = torch.eye(network.width + 1, dtype=torch.float64)
    zeros = torch.zeros(network.num_parameters - weights.shape[-1], dtype=torch.float64)
    theta = torch.cat([weights, zeros.expand(len(weights), -1)], dim=-1)
    h = X.expand(len(weights), -1, -1)
    for weight, bias in network.unpack(theta)[:-1]:
        h = ACTIVATIONS[network.activation](h @ weight + bias)
    ones = torch.ones_like(h[..., :1])
    for j in range(m):
        G = torch.cat([h, ones], dim=-1) @ (identity * output[:, j])
        C = G @ G.mT + torch.diag_embed(variance[..., j])
        y = Y[..., j].unsqueeze(-1)
        solved = torch.linalg.solve(C, y)
        value = value - 0.5 * ((y * solved).sum(dim=(-2, -1)) + torch.logdet(C))
    return value


def assert_agrees(posterior: NetworkPosterior, parameters: Tensor) -> None:
    value, gradient = posterior(parameters)
    assert posterior._compiled is not None
    assert value.dtype == torch.float64
    assert gradient.dtype == parameters.dtype
    exact = parameters.double().clone().requires_grad_()
    expected = log_density(posterior, exact)
    (by_autograd,) = torch.autograd.grad(expected.sum(), exact)
    tolerance = TOLERANCE[parameters.dtype]
    size = expected.abs().max().item() + 10
    assert (value - expected).abs().max() < tolerance * size
    error = (gradient.double() - by_autograd).norm(dim=-1) / by_autograd.norm(dim=-1)
    assert error.max() < tolerance
    by_torch, _ = posterior.by_torch(parameters)
    torch.testing.assert_close(value, by_torch.double(), rtol=tolerance, atol=tolerance * size)


# ---- value and gradient --------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("kind", KINDS)
def test_value_and_gradient_are_those_of_autograd(
    kind: type[NetworkPosterior], noise: str, dtype: torch.dtype
) -> None:
    for activation, depth in product(ACTIVATIONS, (1, 2, 4)):
        network = BatchedMLP(D, 2, 7, depth, activation)
        posterior = make(kind, network, noise, dtype=dtype)
        assert_agrees(posterior, start(posterior))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_any_width_and_number_of_points_and_outputs_will_do(
    kind: type[NetworkPosterior], dtype: torch.dtype
) -> None:
    """Widths around multiples of the vectors' lanes, points around the tiles' rows."""
    for width, n, m in product((1, 8, 16, 33, 64), (1, 6, 13, 40), (1, 3)):
        posterior = make(kind, BatchedMLP(D, m, width, 2, "tanh"), n=n, dtype=dtype)
        assert_agrees(posterior, start(posterior))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_activations_are_accurate_over_their_whole_range(
    activation: str, dtype: torch.dtype
) -> None:
    """A network of one unit whose output is the activation of its input, and its derivative."""
    z = torch.cat([normal(400) * s for s in (1e-4, 0.3, 3.0, 30.0, 3e3, 3e4)]).to(dtype)
    network = BatchedMLP(1, 1, 1, 1, activation)
    ones = torch.ones(4, dtype=torch.float64)
    one = torch.ones((), dtype=dtype)
    # W_1 = b_1's unit, W_2 = 1: log p = -(0 - phi(z))^2 / 2 at the only input 0.
    posterior = NetworkPosterior(
        network, 0 * one[None, None], 0 * one[None, None], 1e30 * ones, one
    )
    parameters = torch.stack([z, z, torch.ones_like(z), torch.zeros_like(z)], dim=-1)
    _, gradient = posterior(parameters)
    exact = z.double().requires_grad_()
    phi = torch.tanh(exact) if activation == "tanh" else ACTIVATIONS[activation](exact)
    (slope,) = torch.autograd.grad(phi.sum(), exact)
    if activation == "silu":  # torch's 1 - s cancels
        slope = torch.sigmoid(exact) * (1 + exact * torch.sigmoid(-exact))
    eps = torch.finfo(dtype).eps
    # Gradients by the output's bias and by the hidden bias: -phi and -phi phi'.
    torch.testing.assert_close(-gradient[:, 3].double(), phi.detach(), rtol=6 * eps, atol=2 * eps)
    expected = (phi * slope).detach()
    # 1 - tanh^2 cancels, in torch as well: its error is one of rounding of 1.
    torch.testing.assert_close(-gradient[:, 1].double(), expected, rtol=12 * eps, atol=6 * eps)


def test_every_activation_is_in_the_kernel() -> None:
    assert set(ACTIVATION_NUMBERS) == set(ACTIVATIONS)


def test_an_outcome_without_weight_does_not_count() -> None:
    network = BatchedMLP(D, 1, 5, 1, "tanh")
    X, Y, variance = normal(6, D), normal(6, 1), torch.full((6, 1), 0.3).double()
    variance[4:] = math.inf
    for kind in KINDS:
        whole = kind(network, X, Y, scales(network), variance)
        part = kind(network, X[:4], Y[:4], scales(network), variance[:4])
        at = start(part)
        for a, b in zip(whole(at), part(at), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# ---- trajectories and Adam -----------------------------------------------------------------------
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("kind", KINDS)
def test_trajectories_are_those_of_torch(kind: type[NetworkPosterior], noise: str) -> None:
    posterior = make(kind, BatchedMLP(D, 2, 7, 2, "tanh"), noise)
    state = hmc.init(start(posterior), posterior)
    before = [t.clone() for t in state]
    velocity = normal(*state.position.shape, seed=5)
    end, last = hmc.leapfrog(posterior, posterior.scales)(state, velocity, 0.02, 9)
    expected, by_torch = hmc.leapfrog(posterior.by_torch, posterior.scales)(
        state, velocity, 0.02, 9
    )
    for a, b in zip((*end, last), (*expected, by_torch), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True))
    assert torch.equal(velocity, normal(*state.position.shape, seed=5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_adam_takes_the_steps_of_torch(dtype: torch.dtype) -> None:
    posterior = make(
        NetworkPosterior, BatchedMLP(D, 2, 9, 2, "tanh"), "each network's", dtype=dtype
    )
    at = start(posterior)
    free = posterior.scales.clone()
    free[3:6] = 0.0
    options = {"steps": 12, "learning_rate": 0.05, "scale": free}
    compiled = posterior.maximize(at, **options)  # type: ignore[arg-type]
    posterior.__dict__["_compiled"] = None
    by_torch = posterior.maximize(at, **options)  # type: ignore[arg-type]
    tolerance = {torch.float32: 1e-4, torch.float64: 1e-10}[dtype]
    torch.testing.assert_close(compiled.state, by_torch.state, rtol=tolerance, atol=tolerance)
    assert compiled[1:] == pytest.approx(by_torch[1:], rel=tolerance)
    assert compiled.last < compiled.first
    assert torch.equal(compiled.state[:, 3:6], at[:, 3:6])
    assert torch.equal(at, start(posterior))


# ---- threads, divergence, errors -----------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_threads_changes_no_bit(kind: type[NetworkPosterior]) -> None:
    network = BatchedMLP(D, 1, 32, 2, "tanh")
    results = []
    for threads in (1, 2, 5):
        X, Y = normal(40, D).float(), normal(40, 1).float()
        prior = LogNoisePrior(-1.0, 0.7)
        posterior = kind(network, X, Y, scales(network), prior, threads=threads)
        state = hmc.init(start(posterior, 16), posterior)
        velocity = normal(*state.position.shape, seed=5).float()
        # 16 chains of 30 gradients: work enough to be divided.
        end, last = hmc.leapfrog(posterior, posterior.scales)(state, velocity, 0.01, 30)
        best = posterior.maximize(state.position, steps=30, learning_rate=0.01)
        results.append((*state, *end, last, best.state))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def bad_places(posterior: NetworkPosterior) -> Iterator[Tensor]:
    for value in (math.nan, math.inf, 1e30):
        position = start(posterior)
        position[1] = value
        yield position


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_comes_out_as_divergent(
    kind: type[NetworkPosterior], activation: str
) -> None:
    posterior = make(kind, BatchedMLP(D, 1, 5, 2, activation), dtype=torch.float32)
    trajectory = hmc.leapfrog(posterior, posterior.scales)
    good = hmc.init(start(posterior), posterior)
    for position in bad_places(posterior):
        value, _ = posterior(position)
        assert torch.isfinite(value[[0, 2]]).all()
        assert not value[1] > -1e10  # minus infinity, hugely negative, or not a number
        # The chain in a bad place has the energy of a good one: whatever follows is a divergence.
        state = good._replace(position=position)
        generator = torch.Generator().manual_seed(0)
        new, info = hmc.step(generator, state, trajectory, 1e-3, 4)
        assert info.divergent.tolist() == [False, True, False]
        assert not info.accepted[1]
        assert torch.isfinite(new.position[[0, 2]]).all()
    # A step size far beyond stability.
    _, info = hmc.step(torch.Generator().manual_seed(0), good, trajectory, 1e4, 20)
    assert info.divergent.all()


def test_positions_of_another_type_are_refused() -> None:
    posterior = make(NetworkPosterior, BatchedMLP(D, 1, 5, 1, "tanh"))
    state = hmc.init(start(posterior), posterior)
    trajectory = hmc.leapfrog(posterior, posterior.scales)
    single = hmc.State(*(t.float() for t in state))
    with pytest.raises(InputError, match="type torch.float64"):
        trajectory(single, single.position, 0.1, 1)
