"""Compiled values of networks, and derivatives in the inputs, against torch's operations."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from bo_surrogates.inference.native.library import library
from bo_surrogates.networks import ACTIVATIONS, BatchedMLP
from bo_surrogates.networks.evaluation import MOST_OUTPUTS, can_evaluate

pytestmark = pytest.mark.skipif(
    library() is None, reason="no compiled kernel on this machine (see the log)"
)

K = 3
# Machine precision times what sums over units lose.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
TYPES = [torch.float32, torch.float64]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def draw(network: BatchedMLP, k: int = K, dtype: torch.dtype = torch.float64) -> Tensor:
    return network.draw(k, network.scales(), torch.Generator().manual_seed(1), dtype)


def by_torch(network: BatchedMLP, theta: Tensor, X: Tensor) -> Tensor:
    return network.forward_by_torch(theta, X.expand(len(theta), *X.shape[-2:]))


def assert_agrees(network: BatchedMLP, n: int, dtype: torch.dtype, each: bool) -> None:
    theta = draw(network, dtype=dtype)
    shape = (K, n, network.inputs) if each else (n, network.inputs)
    X = normal(*shape, seed=2, dtype=dtype).requires_grad_()
    assert can_evaluate(network, theta, X)
    values = network.forward_each(theta, X) if each else network.forward(theta, X)
    expected = by_torch(network, theta, X)
    outer = normal(*expected.shape, seed=3, dtype=dtype)
    pairs = [(values, expected)]
    pairs += zip(*(torch.autograd.grad(v, X, outer) for v in (values, expected)), strict=True)
    for ours, theirs in pairs:
        assert ours.dtype == dtype
        assert (ours - theirs).abs().max() < TOLERANCE[dtype] * (1 + theirs.abs().max())
    with torch.no_grad():  # another pass, without derivatives
        assert torch.equal(network.forward_each(theta, X) if each else network.forward(theta, X),
                           values.detach())  # fmt: skip


@pytest.mark.parametrize("each", [False, True], ids=["shared inputs", "own inputs"])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_values_and_derivatives_are_those_of_torch(dtype: torch.dtype, each: bool) -> None:
    for activation, depth, m in product(ACTIVATIONS, (1, 2, 4), (1, 3)):
        assert_agrees(BatchedMLP(4, m, 7, depth, activation), 5, dtype, each)


@pytest.mark.parametrize("each", [False, True], ids=["shared inputs", "own inputs"])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_any_shape_will_do(dtype: torch.dtype, each: bool) -> None:
    """Widths and inputs around multiples of the vectors' lanes, points around the blocks'."""
    for d, width, n in product((1, 6, 17, 40), (1, 16, 33, 64), (1, 13, 48, 49, 150)):
        assert_agrees(BatchedMLP(d, 2, width, 2, "tanh"), n, dtype, each)


def test_inputs_need_not_be_contiguous_and_may_have_batches() -> None:
    network = BatchedMLP(4, 2, 9, 2, "silu")
    theta = draw(network, 2 * K)[::2]
    X = normal(4, 5, 2, 3).permute(3, 1, 2, 0).requires_grad_()  # 3 x 5 x 2 x 4
    values = network.forward(theta, X)
    assert values.shape == (K, 3, 5, 2, 2)
    expected = by_torch(network, theta, X.reshape(-1, 4)).unflatten(1, (3, 5, 2))
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)
    outer = normal(*values.shape, seed=4).transpose(0, 1).contiguous().transpose(0, 1)
    ours, theirs = (torch.autograd.grad(v, X, outer)[0] for v in (values, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_no_network_depends_on_another_or_on_earlier_ones() -> None:
    network, bad = BatchedMLP(4, 1, 7, 2, "sine"), torch.tensor(float("nan"))
    theta, X = draw(network), normal(5, 4)
    good = network.forward(theta, X)
    theta[1] = bad
    spoilt = network.forward(theta, X)
    assert spoilt[1].isnan().all()
    assert torch.equal(spoilt[[0, 2]], good[[0, 2]])


def test_the_number_of_threads_changes_no_bit() -> None:
    network = BatchedMLP(6, 1, 64, 2, "tanh")
    theta, before, results = draw(network, 64), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            X = normal(60, 6).requires_grad_()  # 64 networks of 60 points: work to be divided
            values = network.forward(theta, X)
            results.append((values.detach(), *torch.autograd.grad(values.sum(), X)))
    finally:
        torch.set_num_threads(before)
    # The sum over networks is torch's, in an order that may depend on its threads.
    assert all(torch.equal(results[0][0], other) for other, _ in results[1:])
    for _, other in results[1:]:
        torch.testing.assert_close(results[0][1], other, rtol=1e-12, atol=1e-12)


# ---- what goes back to torch ---------------------------------------------------------------------
def test_second_derivatives_are_those_of_torch() -> None:
    network = BatchedMLP(3, 2, 6, 2, "tanh")
    theta, X = draw(network), normal(4, 3)

    def first(x: Tensor) -> Tensor:
        value = network.forward(theta, x).square().sum()
        return torch.autograd.grad(value, x, create_graph=True)[0]

    assert torch.autograd.gradcheck(first, X.requires_grad_())
    assert torch.autograd.gradgradcheck(lambda x: network.forward(theta, x), X)
    each = normal(K, 4, 3, seed=6).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: network.forward_each(theta, x), each)


def test_transforms_and_forward_mode_work() -> None:
    network = BatchedMLP(3, 1, 6, 2, "tanh")
    theta, X = draw(network), normal(4, 3)

    def total(x: Tensor) -> Tensor:
        return network.forward(theta, x).square().sum()

    leaf = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(leaf), leaf)
    torch.testing.assert_close(torch.func.grad(total)(X), expected)
    tangent = normal(4, 3, seed=7)
    _, slope = torch.func.jvp(total, (X,), (tangent,))
    torch.testing.assert_close(slope, (expected * tangent).sum())
    with forward_ad.dual_level():
        dual = total(forward_ad.make_dual(X, tangent))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, slope)
    batched = torch.func.vmap(lambda x: network.forward(theta, x))(normal(2, 4, 3))
    torch.testing.assert_close(batched, network.forward(theta, normal(2, 4, 3)).transpose(0, 1))
    hessian = torch.func.hessian(total)(X)
    assert torch.isfinite(hessian).all()


def test_what_the_compiled_code_cannot_do_is_left_to_torch() -> None:
    network, X = BatchedMLP(3, 1, 6, 2, "tanh"), normal(4, 3)
    theta = draw(network)
    assert can_evaluate(network, theta, X)
    for other in (
        (theta.clone().requires_grad_(), X), (theta, X.float()), (theta.half(), X.half()),
        (theta[:0], X), (theta, X[:0]), (theta[:, 1:], X), (theta, X[:, 1:]),
        (theta, X.expand(2, -1, -1)), (theta.to("meta"), X.to("meta")),
    ):  # fmt: skip
        assert not can_evaluate(network, *other)
    with torch.no_grad():
        assert can_evaluate(network, theta.clone().requires_grad_(), X)
    wide = BatchedMLP(3, MOST_OUTPUTS + 1, 6)
    assert can_evaluate(wide, draw(wide), X)
    assert not can_evaluate(wide, draw(wide), X.clone().requires_grad_())


def test_gradients_by_the_weights_are_those_of_torch() -> None:
    network, X = BatchedMLP(3, 1, 6, 2, "tanh"), normal(4, 3)
    theta = draw(network).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: network.forward(t, X), theta)
