"""Full-batch Adam with a cosine schedule: maximum a posteriori estimates of stacked parameters.

The optimizer is `torch.optim.Adam` (Kingma and Ba 2015, arXiv 1412.6980), fused. A step written by
hand on one flat `K x P` tensor was measured against it (10 networks of width 64, n = 100): 0.76 ms
to 0.80 ms a step with one hidden layer, 2.21 ms to 2.20 ms with two. It is not worth its lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Minimum(NamedTuple):
    """Where Adam ended.

    Attributes:
        state: The parameters, of the start's shape.
        first: Loss at the start.
        last: Loss at `state`.
    """

    state: Tensor
    first: float
    last: float


def minimize(
    loss: Callable[[Tensor], Tensor], start: Tensor, *, steps: int, learning_rate: float
) -> Minimum:
    """A fixed number of Adam steps; deterministic.

    Step t of T has the rate `learning_rate * (1 + cos(pi t / T)) / 2` (Loshchilov and Hutter 2017,
    arXiv 1608.03983, without restarts). Adam treats each entry by itself: the sum of the losses of
    K networks that share nothing is minimized as K separate problems.

    Args:
        loss: From parameters to a scalar.
        start: First parameters; left as they are.
        steps: T, at least 1.
        learning_rate: First rate.
    """
    state = start.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([state], lr=learning_rate, fused=True)
    first = math.nan
    for step in range(steps):
        rate = 0.5 * learning_rate * (1.0 + math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = rate
        value = loss(state)
        (state.grad,) = torch.autograd.grad(value, state)
        optimizer.step()
        if step == 0:
            first = value.item()
    state = state.detach()
    with torch.no_grad():
        return Minimum(state, first, loss(state).item())
