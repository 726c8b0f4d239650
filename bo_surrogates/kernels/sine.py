"""Dual maps of sines, and their derivatives.

For phi(u) = a sin(u + p) and m = (q1 + q2) / 2,

    E[phi(u) phi(v)]   = a^2 / 2 (exp(K - m) - cos(2 p) exp(-K - m)) = F,
    E[phi'(u) phi'(v)] = a^2 / 2 (exp(K - m) + cos(2 p) exp(-K - m)) = Fd.

The exponents are combined before `exp`: exp(-m) sinh(K) is the same number on paper, and zero times
infinity for large variances.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class SinePair(torch.autograd.Function):
    """F and Fd, differentiable any number of times.

    The maps are each other's derivatives in K and their own, but for the sign, in m:

        dF = Fd dK - F dm,    dFd = F dK - Fd dm.
    """

    @staticmethod
    def forward(
        ctx: Any, q1: Tensor, q2: Tensor, K: Tensor, cosine: float, factor: float
    ) -> tuple[Tensor, Tensor]:
        """Both maps; `cosine` is cos(2 p), `factor` a^2 / 2.

        Args:
            ctx: Autograd's.
            q1: Variances, `... x n x 1`.
            q2: Variances, `... x 1 x m` or `... x n x 1`.
            K: Covariances, of the shape to which `q1` and `q2` broadcast.
            cosine: In [-1, 1].
            factor: Positive.
        """
        mean1, mean2 = q1 * 0.5, q2 * 0.5
        near = (K - mean1).sub_(mean2).exp_().mul_(factor)
        far = K.neg().sub_(mean1).sub_(mean2).exp_().mul_(factor * cosine)
        second = near + far
        first = near.sub_(far)
        ctx.save_for_backward(q1, q2, K, first, second)
        ctx.cosine, ctx.factor = cosine, factor
        ctx.set_materialize_grads(False)
        return first, second

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients in `q1`, `q2` and `K`."""
        q1, q2, K, first, second = ctx.saved_tensors
        if torch.is_grad_enabled():  # a graph of derivatives is wanted
            first, second = SinePair.apply(q1, q2, K, ctx.cosine, ctx.factor)
        of_first, of_second = grads
        of_K = of_m = None
        if of_first is not None:
            of_K, of_m = of_first * second, of_first * first
        if of_second is not None:
            more_K, more_m = of_second * first, of_second * second
            of_K = more_K if of_K is None else of_K + more_K
            of_m = more_m if of_m is None else of_m + more_m
        if of_K is None or of_m is None:
            return (None,) * 5
        return (
            of_m.sum_to_size(q1.shape) * -0.5,
            of_m.sum_to_size(q2.shape) * -0.5,
            of_K,
            None,
            None,
        )
