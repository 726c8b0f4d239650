"""The sampled posterior's gradient as Numba would have it: plain loops over contiguous rows.

Only for `benchmarks/gradients.py`, and only where Numba is installed. One network of two hidden
layers; the noise's own gradient is left out, and tanh is a rational function that the compiler can
vectorize, accurate to single precision, in either type: both favour Numba.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
OPTIONS = {"fastmath": {"contract", "reassoc", "nsz", "arcp"}, "error_model": "numpy"}


@numba.njit(inline="always", **OPTIONS)
def _tanh(x: Any, one: Any) -> Any:
    x = min(max(x, -9 * one), 9 * one)
    u = x * x
    p = one + u * (one * 0.13379673 + u * (one * 3.4939803e-3 + u * (one * 2.0582572e-5)))
    q = one + u * (one * 0.46712988 + u * (one * 2.5870868e-2 + u * (one * 3.2830032e-4)))
    return x * (p + u * u * u * u * one * 1.3317810e-8) / (q + u * u * u * u * one * 7.7615022e-7)


@numba.njit(**OPTIONS)
def _gradient(
    X: Array, y: Array, W1: Array, b1: Array, W2: Array, b2: Array, w3: Array, one: Any,
    h1: Array, h2: Array, D1: Array, D2: Array, g1: Array, c1: Array, g2: Array, c2: Array,
    g3: Array,
) -> Any:  # fmt: skip
    n, d = X.shape
    width = len(b1)
    value = one * 0
    for k in range(d):
        for j in range(width):
            g1[k, j] = -W1[k, j]
            value += W1[k, j] * W1[k, j]
    for k in range(width):
        for j in range(width):
            g2[k, j] = -W2[k, j]
            value += W2[k, j] * W2[k, j]
    for j in range(width):
        c1[j], c2[j], g3[j] = -b1[j], -b2[j], -w3[j]
        value += b1[j] * b1[j] + b2[j] * b2[j] + w3[j] * w3[j]
    for i in range(n):
        for j in range(width):
            h1[i, j], h2[i, j] = b1[j], b2[j]
        for k in range(d):
            for j in range(width):
                h1[i, j] += X[i, k] * W1[k, j]
        for j in range(width):
            h1[i, j] = _tanh(h1[i, j], one)
        for k in range(width):
            for j in range(width):
                h2[i, j] += h1[i, k] * W2[k, j]
        f = one * 0
        for j in range(width):
            h2[i, j] = _tanh(h2[i, j], one)
            f += h2[i, j] * w3[j]
        residual = y[i] - f
        value += residual * residual
        for j in range(width):
            g3[j] += residual * h2[i, j]
            D2[i, j] = residual * w3[j] * (one - h2[i, j] * h2[i, j])
            c2[j] += D2[i, j]
        for k in range(width):
            back = one * 0
            for j in range(width):
                g2[k, j] += h1[i, k] * D2[i, j]
                back += W2[k, j] * D2[i, j]
            D1[i, k] = back * (one - h1[i, k] * h1[i, k])
        for j in range(width):
            c1[j] += D1[i, j]
        for k in range(d):
            for j in range(width):
                g1[k, j] += X[i, k] * D1[i, j]
    return -value / 2


@numba.njit
def _repeat(times: int, arguments: Any) -> Any:
    total = 0.0
    for _ in range(times):
        total += _gradient(*arguments)
    return total


def repeated(n: int, width: int, dtype: str, times: int) -> Callable[[], object]:
    """A function that computes the gradient so many times; dtype is "f32" or "f64"."""
    kind = {"f32": np.float32, "f64": np.float64}[dtype]
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        return rng.normal(size=shape).astype(kind) / np.asarray(shape[0] ** 0.5, kind)

    W, d = width, 6
    inputs = (normal(n, d), normal(n), normal(d, W), normal(W), normal(W, W), normal(W), normal(W))
    shapes = ((n, W), (n, W), (n, W), (n, W), (d, W), (W,), (W, W), (W,), (W,))
    arguments = (*inputs, kind(1), *[np.zeros(shape, kind) for shape in shapes])
    return lambda: _repeat(times, arguments)
