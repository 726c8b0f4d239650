"""When the covariance recursion is compiled code's to do, and what that must know of a network.

The compiled code (`inference/native`) knows the dual maps of this package's own activations, on the
CPU and in float64, and gives values and their first derivatives. All else is done by torch: other
devices and types, second derivatives, transforms of `torch.func`, forward-mode differentiation,
tracing and compilation by torch. Results are those of torch up to rounding, but for the diagonal of
a symmetric matrix: there they are exactly the variances, while by torch an angle between coincident
points has half of its digits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from bo_surrogates.inference.native import covariances
from bo_surrogates.inference.native.tensors import readable
from bo_surrogates.kernels.dual_activations import (
    GELU,
    DualActivation,
    Erf,
    LeakyReLU,
    RBFSine,
    ReLU,
    Sine,
)

if TYPE_CHECKING:
    from bo_surrogates.kernels.recursion import Kind, Network

KNOWN = (ReLU, LeakyReLU, Erf, GELU, Sine, RBFSine)


class CompiledRecursion(NamedTuple):
    """The compiled recursion of one network.

    Attributes:
        code: The library.
        layers: The network.
        symmetric: Whether both sets of points are one.
    """

    code: ctypes.CDLL
    layers: covariances.Layers
    symmetric: bool

    @classmethod
    def make(
        cls, network: Network, symmetric: bool, inputs: Sequence[Tensor | None]
    ) -> CompiledRecursion | None:
        """One, where it applies to these inputs of `recursion.gram`, here and now; None otherwise.

        Args:
            network: The network.
            symmetric: Whether z1 is z2.
            inputs: z1, z2, bias, factor1, and factor2 or None.
        """
        maps = _maps(network.activation)
        tensors = [t for t in inputs if t is not None]
        if maps is None or network.depth > covariances.MOST_LAYERS:
            return None
        if not all(t.dtype == torch.float64 and t.is_cpu and t.numel() for t in tensors):
            return None
        code = covariances.library() if readable(*tensors) else None
        if code is None:
            return None
        layers = covariances.Layers(*maps, network.depth, network.weight_variance, network.skip)
        return cls(code, layers, symmetric)

    def gram(self, kind: Kind, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """As `recursion.gram`, values alone."""
        return covariances.covariances(*self, inputs, kind != "tangent", kind != "nngp")

    def gradients(
        self, kind: Kind, inputs: Sequence[Tensor | None], grads: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """Derivatives in the inputs, given those in the matrices."""
        by_nngp, by_tangent = {
            "nngp": (grads[0], None), "tangent": (None, grads[0]), "both": (grads[0], grads[-1]),
        }[kind]  # fmt: skip
        return covariances.gradients(*self, inputs, by_nngp, by_tangent)


def _maps(activation: DualActivation) -> tuple[str, float, float] | None:
    """The activation's dual maps and their numbers; None for those of a user's own class."""
    match activation:
        case _ if type(activation) not in KNOWN:
            return None
        case LeakyReLU():
            return "arc_cosine", activation.slope, 0.0
        case RBFSine():
            return "rbf_sine", 0.0, 0.0
        case Sine():
            return "sine", activation.amplitude, activation.phase
        case _:
            return activation.name, 0.0, 0.0
