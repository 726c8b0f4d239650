"""Layers executed on integer codes: products by a table, sums of table entries.

With weights and inputs on grids of one exponent a, a product of a weight and an input is a function
of the product p of their codes,

    M_w M_x T[p],    T[p] = sgn(p) (|p| / (Q_w Q_x))^(1/a),

a table of Q_w Q_x + 1 magnitudes. The power is taken of each product and the entries are added;
the power of a sum of products is something else, unless a = 1. What is added are the entries, as
floating-point numbers or, with `fraction_bits` f, as integers round(2^f T): sums of d products are
then off by d 2^-(f+1) M_w M_x at most.

Source: Yvinec et al. 2023, PowerQuant, ICLR, arXiv 2301.09858; the paper's own way to take the
roots is not followed.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from bo_surrogates.errors import InputError
from problems.documented.power_quantization.grid import group_size
from problems.documented.power_quantization.layers import PowerConv2d, PowerLayer

PRODUCTS = 2**21  # looked up at a time
FRACTION_BITS = (1, 40)


def product_table(
    weight_levels: int, input_levels: int, exponent: float, fraction_bits: int | None = None
) -> Tensor:
    """T[0], ..., T[Q_w Q_x], float64, or int64 with so many bits after the point.

    Raises:
        InputError: Fraction bits are out of range.
    """
    low, high = FRACTION_BITS
    if fraction_bits is not None and not low <= fraction_bits <= high:
        raise InputError(f"fraction_bits must be in {low}..{high}, got {fraction_bits!r}")
    last = weight_levels * input_levels
    table = (torch.arange(last + 1, dtype=torch.float64) / last).pow(1.0 / exponent)
    return table if fraction_bits is None else (table * 2.0**fraction_bits).round().long()


def table_product(
    weights: Tensor, inputs: Tensor, table: Tensor, group: int | None = None
) -> Tensor:
    """Sums of table entries instead of products: a matrix product of codes.

    Args:
        weights: `outputs x d` codes, int64.
        inputs: `rows x d` codes, int64.
        table: See `product_table`.
        group: Sum so many successive products at a time; None: all d.

    Returns:
        `rows x outputs x sums`, of the table's type.
    """
    outputs, d = weights.shape
    size = group or d
    missing = -d % size
    sums = []
    for part in inputs.split(max(PRODUCTS // max(outputs * d, 1), 1)):
        products = part[:, None, :] * weights[None]
        entries = table[products.abs()] * products.sign()
        if missing:
            entries = nn.functional.pad(entries, (0, missing))
        sums.append(entries.reshape(len(part), outputs, -1, size).sum(dim=-1))
    return torch.cat(sums)


class TableLayer(nn.Module):
    """A quantized layer on integer codes, for inference.

    Args:
        layer: With quantized inputs; it is not changed.
        fraction_bits: Of the table's entries; None: floating point.

    Raises:
        InputError: The layer's inputs are not quantized, or fraction bits are out of range.
    """

    table: Tensor
    codes: Tensor
    scale: Tensor

    def __init__(self, layer: PowerLayer, fraction_bits: int | None = None) -> None:
        super().__init__()
        if layer.inputs is None:
            raise InputError("a layer whose inputs are not quantized has no products of codes")
        self.layer = copy.deepcopy(layer).eval()
        self.fraction_bits = fraction_bits
        table = product_table(
            layer.largest, int(layer.inputs.largest()), float(layer.exponent), fraction_bits
        )
        self.register_buffer("table", table.to(layer.codes.device))
        self.register_buffer("codes", layer.codes.long())
        scale = layer.bound.double() * layer.inputs.bound.double()
        scale = scale if fraction_bits is None else scale / 2.0**fraction_bits
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives, up to the rounding of sums."""
        layer = self.layer
        if layer.inputs is None:
            raise InputError("a layer whose inputs are not quantized has no products of codes")
        # Windows are cut out of the codes; floating-point numbers hold these integers exactly.
        rows = layer.patches(layer.inputs.codes(x)).long()
        outputs = len(self.codes) // layer.groups
        found = []
        for number in range(layer.groups):
            these = slice(number * outputs, (number + 1) * outputs)
            size = group_size(layer.granularity)
            sums = table_product(self.codes[these], rows[number], self.table, size)
            scale = self.scale if len(self.scale) == 1 else self.scale[these]
            found.append((sums * scale).sum(dim=-1))
        y = torch.cat(found, dim=1)
        if layer.bias is not None:
            y = y + layer.bias.double()
        y = y.to(x.dtype)
        if isinstance(layer, PowerConv2d):
            return y.reshape(len(x), -1, len(self.codes)).mT.unflatten(2, self._size(x))
        return y.reshape(*x.shape[:-1], len(self.codes))

    def _size(self, x: Tensor) -> tuple[int, int]:
        layer = self.layer
        if not isinstance(layer, PowerConv2d):
            raise InputError("only a convolution has a size of its output")
        shape = zip(
            x.shape[-2:],
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            strict=True,
        )
        height, width = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in shape)
        return height, width


def on_tables(network: nn.Module, fraction_bits: int | None = None) -> nn.Module:
    """A copy of a quantized network whose layers with quantized inputs are executed on codes.

    Raises:
        InputError: There is no such layer, or fraction bits are out of range.
    """
    result = copy.deepcopy(network).eval()
    names = [
        name
        for name, module in result.named_modules()
        if isinstance(module, PowerLayer) and module.inputs is not None
    ]
    if not names:
        raise InputError("the network has no layer of which weights and inputs are quantized")
    for name in names:
        layer = result.get_submodule(name)
        if isinstance(layer, PowerLayer):
            result.set_submodule(name, TableLayer(layer, fraction_bits))
    return result
