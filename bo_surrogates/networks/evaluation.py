"""Values of K networks in compiled code, differentiable in the inputs.

An optimizer of an acquisition function asks for the values of hundreds of networks at a few points,
then for a vector's product with their Jacobian in the inputs. By torch's operations both are bound
by memory: each reads all weights, and between them stand activations of K networks. Here
(`inference/native`) one network's weights are read once, and values and the Jacobian `m x d` at
each point leave together; the product with a vector is then one of small tensors. Results are those
of torch up to rounding.

A second derivative goes back to torch's operations. So does whatever the compiled code cannot see:
gradients by the weights, transforms of `torch.func`, forward-mode differentiation, compilation and
tracing by torch, other devices and types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bo_surrogates.inference.native import kernel
from bo_surrogates.inference.native.library import library
from bo_surrogates.inference.native.tensors import readable

if TYPE_CHECKING:
    from bo_surrogates.networks.mlp import BatchedMLP

MOST_OUTPUTS = 4  # of whose Jacobian all rows are computed: with more, a product alone is cheaper


def can_evaluate(network: BatchedMLP, theta: Tensor, X: Tensor) -> bool:
    """Whether `evaluate` applies: to these tensors, here and now.

    Args:
        network: Shape of the networks.
        theta: `K x P` parameters.
        X: `n x d` inputs of all networks, or `K x n x d`.
    """
    graph = torch.is_grad_enabled()
    return (
        theta.dtype in kernel.SUFFIX
        and theta.dtype == X.dtype
        and theta.device.type == X.device.type == "cpu"
        and not (graph and theta.requires_grad)
        and not (graph and X.requires_grad and network.outputs > MOST_OUTPUTS)
        and theta.ndim == 2
        and theta.shape[1] == network.num_parameters
        and X.shape[-1] == network.inputs
        and (X.ndim == 2 or (X.ndim == 3 and len(X) == len(theta)))
        and theta.numel() > 0
        and X.numel() > 0
        and readable(theta, X)
        and library() is not None
    )


def evaluate(network: BatchedMLP, theta: Tensor, X: Tensor) -> Tensor:
    """K networks' values `K x n x m`; see `can_evaluate`, which must hold."""
    return _Values.apply(network, theta, X)


class _Values(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, network: BatchedMLP, theta: Tensor, X: Tensor) -> Tensor:
        values, jacobian = kernel.evaluate(
            network, theta, X, ctx.needs_input_grad[2], torch.get_num_threads()
        )
        ctx.network = network
        ctx.save_for_backward(theta, X, jacobian)
        return values

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[None, None, Tensor]:
        theta, X, jacobian = ctx.saved_tensors
        if torch.is_grad_enabled():  # the result is to be differentiated once more
            each = X.expand(len(theta), -1, -1)
            values = ctx.network.forward_by_torch(theta, each)
            (by_X,) = torch.autograd.grad(values, X, outer, create_graph=True)
            return None, None, by_X
        if X.ndim == 3:
            return None, None, (outer.unsqueeze(-2) @ jacobian).squeeze(-2)
        # For each point, a row of all networks' outputs times their rows of the Jacobian.
        K, n, m, d = jacobian.shape
        rows = outer.transpose(0, 1).reshape(n, 1, K * m)
        slopes = jacobian.transpose(0, 1).reshape(n, K * m, d)
        return None, None, (rows @ slopes).squeeze(1)
