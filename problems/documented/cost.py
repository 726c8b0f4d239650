"""What a network costs to run and to store: the one counter of all documented models.

* MACs, multiply-accumulates, by the bit widths of their two factors.
* ACE, the arithmetic computation effort: a product of an i-bit by a j-bit number is charged i * j,
  the number of one-bit adders of an i x j multiplier (Zhang et al. 2022, arXiv 2112.00133,
  section 4). Layers that are not quantized count as bfloat16, 16 x 16 bits.
* BOPs, the MACs of one bit by one bit, FLOPs, all other MACs, and OPs = FLOPs + BOPs / 64, what
  registers of 64 bits make of them (Bi-Real Net, Liu et al. 2018, arXiv 1808.00278; BiBench, Qin
  et al. 2023, arXiv 2301.11233).
* Bit operations, the accumulators' too: MACs (i j + i + j + log2 N), N products a sum (Baskin et
  al. 2018, arXiv 1804.10969).
* Parameters, and the bits to store them.

Element-wise work (normalization, activations, shortcut additions) is counted apart.

The count follows the shapes of one forward pass, and is exact. A large network is passed on the
meta device, which computes nothing, so that the count is cheap for a network of any size.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from bo_surrogates.errors import InputError

UNQUANTIZED_BITS = 16  # bfloat16, of arithmetic
FLOAT_BITS = 32  # of stored parameters

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMALIZATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class LayerCost:
    """The cost of one call of one layer, for one input.

    Attributes:
        name: The layer's path in the network.
        macs: Multiply-accumulates.
        weight_bits: Bits of one factor.
        input_bits: Bits of the other.
        elementwise_ops: Additions and multiplications outside the MACs.
        terms: Products that are summed for one output.
    """

    name: str
    macs: int = 0
    weight_bits: int = UNQUANTIZED_BITS
    input_bits: int = UNQUANTIZED_BITS
    elementwise_ops: int = 0
    terms: int = 1

    @property
    def ace(self) -> int:
        """macs * weight_bits * input_bits."""
        return self.macs * self.weight_bits * self.input_bits

    @property
    def is_binary(self) -> bool:
        """Whether both factors have one bit."""
        return self.weight_bits == self.input_bits == 1

    @property
    def bit_operations(self) -> float:
        """macs (i j + i + j + log2 N)."""
        i, j = self.weight_bits, self.input_bits
        return self.macs * (i * j + i + j + math.log2(max(self.terms, 1)))


@dataclass(frozen=True)
class NetworkCost:
    """The cost of a network: that of its layers, and of its parameters.

    Attributes:
        layers: One entry a call of a layer.
        parameters: Numbers that are learnt, each once.
        bits: To store them.
    """

    layers: tuple[LayerCost, ...]
    parameters: int = 0
    bits: int = 0

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
    def total_macs(self) -> int:
        """MACs of all bit widths."""
        return sum(layer.macs for layer in self.layers)

    @property
    def bops(self) -> int:
        """MACs of one bit by one bit."""
        return sum(layer.macs for layer in self.layers if layer.is_binary)

    @property
    def flops(self) -> int:
        """All other MACs (a multiply-accumulate counts once)."""
        return self.total_macs - self.bops

    @property
    def ops(self) -> float:
        """flops + bops / 64."""
        return self.flops + self.bops / 64

    @property
    def bit_operations(self) -> float:
        """Sum of the layers'."""
        return sum(layer.bit_operations for layer in self.layers)

    @property
    def elementwise_ops(self) -> int:
        """Sum of the layers' element-wise operations."""
        return sum(layer.elementwise_ops for layer in self.layers)


@runtime_checkable
class CountsOwnOps(Protocol):
    """A module that does element-wise work of its own, beside that of its children."""

    def elementwise_ops(self, output: Tensor) -> int:
        """The number of additions and multiplications, given an output of batch size 1."""


@runtime_checkable
class CountsOwnCost(Protocol):
    """A module with a rule of its own, which stands for it and its children.

    For layers whose weights are not those that are multiplied: sums of Kronecker products, filters
    computed from others, look-up tables.
    """

    def layer_costs(self, inputs: tuple[Tensor, ...], output: Tensor) -> Sequence[LayerCost]:
        """What one call costs, given inputs and output of batch size 1; names are left empty, or
        tell parts of the layer apart."""


@runtime_checkable
class CountsOwnBits(Protocol):
    """A module that knows how many bits store its own and its children's parameters."""

    def stored_bits(self) -> int:
        """The number of bits."""


