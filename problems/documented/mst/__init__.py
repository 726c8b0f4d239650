"""Minimum spanning trees over binary filters: fewer products, the same numbers.

    penalty = TreePenalty(network, 10.0)                 # in training: filters become alike
    hooks = Hooks(penalty=penalty, memory=penalty)

    cost = tree_cost(network, (1, 8, 8))                 # products, bits, depth, latency
    compressed = compress(network, sample)               # executed along the trees, bit for bit

    tree = filter_tree(signs)                            # of any C x N signs
    bits = encode(signs, tree)

Source: Vo et al. 2023, Compressing and Accelerating Binary Neural Networks with Minimum Spanning
Tree, ICCV, arXiv 2308.13735.
"""

from problems.documented.mst.cost import LayerTreeCost, TreeCost, tree_cost
from problems.documented.mst.encoding import decode, encode
from problems.documented.mst.evaluation import contract_along
from problems.documented.mst.layers import MSTLayer, compress, layer_signs, layer_trees
from problems.documented.mst.penalty import TreePenalty, centre_loss, tree_loss
from problems.documented.mst.tree import FilterTree, TreeConfig, distances, filter_tree

__all__ = [
    "FilterTree",
    "LayerTreeCost",
    "MSTLayer",
    "TreeConfig",
    "TreeCost",
    "TreePenalty",
    "centre_loss",
    "compress",
    "contract_along",
    "decode",
    "distances",
    "encode",
    "filter_tree",
    "layer_signs",
    "layer_trees",
    "tree_cost",
    "tree_loss",
]
