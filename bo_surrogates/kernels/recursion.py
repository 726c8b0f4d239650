"""The covariance recursion of infinitely wide networks: NNGP and tangent kernel together.

A fully connected network with L hidden layers of width n and independent standard normal weights,

    h^1     = D^1(z),
    h^{l+1} = sqrt(a) h^l + sqrt(1 - a) D^{l+1}(phi(h^l)),    l = 1, ..., L - 1,
    f       = D^{L+1}(phi(h^L)),
    D^l(u)  = sqrt(sw / fan_in) W^l u + sqrt(sb) b^l,

where a in [0, 1) is the share of the variance that a skip connection carries past a hidden layer
(0: none). As n grows its output becomes a Gaussian process of covariance K (Neal 1996; Lee et al.
2018, arXiv 1711.00165, section 2; with skip connections Garriga-Alonso et al. 2019, arXiv
1808.05587), and the inner product of its gradients in all weights and biases becomes the tangent
kernel T, which training does not change (Jacot et al. 2018, arXiv 1806.07572, theorems 1 and 2).
With the activation's dual maps F and Fd (`dual_activations.py`), from one layer to the next:

    D <- sw F(q1, q2, K) + sb,
    T <- a T + (1 - a) (D + sw Fd(q1, q2, K) T),
    K <- a K + (1 - a) D,

starting from K = T = sw z.z' / d + sb; the variances q follow K's rule with the diagonal maps. The
cost is linear in depth.

Matrices of many entries are computed in blocks of rows, half of them where the two sets of points
are one, and their derivatives by repeating the recursion in each block: the memory of a gradient is
that of the matrix, whatever the depth. On a CPU a block stays in the cache; a GPU is busy only with
large ones. Compiled code does all this where it can, but for second derivatives
(`compiled_recursion.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from bo_surrogates.kernels.compiled_recursion import CompiledRecursion
from bo_surrogates.kernels.dual_activations import DualActivation

Kind = Literal["nngp", "tangent", "both"]


class Tiling(NamedTuple):
    """How large matrices are cut.

    Attributes:
        whole: Entries up to which a matrix is computed at once.
        block: Entries of a block.
        rows: At most, of a block of a symmetric matrix, which is computed up to the diagonal.
    """

    whole: int
    block: int
    rows: int


CPU_TILING = Tiling(whole=2**16, block=2**15, rows=128)
GPU_TILING = Tiling(whole=2**22, block=2**22, rows=2**11)  # 32 MiB a temporary in float64


def tiling(device: torch.device) -> Tiling:
    """For matrices on a device."""
    return CPU_TILING if device.type == "cpu" else GPU_TILING


@dataclass(frozen=True)
class Network:
    """An infinitely wide network, but for its bias variance, which is learnt.

    Attributes:
        activation: Its dual maps.
        depth: Number of hidden layers L >= 1.
        weight_variance: sw > 0.
        skip: a in [0, 1).
    """

    activation: DualActivation
    depth: int
    weight_variance: float
    skip: float = 0.0

    def shares(self) -> Iterator[float]:
        """a of each layer after the first; 0 for the output, which no skip connection reaches."""
        return (self.skip if layer < self.depth - 1 else 0.0 for layer in range(self.depth))


class Covariances(NamedTuple):
    """Of a network's outputs at two sets of points.

    Attributes:
        K: NNGP kernel.
        T: Tangent kernel; None where it was not asked for.
    """

    K: Tensor
    T: Tensor | None


def first_layer(
    network: Network, z1: Tensor, z2: Tensor, bias: Tensor, diag: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Variances and covariances of h^1, which is linear in the inputs.

    Args:
        network: The network.
        z1: `... x n x d` inputs.
        z2: `... x m x d` inputs, which may be the same tensor.
        bias: sb, `... x 1 x 1`.
        diag: Covariances of points in the same position only; then m = n.

    Returns:
        q1 `... x n x 1`, q2 `... x 1 x m` and K `... x n x m`; with `diag` all `... x n x 1`.
    """
    scale = network.weight_variance / z1.shape[-1]
    q1 = scale * z1.square().sum(dim=-1, keepdim=True) + bias
    q2 = q1 if z1 is z2 else scale * z2.square().sum(dim=-1, keepdim=True) + bias
    if diag:
        return q1, q2, scale * (z1 * z2).sum(dim=-1, keepdim=True) + bias
    return q1, q2.mT, torch.add(bias, z1 @ z2.mT, alpha=scale)


