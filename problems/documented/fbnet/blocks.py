"""FBNet's block: 1 x 1 convolution, depthwise convolution, 1 x 1 convolution, and a shortcut.

A block is told by its kernel size k, its expansion e and its groups g, and by a name made of them:
"k3_e6" (g = 1), "k5_e1_g2", with "_b4" for a block of 4-bit weights and inputs, and "skip" for none
at all.

Source: Wu et al. 2019, FBNet, CVPR, arXiv 1812.03443, section 3.1, figure 3 and table 2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from torch import Tensor, nn

from bo_surrogates.errors import InputError
from problems.documented.cost import UNQUANTIZED_BITS
from problems.documented.quantization import QuantizedConv2d

SKIP = "skip"
BITS = (2, 4, 8, UNQUANTIZED_BITS)
_NAME = re.compile(r"k(\d+)_e(\d+)(?:_g(\d+))?(?:_b(\d+))?")


@dataclass(frozen=True)
class BlockType:
    """What a block is, whatever the layer it stands in.

    Attributes:
        kernel_size: k of the depthwise convolution, odd.
        expansion: e: the depthwise convolution has e times the block's input channels.
        groups: g of both 1 x 1 convolutions.
        bits: Of all weights and of all convolutions' inputs; 16: not quantized.

    Raises:
        InputError: A number is out of range.
    """

    kernel_size: int = 3
    expansion: int = 1
    groups: int = 1
    bits: int = UNQUANTIZED_BITS

    def __post_init__(self) -> None:
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise InputError(f"kernel_size must be odd, got {self.kernel_size}")
        if self.expansion < 1 or self.groups < 1:
            raise InputError(
                f"expansion and groups must be at least 1, got {self.expansion}, {self.groups}"
            )
        if self.bits not in BITS:
            raise InputError(f"bits must be one of {', '.join(map(str, BITS))}, got {self.bits}")

    @property
    def name(self) -> str:
        """See the module's docstring."""
        groups = f"_g{self.groups}" if self.groups > 1 else ""
        bits = f"_b{self.bits}" if self.bits < UNQUANTIZED_BITS else ""
        return f"k{self.kernel_size}_e{self.expansion}{groups}{bits}"

    @classmethod
    def parse(cls, name: str) -> BlockType:
        """The block of a name.

        Raises:
            InputError: It is none.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            raise InputError(
                f"unknown block {name!r}: expected a name such as k3_e6, k5_e1_g2 or k3_e1_b4, or "
                f"{SKIP!r}"
            )
        kernel_size, expansion, groups, bits = found.groups()
        return cls(int(kernel_size), int(expansion), int(groups or 1), int(bits or 16))


# The paper's nine, in its table's order.
PAPER_BLOCKS = (
    *("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6"),
    SKIP,
)


def at_bits(name: str, bits: int) -> str:
    """The name of the same block at other bits; a skip has none."""
    return SKIP if name == SKIP else replace(BlockType.parse(name), bits=bits).name


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Deal the channels of `groups` groups out to all groups (Zhang et al. 2018, arXiv 1707.01083).

    Channel i of group j goes to place i groups + j; `n x channels x h x w` to the same shape.
    """
    n, channels, height, width = x.shape
    dealt = x.reshape(n, groups, channels // groups, height, width).transpose(1, 2)
    return dealt.reshape(n, channels, height, width)


class FBNetBlock(nn.Module):
    """1 x 1 (g groups), normalization, ReLU, shuffle; depthwise k x k, normalization, ReLU; 1 x 1
    (g groups), normalization; and the input is added where it has the output's shape.

    The channels are shuffled where g > 1: without it, no group would ever see another's channels.

    Args:
        kind: The block, or its name.
        in_channels: Of the input.
        out_channels: Of the output.
        stride: Of the depthwise convolution.

    Raises:
        InputError: The channels are not divisible by the groups.
    """

    def __init__(
        self, kind: BlockType | str, in_channels: int, out_channels: int, stride: int = 1
    ) -> None:
        super().__init__()
        kind = BlockType.parse(kind) if isinstance(kind, str) else kind
        if in_channels % kind.groups or out_channels % kind.groups:
            raise InputError(
                f"block {kind.name}: {kind.groups} groups do not divide {in_channels} channels in "
                f"and {out_channels} out"
            )
        self.kind = kind
        middle = kind.expansion * in_channels
        self.expand = nn.Sequential(
            _conv(in_channels, middle, 1, kind, signed=True, groups=kind.groups),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
        )
        self.depthwise = nn.Sequential(
            _conv(middle, middle, kind.kernel_size, kind, stride=stride, groups=middle),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
        )
        self.project = nn.Sequential(
            _conv(middle, out_channels, 1, kind, groups=kind.groups),
            nn.BatchNorm2d(out_channels),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """`n x in_channels x h x w` to `n x out_channels x ceil(h / stride) x ceil(w / stride)`."""
        middle = self.expand(x)
        if self.kind.groups > 1:
            middle = channel_shuffle(middle, self.kind.groups)
        out: Tensor = self.project(self.depthwise(middle))
        return out + x if self.residual else out


def _conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    kind: BlockType,
    *,
    signed: bool = False,
    stride: int = 1,
    groups: int = 1,
) -> nn.Module:
    """A convolution without bias, padded by half its kernel."""
    padding = kernel_size // 2
    if kind.bits == UNQUANTIZED_BITS:
        return nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False
        )
    conv = QuantizedConv2d(
        in_channels, out_channels, kernel_size, bits=kind.bits, signed=signed, stride=stride,
        groups=groups, same=False,
    )  # fmt: skip
    return nn.Sequential(nn.ZeroPad2d(padding), conv) if padding else conv


def make_block(name: str, in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """The block of a name, for one layer.

    Raises:
        InputError: An unknown name, a skip where input and output differ in shape, or groups that
            do not divide the channels.
    """
    if name != SKIP:
        return FBNetBlock(name, in_channels, out_channels, stride)
    if not skip_fits(in_channels, out_channels, stride):
        raise InputError(
            f"a skip needs an output of the input's shape, not {in_channels} channels to "
            f"{out_channels} at stride {stride}"
        )
    return nn.Identity()


def skip_fits(in_channels: int, out_channels: int, stride: int) -> bool:
    """Whether a layer's output has its input's shape."""
    return stride == 1 and in_channels == out_channels
