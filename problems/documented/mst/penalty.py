"""Training binary filters to be alike, so that their tree is cheap.

With B the signs of a layer's weights, C x N,

    tree      1 / (C N) sum_{(i, j) in T} sum_t |B_it - B_jt| / 2
    centre    1 / (C N) sum_c sum_t |B_ct - m_t| / 2,    m = sgn(sum_c B_c)

summed over layers. T is the layer's tree, found anew every so many steps; nothing is differentiated
through the choice of T or m. The first makes the tree light, the second draws all filters to one
and so makes it shallow too. The gradient is 0 where signs agree, and passes to the latent weights
as that of the loss does.

Where parents may be inverted, |B_i + B_j| stands for the edges that are; and each filter is drawn
to m or -m, whichever is nearer to it.

Both are reconstructions from the paper's description, Vo et al. 2023, arXiv 2308.13735; its own
loss may differ in form.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bo_surrogates.errors import InputError
from problems.documented.binarization import BinaryLayer, sign
from problems.documented.mst.layers import layer_trees
from problems.documented.mst.tree import TreeConfig
from problems.documented.training import Moment


def tree_loss(signs: Tensor, parent: Tensor, factor: Tensor) -> Tensor:
    """Of one layer, with its gradient.

    Args:
        signs: `C x N`.
        parent: `C`, the root's is itself.
        factor: `C`, -1 where the parent is inverted, else +1.
    """
    differences = signs - factor[:, None] * signs[parent]
    return differences.abs().sum() / 2 / signs.numel()


def centre_loss(signs: Tensor, inversions: bool = False) -> Tensor:
    """Of one layer, with its gradient.

    Args:
        signs: `groups x C x N`; each group has its centre.
        inversions: See the module's docstring. The centre is then that of the filters or their
            negatives, whichever is nearer to the filter that is nearest to all others.
    """
    B = signs.detach()
    factor = torch.ones_like(B[..., :1])
    if inversions:
        products = B @ B.mT
        nearest = products.abs().sum(dim=-1).argmax(dim=-1)
        factor = sign(products[torch.arange(len(B), device=B.device), nearest])[..., None]
    centre = sign((factor * B).sum(dim=1, keepdim=True))
    if inversions:
        factor = sign(B @ centre.mT)
    return (signs - factor * centre).abs().sum() / 2 / signs.numel()


class TreePenalty(nn.Module):
    """A term of the loss for every binary layer of a network, as a hook of its training.

        penalty = TreePenalty(network, 10.0)
        Training(network, x, y, config, seed, Hooks(penalty=penalty, memory=penalty))

    Args:
        network: Its layers must have their shapes; it is not changed.
        strength: lambda, factor of the penalty.
        tree_share: 1: the tree loss; 0: the centre loss; between: that much of the one, the rest
            of the other.
        start: Share of the training's steps before there is a penalty.
        refresh: Steps with one tree.
        config: Which trees.

    Raises:
        InputError: A number is out of range, or the network has no binary layer.
    """

    def __init__(
        self,
        network: nn.Module,
        strength: float,
        *,
        tree_share: float = 1.0,
        start: float = 0.2,
        refresh: int = 50,
        config: TreeConfig | None = None,
    ) -> None:
        super().__init__()
        ranges = {
            "strength": (strength, 0.0, math.inf),
            "tree_share": (tree_share, 0.0, 1.0),
            "start": (start, 0.0, 1.0),
            "refresh": (refresh, 1, math.inf),
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise InputError(f"{name} must be in [{low:g}, {high:g}], got {value!r}")
        self.strength, self.tree_share = strength, tree_share
        self.start, self.refresh = start, refresh
        self.config = config or TreeConfig()
        # The trees in force: a training that is resumed between two refreshes needs them.
        for number, layer in enumerate(_binary_layers(network)):
            outputs = len(layer.weight)
            device = layer.weight.device
            self.register_buffer(f"parent{number}", torch.arange(outputs, device=device))
            self.register_buffer(f"factor{number}", torch.ones(outputs, device=device))

    def forward(self, network: nn.Module, moment: Moment) -> Tensor:
        """The penalty at a moment of the training."""
        layers = _binary_layers(network)
        first = math.ceil(self.start * moment.steps)
        if moment.step < first or self.strength == 0:
            return layers[0].weight.new_zeros(())
        if self.tree_share > 0 and (moment.step - first) % self.refresh == 0:
            self.find_trees(network)
        return self.strength * self.loss(network)

    def loss(self, network: nn.Module) -> Tensor:
        """The penalty without its strength, with the trees in force."""
        layers = _binary_layers(network)
        total = layers[0].weight.new_zeros(())
        for number, layer in enumerate(layers):
            signs = layer.weights.signs(layer.weight).flatten(1)
            if self.tree_share > 0:
                parent = self.get_buffer(f"parent{number}")
                factor = self.get_buffer(f"factor{number}")
                total = total + self.tree_share * tree_loss(signs, parent, factor)
            if self.tree_share < 1:
                groups = signs.unflatten(0, (getattr(layer, "groups", 1), -1))
                centre = centre_loss(groups, self.config.inversions)
                total = total + (1 - self.tree_share) * centre
        return total

    @torch.no_grad()
    def find_trees(self, network: nn.Module) -> None:
        """Put the trees of the network's weights in force."""
        for number, layer in enumerate(_binary_layers(network)):
            if layer.weight.isnan().any():
                continue  # the training has diverged and will say so
            begin = 0
            for tree in layer_trees(layer, self.config):
                part = slice(begin, begin + tree.filters)
                parent = torch.from_numpy(tree.parent) + begin
                factor = 1 - 2 * torch.from_numpy(tree.inverted).float()
                self.get_buffer(f"parent{number}")[part] = parent.to(layer.weight.device)
                self.get_buffer(f"factor{number}")[part] = factor.to(layer.weight.device)
                begin += tree.filters


def _binary_layers(network: nn.Module) -> list[BinaryLayer]:
    layers = [m for m in network.modules() if isinstance(m, BinaryLayer)]
    if not layers:
        raise InputError("the network has no binary layer, so no filters to make alike")
    return layers
