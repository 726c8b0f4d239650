"""What a binary network costs along its trees: products, bits, depth, latency.

    network      sum over layers of H_o W_o (N + sum of flips), against sum of H_o W_o C N

Even random filters share half of their signs, so that a ratio below 1/2 is nothing: what training
adds is told by the ratio of a network that was trained without a penalty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from torch import nn

from bo_surrogates.errors import InputError
from problems.documented.binarization import BinaryLayer
from problems.documented.cost import count_cost
from problems.documented.mst.layers import layer_trees
from problems.documented.mst.tree import FilterTree, TreeConfig


@dataclass(frozen=True)
class LayerTreeCost:
    """The cost of one call of one layer, for one input.

    Attributes:
        name: The layer's path in the network.
        positions: Of its outputs, H_o W_o.
        trees: Of each group of its filters.
    """

    name: str
    positions: int
    trees: tuple[FilterTree, ...]

    @property
    def xnors(self) -> int:
        """Products of two signs."""
        return self.positions * sum(tree.xnors for tree in self.trees)

    @property
    def full_xnors(self) -> int:
        """Those of the layer without a tree."""
        return self.positions * sum(tree.filters * tree.terms for tree in self.trees)

    @property
    def depth(self) -> int:
        """The groups' largest."""
        return max(tree.depth for tree in self.trees)

    @property
    def latency(self) -> int:
        """Products one after the other, the filters of a level and the groups at once; see
        `FilterTree.level_latency`."""
        return self.positions * max(tree.level_latency for tree in self.trees)


@dataclass(frozen=True)
class TreeCost:
    """The cost of the binary layers of a network.

    Attributes:
        layers: One entry a call of a layer.
    """

    layers: tuple[LayerTreeCost, ...]

    @property
    def xnors(self) -> int:
        """Products of two signs."""
        return sum(layer.xnors for layer in self.layers)

    @property
    def full_xnors(self) -> int:
        """Those of the network without trees."""
        return sum(layer.full_xnors for layer in self.layers)

    @property
    def ratio(self) -> float:
        """xnors / full_xnors."""
        return self.xnors / self.full_xnors

    @property
    def depth(self) -> int:
        """The layers' largest."""
        return max(layer.depth for layer in self.layers)

    @property
    def mean_depth(self) -> float:
        """The layers' mean."""
        return fmean(layer.depth for layer in self.layers)

    @property
    def latency(self) -> int:
        """The layers' sum."""
        return sum(layer.latency for layer in self.layers)

    @property
    def hardware_bits(self) -> int:
        """Bits of the weights where positions and parents are wires; a layer counts once."""
        return sum(tree.hardware_bits for tree in self._distinct())

    @property
    def encoded_bits(self) -> int:
        """Bits of the weights told along their trees, indices included."""
        return sum(tree.encoded_bits for tree in self._distinct())

    @property
    def plain_bits(self) -> int:
        """Bits of the weights as they are, one a sign."""
        return sum(tree.filters * tree.terms for tree in self._distinct())

    def _distinct(self) -> list[FilterTree]:
        by_name = {layer.name: layer.trees for layer in self.layers}
        return [tree for trees in by_name.values() for tree in trees]


def tree_cost(
    network: nn.Module, input_shape: Sequence[int], config: TreeConfig | None = None
) -> TreeCost:
    """Count the cost of a network's binary layers along their trees, for one input.

    Args:
        network: With weights; it is not changed.
        input_shape: Without the batch dimension.
        config: Which trees.

    Raises:
        InputError: There is no binary layer, one has no signs yet, or see `count_cost`.
    """
    modules = dict(network.named_modules())
    trees: dict[str, tuple[FilterTree, ...]] = {}
    layers = []
    for cost in count_cost(network, input_shape).layers:
        module = modules.get(cost.name)
        if not isinstance(module, BinaryLayer):
            continue
        if cost.name not in trees:
            trees[cost.name] = tuple(layer_trees(module, config))
        full = sum(tree.filters * tree.terms for tree in trees[cost.name])
        layers.append(LayerTreeCost(cost.name, cost.macs // full, trees[cost.name]))
    if not layers:
        raise InputError("the network has no binary layer, so no filters to find a tree of")
    return TreeCost(tuple(layers))
