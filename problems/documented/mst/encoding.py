"""Binary filters as a string of bits, told along their tree.

    parents      C of ceil(log2 C) bits; the root is its own
    inversions   1 bit: whether any parent is inverted; then 1 for each filter but the root
    root         N signs, 1 for +1
    flips        of each filter but the root, in the order of their numbers: how many there are, in
                 ceil(log2 (N + 1)) bits, and their positions, in ceil(log2 N) bits each

Numbers have their least bit first. The indices are what makes this honest: unless filters are very
much alike, it is longer than the C N signs themselves.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bo_surrogates.errors import InputError
from problems.documented.mst.tree import Booleans, FilterTree, bits_for


def encode(signs: NDArray[np.number], tree: FilterTree) -> Booleans:
    """The bits, `tree.encoded_bits` of them.

    Args:
        signs: `C x N`, +-1.
        tree: Of these filters.

    Raises:
        InputError: It is not.
    """
    positive = np.asarray(signs > 0)
    if positive.shape != (tree.filters, tree.terms):
        raise InputError(
            f"this tree is of {tree.filters} filters of {tree.terms} signs, got signs of the shape "
            f"{positive.shape}"
        )
    children = [c for c in range(tree.filters) if c != tree.root]
    differing = positive ^ positive[tree.parent] ^ tree.inverted[:, None]
    if not np.array_equal(differing.sum(axis=1), tree.flips):
        raise InputError("this is the tree of other filters")
    parts = [_number(int(p), bits_for(tree.filters)) for p in tree.parent]
    parts.append(np.array([tree.inverted.any()]))
    if tree.inverted.any():
        parts.append(tree.inverted[children])
    parts.append(positive[tree.root])
    for child in children:
        positions = np.flatnonzero(differing[child])
        parts.append(_number(len(positions), bits_for(tree.terms + 1)))
        parts += [_number(int(t), bits_for(tree.terms)) for t in positions]
    return np.concatenate(parts)


def decode(bits: Booleans, filters: int, terms: int) -> NDArray[np.int8]:
    """The filters, `C x N` of +-1.

    Args:
        bits: Of `encode`.
        filters: C.
        terms: N.

    Raises:
        InputError: There are too few or too many bits, or they are not those of a tree.
    """
    stream = iter(bits)
    try:
        parent = [_read(stream, bits_for(filters)) for _ in range(filters)]
        roots = [c for c in range(filters) if parent[c] == c]
        if len(roots) != 1 or max(parent) >= filters:
            raise InputError("these bits are not those of a tree of filters: no single root")
        children = [c for c in range(filters) if c != roots[0]]
        inverted = np.zeros(filters, bool)
        if next(stream):
            inverted[children] = [next(stream) for _ in children]
        positive = np.zeros((filters, terms), bool)
        positive[roots[0]] = [next(stream) for _ in range(terms)]
        flipped = np.zeros((filters, terms), bool)
        for child in children:
            for _ in range(_read(stream, bits_for(terms + 1))):
                flipped[child, _read(stream, bits_for(terms))] = True
    except (StopIteration, IndexError):
        raise InputError(
            f"{len(bits)} bits are not those of {filters} filters of {terms} signs"
        ) from None
    if next(stream, None) is not None:
        raise InputError(f"more bits than {filters} filters of {terms} signs have")
    known = {roots[0]}
    while len(known) < filters:
        ready = [c for c in children if c not in known and parent[c] in known]
        if not ready:
            raise InputError("these bits are not those of a tree of filters: a circle")
        for child in ready:
            positive[child] = positive[parent[child]] ^ inverted[child] ^ flipped[child]
        known.update(ready)
    return np.where(positive, 1, -1).astype(np.int8)


def _number(value: int, width: int) -> Booleans:
    return (value >> np.arange(width)) & 1 == 1


def _read(stream: Iterator[np.bool_], width: int) -> int:
    # A list: within a generator a StopIteration would be a RuntimeError.
    return sum([int(next(stream)) << place for place in range(width)])
