"""+-1 tensors as bits, 64 to a word, and their products by XOR and bit counts.

With +1 stored as 1 and -1 as 0, the product of two numbers is -1 where their bits differ, so that

    sum_i a_i w_i = N - 2 popcount(a xor w),

N the number of terms. Bits that fill up a word are 0 on both sides and never differ.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bo_surrogates.inference.native.library import available

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]
BLOCK = 2**16  # products at a time, so that what they need stays in a processor's cache


def pack_bytes(positive: NDArray[np.bool_]) -> Bytes:
    """Bits along the last axis, 8 to a byte, filled up with 0."""
    return np.packbits(positive, axis=-1, bitorder="little")


def unpack_bytes(packed: Bytes, length: int) -> NDArray[np.bool_]:
    """The inverse of `pack_bytes`."""
    return np.unpackbits(packed, axis=-1, count=length, bitorder="little").astype(bool)


def as_words(packed: Bytes) -> Words:
    """Bytes along the last axis, 8 to a word, filled up with 0."""
    missing = -packed.shape[-1] % 8
    if missing:
        packed = np.concatenate([packed, np.zeros((*packed.shape[:-1], missing), np.uint8)], -1)
    return np.ascontiguousarray(packed).view(np.uint64)


def count_differing(a: Words, w: Words) -> NDArray[np.int32]:
    """Of every row of a and every row of w, the number of bits that differ.

    Args:
        a: `rows x words`.
        w: `outputs x words`.

    Returns:
        `rows x outputs`.
    """
    code = compiled()
    return _count_in_numpy(a, w) if code is None else _count_compiled(code, a, w)


@cache
def compiled() -> ctypes.CDLL | None:
    """The compiled counting, or None."""
    return available(
        Path(__file__).with_name("popcount.cpp"), "binary networks count bits in NumPy"
    )


def _count_compiled(code: ctypes.CDLL, a: Words, w: Words) -> NDArray[np.int32]:
    counts = np.empty((len(a), len(w)), np.int32)
    a, w = np.ascontiguousarray(a), np.ascontiguousarray(w)
    sizes = (ctypes.c_int64(n) for n in (*counts.shape, a.shape[1]))
    code.count_differing(*(ctypes.c_void_p(x.ctypes.data) for x in (a, w, counts)), *sizes)
    return counts


def _count_in_numpy(a: Words, w: Words) -> NDArray[np.int32]:
    counts = np.zeros((len(a), len(w)), np.int32)
    step = max(BLOCK // max(len(w), 1), 1)
    columns = np.ascontiguousarray(w.T)
    different = np.empty((step, len(w)), np.uint64)
    bits = np.empty((step, len(w)), np.uint8)
    for start in range(0, len(a), step):
        rows = a[start : start + step]
        block, size = counts[start : start + step], len(rows)
        for word in range(a.shape[1]):
            np.bitwise_xor(rows[:, word, None], columns[word], out=different[:size])
            np.bitwise_count(different[:size], out=bits[:size])
            block += bits[:size]
    return counts


@dataclass(frozen=True)
class PackedBits:
    """The signs of a batch of images, packed along channels.

    Attributes:
        packed: `n x height x width x groups x bytes`, the channels of every group filled up to
            whole bytes.
        channels: Number of channels.
    """

    packed: Bytes
    channels: int

    @staticmethod
    def of(positive: NDArray[np.bool_], groups: int = 1) -> PackedBits:
        """From `n x height x width x channels`; true is +1."""
        channels = positive.shape[-1]
        split = positive.reshape(*positive.shape[:-1], groups, channels // groups)
        return PackedBits(pack_bytes(split), channels)

    def positive(self) -> NDArray[np.bool_]:
        """`n x height x width x channels`; true is +1."""
        groups = self.packed.shape[-2]
        bits = unpack_bytes(self.packed, self.channels // groups)
        return bits.reshape(*bits.shape[:-2], self.channels)

    def signs(self) -> Tensor:
        """+-1, `n x channels x height x width`, float32."""
        positive = torch.from_numpy(self.positive()).movedim(-1, 1)
        return torch.where(positive, 1.0, -1.0)

    def flat(self) -> PackedBits:
        """As vectors, in the order of `torch.flatten` on `n x channels x height x width`."""
        positive = np.moveaxis(self.positive(), -1, 1)
        return PackedBits.of(positive.reshape(len(positive), 1, 1, -1))
