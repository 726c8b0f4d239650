"""When the covariance recursion is compiled code's to do, and what that must know of a network.

The compiled code (`inference/native`) knows the dual maps of this package's own activations, on the
CPU and in float64, and gives values alone. All else is done by torch: other devices and types,
derivatives, transforms of `torch.func`, forward-mode differentiation, tracing and compilation by
torch. Values are those of torch up to rounding, but for the diagonal of a symmetric matrix: there
they are exactly the variances, while by torch an angle between coincident points has half of its
digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


def compiled_gram(
    network: Network, kind: Kind, inputs: tuple[Any, ...]
) -> tuple[Tensor, ...] | None:
    """`recursion.gram` by compiled code; None where that does not apply.

    Args:
        network: The network.
        kind: Which matrices.
        inputs: z1, z2, bias, factor1, and factor2 or None.
    """
    maps = _maps(network.activation)
    tensors = [t for t in inputs if t is not None]
    if maps is None or not _applies(tensors):
        return None
    code = covariances.library()
    if code is None:
        return None
    layers = covariances.Layers(*maps, network.depth, network.weight_variance, network.skip)
    return covariances.covariances(code, layers, inputs, kind != "tangent", kind != "nngp")


def _applies(tensors: list[Tensor]) -> bool:
    graph = torch.is_grad_enabled()
    for t in tensors:
        if t.dtype != torch.float64 or not t.is_cpu or not t.numel() or (graph and t.requires_grad):
            return False
    return readable(*tensors)


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
