"""The networks of BiBench: residual networks of binary convolutions, whatever the operator.

    x = activation(BN(conv(x)) + shortcut)

with hard tanh where networks in full precision have ReLU (after a ReLU all bits are +1). The first
convolution, the last layer and 1 x 1 down-sampling stay in full precision.

Source: Qin et al. 2023, BiBench: Benchmarking and Analyzing Network Binarization, ICML, arXiv
2301.11233; the network for small images is this project's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence

from torch import Tensor, nn
from torch.nn import functional

from bo_surrogates.errors import InputError
from problems.documented.binarization import (
    BinarizerConfig,
    BinaryConv2d,
    BinaryLayer,
    BiPerConv2d,
    RPReLU,
    convert,
    set_stage,
)
from problems.documented.quantization import QuantizedConv2d, QuantizedLinear

SKIPS = ("each", "pair", "none")
ACTIVATIONS = ("hardtanh", "rprelu")

MakeConv = Callable[[int, int, int, tuple[int, int]], nn.Module]
"""From input channels, output channels, stride and output size to a 3 x 3 convolution."""


def float_conv(inputs: int, outputs: int, stride: int, size: tuple[int, int]) -> nn.Module:
    """A convolution in full precision, of the full-precision twin."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def binary_conv(operator: str | BinarizerConfig) -> MakeConv:
    """Makes binary convolutions by an operator."""

    def make(inputs: int, outputs: int, stride: int, size: tuple[int, int]) -> nn.Module:
        return BinaryConv2d(
            inputs, outputs, 3, operator, stride=stride, padding=1, output_size=size
        )

    return make


def periodic_conv(
    frequency: float,
    init_std_scale: float = 1.0,
    input_estimator: str = "poly",
    input_bound: float = 1.0,
) -> MakeConv:
    """Makes BiPer's convolutions; for the arguments see `BiPerConv2d`."""

    def make(inputs: int, outputs: int, stride: int, size: tuple[int, int]) -> nn.Module:
        return BiPerConv2d(
            inputs,
            outputs,
            3,
            frequency=frequency,
            init_std_scale=init_std_scale,
            input_estimator=input_estimator,
            input_bound=input_bound,
            stride=stride,
            padding=1,
        )

    return make


def deployed(network: nn.Module, sample: Tensor) -> nn.Module:
    """The network as it runs in the end: on bits where it runs on a CPU and has binary layers.

    Args:
        network: It is not changed.
        sample: See `convert`.
    """
    if sample.device.type != "cpu" or not any(
        isinstance(m, BinaryLayer) for m in network.modules()
    ):
        return network
    network = copy.deepcopy(network)
    set_stage(network, 2)
    return convert(network, sample)


class ConvBlock(nn.Module):
    """activation(BN(conv(x)) + shortcut).

    Args:
        conv: The convolution.
        channels: Of its outputs.
        adds: Whether the shortcut is added.
        activation: One of `ACTIVATIONS`.
    """

    def __init__(self, conv: nn.Module, channels: int, *, adds: bool, activation: str) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.BatchNorm2d(channels)
        self.adds = adds
        self.activation = RPReLU(channels) if activation == "rprelu" else nn.Hardtanh()

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """`n x channels x h x w` each."""
        y = self.norm(self.conv(x))
        result: Tensor = self.activation(y + shortcut if self.adds else y)
        return result

    def elementwise_ops(self, output: Tensor) -> int:
        """An addition a shortcut."""
        return int(self.adds) * output.numel()


