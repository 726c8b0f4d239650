"""The linearized network against automatic differentiation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bo_surrogates.networks import BatchedMLP
from bo_surrogates.networks.linearization import DERIVATIVES, Linearization, linearize

D = 3
SHAPES = [(1, 1), (1, 2), (2, 1), (3, 2)]  # depth, outputs


def made(depth: int, m: int, activation: str = "tanh", seed: int = 0) -> tuple[BatchedMLP, Tensor]:
    network = BatchedMLP(D, m, 5, depth, activation)
    generator = torch.Generator().manual_seed(seed)
    return network, network.draw(1, network.scales(weight_scale=2.0), generator).squeeze(0)


def inputs(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(
        *shape, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def autograd_jacobian(network: BatchedMLP, theta: Tensor, X: Tensor) -> Tensor:
    theta = theta.clone().requires_grad_()
    values = network.forward(theta.unsqueeze(0), X).squeeze(0)
    rows = [torch.autograd.grad(v, theta, retain_graph=True)[0] for v in values.flatten()]
    return torch.stack(rows).unflatten(0, values.shape)


@pytest.fixture(params=SHAPES, ids=str)
def case(request: pytest.FixtureRequest) -> tuple[Linearization, Tensor]:
    """A linearization at six inputs, and its Jacobian by automatic differentiation."""
    network, theta = made(*request.param)
    X = inputs(6)
    return linearize(network, theta, X), autograd_jacobian(network, theta, X)


@pytest.mark.parametrize("activation", list(DERIVATIVES))
def test_values_and_jacobian_are_those_of_the_network(activation: str) -> None:
    network, theta = made(2, 2, activation)
    X = inputs(4, 3)
    at = linearize(network, theta, X)
    torch.testing.assert_close(at.values, network.forward(theta.unsqueeze(0), X).squeeze(0))
    expected = autograd_jacobian(network, theta, X.reshape(-1, D)).reshape(4, 3, 2, -1)
    torch.testing.assert_close(at.jacobian(), expected)


def test_jacobian_products_do_without_the_jacobian(case: tuple[Linearization, Tensor]) -> None:
    at, J = case
    generator = torch.Generator().manual_seed(3)
    tangent = torch.randn(4, J.shape[-1], generator=generator, dtype=torch.float64)
    torch.testing.assert_close(at.jvp(tangent), torch.einsum("nmp,kp->knm", J, tangent))
    cotangent = torch.randn(4, *J.shape[:2], generator=generator, dtype=torch.float64)
    torch.testing.assert_close(at.vjp(cotangent), torch.einsum("nmp,knm->kp", J, cotangent))


def test_the_kernel_is_the_product_of_jacobians(case: tuple[Linearization, Tensor]) -> None:
    at, J = case
    X = inputs(2, 4, seed=5)
    other = linearize(at.network, at.theta, X)
    K = autograd_jacobian(at.network, at.theta, X.reshape(-1, D)).reshape(2, -1, J.shape[-1])
    groups = 2 * len(at.network.fan)
    variances = torch.linspace(0.1, 2.0, groups, dtype=torch.float64)
    sizes = torch.tensor([s for i, o in at.network.fan for s in (i * o, o)])
    scaled = J.flatten(end_dim=1) * variances.repeat_interleave(sizes)
    expected = scaled @ K.mT
    torch.testing.assert_close(at.kernel(other, variances), expected)
    parts = at.gram(other)
    assert parts.shape == (groups, *expected.shape)
    torch.testing.assert_close(torch.einsum("g,g...->...", variances, parts), expected)


def test_values_and_jacobian_are_differentiable_in_the_inputs() -> None:
    network, theta = made(2, 2)
    X = inputs(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda X: linearize(network, theta, X).jacobian(), X)


def test_inputs_are_joined_in_order() -> None:
    network, theta = made(2, 2)
    X, Z = inputs(3), inputs(4, 2, seed=2)
    joined = linearize(network, theta, X).cat(linearize(network, theta, Z))
    both = linearize(network, theta, torch.cat([X.expand(4, 3, D), Z], dim=-2))
    torch.testing.assert_close(joined.jacobian(), both.jacobian())
    torch.testing.assert_close(joined.values, both.values)


def test_of_the_last_layer_only_its_weights_have_derivatives() -> None:
    network, theta = made(2, 2)
    at = linearize(network, theta, inputs(3))
    last, count = at.last_layer().jacobian(), (5 + 1) * 2
    assert (last[..., :-count] == 0).all()
    torch.testing.assert_close(last[..., -count:], at.jacobian()[..., -count:])
