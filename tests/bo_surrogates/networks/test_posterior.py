"""The log posteriors of networks against torch's distributions, autograd and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from bo_surrogates.errors import InputError
from bo_surrogates.inference import hmc
from bo_surrogates.networks import ACTIVATIONS, BatchedMLP
from bo_surrogates.networks.posterior import (
    BACKWARD,
    CollapsedNetworkPosterior,
    LogNoisePrior,
    NetworkPosterior,
)

PRIOR = LogNoisePrior(-3.0, 0.7)
N, M = 7, 2


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


X, Y = normal(N, 3), normal(N, M, seed=1)
VARIANCES = 0.1 + normal(N, M, seed=2).square()


def network(activation: str = "tanh", depth: int = 2, width: int = 5) -> BatchedMLP:
    return BatchedMLP(3, M, width, depth, activation)


def make(
    kind: type[NetworkPosterior], shape: BatchedMLP, known: bool, dtype: torch.dtype = torch.float64
) -> NetworkPosterior:
    noise = VARIANCES.to(dtype) if known else PRIOR
    return kind(shape, X.to(dtype), Y.to(dtype), shape.scales(2.0, 1.5, 1.0, 1.2), noise)


def log_noise_prior(log_variance: Tensor) -> Tensor:
    mean, std = torch.tensor([PRIOR.mean, PRIOR.std], dtype=torch.float64)
    return Normal(mean, std).log_prob(log_variance).sum(dim=-1)


def log_joint(posterior: NetworkPosterior, parameters: Tensor) -> Tensor:
    """Log density of all weights, the noise and the data, by torch's distributions."""
    theta, log_variance = posterior.split(parameters)
    variance = VARIANCES if log_variance is None else log_variance.exp().unsqueeze(1)
    f = posterior.network.forward(theta, X)
    scales = posterior.network.scales(2.0, 1.5, 1.0, 1.2)
    value = Normal(f, variance.sqrt().expand_as(f)).log_prob(Y).sum(dim=(1, 2))
    value = value + Normal(torch.zeros_like(scales), scales).log_prob(theta).sum(dim=-1)
    return value if log_variance is None else value + log_noise_prior(log_variance)


def features(shape: BatchedMLP, hidden: Tensor) -> Tensor:
    """Last hidden layer and a one, times the output layer's prior: `K x n x m x p`.

    Read from a network whose output layer picks out one unit at a time.
    """
    scales = shape.scales(2.0, 1.5, 1.0, 1.2)[hidden.shape[-1] :].reshape(-1, M)
    columns = []
    for i in range(len(scales)):
        output = torch.zeros_like(scales)
        output[i] = scales[i]
        theta = torch.cat([hidden, output.reshape(1, -1).expand(len(hidden), -1)], dim=-1)
        columns.append(shape.forward(theta, X))
    return torch.stack(columns, dim=-1)


def log_marginal(posterior: NetworkPosterior, parameters: Tensor) -> Tensor:
    """Log density of hidden weights, the noise and the data: a Gaussian process in the data."""
    hidden, log_variance = posterior.split(parameters)
    G = features(posterior.network, hidden)
    scales = posterior.network.scales(2.0, 1.5, 1.0, 1.2)[: hidden.shape[-1]]
    value = Normal(torch.zeros_like(scales), scales).log_prob(hidden).sum(dim=-1)
    for j in range(M):
        v = VARIANCES[:, j] if log_variance is None else log_variance[:, j : j + 1].exp()
        C = G[:, :, j] @ G[:, :, j].mT + torch.diag_embed(v.expand(len(hidden), N))
        value = value + MultivariateNormal(torch.zeros(N).double(), C).log_prob(Y[:, j])
    return value if log_variance is None else value + log_noise_prior(log_variance)


REFERENCE = {NetworkPosterior: log_joint, CollapsedNetworkPosterior: log_marginal}
KINDS = pytest.mark.parametrize("kind", list(REFERENCE))


@KINDS
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_density_and_gradient_equal_those_of_distributions_and_autograd(
    kind: type[NetworkPosterior], known: bool, depth: int, activation: str
) -> None:
    posterior = make(kind, network(activation, depth), known)
    parameters = normal(4, posterior.num_parameters, seed=3).requires_grad_()
    expected = REFERENCE[kind](posterior, parameters)
    (by_autograd,) = torch.autograd.grad(expected.sum(), parameters)
    value, gradient = posterior(parameters.detach())
    difference = value - expected  # one constant
    torch.testing.assert_close(difference, difference[:1].expand(4), rtol=0, atol=1e-9)
    torch.testing.assert_close(gradient, by_autograd, rtol=1e-10, atol=1e-10)
    (of_sum,) = torch.autograd.grad(posterior.negative_sum(parameters), parameters)
    torch.testing.assert_close(of_sum, -by_autograd, rtol=1e-10, atol=1e-10)


def test_every_activation_has_its_derivative() -> None:
    assert set(BACKWARD) == set(ACTIVATIONS)