class SmallBinaryNet(nn.Module):
    """A stem, equal convolutions with shortcuts, halved half-way, the mean over positions, a head.

    Args:
        shape: Of an image: channels, height and width, at least 2 x 2.
        classes: Number of classes.
        width: Channels of all convolutions.
        depth: Number of convolutions between stem and head.
        make_conv: Makes them.
        skip: A shortcut around "each" convolution (as in Bi-Real networks), each "pair", or "none".
        activation: "hardtanh", or ReActNet's "rprelu".
        float_layers: Numbers, from 0, of convolutions that stay in full precision.
        stem_bits: Of the stem's weights and inputs; 16 is not quantized.
        head_bits: Of the head's.

    Raises:
        InputError: The images are too small.
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        width: int,
        depth: int,
        make_conv: MakeConv,
        *,
        skip: str = "each",
        activation: str = "hardtanh",
        float_layers: Collection[int] = (),
        stem_bits: int = 16,
        head_bits: int = 16,
    ) -> None:
        super().__init__()
        channels, height, columns = shape
        if min(height, columns) < 2:
            raise InputError(
                f"images of {height} x {columns} pixels are too small for two resolutions; "
                "expected at least 2 x 2"
            )
        self.skip = skip
        self.halved_at = depth // 2
        self.stem = nn.Sequential(
            QuantizedConv2d(channels, width, 3, bits=stem_bits),
            nn.BatchNorm2d(width),
            nn.Hardtanh(),
        )
        blocks = []
        for number in range(depth):
            if number == self.halved_at:
                height, columns = height // 2, columns // 2
            make = float_conv if number in float_layers else make_conv
            blocks.append(
                ConvBlock(
                    make(width, width, 1, (height, columns)),
                    width,
                    adds=skip == "each" or (skip == "pair" and number % 2 == 1),
                    activation=activation,
                )
            )
        self.blocks = nn.ModuleList(blocks)
        self.head = QuantizedLinear(width, classes, bits=head_bits)

    def forward(self, images: Tensor) -> Tensor:
        """`n x channels x height x width` to `n x classes` logits."""
        x = self.stem(images)
        shortcut = x
        for number, block in enumerate(self.blocks):
            if number == self.halved_at:
                x, shortcut = functional.avg_pool2d(x, 2), functional.avg_pool2d(shortcut, 2)
            x = block(x, shortcut)
            if self.skip == "each" or number % 2 == 1:
                shortcut = x
        logits: Tensor = self.head(x.mean(dim=(-2, -1)))
        return logits


class BasicBlock(nn.Module):
    """Two convolutions of a residual network, with a shortcut around both or around each.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        stride: Of the first convolution.
        size: Height and width of the outputs.
        make_conv: Makes the convolutions.
        skip: "pair" or "each".
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        size: tuple[int, int],
        make_conv: MakeConv,
        skip: str,
    ) -> None:
        super().__init__()
        self.skip = skip
        self.conv1 = make_conv(inputs, outputs, stride, size)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = make_conv(outputs, outputs, 1, size)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.down: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.down = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """`n x inputs x h x w` to `n x outputs x h / stride x w / stride`."""
        shortcut = self.down(x)
        x = self.norm1(self.conv1(x))
        if self.skip == "each":
            x = shortcut = x + shortcut
        x = functional.hardtanh(x)
        if self.skip == "each":
            shortcut = x
        return functional.hardtanh(self.norm2(self.conv2(x)) + shortcut)


class ResNet18(nn.Module):
    """The paper's network for 3 x 224 x 224 images.

    Make it under `torch.device("meta")` where only its cost is wanted.

    Args:
        make_conv: Makes the 3 x 3 convolutions.
        classes: Number of classes.
        skip: A shortcut around each "pair" of convolutions, or around "each" (Bi-Real networks).
    """

    def __init__(self, make_conv: MakeConv, classes: int = 1000, skip: str = "pair") -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.Hardtanh(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        blocks = []
        channels, side = 64, 56
        for group, outputs in enumerate((64, 128, 256, 512)):
            for number in range(2):
                stride = 2 if group > 0 and number == 0 else 1
                side //= stride
                blocks.append(BasicBlock(channels, outputs, stride, (side, side), make_conv, skip))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(512, classes)

    def forward(self, images: Tensor) -> Tensor:
        """`n x 3 x 224 x 224` to `n x classes` logits."""
        logits: Tensor = self.head(self.blocks(self.stem(images)).mean(dim=(-2, -1)))
        return logits
