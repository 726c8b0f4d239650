"""Trees over the binary filters of a layer: each filter is told by what differs from its parent.

The complete graph on C filters of N signs has the weight d_ij, the number of positions in which i
and j differ; where parents may be inverted, min(d_ij, N - d_ij). A spanning tree of least weight
says in which order to compute the filters' outputs with the fewest operations, its root one of the
vertices from which it is shallowest.

Prim's algorithm is this project's own, not SciPy's: among trees of equal weight it prefers shallow
ones, it can be held to a depth, and filters that are equal (a weight of 0, in a sparse matrix "no
edge") stay neighbours.

Source: Vo et al. 2023, Compressing and Accelerating Binary Neural Networks with Minimum Spanning
Tree, ICCV, arXiv 2308.13735; the limit on depth and inverted parents are this project's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, shortest_path

from bo_surrogates.config import Config, flag, integer
from bo_surrogates.errors import InputError

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class TreeConfig(Config):
    """Which trees are sought.

    Attributes:
        max_depth: Edges from the root to any filter at most, so that a filter's output waits for
            no more than as many others; None: no limit. 1 is a star.
        inversions: Whether a filter may be told by its difference from its parent's negative.
    """

    max_depth: int | None = integer(None, 1, 10**6, optional=True)
    inversions: bool = flag(False)


@dataclass(frozen=True, eq=False)
class FilterTree:
    """A rooted spanning tree over filters, and what it costs to compute them along it.

    Attributes:
        terms: N, signs of a filter.
        parent: `C`, each filter's; the root's is itself.
        flips: `C`, the number of signs in which a filter differs from its parent, or from its
            parent's negative; the root's is 0.
        inverted: `C`, whether it is the negative; the root's is false.
    """

    terms: int
    parent: Integers
    flips: Integers
    inverted: Booleans

    @property
    def filters(self) -> int:
        """C."""
        return len(self.parent)

    @cached_property
    def root(self) -> int:
        """The filter that is computed from all its signs."""
        return int(np.flatnonzero(self.parent == np.arange(self.filters))[0])

    @cached_property
    def order(self) -> Integers:
        """All filters, parents before their children."""
        return np.argsort(self.depths, kind="stable")

    @cached_property
    def depths(self) -> Integers:
        """`C`, edges from the root."""
        return _depths(self.parent)

    @property
    def depth(self) -> int:
        """Edges from the root to the filter that is farthest from it."""
        return int(self.depths.max())

    @property
    def xnors(self) -> int:
        """Products of two signs for one position of the outputs: N + sum of flips."""
        return self.terms + int(self.flips.sum())

    @property
    def ratio(self) -> float:
        """xnors / (C N), between 1 / C (all filters are equal) and 1."""
        return self.xnors / (self.filters * self.terms)

    @property
    def level_latency(self) -> int:
        """N + sum over levels of the level's most flips: the products one after the other where
        all filters of a level are computed at once."""
        longest = np.zeros(self.depth + 1, np.int64)
        np.maximum.at(longest, self.depths, self.flips)
        return self.terms + int(longest.sum())

    @property
    def hardware_bits(self) -> int:
        """N + sum of flips: what is wired where positions and parents are wires, which cost no
        bits."""
        return self.xnors

    @property
    def encoded_bits(self) -> int:
        """Length of the tree as a string of bits (`encoding.encode`), indices included."""
        edges = self.filters - 1
        count_bits, position_bits = bits_for(self.terms + 1), bits_for(self.terms)
        lists = edges * count_bits + int(self.flips.sum()) * position_bits
        inversions = edges if self.inverted.any() else 0
        return self.terms + self.filters * bits_for(self.filters) + 1 + inversions + lists


def bits_for(values: int) -> int:
    """Bits of an index that takes so many values."""
    return (values - 1).bit_length()


def distances(signs: NDArray[np.generic]) -> Integers:
    """In how many signs each two filters differ, (N - W W^T) / 2.

    Args:
        signs: `C x N`, +-1.

    Raises:
        InputError: They are not signs, or there are none.
    """
    if signs.ndim != 2 or signs.size == 0:
        raise InputError(f"filters must be a matrix of signs, got the shape {signs.shape}")
    W = signs.astype(np.float64)
    if not (np.abs(W) == 1).all():
        raise InputError("filters must hold +1 and -1 only; take the sign of latent weights first")
    return ((W.shape[1] - W @ W.T) / 2).astype(np.int64)


def filter_tree(signs: NDArray[np.generic], config: TreeConfig | None = None) -> FilterTree:
    """The tree along which filters are computed.

    Without a limit on the depth it has the least weight of all, and its depth is ceil(diameter /
    2). Among trees of that weight Prim's algorithm is run from every filter, an equally near parent
    preferred where it is shallower, and the shallowest result kept; a shallower one may exist. With
    a limit of 1 it is the star of least weight; with other limits, where the least weight is not
    known to be found in polynomial time, it is the better of two that are improved by giving one
    filter another parent at a time, no worse than that star.

    Args:
        signs: `C x N`, +-1.
        config: See `TreeConfig`.

    Raises:
        InputError: See `distances`.
    """
    config = config or TreeConfig()
    d = distances(signs)
    terms = signs.shape[1]
    weights = np.minimum(d, terms - d) if config.inversions else d
    parent = _shallow_tree(weights)
    limit = config.max_depth
    if limit is not None and _depths(parent).max() > limit:
        parent = _limited_tree(weights, limit)
    child = np.arange(len(d))
    flips = weights[parent, child]
    return FilterTree(terms, parent, flips, flips < d[parent, child])


def _shallow_tree(weights: Integers) -> Integers:
    """Parents of a tree of least weight, rooted in its centre."""
    parents, depths = _prim(weights)
    parent = parents[depths.max(axis=1).argmin()]
    child = np.flatnonzero(parent != np.arange(len(parent)))
    edges = csr_array((np.ones(len(child)), (child, parent[child])), shape=weights.shape)
    hops = shortest_path(edges, directed=False, unweighted=True)
    centre = int(hops.max(axis=1).argmin())
    _, before = breadth_first_order(edges, centre, directed=False)
    return np.where(before < 0, centre, before).astype(np.int64)


def _prim(weights: Integers, max_depth: int | None = None) -> tuple[Integers, Integers]:
    """Prim's algorithm from every filter at once.

    An edge's key is its weight, then its parent's depth, as one number: depths are below C.

    Returns:
        Parents and depths, `starts x C`.
    """
    count = len(weights)
    starts = np.arange(count)
    parent = np.repeat(starts[:, None], count, axis=1)
    depth = np.zeros((count, count), np.int64)
    outside = ~np.eye(count, dtype=bool)
    key = np.where(outside, weights * count, NEVER)
    for _ in range(count - 1):
        new = key.argmin(axis=1)
        depth[starts, new] = reached = depth[starts, parent[starts, new]] + 1
        outside[starts, new] = False
        key[starts, new] = NEVER
        offer = weights[new] * count + reached[:, None]
        better = (offer < key) & outside
        if max_depth is not None:
            better &= (reached < max_depth)[:, None]
        key = np.where(better, offer, key)
        parent = np.where(better, new[:, None], parent)
    return parent, depth


def _limited_tree(weights: Integers, max_depth: int) -> Integers:
    """Parents of a light tree of limited depth."""
    count = len(weights)
    child = np.arange(count)
    star = np.full(count, weights.sum(axis=1).argmin())
    if max_depth == 1:
        return star
    parents, _ = _prim(weights, max_depth)
    best = parents[weights[parents, child].sum(axis=1).argmin()]
    improved = [_reattached(weights, parent, max_depth) for parent in (best, star)]
    return min(improved, key=lambda parent: int(weights[parent, child].sum()))


def _reattached(weights: Integers, parent: Integers, max_depth: int) -> Integers:
    """The tree after one filter at a time, with all below it, has got its nearest parent within the
    depth, until none can have a nearer one."""
    parent = parent.copy()
    changed = True
    while changed:
        changed = False
        for child in np.flatnonzero(parent != np.arange(len(parent))):
            depths, below = _depths(parent), _below(parent, child)
            height = depths[below].max() - depths[child]
            allowed = ~below & (depths + 1 + height <= max_depth)
            offers = np.where(allowed, weights[child], NEVER)
            nearest = int(offers.argmin())
            if offers[nearest] < weights[child, parent[child]]:
                parent[child] = nearest
                changed = True
    return parent


def _depths(parent: Integers) -> Integers:
    """Edges from the root, by filter."""
    depths = np.zeros(len(parent), np.int64)
    above = np.arange(len(parent))
    for _ in parent:
        moved = parent[above] != above
        if not moved.any():
            break
        depths += moved
        above = parent[above]
    return depths


def _below(parent: Integers, top: int | np.signedinteger) -> Booleans:
    """The filters whose way to the root passes `top`, itself included."""
    found = np.arange(len(parent)) == top
    while True:
        more = found | found[parent]
        if (more == found).all():
            return more
        found = more
