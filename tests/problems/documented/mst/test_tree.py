"""Trees over filters against SciPy's Kruskal, exhaustion, and their definitions; their encoding."""

import itertools

import numpy as np
import pytest
from scipy.sparse.csgraph import minimum_spanning_tree

from bo_surrogates.errors import InputError
from problems.documented.mst import TreeConfig, decode, distances, encode, filter_tree
from problems.documented.mst.tree import FilterTree


def random_signs(filters, terms, seed=0):
    return np.random.default_rng(seed).choice([-1, 1], (filters, terms))


def awkward_signs(filters, terms, seed=0):
    """With equal filters and complementary ones among them."""
    signs = random_signs(filters, terms, seed)
    signs[1], signs[2], signs[3] = signs[0], -signs[0], signs[-1]
    return signs


def weights_of(signs, inversions):
    d = distances(signs)
    return np.minimum(d, signs.shape[1] - d) if inversions else d


def depths_by_walking(parent):
    found = []
    for filter_ in range(len(parent)):
        steps = 0
        while parent[filter_] != filter_:
            filter_, steps = parent[filter_], steps + 1
        found.append(steps)
    return found


def rooted(edges, root, count):
    """Parents of the tree with these edges."""
    parent = np.full(count, -1)
    parent[root] = root
    while (parent < 0).any():
        for a, b in edges:
            if parent[a] >= 0 and parent[b] < 0:
                parent[b] = a
            elif parent[b] >= 0 and parent[a] < 0:
                parent[a] = b
    return parent


def edges_of(tree):
    return [(c, int(p)) for c, p in enumerate(tree.parent) if c != p]


def all_trees(count):
    """Every tree on labelled vertices, from its Pruefer sequence."""
    for sequence in itertools.product(range(count), repeat=count - 2):
        degree = [1 + sequence.count(v) for v in range(count)]
        edges = []
        for v in sequence:
            leaf = degree.index(1)
            edges.append((leaf, v))
            degree[leaf] -= 1
            degree[v] -= 1
        edges.append(tuple(v for v in range(count) if degree[v] == 1))
        yield edges


SHAPES = [(4, 5), (9, 4), (16, 144), (30, 12), (40, 300)]
CASES = [
    pytest.param(
        make(filters, terms), inversions, id=f"{make.__name__}-{filters}-{terms}-{inversions}"
    )
    for make in (random_signs, awkward_signs)
    for filters, terms in SHAPES
    for inversions in (False, True)
]


def test_distances_count_signs_that_differ():
    signs = awkward_signs(12, 33)
    expected = [[int((a != b).sum()) for b in signs] for a in signs]
    np.testing.assert_array_equal(distances(signs), expected)
    assert distances(signs)[0, 1] == 0
    assert distances(signs)[0, 2] == 33


@pytest.mark.parametrize(("signs", "inversions"), CASES)
def test_the_tree_is_as_light_as_kruskal_s_and_no_chain_or_star_is_lighter(signs, inversions):
    tree = filter_tree(signs, TreeConfig(inversions=inversions))
    weights = weights_of(signs, inversions)
    # One more on each edge, as a 0 would be none in a sparse matrix.
    kruskal = minimum_spanning_tree(weights + 1).sum() - (len(signs) - 1)
    assert tree.flips.sum() == kruskal
    assert tree.flips.sum() <= np.diagonal(weights, 1).sum()
    assert tree.flips.sum() <= weights.sum(axis=1).min()


@pytest.mark.parametrize(("signs", "inversions"), CASES)
def test_flips_are_what_differs_from_the_parent_or_its_negative(signs, inversions):
    tree = filter_tree(signs, TreeConfig(inversions=inversions))
    factor = np.where(tree.inverted, -1, 1)[:, None]
    np.testing.assert_array_equal((signs != factor * signs[tree.parent]).sum(axis=1), tree.flips)
    assert inversions or not tree.inverted.any()
    assert not tree.inverted[tree.root]
    assert (2 * tree.flips <= tree.terms).all() or not inversions


