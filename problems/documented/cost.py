"""What a network costs to run: multiply-accumulates by bit widths, and ACE.

ACE, the arithmetic computation effort, charges a product of an i-bit by a j-bit number i * j, the
number of one-bit adders of an i x j multiplier; a network's is the sum over its multiply-
accumulates (MACs). Layers that are not quantized count as bfloat16, 16 x 16 bits. Element-wise
work (normalization, activations, shortcut additions) is counted apart.

The count follows the shapes of one forward pass on the meta device, which computes nothing: it is
exact, and cheap for a network of any size.

Source: Zhang et al. 2022, PokeBNN, arXiv 2112.00133, section 4.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bo_surrogates.errors import InputError

UNQUANTIZED_BITS = 16  # bfloat16


@dataclass(frozen=True)
class LayerCost:
    """The cost of one call of one layer, for one input.

    Attributes:
        name: The layer's path in the network.
        macs: Multiply-accumulates.
        weight_bits: Bits of one factor.
        input_bits: Bits of the other.
        elementwise_ops: Additions and multiplications outside the MACs.
    """

    name: str
    macs: int = 0
    weight_bits: int = UNQUANTIZED_BITS
    input_bits: int = UNQUANTIZED_BITS
    elementwise_ops: int = 0

    @property
    def ace(self) -> int:
        """macs * weight_bits * input_bits."""
        return self.macs * self.weight_bits * self.input_bits


@dataclass(frozen=True)
class NetworkCost:
    """The cost of a network: that of its layers."""

    layers: tuple[LayerCost, ...]

    @property
    def ace(self) -> int:
        """Sum of the layers' ACE."""
        return sum(layer.ace for layer in self.layers)

    @property
    def macs(self) -> dict[tuple[int, int], int]:
        """MACs by (weight bits, input bits)."""
        totals: Counter[tuple[int, int]] = Counter()
        for layer in self.layers:
            if layer.macs:
                totals[layer.weight_bits, layer.input_bits] += layer.macs
        return dict(totals)

    @property
    def elementwise_ops(self) -> int:
        """Sum of the layers' element-wise operations."""
        return sum(layer.elementwise_ops for layer in self.layers)


@runtime_checkable
class CountsOwnOps(Protocol):
    """A module that does element-wise work of its own, beside that of its children."""

    def elementwise_ops(self, output: Tensor) -> int:
        """The number of additions and multiplications, given an output of batch size 1."""


def count_cost(network: nn.Module, input_shape: Sequence[int]) -> NetworkCost:
    """Count the cost of a network for one input.

    Convolutions and linear layers, and subclasses, count H_out W_out k_h k_w (C_in / groups) C_out
    and n_in n_out MACs, at the bits in their attributes `weight_bits` and `input_bits`, or 16
    where they have none. The biases' additions are part of the accumulation.

    Args:
        network: On any device, the meta device too; it is not changed.
        input_shape: Without the batch dimension, e.g. (3, 224, 224).

    Raises:
        InputError: The network has weights for which there is no rule, or does not take the shape.
    """
    traced = copy.deepcopy(network).to("meta").eval()
    layers: list[LayerCost] = []
    for name, module in traced.named_modules():
        if _has_rule(module):
            module.register_forward_hook(_recorder(name, layers))
        elif any(p.ndim >= 2 for p in module.parameters(recurse=False)):
            raise InputError(
                f"layer {name!r} ({type(module).__name__}) holds weights but there is no rule to "
                "count its multiply-accumulates; use convolutions and linear layers"
            )
    try:
        with torch.no_grad():
            traced(torch.empty(1, *input_shape, device="meta"))
    except RuntimeError as error:
        raise InputError(
            f"the network does not take inputs of shape {tuple(input_shape)}: {error}"
        ) from error
    return NetworkCost(tuple(layers))


def _has_rule(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d | CountsOwnOps)


def _recorder(
    name: str, layers: list[LayerCost]
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        macs = 0
        if isinstance(module, nn.Conv2d):
            taps = math.prod(module.kernel_size) * module.in_channels // module.groups
            macs = output.numel() * taps
        elif isinstance(module, nn.Linear):
            macs = output.numel() * module.in_features
        elementwise = 0
        if isinstance(module, CountsOwnOps):
            elementwise = module.elementwise_ops(output)
        elif isinstance(module, nn.BatchNorm2d):
            elementwise = 2 * output.numel()  # one multiplication, one addition
        layers.append(
            LayerCost(
                name,
                macs,
                getattr(module, "weight_bits", UNQUANTIZED_BITS),
                getattr(module, "input_bits", UNQUANTIZED_BITS),
                elementwise,
            )
        )

    return record