def count_cost(network: nn.Module, input_shape: Sequence[int]) -> NetworkCost:
    """Count the cost of a network for one input.

    Convolutions and linear layers, and subclasses, count H_out W_out k_h k_w (C_in / groups) C_out
    and n_in n_out MACs, at the bits in their attributes `weight_bits` and `input_bits`, or 16
    where they have none. The biases' additions are part of the accumulation. Weights are stored at
    `weight_bits`, or 32 where a layer has none, all other parameters at 32; those that are shared
    are stored once.

    Args:
        network: On any device, the meta device too; it is not changed.
        input_shape: Without the batch dimension, e.g. (3, 224, 224).

    Raises:
        InputError: The network has weights for which there is no rule, or does not take the shape.
    """
    device = "cpu" if _is_small(network, input_shape) else "meta"
    traced = copy.deepcopy(network).to(device).eval()
    layers: list[LayerCost] = []
    for name, module in _countable(traced, "", set()):
        module.register_forward_hook(_recorder(name, layers))
    try:
        with torch.no_grad():
            traced(torch.zeros(1, *input_shape, device=device))
    except RuntimeError as error:
        raise InputError(
            f"the network does not take inputs of shape {tuple(input_shape)}: {error}"
        ) from error
    # Of the network itself: on the way to another device, shared parameters become separate.
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return NetworkCost(tuple(layers), parameters, _stored_bits(network, set()))


def _is_small(network: nn.Module, input_shape: Sequence[int]) -> bool:
    """Whether a forward pass takes milliseconds, less than torch's bookkeeping of shapes does."""
    tensors = [*network.parameters(), *network.buffers()]
    if any(t.is_meta or isinstance(t, UninitializedParameter) for t in tensors):
        return False
    return sum(t.numel() for t in tensors) < 10**6 and math.prod(input_shape) < 10**4


def _countable(
    module: nn.Module, name: str, seen: set[nn.Module]
) -> Iterator[tuple[str, nn.Module]]:
    """Modules with a rule, each once, those within a `CountsOwnCost` left out."""
    if module in seen:
        return
    seen.add(module)
    if isinstance(module, CountsOwnCost):
        yield name, module
        return
    if _has_rule(module):
        yield name, module
    elif any(p.ndim >= 2 for p in module.parameters(recurse=False)):
        raise InputError(
            f"layer {name!r} ({type(module).__name__}) holds weights but there is no rule to "
            "count its multiply-accumulates; use convolutions and linear layers, or give it a "
            "method layer_costs"
        )
    for child_name, child in module.named_children():
        yield from _countable(child, f"{name}.{child_name}" if name else child_name, seen)


def _has_rule(module: nn.Module) -> bool:
    return isinstance(module, (*CONVOLUTIONS, nn.Linear, *NORMALIZATIONS, CountsOwnOps))


def _recorder(
    name: str, layers: list[LayerCost]
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, CountsOwnCost):
            for cost in module.layer_costs(inputs, output):
                layers.append(replace(cost, name=f"{name}.{cost.name}" if cost.name else name))
            return
        terms, macs = 1, 0
        if isinstance(module, CONVOLUTIONS):
            terms = math.prod(module.kernel_size) * module.in_channels // module.groups
            macs = output.numel() * terms
        elif isinstance(module, nn.Linear):
            terms = module.in_features
            macs = output.numel() * terms
        elementwise = 0
        if isinstance(module, CountsOwnOps):
            elementwise = module.elementwise_ops(output)
        elif isinstance(module, NORMALIZATIONS):
            elementwise = 2 * output.numel()  # one multiplication, one addition
        bits: Any = module
        layers.append(
            LayerCost(
                name,
                macs,
                getattr(bits, "weight_bits", UNQUANTIZED_BITS),
                getattr(bits, "input_bits", UNQUANTIZED_BITS),
                elementwise,
                terms,
            )
        )

    return record


def _stored_bits(module: nn.Module, seen: set[int]) -> int:
    if id(module) in seen:
        return 0
    seen.add(id(module))
    if isinstance(module, CountsOwnBits):
        seen.update(id(part) for part in (*module.modules(), *module.parameters()))
        return module.stored_bits()
    total = 0
    for name, parameter in module.named_parameters(recurse=False):
        if id(parameter) not in seen:
            seen.add(id(parameter))
            bits = getattr(module, "weight_bits", FLOAT_BITS) if name == "weight" else FLOAT_BITS
            total += parameter.numel() * int(bits)
    return total + sum(_stored_bits(child, seen) for child in module.children())