@KINDS
def test_single_precision_agrees_up_to_rounding(kind: type[NetworkPosterior]) -> None:
    double, single = (make(kind, network(), False, t) for t in (torch.float64, torch.float32))
    parameters = 0.5 * normal(4, double.num_parameters)
    parameters[:, -M:] -= 3.0
    value, gradient = double(parameters)
    value_32, gradient_32 = single(parameters.float())
    assert gradient_32.dtype == torch.float32
    torch.testing.assert_close(value_32.double(), value, rtol=1e-5, atol=1e-3)
    size = gradient.norm(dim=-1).max().item()
    torch.testing.assert_close(gradient_32.double(), gradient, rtol=0, atol=1e-5 * size)


@pytest.mark.parametrize("known", [False, True])
def test_drawn_output_layers_follow_their_conditional_distribution(known: bool) -> None:
    """The conditional is the joint density's Gaussian in the output layer: its Hessian and mode."""
    shape = network(width=2)
    collapsed = make(CollapsedNetworkPosterior, shape, known)
    joint = make(NetworkPosterior, shape, known)
    one = normal(1, collapsed.num_parameters, seed=5)
    draws = 40_000
    generator = torch.Generator().manual_seed(0)
    theta, variance = collapsed.networks(one.expand(draws, -1), generator)
    hidden, log_variance = collapsed.split(one)
    width = hidden.shape[-1]
    assert torch.equal(theta[:, :width], hidden.expand(draws, -1))
    expected = VARIANCES.mean(dim=0) if log_variance is None else log_variance[0].exp()
    torch.testing.assert_close(variance, expected.expand(draws, -1))
    rest = one[:, width:]

    def density(output: Tensor) -> Tensor:
        return log_joint(joint, torch.cat([hidden, output.unsqueeze(0), rest], dim=-1)).sum()

    zero = torch.zeros(theta.shape[-1] - width).double()
    precision = -torch.autograd.functional.hessian(density, zero)
    gradient = torch.autograd.functional.jacobian(density, zero)
    covariance = precision.inverse()
    mean = covariance @ gradient
    output = theta[:, width:]
    scale = covariance.diagonal()
    # Means and covariances of normal draws, 6 standard errors.
    assert ((output.mean(dim=0) - mean).abs() < 6 * (scale / draws).sqrt()).all()
    error = (output.T.cov() - covariance).abs()
    assert (error < 6 * ((covariance.square() + torch.outer(scale, scale)) / draws).sqrt()).all()


def test_sampled_output_layers_of_fixed_features_are_bayesian_linear_regression() -> None:
    """HMC on the joint posterior with frozen hidden layers, against the closed form."""
    shape = network(width=3)
    posterior = make(NetworkPosterior, shape, known=True)
    collapsed = make(CollapsedNetworkPosterior, shape, known=True)
    width = collapsed.num_parameters
    hidden = normal(1, width, seed=5)
    chains = 4000
    start = torch.cat([hidden, torch.zeros(1, posterior.num_parameters - width)], dim=-1).double()
    scales = posterior.scales.clone()
    scales[:width] = 0.0
    trajectory = hmc.leapfrog(posterior, scales)
    generator = torch.Generator().manual_seed(0)
    state = hmc.init(start.expand(chains, -1).contiguous(), posterior)
    for i in range(100):
        state, info = hmc.step(generator, state, trajectory, 0.2, hmc.steps_of(i, 0.2, 2.0, 20))
    assert 0.4 < info.acceptance.mean() < 0.999
    G = features(shape, hidden)[0]  # n x m x p
    new = shape.forward(state.position, X)
    for j in range(M):
        V = VARIANCES[:, j]
        A = torch.eye(G.shape[-1]).double() + G[:, j].T @ (G[:, j] / V[:, None])
        mean = G[:, j] @ torch.linalg.solve(A, G[:, j].T @ (Y[:, j] / V))
        variance = (G[:, j] @ torch.linalg.solve(A, G[:, j].T)).diagonal()
        error = new[..., j].mean(dim=0) - mean
        assert (error.abs() < 6 * (variance / chains).sqrt()).all()
        ratio = new[..., j].var(dim=0) / variance - 1
        assert (ratio.abs() < 6 * math.sqrt(2 / chains)).all()


@KINDS
def test_shapes_that_do_not_match_and_bad_variances_are_refused(
    kind: type[NetworkPosterior],
) -> None:
    shape = network()
    scales = shape.scales()
    with pytest.raises(InputError, match="n x 3"):
        kind(shape, X[:, :2], Y, scales, PRIOR)
    with pytest.raises(InputError, match="n x 2"):
        kind(shape, X, Y[:, :1], scales, PRIOR)
    with pytest.raises(InputError, match="positive"):
        kind(shape, X, Y, scales, torch.zeros(1).double())


def test_a_collapsed_density_that_cannot_be_computed_is_not_a_number() -> None:
    posterior = make(CollapsedNetworkPosterior, network("relu"), known=False)
    value, _ = posterior(torch.full((1, posterior.num_parameters), 1e200, dtype=torch.float64))
    assert not torch.isfinite(value).any()