def propagate(
    network: Network,
    q1: Tensor,
    q2: Tensor,
    K: Tensor,
    bias: Tensor,
    tangent: bool,
    symmetric: bool = False,
) -> Covariances:
    """The recursion of the module's docstring, from the first layer to the output.

    Args:
        network: The network.
        q1: Variances of h^1 at the first points.
        q2: Variances of h^1 at the second points; all shapes as returned by `first_layer`.
        K: Covariances of h^1.
        bias: sb, `... x 1 x 1`.
        tangent: Whether T is wanted.
        symmetric: Whether q2 is the transpose of q1.
    """
    activation, sw = network.activation, network.weight_variance

    def through(q: Tensor) -> Tensor:
        return _mixed(a, q, torch.add(bias, activation.diagonal(q), alpha=sw))

    T = K if tangent else None
    for layer, a in enumerate(network.shares(), start=1):
        if T is None:
            D = torch.add(bias, activation.dual(q1, q2, K), alpha=sw)
        else:
            F, Fd = activation.pair(q1, q2, K)
            D = torch.add(bias, F, alpha=sw)
            T = _mixed(a, T, torch.addcmul(D, Fd, T, value=sw))
        K = _mixed(a, K, D)
        if layer < network.depth:
            q1 = through(q1)
            q2 = q1.mT if symmetric else through(q2)
    return Covariances(K, T)


def variances(network: Network, z: Tensor, bias: Tensor, tangent: bool) -> Covariances:
    """K(z, z) and T(z, z), by the diagonal maps alone.

    Args:
        network: The network.
        z: `... x n x d` inputs.
        bias: sb, `... x 1 x 1`.
        tangent: Whether T is wanted.

    Returns:
        `... x n x 1` variances.
    """
    activation, sw = network.activation, network.weight_variance
    K = sw / z.shape[-1] * z.square().sum(dim=-1, keepdim=True) + bias
    T = K if tangent else None
    for a in network.shares():
        D = sw * activation.diagonal(K) + bias
        if T is not None:
            T = _mixed(a, T, D + sw * activation.derivative_diagonal(K) * T)
        K = _mixed(a, K, D)
    return Covariances(K, T)


def _mixed(a: float, carried: Tensor, dense: Tensor) -> Tensor:
    return dense if a == 0.0 else a * carried + (1.0 - a) * dense


def gram(
    network: Network,
    z1: Tensor,
    z2: Tensor,
    bias: Tensor,
    factor1: Tensor,
    factor2: Tensor | None = None,
    kind: Kind = "nngp",
) -> tuple[Tensor, ...]:
    """factor1 * K * factor2, factor1 * T * factor2, or both, between all points of two sets.

    Args:
        network: The network.
        z1: `... x n x d` inputs.
        z2: `... x m x d` inputs; where it is the same tensor as `z1`, symmetry halves the work.
        bias: sb, `... x 1 x 1`.
        factor1: `... x n x 1` or `... x 1 x 1`.
        factor2: `... x 1 x m`; none is 1. Where `z1` is `z2`, the product must be symmetric.
        kind: Which.

    Returns:
        One or two matrices `... x n x m`, differentiable any number of times.
    """
    arguments = (z1, z2, bias, factor1, factor2)
    symmetric, large = z1 is z2, z1.shape[-2] > 1 and _entries(z1, z2) > tiling(z1.device).whole
    compiled = CompiledRecursion.make(network, symmetric, arguments)
    if compiled is not None and not _wanted(arguments):
        return compiled.gram(kind, arguments)
    if compiled is not None or large:
        return _Gram.apply(network, kind, symmetric, compiled, *arguments)
    return _whole(network, kind, *arguments)


