"""Binary layers executed on bits along their trees: the same numbers, from fewer products.

Where products are wires and gates, so many fewer are built. A CPU multiplies 64 signs in one
instruction, and flips are in every word: there a `PackedLayer` is several times as fast
(`benchmarks/README.md`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bo_surrogates.errors import InputError
from problems.documented.binarization import BinaryLayer, PackedLayer, convert
from problems.documented.binarization.bits import PackedBits, Words
from problems.documented.binarization.weights import PeriodicWeights
from problems.documented.cost import LayerCost
from problems.documented.mst.evaluation import count_differing_along
from problems.documented.mst.tree import FilterTree, TreeConfig, filter_tree


def layer_signs(layer: BinaryLayer) -> NDArray[np.int8]:
    """The signs of a layer's weights, `groups x C x N`: each group of channels has its own inputs.

    Raises:
        InputError: They are no signs yet (the first stage of BiPer), or no numbers.
    """
    if isinstance(layer.weights, PeriodicWeights) and layer.weights.stage == 1:
        raise InputError(
            "weights in the first stage of BiPer are no bits; call set_stage(network, 2) first"
        )
    with torch.no_grad():
        signs = layer.weights.signs(layer.weight).cpu().numpy()
    if np.isnan(signs).any():
        raise InputError("weights must be numbers to have signs, got nan")
    groups = getattr(layer, "groups", 1)
    return signs.reshape(groups, len(signs) // groups, -1).astype(np.int8)


def layer_trees(layer: BinaryLayer, config: TreeConfig | None = None) -> list[FilterTree]:
    """The tree of each group of a binary layer's filters.

    Raises:
        InputError: See `layer_signs`.
    """
    return [filter_tree(signs, config) for signs in layer_signs(layer)]


class MSTLayer(PackedLayer):
    """A binary convolution or linear layer, executed on bits along its tree; see `PackedLayer`.

        mst = MSTLayer(conv, TreeConfig(max_depth=4))

    Attributes:
        parent: See `FilterTree`, `groups x C`.
        inverted: Likewise.
        xnors: Products of two bits that the last call took, over all inputs.

    Args:
        layer: It is not changed.
        config: Which tree.

    Raises:
        InputError: It is no binary layer, or its weights are no bits yet.
    """

    parent: Tensor
    inverted: Tensor

    def __init__(self, layer: BinaryLayer, config: TreeConfig | None = None) -> None:
        if not isinstance(layer, BinaryLayer):
            raise InputError(f"only binary layers have trees, got {type(layer).__name__}")
        super().__init__(layer)
        trees = layer_trees(layer, config)
        self.register_buffer("parent", torch.from_numpy(np.stack([t.parent for t in trees])))
        self.register_buffer("inverted", torch.from_numpy(np.stack([t.inverted for t in trees])))
        ones = torch.ones_like(layer.weight.detach(), device="cpu")
        self._filled: Words = self._packed_weights(ones).numpy().view(np.uint64)[0, 0]
        self._trees: list[FilterTree] | None = trees
        self.xnors = 0

    @property
    def trees(self) -> list[FilterTree]:
        """Of each group, from what is stored."""
        if self._trees is None:
            self._trees = [self._tree(group) for group in range(self.groups)]
        return self._trees

    def _tree(self, group: int) -> FilterTree:
        words = self.words[group].numpy().view(np.uint64)
        parent, inverted = self.parent[group].numpy(), self.inverted[group].numpy()
        terms = int(np.bitwise_count(self._filled).sum())
        flips = np.bitwise_count(words ^ words[parent]).sum(axis=1, dtype=np.int64)
        return FilterTree(terms, parent, np.where(inverted, terms - flips, flips), inverted)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        self._trees = None
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def forward(self, x: Tensor | PackedBits) -> Any:
        """See `PackedLayer`."""
        self.xnors = 0
        return super().forward(x)

    def _differing(self, windows: Words, group: int) -> NDArray[np.int32]:
        words = self.words[group].numpy().view(np.uint64)
        counts, xnors = count_differing_along(self.trees[group], windows, words, self._filled)
        self.xnors += xnors
        return counts

    def layer_costs(self, inputs: tuple[Tensor, ...], output: Any) -> Sequence[LayerCost]:
        """The XNORs as MACs of one bit by one bit, and an addition of the parent's sum an output
        but the root's."""
        if isinstance(output, PackedBits):
            positions = int(np.prod(output.packed.shape[1:3]))
        else:
            positions = output.numel() // self.parent.numel()
        xnors = sum(tree.xnors for tree in self.trees)
        sums = sum(tree.filters - 1 for tree in self.trees)
        return [
            LayerCost("", positions * xnors, 1, 1, positions * sums, self.trees[0].terms),
        ]

    def stored_bits(self) -> int:
        """As of a `PackedLayer`, but each group's signs as they are or told along their tree
        (`encoding`), whichever is shorter: the tree follows from the signs."""
        shorter = sum(
            min(t.filters * t.terms, t.encoded_bits) - t.filters * t.terms for t in self.trees
        )
        return super().stored_bits() + shorter

    def extra_repr(self) -> str:
        """The filters, and how deep the tree is."""
        depth = max(tree.depth for tree in self.trees)
        return f"{super().extra_repr()}, depth {depth}"


def compress(network: nn.Module, sample: Tensor, config: TreeConfig | None = None) -> nn.Module:
    """`convert`, with every binary layer executed along its tree.

    Args:
        network: It is not changed.
        sample: The two networks' outputs on it are compared.
        config: Which trees.

    Raises:
        InputError: As of `convert`.
        RunError: An output differs.
    """
    return convert(network, sample, partial(MSTLayer, config=config))
