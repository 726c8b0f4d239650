"""Covariances of infinitely wide networks, and their derivatives, by compiled code on tensors.

`kernels/recursion.py` says what is computed. Torch takes a score of operations a layer, each of
which goes through memory; here an entry passes all layers in the processor's registers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_double, c_int, c_int64, c_void_p
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bo_surrogates.inference.native.library import RECURSION, available

MOST_LAYERS = 32  # of which derivatives can be had
MAPS = {"arc_cosine": 0, "erf": 1, "gelu": 2, "sine": 3, "rbf_sine": 4}


class Recursion(Structure):
    """The mirror of `source/recursion.hpp`."""

    _fields_ = (
        ("activation", c_int64), ("depth", c_int64),
        *[(name, c_double) for name in ("first", "second", "weight_variance", "skip")],
        *[(name, c_int64) for name in (
            "inputs", "rows", "columns", "matrices", "symmetric", "factor1_step",
            "z1_stride", "z2_stride", "bias_stride", "factor1_stride", "factor2_stride",
        )],
        *[(name, c_void_p) for name in ("z1", "z2", "bias", "factor1", "factor2")],
    )  # fmt: skip


class Layers(NamedTuple):
    """An infinitely wide network; see `kernels.recursion.Network`.

    Attributes:
        maps: Its activation's dual maps, one of `MAPS`.
        first: Slope below zero of "arc_cosine", amplitude of "sine"; 0 for the others.
        second: Phase of "sine"; 0 for the others.
        depth: Number of hidden layers.
        weight_variance: sw.
        skip: a.
    """

    maps: str
    first: float
    second: float
    depth: int
    weight_variance: float
    skip: float


@cache
def library() -> ctypes.CDLL | None:
    """The compiled recursion, built if need be; None, and one line in the log, without."""
    code = available(RECURSION, "covariances of infinitely wide networks are computed by torch")
    return None if code is None else declared(code)


def declared(code: ctypes.CDLL) -> ctypes.CDLL:
    """The library, with its functions' types."""
    for function, arrays in ((code.covariances, 2), (code.gradients, 8)):
        function.argtypes, function.restype = (
            [POINTER(Recursion), *[c_void_p] * arrays, c_int64],
            c_int,
        )
    return code


def covariances(
    code: ctypes.CDLL,
    layers: Layers,
    symmetric: bool,
    inputs: Sequence[Any],
    nngp: bool,
    tangent: bool,
) -> tuple[Tensor, ...]:
    """factor1 * K * factor2 and factor1 * T * factor2, of which at least one is wanted.

    Args:
        code: The library.
        layers: The network.
        symmetric: Whether z1 is z2.
        inputs: The tensors of `kernels.recursion.gram`, float64, on the CPU: z1, z2, bias, factor1
            and factor2.
        nngp: Whether the first is wanted.
        tangent: Whether the second is.
    """
    problem, kept, size = _problem(layers, symmetric, inputs)
    z1 = inputs[0]
    K, T = (z1.new_empty(size) if wanted else None for wanted in (nngp, tangent))
    if code.covariances(byref(problem), _pointer(K), _pointer(T), torch.get_num_threads()):
        raise MemoryError("not enough memory for the covariances")
    del kept  # lived until here
    return tuple(M for M in (K, T) if M is not None)


def gradients(
    code: ctypes.CDLL,
    layers: Layers,
    symmetric: bool,
    inputs: Sequence[Any],
    by_nngp: Tensor | None,
    by_tangent: Tensor | None,
) -> list[Tensor | None]:
    """Derivatives of a scalar in the inputs, given those in the results of `covariances`.

    Args:
        code: The library.
        layers: The network.
        symmetric: Whether z1 is z2; then the derivative in both is that in the first, and that in
            the second None.
        inputs: As those of `covariances`.
        by_nngp: `... x n x m`; one may be None for 0.
        by_tangent: Likewise.
    """
    z1, z2, _, _, factor2 = inputs
    problem, kept, size = _problem(layers, symmetric, inputs)
    batch, (n, m) = size[:-2], size[-2:]
    by_nngp, by_tangent = (
        None if g is None else g.expand(size).contiguous() for g in (by_nngp, by_tangent)
    )
    W = z1.new_empty(size)  # derivatives in K of the first layer
    by_variances1, by_factor1 = z1.new_empty(2, *batch, n, 1)
    by_variances2, by_factor2 = z1.new_empty(2, *batch, 1, m)
    by_bias = z1.new_empty(*batch, 1, 1)
    found = (by_nngp, by_tangent, W, by_variances1, by_variances2, by_bias, by_factor1, by_factor2)
    if code.gradients(byref(problem), *map(_pointer, found), torch.get_num_threads()):
        raise MemoryError("not enough memory for the covariances' derivatives")
    del kept  # lived until here
    # K = sw z1.z2' / d + sb, and the variances likewise
    scale = layers.weight_variance / z1.shape[-1]
    by_z1 = (W @ z2 + 2.0 * by_variances1 * z1) * scale
    by_z2 = None if symmetric else (W.mT @ z1 + 2.0 * by_variances2.mT * z2) * scale
    each = (by_z1, by_z2, by_bias, by_factor1, None if factor2 is None else by_factor2)
    return [
        None if g is None else g.sum_to_size(t.shape) for g, t in zip(each, inputs, strict=True)
    ]


def _problem(
    layers: Layers, symmetric: bool, inputs: Sequence[Any]
) -> tuple[Recursion, list[Tensor | None], torch.Size]:
    """What the compiled code is told, the tensors to which it points, and the result's size."""
    z1, z2, _, factor1, _ = inputs
    (n, d), m = z1.shape[-2:], z2.shape[-2]
    batch, strides = torch.Size(), [0] * len(inputs)
    kept = [None if t is None else t.contiguous() for t in inputs]
    if any(t is not None and t.ndim > 2 for t in inputs):
        batch = torch.broadcast_shapes(*(t.shape[:-2] for t in inputs if t is not None))
        for i, t in enumerate(inputs):
            if t is not None and t.shape[:-2].numel() > 1:
                kept[i] = t.expand(*batch, -1, -1).contiguous()
                strides[i] = t.shape[-2] * t.shape[-1]
    problem = Recursion(
        MAPS[layers.maps], layers.depth, layers.first, layers.second, layers.weight_variance,
        layers.skip, d, n, m, batch.numel(), symmetric, factor1.shape[-2] > 1, *strides,
        *[_pointer(t) for t in kept],
    )  # fmt: skip
    return problem, kept, torch.Size((*batch, n, m))


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