def _wanted(inputs: Sequence[Tensor | None]) -> bool:
    """Whether derivatives are."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)


def _whole(
    network: Network,
    kind: Kind,
    z1: Tensor,
    z2: Tensor,
    bias: Tensor,
    factor1: Tensor,
    factor2: Tensor | None,
) -> tuple[Tensor, ...]:
    first = first_layer(network, z1, z2, bias)
    layers = propagate(network, *first, bias, tangent=kind != "nngp", symmetric=z1 is z2)
    wanted = {"nngp": (layers.K,), "tangent": (layers.T,), "both": tuple(layers)}[kind]
    scaled = (M * factor1 for M in wanted if M is not None)
    return tuple(scaled) if factor2 is None else tuple(M * factor2 for M in scaled)


def _entries(z1: Tensor, z2: Tensor) -> int:
    entries = z1.shape[-2] * z2.shape[-2]
    if z1.ndim == z2.ndim == 2:
        return entries
    return entries * torch.broadcast_shapes(z1.shape[:-2], z2.shape[:-2]).numel()


def _rows(t: Tensor | None, start: int, stop: int) -> Tensor | None:
    """Rows of the second last dimension, of a tensor that may have one row for all."""
    return t if t is None or t.shape[-2] == 1 else t[..., start:stop, :]


class _Gram(torch.autograd.Function):
    """`_whole`, block by block or by compiled code."""

    @staticmethod
    def forward(
        ctx: Any,
        network: Network,
        kind: Kind,
        symmetric: bool,
        compiled: CompiledRecursion | None,
        *inputs: Any,
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*inputs)
        ctx.network, ctx.kind, ctx.symmetric, ctx.compiled = network, kind, symmetric, compiled
        ctx.set_materialize_grads(False)
        if compiled is not None:
            return compiled.gram(kind, inputs)
        n, m, z = inputs[0].shape[-2], inputs[1].shape[-2], inputs[0]
        size = (*torch.broadcast_shapes(*(t.shape[:-2] for t in inputs if t is not None)), n, m)
        outputs = tuple(z.new_empty(size) for _ in range(1 + (kind == "both")))
        for start, stop, end in _plan(size, symmetric, tiling(z.device)):
            block = _whole(network, kind, *_cut(inputs, start, stop, end))
            for whole, part in zip(outputs, block, strict=True):
                whole[..., start:stop, :end] = part
                if symmetric:
                    whole[..., :start, start:stop] = part[..., :start].mT
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        inputs, network, kind = ctx.saved_tensors, ctx.network, ctx.kind
        needed = ctx.needs_input_grad[4:]
        if all(g is None for g in grads):
            return (None,) * (4 + len(inputs))
        if torch.is_grad_enabled():  # a graph of derivatives is wanted
            aliases: list[Any] = [None if t is None else t.view_as(t) for t in inputs]
            leaves = [t for t, wanted in zip(aliases, needed, strict=True) if wanted]
            found = _gradients(_whole(network, kind, *aliases), leaves, grads, graph=True)
            return (None, None, None, None, *(next(found) if wanted else None for wanted in needed))
        if ctx.compiled is not None:
            return (None, None, None, None, *ctx.compiled.gradients(kind, inputs, grads))
        totals = [torch.zeros_like(t) if w else None for t, w in zip(inputs, needed, strict=True)]
        size = next(g.shape for g in grads if g is not None)
        for start, stop, end in _plan(size, ctx.symmetric, tiling(inputs[0].device)):
            parts: list[Any] = [
                None if t is None else t.detach().requires_grad_(wanted)
                for t, wanted in zip(_cut(inputs, start, stop, end), needed, strict=True)
            ]
            incoming: list[Tensor | None] = []
            for grad in grads:
                if grad is None:
                    incoming.append(None)
                    continue
                part = grad[..., start:stop, :end]
                if ctx.symmetric and start:
                    part = part.clone()
                    part[..., :start] += grad[..., :start, start:stop].mT
                incoming.append(part)
            with torch.enable_grad():
                block = _whole(network, kind, *parts)
            leaves = [t for t, wanted in zip(parts, needed, strict=True) if wanted]
            found = _gradients(block, leaves, incoming, graph=False)
            for target in _cut(totals, start, stop, end):
                if target is not None:
                    target += next(found)
        return (None, None, None, None, *totals)


def _plan(size: tuple[int, ...], symmetric: bool, cut: Tiling) -> Iterator[tuple[int, int, int]]:
    """First row, end of the rows and end of the columns of each block."""
    *batch, n, m = size
    start = 0
    while start < n:
        # A symmetric matrix is computed up to the diagonal: its first blocks have more rows.
        rows = max(1, cut.block // torch.Size(batch).numel() // (start + 32 if symmetric else m))
        stop = min(n, start + min(rows, cut.rows) if symmetric else start + rows)
        yield start, stop, stop if symmetric else m
        start = stop


def _cut(inputs: Sequence[Any], start: int, stop: int, end: int) -> list[Any]:
    """The arguments of one block: z1, z2, bias, factor1 and factor2."""
    z1, z2, bias, factor1, factor2 = inputs
    columns = None if factor2 is None else factor2[..., :end]
    return [_rows(z1, start, stop), _rows(z2, 0, end), bias, _rows(factor1, start, stop), columns]


def _gradients(
    outputs: tuple[Tensor, ...], leaves: list[Tensor], grads: Any, graph: bool
) -> Iterator[Tensor]:
    pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if g is not None]
    return iter(
        torch.autograd.grad(
            [o for o, _ in pairs], leaves, [g for _, g in pairs], create_graph=graph,
            materialize_grads=True,
        )
    )  # fmt: skip
