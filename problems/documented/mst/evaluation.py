"""The outputs of binary filters along their tree, exactly, and how many products that takes.

With D the positions in which filter j differs from its parent i,

    y_j = y_i + 2 sum_{t in D} W_jt x_t,

and with D those in which it does not differ, and -y_i for y_i, where the parent is inverted: the
terms outside D are the parent's. In counts q of differing bits, that is

    q_j = q_i - |D| + 2 popcount((W_j xor x) and D),

with N - q_i for q_i where the parent is inverted. A padded position is 0 in the first form and adds
nothing; in the second it may be any bit, as long as it is the same for all filters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from problems.documented.binarization.bits import Words, count_differing
from problems.documented.mst.tree import FilterTree


def contract_along(
    tree: FilterTree, signs: NDArray[np.integer], patches: NDArray[np.integer]
) -> tuple[NDArray[np.int64], int]:
    """Sums of products, from their definition: slow, to compare with.

    Args:
        tree: Of the filters.
        signs: `C x N`, +-1.
        patches: `rows x N`, +-1, or 0 where it is padded.

    Returns:
        `rows x C`, equal to `patches @ signs.T`, and the number of products of two signs.
    """
    W, x = signs.astype(np.int64), patches.astype(np.int64)
    y = np.empty((len(x), len(W)), np.int64)
    products = 0
    for child in tree.order:
        parent = tree.parent[child]
        if child == parent:
            differing, base = np.ones(tree.terms, bool), np.zeros(len(x), np.int64)
            factor = 1
        else:
            sign = -1 if tree.inverted[child] else 1
            differing, base = W[child] != sign * W[parent], sign * y[:, parent]
            factor = 2
        terms = x[:, differing] * W[child, differing]
        y[:, child] = base + factor * terms.sum(axis=1)
        products += terms.size
    return y, products


def count_differing_along(
    tree: FilterTree, a: Words, w: Words, filled: Words
) -> tuple[NDArray[np.int32], int]:
    """As `binarization.bits.count_differing`, along the tree.

    Words without a flip are skipped.

    Args:
        tree: Of the filters.
        a: Bits of patches, `rows x words`; those that fill up words are 0.
        w: Bits of the filters, `C x words`; likewise.
        filled: `words`, 1 in the N bits that stand for signs.

    Returns:
        Counts, `rows x C`, and the number of XNORs of two bits.
    """
    counts = np.empty((len(w), len(a)), np.int32)
    products = 0
    for child in tree.order:
        parent = tree.parent[child]
        if child == parent:
            counts[child] = count_differing(a, w[child : child + 1])[:, 0]
            products += len(a) * int(np.bitwise_count(filled).sum())
            continue
        differing, base = w[child] ^ w[parent], counts[parent]
        if tree.inverted[child]:
            differing, base = ~differing & filled, tree.terms - base
        used = np.flatnonzero(differing)
        wrong = np.bitwise_count((a[:, used] ^ w[child, used]) & differing[used])
        size = int(np.bitwise_count(differing).sum())
        counts[child] = base - size + 2 * wrong.sum(axis=1, dtype=np.int32)
        products += len(a) * size
    return np.ascontiguousarray(counts.T), products
