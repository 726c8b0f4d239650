"""The infinite-width limit of linear networks that learn features, computed exactly.

f(x) = V U x with U: n x d, V: o x n and independent entries N(0, su^2 / n), N(0, sv^2 / n), both
trained at a rate that does not depend on n, is the maximal update parametrization up to a symmetry
(Yang and Hu 2021, arXiv 2011.14522, section 6). A first network is

    U = n^{-1/2} G U0,   V = n^{-1/2} V0 G',   G: n x (d + o), entries N(0, 1),
    U0 = [su I_d; 0],    V0 = [0, sv I_o],

and every gradient keeps it of this form, with U0 and V0 moving instead, because dL/dU = V' (...)
lies in the range of G and dL/dV = (...) U' in that of G'. All products in which they meet have
G' G / n between them, which tends to the identity. So the limit of infinite width is the same
network with d + o hidden units and the first weights U0 and V0, trained by the same steps, and a
finite network differs from it by an amount of order n^{-1/2}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class LinearNetwork(NamedTuple):
    """f(x) = V U x.

    Attributes:
        U: `h x d`.
        V: `o x h`.
    """

    U: Tensor
    V: Tensor

    def __call__(self, X: Tensor) -> Tensor:
        """`... x n x o` outputs at inputs `... x n x d`."""
        return X @ self.U.mT @ self.V.mT

    def metric(self) -> Tensor:
        """`d x d` inner product U' U of features, in the limit that of infinitely many."""
        return self.U.mT @ self.U

    def step(self, loss: Callable[[LinearNetwork], Tensor], learning_rate: float) -> LinearNetwork:
        """One step of gradient descent, from which gradients do not flow back.

        Args:
            loss: From a network to a scalar.
            learning_rate: Of both layers.
        """
        leaves = LinearNetwork(*(part.detach().requires_grad_() for part in self))
        U, V = torch.autograd.grad(loss(leaves), list(leaves))
        return LinearNetwork(
            self.U.detach() - learning_rate * U, self.V.detach() - learning_rate * V
        )


def infinite_width(
    inputs: int,
    outputs: int,
    input_scale: float = 1.0,
    output_scale: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> LinearNetwork:
    """(U0, V0): trained by any gradient steps it is the limit of wide networks so trained.

    Args:
        inputs: d.
        outputs: o.
        input_scale: su.
        output_scale: sv.
        dtype: Of the weights.
    """
    eye = torch.eye(inputs + outputs, dtype=dtype)
    return LinearNetwork(input_scale * eye[:, :inputs], output_scale * eye[inputs:])


def of_width(limit: LinearNetwork, width: int, generator: torch.Generator) -> LinearNetwork:
    """A random network of finite width whose limit this is.

    Args:
        limit: From `infinite_width`, or trained from there.
        width: n.
        generator: Of G.
    """
    G = torch.randn(width, len(limit.U), generator=generator, dtype=torch.float64).to(limit.U)
    return LinearNetwork(G @ limit.U / width**0.5, limit.V @ G.mT / width**0.5)
