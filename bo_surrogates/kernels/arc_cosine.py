"""Arc-cosine kernels: the dual maps of piecewise linear activations, and their derivatives.

With c = K / sqrt(q1 q2), the expectations of a ReLU's products are (Cho and Saul 2009, "Kernel
Methods for Deep Learning", section 2)

    E[relu(u) relu(v)]   = sqrt(q1 q2) J1(c) / (2 pi),   J1(c) = sqrt(1 - c^2) + J0(c) c,
    E[relu'(u) relu'(v)] = J0(c) / (2 pi),               J0(c) = pi - arccos(c).

J0' = 1 / sqrt(1 - c^2) has a pole where points coincide, and J1' = J0 hides the difference of two
poles: derivatives are written by hand here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

REGULAR = 1e-14  # 1 - c^2 below which points count as coincident (or opposite)


class _ArcCosine0(torch.autograd.Function):
    """J0(c) = pi - arccos(c), with J0'(c) = 1 / sqrt(1 - c^2) set to 0 at |c| = 1.

    The pole at c = 1 meets a factor dc/dx that vanishes there (c is largest at x = x'), but
    automatic differentiation would make infinity times zero of them. In the second derivative of
    the ReLU dual map the product tends to 0, so 0 is right; in the first derivative of the
    *derivative* map, which has a kink there, 0 is a subgradient.
    """

    @staticmethod
    def forward(ctx: Any, c: Tensor) -> Tensor:
        ctx.save_for_backward(c)
        c = c.clamp(-1.0, 1.0)
        return torch.atan2(((1.0 - c) * (1.0 + c)).sqrt(), -c)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (c,) = ctx.saved_tensors
        squared_sine = (1.0 - c) * (1.0 + c)
        regular = squared_sine > REGULAR
        # Two masks: the inner one keeps infinities out of the double backward as well.
        slope = torch.where(regular, squared_sine, torch.ones_like(c)).rsqrt()
        return grads[0] * torch.where(regular, slope, torch.zeros_like(c))


class _ArcCosine1(torch.autograd.Function):
    """J1(c), with J1'(c) = J0(c). `c` may leave [-1, 1] by rounding."""

    @staticmethod
    def forward(ctx: Any, c: Tensor) -> Tensor:
        ctx.save_for_backward(c)
        c = c.clamp(-1.0, 1.0)
        sine = ((1.0 - c) * (1.0 + c)).sqrt()
        return sine + torch.atan2(sine, -c) * c

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (c,) = ctx.saved_tensors
        return grads[0] * _ArcCosine0.apply(c)


def arc_cosine_pair(q1: Tensor, q2: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(q1 q2) J1(c) and J0(c), differentiable any number of times.

    Args:
        q1: Variances (> 0), `... x n x 1`.
        q2: Variances (> 0), `... x 1 x m` or `... x n x 1`.
        K: Covariances, of the shape to which `q1` and `q2` broadcast.
    """
    r = q1.sqrt() * q2.sqrt()
    c = K / r
    return r * _ArcCosine1.apply(c), _ArcCosine0.apply(c)


class ArcCosinePair(torch.autograd.Function):
    """`arc_cosine_pair` with one arctangent for both maps and none for their gradients.

    The first derivatives, with a = sqrt(q1), b = sqrt(q2) and s = sqrt(1 - c^2), are

        d(ab J1) = J0 dK + s (b da + a db),
        dJ0      = (dK / (ab) - c (da / a + db / b)) / s.

    A graph of derivatives is made of `arc_cosine_pair`.
    """

    @staticmethod
    def forward(ctx: Any, q1: Tensor, q2: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(q1 q2) J1(c) and J0(c)."""
        a, b = q1.sqrt(), q2.sqrt()
        c = (K * a.reciprocal()).mul_(b.reciprocal()).clamp_(-1.0, 1.0)
        sine = torch.addcmul(torch.ones((), dtype=c.dtype, device=c.device), c, c, value=-1.0)
        sine.mul_(sine.clamp_min(1e-300).rsqrt_())  # half the time of a square root
        J0 = torch.atan2(sine, c.neg_())
        first = torch.mul(sine, a).mul_(b).addcmul_(J0, K)
        ctx.save_for_backward(q1, q2, K, sine, J0)
        ctx.set_materialize_grads(False)
        return first, J0

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients in `q1`, `q2` and `K`."""
        q1, q2, K, sine, J0 = ctx.saved_tensors
        first, second = grads
        if torch.is_grad_enabled():
            return _differentiable_gradients(ctx.needs_input_grad, (q1, q2, K), grads)
        a, b = q1.sqrt(), q2.sqrt()
        grad_a: Tensor | float = 0.0
        grad_b: Tensor | float = 0.0
        grad_K: Tensor | None = None
        if first is not None:
            grad_K = first * J0
            weighted = first * sine
            grad_a, grad_b = _times(weighted, b, a), _times(weighted, a, b, transpose=True)
        if second is not None:
            slope = second / sine
            slope.masked_fill_(sine.square() <= REGULAR, 0.0)
            slope.mul_(a.reciprocal()).mul_(b.reciprocal())  # of K
            grad_K = slope if grad_K is None else grad_K.add_(slope)
            slope = slope * K
            one = torch.ones((), dtype=K.dtype, device=K.device)
            grad_a = grad_a - _times(slope, one.expand_as(b), a) / a
            grad_b = grad_b - _times(slope, one.expand_as(a), b, transpose=True) / b
        if grad_K is None:
            return None, None, None
        return grad_a / (2.0 * a), grad_b / (2.0 * b), grad_K


def _times(matrix: Tensor, vector: Tensor, like: Tensor, transpose: bool = False) -> Tensor:
    """`matrix * vector`, summed to the shape of `like`: a matrix-vector product where it is one."""
    if matrix.dim() == vector.dim() == like.dim() >= 2 and matrix.shape[-1] > 1:
        n, m = matrix.shape[-2:]
        if transpose and vector.shape[-2:] == (n, 1) and like.shape[-2:] == (1, m):
            return (vector.mT @ matrix).sum_to_size(like.shape)
        if not transpose and vector.shape[-2:] == (1, m) and like.shape[-2:] == (n, 1):
            return (matrix @ vector.mT).sum_to_size(like.shape)
    return (matrix * vector).sum_to_size(like.shape)


def _differentiable_gradients(
    needed: tuple[bool, ...], inputs: tuple[Tensor, ...], grads: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients of `arc_cosine_pair` as functions of its inputs and of the incoming gradients."""
    # Aliases, for q2 may be a view of q1: each gets the derivative in its own argument alone.
    aliases = [t.view_as(t) for t in inputs]
    wanted = [t for t, n in zip(aliases, needed, strict=True) if n]
    outputs = arc_cosine_pair(*aliases)
    pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if g is not None]
    if not pairs:
        return (None,) * len(inputs)
    computed = iter(
        torch.autograd.grad(
            [o for o, _ in pairs], wanted, [g for _, g in pairs], create_graph=True,
            allow_unused=True,
        )
    )  # fmt: skip
    return tuple(next(computed) if n else None for n in needed)
