"""Parameterized hypercomplex layers: weights that are sums of Kronecker products.

    H = sum_i A_i (x) F_i,      i = 1 ... n,      y = conv(x, H) + bias

The n x n matrices A_i are an algebra's multiplication table, learnt with the rest; the filters F_i
hold C_out C_in / n^2 weights each. With n input and n output components, in n consecutive groups of
channels, component q of the input reaches component p of the output through sum_i A_i[p, q] F_i. A
layer has n^3 + C_out C_in k^2 / n weights, about 1 / n of a real one's. It has as many
multiply-accumulates: what is saved is memory.

    conv = PHConv2d(64, 128, 3, 4, padding=1)                            # n = 4
    conv = PHConv2d(64, 128, 3, PHConfig(4, "fixed"), padding=1)         # quaternions
    plain = merge_layers(network)                                        # torch's layers

Source: Grassucci, Zhang and Comminiello 2022, PHNNs: Lightweight Neural Networks via Parameterized
Hypercomplex Convolutions, IEEE TNNLS, arXiv 2110.04176; the linear layer is Zhang et al. 2021,
ICLR, arXiv 2102.08597. Fewer terms than n, quantized factors and the scaled initialization are this
project's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from bo_surrogates.config import Config, choice, integer, real
from bo_surrogates.errors import InputError
from problems.documented.cost import FLOAT_BITS, LayerCost
from problems.documented.quantization import SMALLEST_BOUND, quantize_signed
from problems.documented.training import Rule, Rules

ALGEBRAS = ("learned", "fixed", "freed")
INITS = ("scaled", "xavier")

# The matrix of left multiplication by h = h_1 + h_2 i + h_3 j + h_4 k: where +-h_i stands.
_MULTIPLICATION: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((1,),),
    2: ((1, -2), (2, 1)),
    4: ((1, -2, -3, -4), (2, 1, -4, 3), (3, 4, 1, -2), (4, -3, 2, 1)),
}


@dataclass(frozen=True)
class PHConfig(Config):
    """How a layer's weights are made of factors.

    Attributes:
        n: Components, the size of the matrices A_i; divides input and output channels.
        algebra: "learned" from random matrices; "fixed", that of the real numbers (n = 1), the
            complex numbers (2) or the quaternions (4, Hamilton's product), which needs no storage;
            "freed", learnt from there on (`train_algebras` says when).
        terms: Products in the sum, at most n; None: n.
        init: "scaled": A_i ~ N(0, 1 / terms), F_i ~ N(0, 2 / fan-in), with which the variance of
            the weights is He's; "xavier": the authors', Glorot's uniform law of both tensors as
            they are, which makes it n / (C_out + n^2) of that.
        gain: Factor of the initial weights.
        algebra_bits: Of the stored matrices, 32 is not quantized; each has a scale of its own.
        filter_bits: Of the stored filters, likewise.

    Raises:
        InputError: More terms than n, or an n without an algebra that could be fixed.
    """

    n: int = integer(4, 1, 1024, log=True, search=(1, 12))
    algebra: str = choice("learned", ALGEBRAS)
    terms: int | None = integer(None, 1, 1024, optional=True)
    init: str = choice("scaled", INITS)
    gain: float = real(1.0, 1e-6, 1e6, log=True, search=(0.3, 3.0))
    algebra_bits: int = integer(FLOAT_BITS, 2, FLOAT_BITS)
    filter_bits: int = integer(FLOAT_BITS, 2, FLOAT_BITS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.terms is not None and self.terms > self.n:
            raise InputError(f"terms must be at most n = {self.n}, got {self.terms}")
        if self.algebra != "learned":
            unit_matrices(self.n)


def unit_matrices(n: int) -> Tensor:
    """Left multiplication by each unit of the real (n = 1) or complex (2) numbers, or of the
    quaternions (4), as `n` matrices `n x n`: a number h is the matrix sum_i h_i A_i.

    Raises:
        InputError: Another n.
    """
    if n not in _MULTIPLICATION:
        raise InputError(
            f"n = {n}: there is no algebra to fix; expected n in {tuple(_MULTIPLICATION)}, or "
            "algebra = 'learned'"
        )
    table = torch.tensor(_MULTIPLICATION[n])
    units = torch.arange(1, n + 1)[:, None, None]
    return torch.where(table.abs() == units, table.sign(), 0).float()


def kronecker_sum(algebra: Tensor, filters: Tensor) -> Tensor:
    """sum_i A_i (x) F_i, the Kronecker product in the first two dimensions of a filter.

    Args:
        algebra: `terms x n x n`.
        filters: `terms x out / n x in / n x ...`, the rest a kernel's.

    Returns:
        `out x in x ...`.
    """
    blocks = torch.einsum("ipq,ioc...->poqc...", algebra, filters)
    n, outputs, _, inputs = blocks.shape[:4]
    return blocks.reshape(n * outputs, n * inputs, *blocks.shape[4:])


class PHLayer(nn.Module):
    """What the hypercomplex layers have in common: the factors and the weight made of them.

    Without gradients, in evaluation mode, the weight is made once, and again when a factor has
    changed.

    Attributes:
        config: See `PHConfig`.
        algebra: A, `terms x n x n`; a buffer where it is fixed.
        filters: F, `terms x out / n x in / n x kernel`.
        bias: `out`, or None.
    """

    algebra: Tensor
    filters: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        inputs: tuple[str, int],
        outputs: tuple[str, int],
        kernel: Sequence[int],
        config: int | PHConfig,
        bias: bool,
    ) -> None:
        super().__init__()
        self.config = PHConfig(config) if isinstance(config, int) else config
        n, terms = self.config.n, self.config.terms or self.config.n
        for name, size in (inputs, outputs):
            if size < 1 or size % n:
                raise InputError(
                    f"n = {n} does not divide {name} = {size}; choose an n that divides inputs "
                    "and outputs, or pad the inputs"
                )
        self.fan_in = inputs[1] * math.prod(kernel)
        self.filters = nn.Parameter(torch.empty(terms, outputs[1] // n, inputs[1] // n, *kernel))
        if self.config.algebra == "fixed":
            self.register_buffer("algebra", unit_matrices(n)[:terms], persistent=False)
        else:
            self.algebra = nn.Parameter(torch.empty(terms, n, n))
        self.bias = nn.Parameter(torch.empty(outputs[1])) if bias else None
        self._made: tuple[Tensor, Tensor, tuple[int, int], Tensor] | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial weights from torch's global generator; biases are 0."""
        config, terms = self.config, len(self.filters)
        with torch.no_grad():
            if config.algebra == "freed":
                self.algebra.copy_(unit_matrices(config.n)[:terms])
            elif config.algebra == "learned" and config.init == "xavier":
                nn.init.xavier_uniform_(self.algebra)
            elif config.algebra == "learned":
                self.algebra.normal_(0.0, terms**-0.5)
            if config.init == "xavier":
                nn.init.xavier_uniform_(self.filters, gain=config.gain)
            else:
                # The mean of sum_i A_i[p, q]^2: each unit is 1 in n of n^2 places, up to the sign.
                square = 1.0 if config.algebra == "learned" else terms / config.n
                deviation = config.gain * math.sqrt(2 / (self.fan_in * square))
                self.filters.normal_(0.0, deviation)
            if self.bias is not None:
                self.bias.zero_()

    def factors(self) -> tuple[Tensor, Tensor]:
        """A and F as they are multiplied: quantized where the configuration says so."""
        algebra: Tensor = self.algebra
        filters: Tensor = self.filters
        if self._algebra_bits < FLOAT_BITS:
            algebra = quantize_signed(algebra, _term_bound(algebra), self._algebra_bits)
        if self.config.filter_bits < FLOAT_BITS:
            filters = quantize_signed(filters, _term_bound(filters), self.config.filter_bits)
        return algebra, filters

    @property
    def weight(self) -> Tensor:
        """H, `out x in x kernel`."""
        if self.training or torch.is_grad_enabled():
            return kronecker_sum(*self.factors())
        versions = (self.algebra._version, self.filters._version)
        made = self._made
        if (
            made is None
            or made[0] is not self.algebra
            or made[1] is not self.filters
            or made[2] != versions
        ):
            made = (self.algebra, self.filters, versions, kronecker_sum(*self.factors()))
            self._made = made
        return made[3]

    def merge(self) -> nn.Module:
        """torch's layer that computes the same, with the weight of a real layer."""
        raise NotImplementedError(f"{type(self).__name__} has no real layer")

    def stored_bits(self) -> int:
        """Bits of the factors and the bias; a quantized layer has one scale a term, of the product
        of the two. A fixed algebra is not stored."""
        bits = self.filters.numel() * self.config.filter_bits
        if isinstance(self.algebra, nn.Parameter):
            bits += self.algebra.numel() * self._algebra_bits
        if min(self._algebra_bits, self.config.filter_bits) < FLOAT_BITS:
            bits += len(self.filters) * FLOAT_BITS
        return bits + (0 if self.bias is None else self.bias.numel() * FLOAT_BITS)

    def layer_costs(self, inputs: tuple[Tensor, ...], output: Tensor) -> Sequence[LayerCost]:
        """Those of the real layer: H is made before any input is seen."""
        return [LayerCost("", output.numel() * self.fan_in, terms=self.fan_in)]

    @property
    def _algebra_bits(self) -> int:
        return FLOAT_BITS if self.config.algebra == "fixed" else self.config.algebra_bits

    def train(self, mode: bool = True) -> Self:
        """See torch; what was made for evaluation is dropped."""
        if mode:
            self._made = None
        return super().train(mode)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        self._made = None  # parameters change in place, on another device or in another precision
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles hold the factors only."""
        return {**self.__dict__, "_made": None}


class PHLinear(PHLayer):
    """A hypercomplex linear layer (PHM).

    Args:
        in_features: Inputs, a multiple of n.
        out_features: Outputs, a multiple of n.
        config: n, or a `PHConfig`.
        bias: Whether there is one.

    Raises:
        InputError: n does not divide inputs and outputs.
    """

    def __init__(
        self, in_features: int, out_features: int, config: int | PHConfig = 4, *, bias: bool = True
    ) -> None:
        self.in_features, self.out_features = in_features, out_features
        super().__init__(
            ("in_features", in_features), ("out_features", out_features), (), config, bias
        )

    def forward(self, x: Tensor) -> Tensor:
        """`... x in_features` to `... x out_features`."""
        return functional.linear(x, self.weight, self.bias)

    def merge(self) -> nn.Linear:
        """See `PHLayer.merge`."""
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        return _filled(plain, self)


class PHConvolution(PHLayer):
    """What the hypercomplex convolutions (PHC) have in common, with zeros as padding.

    Args:
        in_channels: Input channels, a multiple of n, in n consecutive groups.
        out_channels: Output channels, likewise.
        kernel_size: Side of the kernel, or its sides.
        config: n, or a `PHConfig`.
        stride: Step of the kernel, or steps.
        padding: Zeros on each side, or a word, as of torch's convolutions.
        dilation: Distance of the kernel's points.
        bias: Whether there is one.

    Raises:
        InputError: n does not divide inputs and outputs.
    """

    dims: ClassVar[int]
    real: ClassVar[type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]]
    convolve: ClassVar[Callable[..., Tensor]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        config: int | PHConfig = 4,
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        bias: bool = True,
    ) -> None:
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = self._sides("kernel_size", kernel_size)
        self.stride = self._sides("stride", stride)
        self.dilation = self._sides("dilation", dilation)
        self.padding = padding if isinstance(padding, str) else self._sides("padding", padding)
        super().__init__(
            ("in_channels", in_channels),
            ("out_channels", out_channels),
            self.kernel_size,
            config,
            bias,
        )

    def _sides(self, name: str, value: int | Sequence[int]) -> tuple[int, ...]:
        sides = (value,) * self.dims if isinstance(value, int) else tuple(value)
        if len(sides) != self.dims:
            raise InputError(f"{name} must hold {self.dims} numbers, got {value!r}")
        return sides

    def forward(self, x: Tensor) -> Tensor:
        """`n x in_channels x ...` to `n x out_channels x ...`."""
        convolve = type(self).convolve
        return convolve(x, self.weight, self.bias, self.stride, self.padding, self.dilation)

    def merge(self) -> nn.Conv1d | nn.Conv2d | nn.Conv3d:
        """See `PHLayer.merge`."""
        make: Any = self.real
        plain = make(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            bias=self.bias is not None,
        )
        filled: nn.Conv1d | nn.Conv2d | nn.Conv3d = _filled(plain, self)
        return filled


class PHConv1d(PHConvolution):
    """Along one dimension; see `PHConvolution`."""

    dims = 1
    real = nn.Conv1d
    convolve = staticmethod(functional.conv1d)


class PHConv2d(PHConvolution):
    """Of images; see `PHConvolution`."""

    dims = 2
    real = nn.Conv2d
    convolve = staticmethod(functional.conv2d)


class PHConv3d(PHConvolution):
    """Of volumes; see `PHConvolution`."""

    dims = 3
    real = nn.Conv3d
    convolve = staticmethod(functional.conv3d)


def hypercomplex_layers(network: nn.Module) -> Iterator[PHLayer]:
    """All of them."""
    return (module for module in network.modules() if isinstance(module, PHLayer))


def merge_layers(network: nn.Module) -> nn.Module:
    """A copy in which torch's layers stand for the hypercomplex ones: the same outputs, with the
    size of a real network."""
    merged = copy.deepcopy(network)
    if isinstance(merged, PHLayer):
        return merged.merge()
    for module in list(merged.modules()):
        for name, child in module.named_children():
            if isinstance(child, PHLayer):
                setattr(module, name, child.merge())
    return merged


def train_algebras(network: nn.Module, trained: bool) -> None:
    """Whether "freed" algebras learn from now on, or stay as they are."""
    for layer in hypercomplex_layers(network):
        if layer.config.algebra == "freed":
            layer.algebra.requires_grad_(trained)


def factor_rules(rate: float = 1.0, algebra_decay: float = 0.0, filter_decay: float = 0.0) -> Rules:
    """How the factors are trained, for `Hooks`; other parameters as configured.

    The penalty on c A and F / c depends on c, the weight does not.

    Args:
        rate: The learning rate of the algebras, as a multiple of that of the filters.
        algebra_decay: Weight decay of the algebras.
        filter_decay: Weight decay of the filters.
    """

    def rule(name: str, parameter: nn.Parameter) -> Rule:
        match name.rpartition(".")[2]:
            case "algebra":
                return Rule(rate, algebra_decay)
            case "filters":
                return Rule(1.0, filter_decay)
        return Rule()

    return rule


def _term_bound(factors: Tensor) -> Tensor:
    """max |x| of every term, detached, broadcasting with the factors."""
    found = factors.detach().abs().amax(dim=tuple(range(1, factors.ndim)), keepdim=True)
    return found.clamp_min(SMALLEST_BOUND)


def _filled(plain: Any, layer: PHLayer) -> Any:
    """A real layer with the weight and bias of a hypercomplex one, in its mode, on its device."""
    with torch.no_grad():
        weight = kronecker_sum(*layer.factors())
        plain.to(weight).weight.copy_(weight)
        if layer.bias is not None:
            plain.bias.copy_(layer.bias)
    return plain.train(layer.training)