@pytest.mark.parametrize(("signs", "inversions"), CASES)
def test_the_root_is_the_centre(signs, inversions):
    tree = filter_tree(signs, TreeConfig(inversions=inversions))
    count = tree.filters
    np.testing.assert_array_equal(tree.depths, depths_by_walking(tree.parent))
    by_root = [max(depths_by_walking(rooted(edges_of(tree), r, count))) for r in range(count)]
    assert tree.depth == by_root[tree.root] == min(by_root) == -(-max(by_root) // 2)
    positions = np.argsort(tree.order)
    assert all(positions[p] < positions[c] for c, p in edges_of(tree))


def test_among_all_trees_none_is_lighter():
    for seed in range(3):
        signs = random_signs(6, 9, seed)
        for inversions in (False, True):
            weights = weights_of(signs, inversions)
            least = min(sum(weights[a, b] for a, b in edges) for edges in all_trees(6))
            assert filter_tree(signs, TreeConfig(inversions=inversions)).flips.sum() == least


def test_equally_near_parents_make_a_star():
    signs = np.ones((7, 5), int)
    assert filter_tree(signs).depth == 1
    signs = 2 * np.eye(9, dtype=int) - 1  # all two signs apart
    tree = filter_tree(signs)
    assert (tree.depth, tree.flips.sum()) == (1, 16)


@pytest.mark.parametrize("inversions", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_a_limit_on_the_depth_holds_and_costs_no_more_than_the_star(limit, inversions):
    for signs in (random_signs(40, 60), awkward_signs(25, 9)):
        weights = weights_of(signs, inversions)
        free = filter_tree(signs, TreeConfig(inversions=inversions))
        tree = filter_tree(signs, TreeConfig(max_depth=limit, inversions=inversions))
        assert tree.depth == max(depths_by_walking(tree.parent)) <= limit
        star = weights.sum(axis=1).min()
        assert free.flips.sum() <= tree.flips.sum() <= star
        assert limit > 1 or tree.flips.sum() == star
        if free.depth <= limit:
            assert tree.flips.sum() == free.flips.sum()


def test_limited_trees_are_near_the_lightest():
    # All 1296 trees of 6 filters at each of their roots; found: at most 2 flips above the least.
    for seed in range(3):
        weights = distances(random_signs(6, 9, seed))
        least = min(
            sum(weights[a, b] for a, b in edges)
            for edges in all_trees(6)
            if min(max(depths_by_walking(rooted(edges, r, 6))) for r in range(6)) <= 2
        )
        found = filter_tree(random_signs(6, 9, seed), TreeConfig(max_depth=2)).flips.sum()
        assert least <= found <= least + 2


def test_the_root_changes_neither_flips_nor_ratio():
    signs = random_signs(12, 20)
    tree = filter_tree(signs)
    for root in range(12):
        parent = rooted(edges_of(tree), root, 12)
        flips = (signs != signs[parent]).sum(axis=1)
        other = FilterTree(20, parent, flips, np.zeros(12, bool))
        assert (other.root, other.xnors, other.ratio) == (root, tree.xnors, tree.ratio)
        assert other.depth >= tree.depth


def test_one_filter_costs_all_and_equal_ones_cost_one():
    alone = filter_tree(random_signs(1, 7))
    assert (alone.ratio, alone.depth, alone.xnors, alone.level_latency) == (1, 0, 7, 7)
    equal = filter_tree(np.repeat(random_signs(1, 7), 5, axis=0))
    assert (equal.ratio, equal.depth, equal.xnors) == (1 / 5, 1, 7)
    negative = np.array([[1] * 7, [-1] * 7])
    assert filter_tree(negative).xnors == 14
    assert filter_tree(negative, TreeConfig(inversions=True)).xnors == 7


def test_the_latency_of_levels_is_that_of_their_slowest_filters():
    # 0 is the root; 1 and 2 hang from it, 3 from 1.
    tree = FilterTree(10, np.array([0, 0, 0, 1]), np.array([0, 3, 5, 2]), np.zeros(4, bool))
    assert (tree.depth, tree.xnors, tree.level_latency) == (2, 20, 10 + 5 + 2)
    assert tree.ratio == 20 / 40


def test_only_signs_have_a_tree():
    for bad in (np.zeros((3, 4)), np.full((3, 4), np.nan), np.full((3, 4), 0.5)):
        with pytest.raises(InputError, match=r"\+1 and -1 only"):
            filter_tree(bad)
    for shape in ((0, 4), (4, 0), (4,)):
        with pytest.raises(InputError, match="a matrix of signs"):
            filter_tree(np.ones(shape))
    with pytest.raises(InputError, match=r"TreeConfig\.max_depth must be in"):
        TreeConfig(max_depth=0)


# ---- encoding -----------------------------------------------------------------------------------
@pytest.mark.parametrize(("signs", "inversions"), CASES)
def test_what_is_encoded_is_decoded_from_as_many_bits_as_counted(signs, inversions):
    for limit in (None, 2):
        tree = filter_tree(signs, TreeConfig(max_depth=limit, inversions=inversions))
        bits = encode(signs, tree)
        assert len(bits) == tree.encoded_bits
        np.testing.assert_array_equal(decode(bits, *signs.shape), signs)


def test_few_flips_are_shorter_told_than_all_signs():
    signs = np.repeat(random_signs(1, 500), 30, axis=0)
    signs[np.arange(30), np.arange(30)] *= -1
    tree = filter_tree(signs)
    assert tree.xnors <= 500 + 29 * 2
    assert tree.encoded_bits < 0.15 * signs.size


def test_bits_that_are_no_tree_are_refused():
    signs = random_signs(6, 9)
    tree = filter_tree(signs)
    bits = encode(signs, tree)
    with pytest.raises(InputError, match="are not those of 6 filters of 9 signs"):
        decode(bits[:-1], 6, 9)
    with pytest.raises(InputError, match="more bits than"):
        decode(np.append(bits, True), 6, 9)
    with pytest.raises(InputError, match="no single root"):
        decode(np.ones_like(bits), 6, 9)
    with pytest.raises(InputError, match="a circle"):  # parents 0, 2, 1 of three filters of a sign
        decode(np.array([0, 0, 0, 1, 1, 0, 0, 1, 0, 0], bool), 3, 1)
    with pytest.raises(InputError, match="of other filters"):
        encode(random_signs(6, 9, seed=1), tree)
    with pytest.raises(InputError, match=r"got signs of the shape \(5, 9\)"):
        encode(signs[:5], tree)
