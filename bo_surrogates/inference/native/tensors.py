"""Which tensors compiled code may read."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad


def readable(*tensors: Tensor) -> bool:
    """Whether tensors are what they seem: memory to be read, and nobody records operations."""
    return (
        # torch.func's tensors have no memory of their own; autograd.Function asks the same.
        not torch._C._are_functorch_transforms_active()
        and not torch.compiler.is_compiling()
        and all(type(t) in (Tensor, torch.nn.Parameter, torch.nn.Buffer) for t in tensors)
        and all(forward_ad.unpack_dual(t).tangent is None for t in tensors)
    )
